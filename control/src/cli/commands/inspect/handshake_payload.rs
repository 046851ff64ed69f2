//! What an end of a handshake shows of itself: identity, key and credentials in one.

use super::credential::CredentialView;
use super::identity::IdentityView;
use super::judge::{Judge, Verification, bad};
use super::purpose_key::PurposeKeyView;
use crate::error::Error;
use minicbor::Decoder;
use ockam_crypto::ChangeHistory;
use serde::Serialize;

#[derive(Serialize)]
pub(super) struct PayloadView {
    identity: IdentityView,
    purpose_key: PurposeKeyView,
    credentials: Vec<CredentialView>,
    pub(super) verification: Verification,
}

impl PayloadView {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec!["What an end of a secure channel shows of itself".to_owned(), self.verification.line()];
        lines.extend(self.identity.lines());
        lines.extend(self.purpose_key.lines());
        lines.extend(self.credentials.iter().flat_map(CredentialView::lines));
        lines
    }
}

impl Judge {
    /// What an end of a handshake shows of itself (`wire.md` E.3).
    pub(super) fn handshake_payload(&self, bytes: &[u8]) -> Result<PayloadView, Error> {
        let bad = |why: &str| bad("what an end of a handshake shows", why);
        let mut input = Decoder::new(bytes);
        let part = |input: &mut Decoder| {
            let start = input.position();
            input.skip().ok()?;
            bytes.get(start..input.position())
        };
        let mut parts = || {
            input.array().ok()?;
            let (history, attestation) = (part(&mut input)?, part(&mut input)?);
            let count = input.array().ok()??;
            // Each has at least a byte, so that no more are counted than there are bytes.
            let mut credentials = Vec::new();
            for _ in 0..count {
                credentials.push(part(&mut input)?);
            }
            (input.position() == bytes.len()).then_some((history, attestation, credentials))
        };
        let (history, attestation, credentials) = parts().ok_or_else(|| bad("it is malformed or cut off"))?;
        let history = ChangeHistory::verify(history).map_err(|error| bad(&error.to_string()))?;
        let purpose_key = self.purpose_key(attestation, Some(&history))?;
        let credentials = credentials.iter().map(|credential| self.credential(credential));
        let credentials = credentials.collect::<Result<Vec<_>, Error>>()?;
        let identity = self.identity(history, None)?;
        let parts = [&identity.verification, &purpose_key.verification].into_iter();
        let verification = all_of(parts.chain(credentials.iter().map(|it| &it.verification)));
        Ok(PayloadView { identity, purpose_key, credentials, verification })
    }
}

/// The first part that is not known to be true decides.
pub(super) fn all_of<'a>(mut parts: impl Iterator<Item = &'a Verification>) -> Verification {
    parts.find(|it| !it.is_verified()).cloned().unwrap_or_else(|| Verification::Verified {
        by: "all its parts are true; that whoever shows it has the key, only a handshake can prove".into(),
    })
}
