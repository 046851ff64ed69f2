//! The `ockam` command: what was typed ([`args`], [`values`], [`stdin`]), what it means ([`plan`]), who does it
//! ([`client`], [`commands`]), and what is shown ([`show`]).

pub mod args;
pub mod client;
pub mod plan;
pub mod show;
pub mod stdin;
pub mod values;
