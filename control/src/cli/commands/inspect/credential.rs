//! A credential, with the attestation of the key that signed it.

use super::judge::{Judge, Verification, bad};
use super::purpose_key::SigningKeyView;
use crate::cli::commands::credential::{attribute_lines, shown_attributes};
use crate::cli::commands::identity::date_time;
use crate::error::Error;
use crate::text::to_hex;
use ockam_crypto::{Credential, CredentialError, UnverifiedCredential};
use serde::Serialize;
use std::collections::BTreeMap;

#[derive(Serialize)]
pub(super) struct CredentialView {
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_latest_change: Option<String>,
    issuer: String,
    schema: u64,
    attributes: BTreeMap<String, String>,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
    signed_with: SigningKeyView,
    pub(super) verification: Verification,
}

impl CredentialView {
    pub(super) fn of(credential: &UnverifiedCredential, verification: Verification) -> CredentialView {
        let attributes = credential.attributes.iter().map(|(name, value)| (name.as_slice(), value.as_slice()));
        CredentialView {
            subject: credential.subject.map(|subject| subject.to_string()),
            subject_latest_change: credential.subject_latest_change.map(|hash| to_hex(&hash)),
            issuer: credential.attestation.subject.to_string(),
            schema: credential.schema,
            attributes: shown_attributes(attributes),
            created_at: credential.created_at,
            expires_at: credential.expires_at,
            signed_with: SigningKeyView::of(&credential.attestation),
            verification,
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            "A credential".to_owned(),
            format!("  subject     {}", self.subject.as_deref().unwrap_or("nobody")),
            format!("  issuer      {}", self.issuer),
            format!("  created     {}", date_time(self.created_at)),
            format!("  expires     {}", date_time(self.expires_at)),
        ];
        lines.extend(attribute_lines(&self.attributes));
        lines.push(self.signed_with.line());
        lines.push(self.verification.line());
        lines
    }
}

impl Judge {
    pub(super) fn credential(&self, bytes: &[u8]) -> Result<CredentialView, Error> {
        let unverified = Credential::inspect(bytes).map_err(|error| bad("the credential", error))?;
        let issuer = unverified.attestation.subject;
        let verification =
            self.verified(self.known(&issuer)?, "its issuer signed it, and it is valid now", |history| {
                let subject = unverified.subject.ok_or(CredentialError::NoSubject)?;
                Credential::verify(bytes, &subject, [history], self.now)
            });
        Ok(CredentialView::of(&unverified, verification))
    }
}
