//! What the services of an authority answer (`wire.md` D.5): who asks is known, and what is asked is not trusted.

use super::REQUEST_MAX;
use super::bodies::{
    AddMember, AttributesEntry, AwaitRevocations, CreateToken, IdentifierList, MalformedBody, MemberList, OneTimeCode,
    PAGE_MAX, Page, read, write,
};
use super::envelope::{Method, Request, Status, not_a_request};
use super::keys::Keys;
use super::settings::{AuthoritySettings, is_enroller};
use super::store::{MEMBERS_MAX, Member, Redeemed, Store, TOKENS_MAX, Texts, Token, Which};
use crate::error::Error;
use ockam_crypto::{Credential, Identifier, PROJECT_MEMBER_SCHEMA, RevocationList};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// How long a ticket's code is good unless something else is asked for, in seconds: ten minutes.
const TOKEN_TTL_SECS: u64 = 600;

/// The longest: a year.
const TOKEN_TTL_SECS_MAX: u64 = 366 * 86_400;

/// Most uses of a code.
const TOKEN_USES_MAX: u64 = 1_000_000;

/// Most bytes of one answer: a frame has room for little more.
const ANSWER_MAX: usize = 15 << 20;

/// How far ahead of a reader's clock a credential may be created (`wire.md` D.4).
const SKEW_SECS: u64 = ockam_crypto::CLOCK_SKEW_SECS;

/// A service, known by its address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Service {
    Members,
    Issuer,
    TokenIssuer,
    TokenAcceptor,
    /// Ours alone.
    Revocations,
}

impl Service {
    pub(super) const ALL: [Service; 5] =
        [Service::Members, Service::Issuer, Service::TokenIssuer, Service::TokenAcceptor, Service::Revocations];

    pub(super) fn address(self) -> &'static str {
        match self {
            Service::Members => "direct_authenticator",
            Service::Issuer => "credential_issuer",
            Service::TokenIssuer => "enrollment_token_issuer",
            Service::TokenAcceptor => "enrollment_token_acceptor",
            Service::Revocations => "revocation_list",
        }
    }

    /// Whether an authority with these settings has it.
    pub(super) fn is_offered(self, settings: &AuthoritySettings) -> bool {
        match self {
            Service::Members => !settings.no_direct_authentication,
            Service::TokenIssuer | Service::TokenAcceptor => !settings.no_token_enrollment,
            Service::Issuer | Service::Revocations => true,
        }
    }
}

/// What to do with a request.
pub(super) enum Answer {
    /// Send this.
    Now(Vec<u8>),
    /// Send the list of revocations once there is one with a higher number, and [`Request::done`] without a body when
    /// there is none for long.
    Await { id: u32, number: u64 },
}

/// Why a request is refused.
struct Refused(Status, String);

impl Refused {
    fn new(status: Status, message: impl Into<String>) -> Refused {
        Refused(status, message.into())
    }
}

impl From<MalformedBody> for Refused {
    fn from(malformed: MalformedBody) -> Refused {
        Refused(Status::BAD_REQUEST, malformed.to_string())
    }
}

impl From<Error> for Refused {
    /// What is wrong here is for the log here: it may name files.
    fn from(error: Error) -> Refused {
        tracing::error!(%error, "the authority cannot answer a request");
        Refused(Status::INTERNAL, "the authority cannot answer now; its log says why".into())
    }
}

/// What a caller may do.
struct Rights {
    /// Adds, shows and removes members, and makes tickets.
    is_enroller: bool,
    /// Does that to enrollers.
    is_admin: bool,
}

pub(super) struct Services {
    settings: AuthoritySettings,
    store: Store,
    keys: Keys,
    /// The list that was signed last, and the attestation of the key that signed it.
    list: Option<(RevocationList, Vec<u8>)>,
}

impl Services {
    pub(super) fn new(settings: AuthoritySettings, store: Store, keys: Keys) -> Services {
        Services { settings, store, keys, list: None }
    }

