//! Authority nodes: who is a member, with which attributes, and the credentials that say so (`wire.md` D.5, I.1).

pub mod bodies;
pub mod envelope;
mod settings;

pub use settings::{
    AuthoritySettings, CREDENTIAL_TTL_SECS, CREDENTIAL_TTL_SECS_MAX, ENROLLER, ROLE, TRUST_CONTEXT_ID, TRUSTED_MAX,
    is_enroller,
};
