//! Asks the services of an authority's node (`wire.md` D.5), from this process, through a secure channel of its own for
//! each request. Whoever is at the other end has to be the authority.

use super::{Project, acquaint};
use crate::authority::bodies::{
    self, AddMember, AttributesEntry, CreateToken, IdentifierList, MemberList, OneTimeCode, PAGE_MAX, Page,
};
use crate::authority::envelope::{Method, Request, Response};
use crate::error::{Error, REDEEM};
use crate::messenger::{self, Party};
use crate::route::Route;
use minicbor::Decode;
use ockam_crypto::{ChangeHistory, Credential, Identifier};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How many members are asked for at once.
const PAGE: u64 = if PAGE_MAX < 500 { PAGE_MAX } else { 500 };

/// An authority, as one identity of this home speaks with it.
#[derive(Debug)]
pub struct AuthorityClient {
    project: Project,
    party: Party,
    timeout: Duration,
}

impl AuthorityClient {
    /// That of a project. `party` is who asks; whom it may meet is decided here. `timeout` is for each request.
    ///
    /// # Errors
    /// As [`acquaint`].
    pub fn new(project: Project, mut party: Party, timeout: Duration) -> Result<AuthorityClient, Error> {
        let authority = acquaint(&mut party.identities, &project)?.identifier();
        let channels = project.service("echo")?.protocols().iter().filter(|part| is_channel(part)).count();
        // What is on the way there is anybody's.
        party.authorized = vec![Vec::new(); channels.saturating_sub(1)];
        party.authorized.push(vec![authority]);
        Ok(AuthorityClient { project, party, timeout })
    }

    /// Who asks.
    pub fn identifier(&self) -> Identifier {
        self.party.keys.history.identifier()
    }

    /// The authority's history, the longest that is known.
    ///
    /// # Errors
    /// Those of the database.
    pub fn authority(&self) -> Result<ChangeHistory, Error> {
        let known = self.party.identities.known(&self.project.authority.identifier())?;
        Ok(known.unwrap_or_else(|| self.project.authority.clone()))
    }

    /// Becomes a member.
    ///
    /// # Errors
    /// [`Error::AuthorityRefused`]; those of the way, as [`messenger::send`]; so for all below.
    pub fn redeem(&mut self, code: &OneTimeCode) -> Result<(), Error> {
        let body = zeroize::Zeroizing::new(bodies::write(code));
        self.ask(REDEEM, "enrollment_token_acceptor", Method::Post, "/", Some(&body)).map(drop)
    }

    /// A fresh credential, verified.
    ///
    /// # Errors
    /// [`Error::Credential`] for one that is not good.
    pub fn credential(&mut self) -> Result<Credential, Error> {
        let encoded = self.ask("issue a credential", "credential_issuer", Method::Post, "/", None)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // It may have a longer history since the channel was opened.
        let authority = self.authority()?;
        Credential::verify(&encoded, &self.identifier(), [&authority], now).map_err(Error::Credential)
    }

    /// The code of a new ticket.
    ///
    /// # Errors
    /// [`Error::PeerMisbehaved`] for an answer that is none; so for all below.
    pub fn create_token(&mut self, token: &CreateToken) -> Result<OneTimeCode, Error> {
        let what = "make a ticket";
        let answer = self.ask(what, "enrollment_token_issuer", Method::Post, "/", Some(&bodies::write(token)))?;
        let answer = zeroize::Zeroizing::new(answer);
        self.read(&answer)
    }

    /// Adds a member, or replaces its attributes.
    ///
    /// # Errors
    /// As [`AuthorityClient::redeem`].
    pub fn add_member(&mut self, member: Identifier, attributes: BTreeMap<String, String>) -> Result<(), Error> {
        let body = bodies::write(&AddMember { member, attributes });
        self.direct("add the member", Method::Post, "/", Some(&body)).map(drop)
    }

    /// What the authority knows of a member.
    ///
    /// # Errors
    /// As [`AuthorityClient::create_token`].
    pub fn member(&mut self, member: &Identifier) -> Result<AttributesEntry, Error> {
        let answer = self.direct("show the member", Method::Get, &format!("/{member}"), None)?;
        self.read(&answer)
    }

    /// All members.
    ///
    /// # Errors
    /// As [`AuthorityClient::create_token`].
    pub fn members(&mut self) -> Result<Vec<(Identifier, AttributesEntry)>, Error> {
        let what = "list the members";
        self.pages(|client, page| {
            let MemberList(members) = client.page(what, "/", page)?;
            Ok(members)
        })
    }

