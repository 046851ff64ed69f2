//! Who may pass which guard, and what control shows the peers of channels.

use super::Attendant;
use crate::clock::now_ms;
use crate::config::CREDENTIALS_BYTES_MAX;
use crate::core::mesh::ToCore;
use ockam_crypto::PlaintextKind;
use ockam_engine_abi::{ChannelGrants, Command, GUARDS_MAX, Guard, Refusal, TransitFrom, TransitRule};
use std::sync::Arc;

impl Attendant {
    /// A command about guards, or about the credentials by which they open.
    pub(super) fn obey_about_guards(&mut self, command: Command) {
        let (request, done) = match command {
            Command::SetGuards { request, open } => {
                let open = Arc::new(open);
                self.order_all(request, |request| ToCore::Guards { request, open: open.clone() });
                (request, Ok(()))
            }
            Command::SetGrants { request, channels } => {
                self.grant(&channels);
                // What a core was about to let pass by the old grants is over once it has answered.
                self.order_all(request, |request| ToCore::Granted { request });
                (request, Ok(()))
            }
            Command::SetTransit { request, rules } => (request, self.set_transit(request, rules)),
            Command::ShowCredentials { request, channel, text } => {
                (request, self.show_credentials(request, channel, text.0))
            }
            _ => unreachable!("the caller looked"),
        };
        self.refuse_on_error(request, done);
    }

    fn grant(&self, channels: &[ChannelGrants]) {
        let now_ms = now_ms();
        for ChannelGrants { channel, grants } in channels {
            if let Some(installed) = self.channels.get(channel) {
                installed.channel.granted.replace(grants, now_ms);
            }
        }
    }

    fn set_transit(&mut self, request: u64, rules: Vec<TransitRule>) -> Result<(), (Refusal, i32)> {
        let is_rule = |rule: &TransitRule| match rule.from {
            TransitFrom::Network(_) => true,
            TransitFrom::Guard(guard) => is_guard(guard),
        };
        if !rules.iter().all(is_rule) {
            return Err((Refusal::Invalid, 0));
        }
        let rules: Arc<[_]> = rules.into();
        self.order_all(request, |request| ToCore::Transit { request, rules: rules.clone() });
        Ok(())
    }

    fn show_credentials(&mut self, request: u64, number: u32, text: Vec<u8>) -> Result<(), (Refusal, i32)> {
        let is_shown = PlaintextKind::of(&text) == Ok(PlaintextKind::RefreshCredentials);
        if !is_shown || text.len() > CREDENTIALS_BYTES_MAX {
            return Err((Refusal::Invalid, 0));
        }
        let channel = self.channels.get(&number).ok_or((Refusal::Unknown, 0))?.channel.clone();
        let core = channel.egress().map_or(0, |link| link.core());
        let request = self.expect(request, 1);
        self.order(core, ToCore::ShowCredentials { request, channel, text: text.into() });
        Ok(())
    }
}

/// Whether there may be a guard of this number.
pub(super) fn is_guard(guard: Guard) -> bool {
    usize::from(guard) < GUARDS_MAX
}
