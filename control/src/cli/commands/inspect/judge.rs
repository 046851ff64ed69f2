//! What things are verified with, and what comes of it.

use crate::error::Error;
use crate::identities::Identities;
use ockam_crypto::{ChangeHistory, Identifier};
use serde::Serialize;
use std::fmt::Display;

/// What things are verified with.
pub(super) struct Judge {
    /// Of `--verify-with`.
    pub(super) with: Option<ChangeHistory>,
    pub(super) identities: Option<Identities>,
    pub(super) now: u64,
    pub(super) show_secret: bool,
}

impl Judge {
    /// The history to verify with what `identifier` signed, or why there is none.
    pub(super) fn known(&self, identifier: &Identifier) -> Result<Result<ChangeHistory, String>, Error> {
        if let Some(with) = &self.with {
            return Ok(match with.identifier() == *identifier {
                true => Ok(with.clone()),
                false => Err(format!("it is by {identifier}, and not by {}", with.identifier())),
            });
        }
        let known = match &self.identities {
            Some(identities) => identities.known(identifier)?,
            None => None,
        };
        Ok(known.ok_or_else(|| {
            format!("the history of {identifier} is not known here; name it with --verify-with, or import it")
        }))
    }

    /// What comes of `verify` with the history that is `known`; `by` says what makes it true.
    pub(super) fn verified<T, E: Display>(
        &self,
        known: Result<ChangeHistory, String>,
        by: &str,
        verify: impl FnOnce(&ChangeHistory) -> Result<T, E>,
    ) -> Verification {
        match known.map(|history| verify(&history)) {
            Ok(Ok(_)) => Verification::Verified { by: by.to_owned() },
            Ok(Err(error)) => Verification::Refused { why: error.to_string() },
            // With a history that it is to be verified with, what somebody else signed is not what was wanted.
            Err(why) if self.with.is_some() => Verification::Refused { why },
            Err(why) => Verification::Unknown { why },
        }
    }
}

/// Whether something is true.
#[derive(Serialize, Debug, Clone, PartialEq, Eq)]
#[serde(tag = "result", rename_all = "snake_case")]
pub(super) enum Verification {
    Verified {
        by: String,
    },
    Refused {
        why: String,
    },
    #[serde(rename = "not_verified")]
    Unknown {
        why: String,
    },
}

impl Verification {
    pub(super) fn is_verified(&self) -> bool {
        matches!(self, Verification::Verified { .. })
    }

    pub(super) fn line(&self) -> String {
        match self {
            Verification::Verified { by } => format!("  verified    yes: {by}"),
            Verification::Refused { why } => format!("  verified    NO, do not believe it: {why}"),
            Verification::Unknown { why } => format!("  verified    not yet: {why}"),
        }
    }
}

/// That `what` was given, and cannot be read.
pub(super) fn bad(what: &str, why: impl Display) -> Error {
    Error::BadData {
        what: what.to_owned(),
        why: why.to_string(),
        fix: "Ask whoever gave it to you for all of it.".into(),
    }
}
