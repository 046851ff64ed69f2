//! A purpose key, as an identity attests it.

use super::judge::{Judge, Verification, bad};
use crate::cli::commands::identity::date_time;
use crate::error::Error;
use crate::text::to_hex;
use ockam_crypto::{Attestation, ChangeHistory, PublicKey, PurposePublicKey, UnverifiedAttestation};
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct PurposeKeyView {
    subject: String,
    subject_latest_change: String,
    /// `secure_channel` or `credential_signing`.
    purpose: &'static str,
    key: String,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
    pub(super) verification: Verification,
}

impl PurposeKeyView {
    pub(super) fn of(attestation: &UnverifiedAttestation, verification: Verification) -> PurposeKeyView {
        let (purpose, key) = named(&attestation.key);
        PurposeKeyView {
            subject: attestation.subject.to_string(),
            subject_latest_change: to_hex(&attestation.subject_latest_change),
            purpose,
            key,
            created_at: attestation.created_at,
            expires_at: attestation.expires_at,
            verification,
        }
    }

    pub(super) fn lines(&self) -> Vec<String> {
        let purpose = match self.purpose {
            "secure_channel" => "secure channels",
            _ => "signing credentials",
        };
        vec![
            format!("A key for {purpose}, as an identity attests it"),
            format!("  identity    {}", self.subject),
            format!("  key         {}", self.key),
            format!("  created     {}", date_time(self.created_at)),
            format!("  expires     {}", date_time(self.expires_at)),
            self.verification.line(),
        ]
    }
}

impl Judge {
    /// `shown` is the history that came with it, which proves nothing about anybody but its own identity.
    pub(super) fn purpose_key(&self, bytes: &[u8], shown: Option<&ChangeHistory>) -> Result<PurposeKeyView, Error> {
        let unverified = Attestation::inspect(bytes).map_err(|error| bad("the attestation of a purpose key", error))?;
        let known = match shown.filter(|shown| shown.identifier() == unverified.subject) {
            Some(shown) => Ok(shown.clone()),
            None => self.known(&unverified.subject)?,
        };
        let verification = self.verified(known, "its identity signed it, with its latest key", |history| {
            Attestation::verify(bytes, history, self.now)
        });
        Ok(PurposeKeyView::of(&unverified, verification))
    }
}

/// The key that signed something. Its attestation is verified with what it signed.
#[derive(Serialize)]
pub(super) struct SigningKeyView {
    key: String,
    /// Seconds of Unix time, as the next.
    created_at: u64,
    expires_at: u64,
}

impl SigningKeyView {
    pub(super) fn of(attestation: &UnverifiedAttestation) -> SigningKeyView {
        let UnverifiedAttestation { created_at, expires_at, .. } = *attestation;
        SigningKeyView { key: named(&attestation.key).1, created_at, expires_at }
    }

    pub(super) fn line(&self) -> String {
        format!("  signed with {}, until {}", self.key, date_time(self.expires_at))
    }
}

/// What a purpose key is for, and itself.
pub(super) fn named(key: &PurposePublicKey) -> (&'static str, String) {
    match key {
        PurposePublicKey::SecureChannel(key) => ("secure_channel", to_hex(key)),
        PurposePublicKey::CredentialSigning(PublicKey::Ed25519(key)) => ("credential_signing", to_hex(key)),
        PurposePublicKey::CredentialSigning(PublicKey::P256(key)) => ("credential_signing", to_hex(key)),
    }
}
