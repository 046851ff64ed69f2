//! Any bytes as the text and as the binary of a MultiAddr: accepted as a model does, printed and parsed without change.

#![no_main]

#[path = "../../../wire/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::multiaddr(input));