    /// Answers a request. `now` is in seconds of Unix time, here and below.
    pub(super) fn answer(&mut self, service: Service, caller: &Identifier, payload: &[u8], now: u64) -> Answer {
        let Ok(request) = Request::parse(payload) else {
            return Answer::Now(not_a_request(&format!("this is no request, or has more than {REQUEST_MAX} bytes")));
        };
        let answered = match service {
            Service::Revocations => self.await_revocations(&request),
            Service::Members => self.members(&request, caller, now).map(Answer::Now),
            Service::Issuer => self.issue(&request, caller, now).map(Answer::Now),
            Service::TokenIssuer => self.create_token(&request, caller, now).map(Answer::Now),
            Service::TokenAcceptor => self.accept_token(&request, caller, now).map(Answer::Now),
        };
        answered.unwrap_or_else(|Refused(status, message)| {
            tracing::debug!(service = service.address(), %caller, status = status.0, message, "a request was refused");
            Answer::Now(request.refused(status, &message))
        })
    }

    /// The number of the list of revocations. A change makes it higher.
    pub(super) fn list_number(&self) -> u64 {
        self.store.list_number()
    }

    /// The list, signed, as an answer to a request with this id.
    pub(super) fn list_answer(&mut self, id: u32, now: u64) -> Vec<u8> {
        let request = Request { id, method: Some(Method::Post), path: "/", body: None };
        match self.list(now) {
            Ok(list) => request.done(Some(list.encoded())),
            Err(error) => {
                let Refused(status, message) = error.into();
                request.refused(status, &message)
            }
        }
    }

    /// Looks whether the identity is another one since: then the list of revocations is.
    ///
    /// # Errors
    /// As [`Keys::at`].
    pub(super) fn look(&mut self, now: u64) -> Result<(), Error> {
        let change = self.keys.at(now)?.history.latest().hash;
        self.store.signs_with(&change, now)
    }