    /// The identifiers of all members.
    ///
    /// # Errors
    /// As [`AuthorityClient::create_token`].
    pub fn member_ids(&mut self) -> Result<Vec<Identifier>, Error> {
        let what = "list the members";
        let members = self.pages(|client, page| {
            let IdentifierList(members) = client.page(what, "/member_ids", page)?;
            Ok(members.into_iter().map(|member| (member, ())).collect())
        })?;
        Ok(members.into_iter().map(|(member, ())| member).collect())
    }

    /// Removes a member. Our authorities revoke its credentials, too.
    ///
    /// # Errors
    /// As [`AuthorityClient::redeem`].
    pub fn delete_member(&mut self, member: &Identifier) -> Result<(), Error> {
        self.direct("delete the member", Method::Delete, &format!("/{member}"), None).map(drop)
    }

    /// Removes all members that were not there from the start.
    ///
    /// # Errors
    /// As [`AuthorityClient::redeem`].
    pub fn delete_all_members(&mut self) -> Result<(), Error> {
        self.direct("delete all members", Method::Delete, "/members", None).map(drop)
    }

    /// Voids the credentials that a member has, which stays one. Our authorities alone can do that.
    ///
    /// # Errors
    /// As [`AuthorityClient::redeem`].
    pub fn revoke_member(&mut self, member: &Identifier) -> Result<(), Error> {
        let path = format!("/members/{member}/revoke");
        self.direct("revoke the member's credentials", Method::Post, &path, None).map(drop)
    }

    /// Asks for page after page, as ours give them. A real authority gives all at once, whatever it is asked for, and the
    /// same again.
    fn pages<T>(
        &mut self,
        mut next: impl FnMut(&mut Self, Page) -> Result<Vec<(Identifier, T)>, Error>,
    ) -> Result<Vec<(Identifier, T)>, Error> {
        let mut all: BTreeMap<Identifier, T> = BTreeMap::new();
        let mut after = None;
        loop {
            let page = next(self, Page { after, count: PAGE })?;
            let is_last = (page.len() as u64) < PAGE;
            let before = all.len();
            let in_order = page.windows(2).all(|pair| pair[0].0 < pair[1].0)
                && page.first().is_none_or(|(first, _)| after.is_none_or(|after| *first > after));
            all.extend(page);
            after = all.last_key_value().map(|(last, _)| *last);
            if is_last || !in_order || all.len() == before {
                return Ok(all.into_iter().collect());
            }
        }
    }

    fn page<T: for<'b> Decode<'b, ()>>(&mut self, what: &'static str, path: &str, page: Page) -> Result<T, Error> {
        let answer = self.direct(what, Method::Get, path, Some(&bodies::write(&page)))?;
        self.read(&answer)
    }

    fn direct(
        &mut self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Vec<u8>, Error> {
        self.ask(what, "direct_authenticator", method, path, body)
    }

    fn ask(
        &mut self,
        what: &'static str,
        service: &str,
        method: Method,
        path: &str,
        body: Option<&[u8]>,
    ) -> Result<Vec<u8>, Error> {
        let route = Route::new(&self.project.service(service)?, "the route to the authority")?;
        let request = zeroize::Zeroizing::new(Request::new(method, path, body).to_payload());
        let answer = messenger::send(&route, &request, Some(&mut self.party), self.timeout)?;
        let response = Response::parse(&answer).map_err(|error| self.misbehaved(&error.to_string()))?;
        match response.success() {
            Ok(body) => Ok(body.to_vec()),
            Err(refusal) => Err(Error::AuthorityRefused {
                what,
                why: refusal.message,
                status: refusal.status.map_or(0, |status| status.0),
            }),
        }
    }

    fn read<T: for<'b> Decode<'b, ()>>(&self, answer: &[u8]) -> Result<T, Error> {
        bodies::read(answer).map_err(|error| self.misbehaved(&error.to_string()))
    }

    fn misbehaved(&self, why: &str) -> Error {
        Error::PeerMisbehaved {
            peer: format!("the authority of {}", self.project.name),
            why: format!("gave an answer that cannot be read: {why}"),
        }
    }
}

fn is_channel(part: &ockam_wire::Protocol) -> bool {
    matches!(part, ockam_wire::Protocol::Secure(_))
}
