//! An identity: the history of its keys.

use super::judge::{Judge, Verification};
use crate::cli::commands::identity::{ChangeView, ordinal};
use crate::error::Error;
use ockam_crypto::{ChangeHistory, Comparison};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct IdentityView {
    identifier: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_here: Option<String>,
    changes: Vec<ChangeView>,
    change_history: String,
    pub(super) verification: Verification,
}

impl IdentityView {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["The history of an identity".to_owned(), format!("  identifier  {}", self.identifier)];
        lines.extend(self.known_here.iter().map(|known| format!("  here        {known}")));
        for (number, change) in self.changes.iter().enumerate() {
            lines.extend(change.lines(&format!("{} key", ordinal(number + 1))));
        }
        lines.push(self.verification.line());
        lines
    }
}

impl Judge {
    /// `expected` is whose it must be.
    pub(super) fn identity(
        &self,
        history: ChangeHistory,
        expected: Option<&ChangeHistory>,
    ) -> Result<IdentityView, Error> {
        let identifier = history.identifier();
        let known = match &self.identities {
            Some(identities) => identities.known(&identifier)?.map(|known| (identities, known)),
            None => None,
        };
        let known_here = match &known {
            Some((identities, known)) => {
                let name = identities.find(Some(&identifier.to_string()))?.name;
                let name = name
                    .map_or_else(|| "this home knows it".to_owned(), |name| format!("this home knows it as {name}"));
                Some(match history.compared_to(known) {
                    Comparison::Same => name,
                    Comparison::Newer => format!("{name}, with fewer keys"),
                    Comparison::Older => format!("{name}, with more keys: this one is out of date"),
                    Comparison::Diverged => format!("{name}, with another key: one of the two is from a stolen key"),
                })
            }
            None => None,
        };
        let verification = match expected {
            Some(with) if with.identifier() != identifier => {
                Verification::Refused { why: format!("it is of {identifier}, and not of {}", with.identifier()) }
            }
            Some(with) if history.compared_to(with) == Comparison::Diverged => {
                Verification::Refused { why: "it contradicts the history that it is to be verified with".into() }
            }
            _ => Verification::Verified { by: "each key is signed by itself and by the one before it".into() },
        };
        Ok(IdentityView {
            identifier: identifier.to_string(),
            known_here,
            changes: history.changes().iter().map(ChangeView::of).collect(),
            change_history: history.to_hex(),
            verification,
        })
    }
}