    /// Notes which tickets are over. Gives when the next one is.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn expire(&mut self, now: u64) -> Result<Option<u64>, Error> {
        self.store.expire(now)
    }

    fn list(&mut self, now: u64) -> Result<&RevocationList, Error> {
        self.look(now)?;
        let number = self.store.list_number();
        let keys = self.keys.at(now)?;
        let attestation = keys.issuer.attestation();
        let is_right = |(list, by): &(RevocationList, Vec<u8>)| list.number() == number && by == attestation.encoded();
        if !self.list.as_ref().is_some_and(is_right) {
            // A key that is younger than the clock says was made before the clock was set back.
            let created_at = now.max(attestation.created_at());
            let signed = RevocationList::sign(&keys.issuer, number, created_at, self.store.revocations()?);
            let signed = signed.map_err(|error| Error::internal(format!("cannot sign the revocations: {error}")))?;
            self.list = Some((signed, attestation.encoded().to_vec()));
        }
        self.list.as_ref().map(|(list, _)| list).ok_or_else(|| Error::internal("a list that was signed is gone"))
    }

    fn rights(&self, caller: &Identifier) -> Result<Rights, Error> {
        let member = self.store.member(caller)?;
        let is_enroller = member.as_ref().is_some_and(|it| is_enroller(&it.attributes));
        let is_trusted = member.is_some_and(|it| it.is_trusted);
        Ok(Rights { is_enroller, is_admin: is_enroller && (is_trusted || !self.settings.enforce_admin_checks) })
    }

    /// What an enroller may do.
    fn enroller(&self, caller: &Identifier) -> Result<Rights, Refused> {
        let rights = self.rights(caller)?;
        match rights.is_enroller {
            true => Ok(rights),
            false => Err(Refused::new(Status::FORBIDDEN, "only an enroller may do this")),
        }
    }

    // ---- members

    fn members(&mut self, request: &Request<'_>, caller: &Identifier, now: u64) -> Result<Vec<u8>, Refused> {
        let body = request.body.unwrap_or_default();
        match (request.method, request.segments().as_slice()) {
            (Some(Method::Post), [""] | ["members"]) => {
                self.add_member(read(body)?, caller, now)?;
                Ok(request.done(None))
            }
            (Some(Method::Post), ["members", member, "revoke"]) => {
                self.revoke(&identifier(member)?, caller, now)?;
                Ok(request.done(None))
            }
            (Some(Method::Get), ["member_ids"]) => {
                self.enroller(caller)?;
                let (after, count) = self.page(body)?;
                Ok(request.done(Some(&write(&IdentifierList(self.store.identifiers(after, count)?)))))
            }
            (Some(Method::Get), [""] | ["members"]) => {
                self.enroller(caller)?;
                let (after, count) = self.page(body)?;
                let members = self.store.page(after, count)?;
                let answer = write(&MemberList(members.into_iter().map(|it| (it.identifier, entry(it))).collect()));
                if answer.len() > ANSWER_MAX {
                    let why = format!(
                        "the {} members do not fit one answer; ask for their identifiers, or in pages",
                        self.store.members()?
                    );
                    return Err(Refused::new(Status::BAD_REQUEST, why));
                }
                Ok(request.done(Some(&answer)))
            }
            (Some(Method::Get), [member] | ["members", member]) => {
                self.enroller(caller)?;
                let member = identifier(member)?;
                let found = self.store.member(&member)?;
                let found = found.ok_or_else(|| Refused::new(Status::NOT_FOUND, format!("{member} is no member")))?;
                Ok(request.done(Some(&write(&entry(found)))))
            }
            (Some(Method::Delete), ["members"]) => {
                let rights = self.enroller(caller)?;
                self.remove(&Which::AllBut { caller, enrollers_too: rights.is_admin }, caller, now)?;
                Ok(request.done(None))
            }
            (Some(Method::Delete), [member] | ["members", member]) => {
                let member = identifier(member)?;
                let rights = self.enroller(caller)?;
                let found = self.store.member(&member)?;
                self.may_change(&rights, found.as_ref())?;
                self.remove(&Which::One(&member), caller, now)?;
                Ok(request.done(None))
            }
            _ => Err(unknown_path()),
        }
    }

    fn add_member(&mut self, add: AddMember, caller: &Identifier, now: u64) -> Result<(), Refused> {
        let rights = self.enroller(caller)?;
        self.may_give(&rights, &add.attributes)?;
        let before = self.store.member(&add.member)?;
        self.may_change(&rights, before.as_ref())?;
        let member = Member {
            identifier: add.member,
            attributes: add.attributes,
            added_at: now,
            added_by: Some(*caller),
            is_trusted: false,
        };
        if !self.store.add(&member)? {
            return Err(too_many("members", MEMBERS_MAX));
        }
        tracing::info!(member = %member.identifier, by = %caller, is_new = before.is_none(), "a member was added");
        Ok(())
    }

    fn remove(&mut self, which: &Which<'_>, caller: &Identifier, now: u64) -> Result<(), Refused> {
        let Some(count) = self.store.remove(which, now)? else { return Err(no_room_for_revocations()) };
        let member = match which {
            Which::One(member) => member.to_string(),
            Which::AllBut { .. } => "all".to_owned(),
        };
        tracing::info!(member, by = %caller, count, "members were removed");
        Ok(())
    }

    fn revoke(&mut self, member: &Identifier, caller: &Identifier, now: u64) -> Result<(), Refused> {
        let rights = self.enroller(caller)?;
        let found = self.store.member(member)?;
        if found.is_some_and(|it| it.is_trusted || is_enroller(&it.attributes)) && !rights.is_admin {
            return Err(not_admin());
        }
        if !self.store.revoke(member, now)? {
            return Err(no_room_for_revocations());
        }
        tracing::info!(%member, by = %caller, "the credentials of a member were revoked");
        Ok(())
    }

    /// Whether these attributes may be given to anybody by a caller with these rights.
    fn may_give(&self, rights: &Rights, attributes: &Texts) -> Result<(), Refused> {
        if is_enroller(attributes) && !rights.is_admin {
            return Err(not_admin());
        }
        let checked = self.settings.attributes(attributes);
        checked.map(drop).map_err(|why| Refused::new(Status::BAD_REQUEST, format!("the member {why}")))
    }

    /// Whether a member may be changed or removed by a caller with these rights.
    fn may_change(&self, rights: &Rights, member: Option<&Member>) -> Result<(), Refused> {
        match member {
            Some(member) if member.is_trusted => {
                let why = format!("{} is trusted from the start, and stays as it is", member.identifier);
                Err(Refused::new(Status::FORBIDDEN, why))
            }
            Some(member) if is_enroller(&member.attributes) && !rights.is_admin => Err(not_admin()),
            _ => Ok(()),
        }
    }

    /// Which members are asked for: all, when it does not say.
    fn page(&self, body: &[u8]) -> Result<(Option<Identifier>, u64), Refused> {
        match body {
            [] => Ok((None, MEMBERS_MAX)),
            body => {
                let Page { after, count } = read(body)?;
                Ok((after, count.min(PAGE_MAX)))
            }
        }
    }

    // ---- tickets

    fn create_token(&mut self, request: &Request<'_>, caller: &Identifier, now: u64) -> Result<Vec<u8>, Refused> {
        let (Some(Method::Post), [""] | ["tokens"]) = (request.method, request.segments().as_slice()) else {
            return Err(unknown_path());
        };
        let asked: CreateToken = read(request.body.unwrap_or_default())?;
        let rights = self.enroller(caller)?;
        self.may_give(&rights, &asked.attributes)?;
        let ttl = asked.ttl_secs.unwrap_or(TOKEN_TTL_SECS);
        if !(1..=TOKEN_TTL_SECS_MAX).contains(&ttl) {
            let why = format!("a ticket is good for 1 to {TOKEN_TTL_SECS_MAX} seconds");
            return Err(Refused::new(Status::BAD_REQUEST, why));
        }
        let uses = asked.ttl_count.unwrap_or(1);
        if !(1..=TOKEN_USES_MAX).contains(&uses) {
            return Err(Refused::new(Status::BAD_REQUEST, format!("a ticket has 1 to {TOKEN_USES_MAX} uses")));
        }
        let code = OneTimeCode(Zeroizing::new(crate::random::bytes()));
        let token = Token {
            hash: hash(&code),
            reference: crate::text::to_hex(&crate::random::bytes::<5>()),
            attributes: asked.attributes,
            created_by: *caller,
            created_at: now,
            expires_at: now.saturating_add(ttl),
            uses,
        };
        if !self.store.add_token(&token)? {
            return Err(too_many("tickets", TOKENS_MAX));
        }
        tracing::info!(ticket = token.reference, by = %caller, uses, ttl, "a ticket was made");
        let body = Zeroizing::new(write(&code));
        Ok(request.done(Some(&body)))
    }

    fn accept_token(&mut self, request: &Request<'_>, caller: &Identifier, now: u64) -> Result<Vec<u8>, Refused> {
        let (Some(Method::Post), [""] | ["credential"]) = (request.method, request.segments().as_slice()) else {
            return Err(unknown_path());
        };
        let code: OneTimeCode = read(request.body.unwrap_or_default())?;
        let why = match self.store.redeem(&hash(&code), caller, now)? {
            Redeemed::Now(reference) => {
                tracing::info!(member = %caller, ticket = reference, "a ticket was redeemed");
                return Ok(request.done(None));
            }
            // Who did not get the answer asks again.
            Redeemed::Before => return Ok(request.done(None)),
            Redeemed::Member => "Already a member",
            Redeemed::Removed => "the member was removed since it redeemed this ticket",
            Redeemed::Unknown => "the ticket is unknown, or expired long ago",
            Redeemed::Expired => "the ticket has expired",
            Redeemed::NotYet => "the ticket was made in the future; was the authority's clock set back?",
            Redeemed::UsedUp => "the ticket was used as often as it may be",
            Redeemed::Withdrawn => "who made the ticket is no enroller any more",
            Redeemed::Full => return Err(too_many("members", MEMBERS_MAX)),
        };
        Err(Refused::new(Status::FORBIDDEN, why))
    }

    // ---- credentials

    fn issue(&mut self, request: &Request<'_>, caller: &Identifier, now: u64) -> Result<Vec<u8>, Refused> {
        let (Some(Method::Post), [""] | ["credential"]) = (request.method, request.segments().as_slice()) else {
            return Err(unknown_path());
        };
        let Some(member) = self.store.member(caller)? else {
            return Err(Refused::new(Status::FORBIDDEN, "unauthorized member"));
        };
        let attributes = self.settings.attributes(&member.attributes);
        // Settings may have changed since the member was added.
        let attributes = attributes.map_err(|why| Refused::new(Status::CONFLICT, format!("the member {why}")))?;
        // The first one behind those that were taken back.
        let created_at = self.store.revoked_at(caller)?.map_or(now, |revoked_at| now.max(revoked_at.saturating_add(1)));
        if created_at > now.saturating_add(SKEW_SECS) {
            let why = format!(
                "the credentials of this member were taken back until {} seconds from now; was the authority's clock set back?",
                created_at - now
            );
            return Err(Refused::new(Status::CONFLICT, why));
        }
        let subject_latest_change = self.keys.latest_change(caller)?;
        let keys = self.keys.at(now)?;
        let expires_at = created_at.saturating_add(self.settings.credential_ttl_secs).min(keys.expires_at);
        let schema = PROJECT_MEMBER_SCHEMA;
        let issuer = &keys.issuer;
        let issued =
            Credential::issue(issuer, *caller, subject_latest_change, schema, &attributes, created_at, expires_at);
        let credential = issued.map_err(|error| Error::internal(format!("cannot issue a credential: {error}")))?;
        self.store.issued(created_at)?;
        Ok(request.done(Some(credential.encoded())))
    }

    // ---- revocations

    fn await_revocations(&mut self, request: &Request<'_>) -> Result<Answer, Refused> {
        let (Some(Method::Post), [""]) = (request.method, request.segments().as_slice()) else {
            return Err(unknown_path());
        };
        let AwaitRevocations { number } = read(request.body.unwrap_or_default())?;
        Ok(Answer::Await { id: request.id, number })
    }
}

fn hash(code: &OneTimeCode) -> [u8; 32] {
    Sha256::digest(*code.0).into()
}

fn entry(member: Member) -> AttributesEntry {
    AttributesEntry {
        attributes: member.attributes.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        added_at: member.added_at,
        expires_at: None,
        attested_by: member.added_by,
    }
}

fn identifier(text: &str) -> Result<Identifier, Refused> {
    text.parse().map_err(|_| Refused::new(Status::BAD_REQUEST, "this is no identifier"))
}

fn unknown_path() -> Refused {
    Refused::new(Status::BAD_REQUEST, "unknown path")
}

fn not_admin() -> Refused {
    Refused::new(Status::FORBIDDEN, "only a trusted enroller may do this to an enroller")
}

fn too_many(what: &str, most: u64) -> Refused {
    Refused::new(Status::CONFLICT, format!("the authority has {most} {what}, which is as many as it may have"))
}

fn no_room_for_revocations() -> Refused {
    Refused::new(Status::CONFLICT, "the authority has as many revocations as it may have; older ones must expire first")
}

#[cfg(test)]
mod tests;
