//! A revocation list.

use super::judge::{Judge, Verification, bad};
use super::purpose_key::SigningKeyView;
use crate::cli::commands::identity::date_time;
use crate::error::Error;
use ockam_crypto::RevocationList;
use serde::Serialize;

/// How many entries a person is shown; JSON has all.
const ENTRIES_SHOWN: usize = 20;

#[derive(Serialize)]
pub(super) struct RevocationListView {
    issuer: String,
    number: u64,
    /// Seconds of Unix time.
    created_at: u64,
    revoked: Vec<RevokedView>,
    signed_with: SigningKeyView,
    pub(super) verification: Verification,
}

#[derive(Serialize)]
pub(super) struct RevokedView {
    subject: String,
    /// Credentials that were created then or before are void. Seconds of Unix time.
    revoked_at: u64,
}

impl RevocationListView {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "A revocation list".to_owned(),
            format!("  issuer      {}", self.issuer),
            format!("  number      {}", self.number),
            format!("  created     {}", date_time(self.created_at)),
            format!("  revoked     the credentials of {} identities", self.revoked.len()),
        ];
        let shown = self.revoked.iter().take(ENTRIES_SHOWN);
        lines.extend(shown.map(|it| format!("    {} until {}", it.subject, date_time(it.revoked_at))));
        if self.revoked.len() > ENTRIES_SHOWN {
            lines.push(format!("    and {} more; --output json has all", self.revoked.len() - ENTRIES_SHOWN));
        }
        lines.push(self.verification.line());
        lines
    }
}

impl Judge {
    pub(super) fn revocation_list(&self, bytes: &[u8]) -> Result<RevocationListView, Error> {
        let unverified = RevocationList::inspect(bytes).map_err(|error| bad("the revocation list", error))?;
        let verification = self.verified(self.known(&unverified.issuer)?, "its issuer signed it", |history| {
            RevocationList::verify(bytes, history, self.now)
        });
        let entries = unverified
            .entries
            .iter()
            .map(|(subject, revoked_at)| RevokedView { subject: subject.to_string(), revoked_at: *revoked_at });
        Ok(RevocationListView {
            issuer: unverified.issuer.to_string(),
            number: unverified.number,
            created_at: unverified.created_at,
            revoked: entries.collect(),
            signed_with: SigningKeyView::of(&unverified.attestation),
            verification,
        })
    }
}
