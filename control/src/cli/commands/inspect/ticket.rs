//! A ticket, whose code is a secret.

use super::judge::{Judge, Verification};
use super::project::ProjectView;
use crate::error::Error;
use crate::projects::Ticket;
use crate::text::to_hex;
use serde::Serialize;
use zeroize::Zeroizing;

#[derive(Serialize)]
pub(super) struct TicketView {
    project: ProjectView,
    /// Absent unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    one_time_code: Option<String>,
    pub(super) verification: Verification,
}

impl TicketView {
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = self.project.lines("A ticket: whoever has it can become a member");
        lines.pop();
        let code = self.one_time_code.as_deref().unwrap_or("not shown; --show-secret shows it");
        lines.push(format!("  code        {code}"));
        lines.push(self.verification.line());
        lines
    }
}

impl Judge {
    pub(super) fn ticket(&self, text: &str) -> Result<TicketView, Error> {
        let ticket = Ticket::decode(text)?;
        let project = self.project(&ticket.project);
        let verification = match &project.verification {
            Verification::Verified { by } => {
                Verification::Verified { by: format!("{by}; whether its code is good, only the authority can say") }
            }
            Verification::Unknown { .. } => Verification::Unknown {
                why: "nobody signs a ticket, and whether its code is good, only the authority can say".into(),
            },
            refused => refused.clone(),
        };
        let code = self.show_secret.then(|| Zeroizing::new(to_hex(&ticket.code.0[..])));
        Ok(TicketView { project, one_time_code: code.map(|code| code.to_string()), verification })
    }
}
