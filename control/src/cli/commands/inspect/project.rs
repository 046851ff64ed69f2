//! What a home knows of a project.

use super::judge::{Judge, Verification};
use crate::cli::commands::identity::{ChangeView, ordinal};
use crate::projects::Project;
use crate::text::escape;
use serde::Serialize;

/// How many bytes of a stranger's text are shown.
const TEXT_SHOWN_MAX: usize = 200;

#[derive(Serialize)]
pub(super) struct ProjectView {
    id: String,
    name: String,
    authority: String,
    authority_route: String,
    authority_changes: Vec<ChangeView>,
    pub(super) verification: Verification,
}

impl ProjectView {
    pub(super) fn lines(&self, title: &str) -> Vec<String> {
        let mut lines = vec![
            title.to_owned(),
            format!("  project     {} ({})", self.name, self.id),
            format!("  authority   {}", self.authority),
            format!("  at          {}", self.authority_route),
        ];
        for (number, change) in self.authority_changes.iter().enumerate() {
            lines.extend(change.lines(&format!("{} key", ordinal(number + 1))));
        }
        lines.push(self.verification.line());
        lines
    }
}

impl Judge {
    pub(super) fn project(&self, project: &Project) -> ProjectView {
        let authority = project.authority.identifier();
        let verification = match &self.with {
            None => Verification::Unknown { why: "nobody signs what a home knows of a project".into() },
            Some(with) if with.identifier() == authority => {
                Verification::Verified { by: "its authority is the one that was named".into() }
            }
            Some(with) => {
                Verification::Refused { why: format!("its authority is {authority}, and not {}", with.identifier()) }
            }
        };
        ProjectView {
            id: escape(project.id.as_bytes(), TEXT_SHOWN_MAX),
            name: project.name.clone(),
            authority: authority.to_string(),
            authority_route: project.authority_route.to_string(),
            authority_changes: project.authority.changes().iter().map(ChangeView::of).collect(),
            verification,
        }
    }
}
