//! Our end of handshakes that peers begin: what `half_open.rs` decides, done.

use super::budget::Budget;
use super::half_open::{End, Gone, Handshake, Job, Source};
use super::who::Doubt;
use super::{Channels, Living, WAY_BYTES_MAX, clear, lifetime_ms};
use crate::engine_link::cookie::{Cookie, Purpose};
use crate::engine_link::{CommandError, EngineLink};
use crate::node::Node;
use crate::store::ChannelListenerRow;
use crate::trust::Judged;
use ockam_crypto::{CLOSE, Claim, Established, ExpectMessage3, Identifier, Peer, Sealer, Secret, accept};
use ockam_engine_abi::{Command, Key, Refusal, Target};
use ockam_wire::{AddressRef, Message, Outgoing, RouteParts};
use rustix::time::{ClockId, clock_gettime};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most handshakes whose answer, or whose channel, the engine has been told to send or set up and has not yet. When the
/// engine has much to do, work waits here, as handshakes, and not as commands in front of everybody's.
const UNDER_WAY_MAX: usize = 64;

/// Most jobs that are done in one go, one or two milliseconds: handing them to a thread, and writing down whom it met, costs
/// as much for all of them as for one.
const JOBS_MAX: usize = 16;

/// What a job came to.
enum Done {
    /// Message 2.
    Answer(Vec<u8>, ExpectMessage3),
    /// A peer that is who it says it is, and welcome.
    Accept {
        peer: Identifier,
        own: Identifier,
        expires_at: u64,
        established: Box<Established>,
        /// What it showed that is worth something.
        judged: Option<Judged>,
    },
    /// A peer that proved to be the other end of this handshake, and is told that it is not welcome.
    Refuse { why: End, sealing_key: Secret },
    /// Nothing can be said to it.
    End(End),
}

/// A message came for an address of control. Says whether it belongs to a handshake.
pub(super) fn on_punt(node: &Arc<Node>, engine: &EngineLink, source: Source, encoded: &[u8]) -> bool {
    let Ok(message) = Message::parse(encoded) else { return false };
    let address = message.onward.first().and_then(|address| std::str::from_utf8(address.name).ok());
    let Some(address) = address else { return false };
    let channels = &node.channels;
    if let Some(listener) = node.channel_listener(address) {
        begin(node, engine, source, listener, &message);
        return true;
    }
    let gone = {
        let mut state = channels.state();
        if !state.half_open.has(address) {
            return false;
        }
        state.half_open.message_3(address, message.payload)
    };
    clear(engine, gone.into_iter().collect());
    channels.work.notify_one();
    true
}

/// Message 1.
fn begin(
    node: &Arc<Node>,
    engine: &EngineLink,
    source: Source,
    listener: Arc<ChannelListenerRow>,
    message: &Message<'_>,
) {
    let channels = &node.channels;
    let onward = RouteParts { front: &[], rest: message.return_route };
    let way = Outgoing { onward, return_route: RouteParts::EMPTY, payload_len: 0, tracing: None };
    // Where it came in is in front already; behind that the peer must have said where it is.
    let least = if source == Source::Inside { 1 } else { 2 };
    let is_way = message.return_route.len() >= least && way.body_len() <= WAY_BYTES_MAX;
    let ready = accept(message.payload).ok().filter(|_| is_way);
    let mut state = channels.state();
    let Some(ready) = ready else {
        state.half_open.count(&listener, End::Malformed);
        return;
    };
    let way = way.to_frame(&[]).split_off(4);
    let since = Instant::now();
    let handshake = Handshake { since, source, listener, decryptor: crate::random::hex_id(), way };
    let gone = state.half_open.begin(since, handshake, ready);
    let works = std::mem::replace(&mut state.works, true);
    drop(state);
    clear(engine, gone);
    if works {
        channels.work.notify_one();
    } else {
        tokio::spawn(work(node.clone()));
    }
}

/// Does the work of handshakes until none is under way.
async fn work(node: Arc<Node>) {
    let channels = &node.channels;
    node.trust.ready_to_answer(&node).await;
    let mut budget = Budget::new(Instant::now());
    let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
    loop {
        let (gone, taken, deadline) = {
            let mut state = channels.state();
            let gone = state.half_open.expire(Instant::now());
            let wait = budget.wait(Instant::now());
            let mut taken = Vec::new();
            while wait.is_zero() && taken.len() < JOBS_MAX {
                let Ok(permit) = under_way.clone().try_acquire_owned() else { break };
                let Some(job) = state.half_open.take() else { break };
                taken.push((job, permit));
            }
            let deadline = state.half_open.deadline();
            if deadline.is_none() && taken.is_empty() {
                state.works = false;
            }
            let wake = if wait.is_zero() { deadline } else { Some(Instant::now() + wait) };
            (gone, taken, wake.filter(|_| deadline.is_some()))
        };
        let engine = node.engine_now();
        if let Some(engine) = &engine {
            clear(&engine.link, gone);
        }
        if taken.is_empty() {
            let Some(deadline) = deadline else { return };
            tokio::select! {
                () = channels.work.notified() => {}
                _ = under_way.acquire(), if under_way.available_permits() == 0 => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
            continue;
        }
        let mut jobs = Vec::with_capacity(taken.len());
        let mut handshakes = Vec::with_capacity(taken.len());
        for ((number, handshake, job), permit) in taken {
            jobs.push((handshake.listener.clone(), job));
            handshakes.push((number, handshake, permit));
        }
        let working = node.clone();
        let done = tokio::task::spawn_blocking(move || {
            let before = cpu_time();
            let done: Vec<Done> = jobs.into_iter().map(|(listener, job)| run(&working, &listener, job)).collect();
            working.channels.who.note_strangers();
            (done, cpu_time().saturating_sub(before))
        });
        let (done, took) = done.await.unwrap_or_default();
        budget.spend(took);
        let mut done = done.into_iter();
        for (number, handshake, permit) in handshakes {
            // Of a thread that failed nothing came.
            let done = done.next().unwrap_or(Done::End(End::Withdrawn));
            match &engine {
                Some(engine) => act(&node, &engine.link, number, handshake, done, permit),
                None => drop(channels.state().half_open.end(number, End::Withdrawn)),
            }
        }
    }
}

/// Processor time of this thread.
pub(crate) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// What a peer showed beside its identity, which is known to be its own.
pub(super) fn judge(node: &Node, peer: &Peer, claim: &Claim<'_>) -> Option<Judged> {
    node.trust.met(peer);
    node.trust.judge(&peer.identifier(), claim.credentials())
}

/// The public-key work of one job.
fn run(node: &Node, listener: &ChannelListenerRow, job: Job) -> Done {
    let who = &node.channels.who;
    let keys = match who.keys(listener.identity) {
        Ok(keys) => keys,
        Err(error) => {
            tracing::warn!(listener = listener.address, %error, "a handshake cannot be answered");
            return Done::End(End::NoIdentity);
        }
    };
    let (expect, message) = match job {
        Job::Answer(ready) => {
            let ephemeral = Secret::new(crate::random::bytes());
            return match ready.write(&keys.static_key, ephemeral, &keys.payload) {
                Ok((message, expect)) => Done::Answer(message, expect),
                Err(error) => {
                    tracing::debug!(%error, "a handshake cannot be answered");
                    Done::End(End::Malformed)
                }
            };
        }
        Job::Judge(expect, message) => (expect, message),
    };
    let (claimed, established) = match expect.read(&message) {
        Ok(read) => read,
        Err(rejected) => {
            tracing::debug!(error = %rejected.error, "message 3 was not accepted");
            return Done::End(End::NotGenuine);
        }
    };
    // Who is not on the list need not be verified to be refused.
    let is_welcome =
        |identifier: &Identifier| listener.authorized.is_empty() || listener.authorized.contains(identifier);
    let refuse = |why, established: Established| Done::Refuse { why, sealing_key: established.sealing_key };
    let Ok(claim) = Claim::parse(&claimed.payload) else { return refuse(End::Malformed, established) };
    if !is_welcome(&claim.identifier()) {
        tracing::info!(listener = listener.address, peer = %claim.identifier(), "a peer is not authorized");
        return refuse(End::NotAuthorized, established);
    }
    match who.judge(&claim, &claimed.static_key) {
        Ok(peer) => Done::Accept {
            judged: judge(node, &peer, &claim),
            peer: peer.identifier(),
            own: keys.identifier,
            expires_at: peer.expires_at.min(keys.expires_at),
            established: Box::new(established),
        },
        Err(Doubt::Untrue(why)) => {
            tracing::info!(listener = listener.address, why, "a peer is not who it says it is");
            refuse(End::NotAuthentic, established)
        }
        Err(Doubt::Unreadable(error)) => {
            tracing::warn!(listener = listener.address, %error, "a peer cannot be judged");
            refuse(End::NoIdentity, established)
        }
    }
}

/// Says what the work came to, and sets up what it made; `permit` is held until the engine has done so.
fn act(
    node: &Arc<Node>,
    engine: &EngineLink,
    number: u64,
    handshake: Handshake,
    done: Done,
    permit: OwnedSemaphorePermit,
) {
    let channels = &node.channels;
    match done {
        Done::End(why) => {
            let gone = channels.state().half_open.end(number, why);
            clear(engine, gone.into_iter().collect());
        }
        Done::Answer(message, expect) => {
            if channels.state().half_open.answered(number, expect) {
                let (node, engine) = (node.clone(), engine.clone());
                tokio::spawn(async move {
                    let _permit = permit;
                    if let Err(error) = answer(&node, &engine, &handshake, &message).await {
                        tracing::debug!(%error, "message 2 was not sent");
                        let gone = node.channels.state().half_open.end(number, End::Withdrawn);
                        clear(&engine, gone.into_iter().collect());
                    } else if !node.channels.state().half_open.has(&handshake.decryptor)
                        && !node.channels.has_decryptor(&handshake.decryptor)
                    {
                        // It ended before it had an address.
                        clear(&engine, vec![Gone { decryptor: handshake.decryptor }]);
                    }
                });
            }
        }
        Done::Refuse { why, sealing_key } => {
            let gone = channels.state().half_open.end(number, why);
            // What was given up meanwhile has been cleared.
            if gone.is_some() {
                refuse(engine, handshake, sealing_key);
            }
        }
        Done::Accept { peer, own, expires_at, established, judged } => {
            let living = Living {
                address: crate::random::hex_id(),
                decryptor: handshake.decryptor.clone(),
                peer,
                own,
                expires_at,
                purpose: Purpose::Listener(handshake.listener.flow_control.clone()),
                source: Some(handshake.source),
                link: None,
                ended: Vec::new(),
                granted: None,
            };
            let address = living.address.clone();
            let admitted = {
                let mut state = channels.state();
                if !state.half_open.finish(number) {
                    return;
                }
                let admitted = state.admit(living);
                if admitted.is_none() {
                    state.half_open.unfinish(&handshake.listener, End::Limit);
                }
                admitted
            };
            let Some((channel, shed)) = admitted else {
                return refuse(engine, handshake, established.sealing_key);
            };
            if let Some(shed) = shed {
                Channels::shed(node, engine, shed);
            }
            channels.watch_identities(node);
            node.trust.need(node, own);
            let cookie = node.cookies.seal(&Cookie::Channel {
                peer: peer.to_string(),
                own: own.to_string(),
                expires_at,
                purpose: Purpose::Listener(handshake.listener.flow_control.clone()),
            });
            let install = |request| Command::InstallChannel {
                request,
                channel,
                decryptor: handshake.decryptor.clone().into_bytes().into(),
                encryptor: address.into_bytes().into(),
                sealing_key: Key::new(established.sealing_key.expose()),
                opening_key: Key::new(established.opening_key.expose()),
                way: handshake.way.clone().into(),
                follows_peer: true,
                reachable: u64::MAX,
                flow_control: handshake.listener.bit,
                expires_in_ms: Some(lifetime_ms(expires_at)),
                grants: ockam_engine_abi::Grants::default(),
                cookie: cookie.into(),
            };
            let command = install(engine.new_request());
            drop(established);
            let (node, engine) = (node.clone(), engine.clone());
            tokio::spawn(async move {
                let _permit = permit;
                let installed = node.channels.install(&node, &engine, command, peer, judged).await;
                let channels = &node.channels;
                if let Err(error) = installed {
                    let why = match error {
                        CommandError::Refused { why: Refusal::Limit, .. } => End::Limit,
                        _ => End::Withdrawn,
                    };
                    tracing::info!(%error, %peer, "a secure channel cannot be set up");
                    let mut state = channels.state();
                    state.remove(channel);
                    state.half_open.unfinish(&handshake.listener, why);
                    drop(state);
                    clear(&engine, vec![Gone { decryptor: handshake.decryptor }]);
                    return;
                }
                tracing::info!(channel, %peer, listener = handshake.listener.address, "a peer opened a secure channel");
                // Its listener may be gone since.
                let Handshake { since, listener, .. } = handshake;
                let is_wanted = node.channel_listener(&listener.address) == Some(listener);
                if !channels.state().living.contains_key(&channel) {
                    super::retire_in(&engine, channel).await;
                } else if !is_wanted {
                    channels.retire(&engine, channel).await;
                } else {
                    channels.show_what_changed(&engine, channel, own, since).await;
                }
            });
        }
    }
}

/// Makes the address where message 3 comes, and sends message 2.
async fn answer(node: &Node, engine: &EngineLink, handshake: &Handshake, message: &[u8]) -> Result<(), CommandError> {
    let set = |request| Command::SetAddress {
        request,
        address: handshake.decryptor.clone().into_bytes().into(),
        target: Target::Handshake,
        reachable: u64::MAX,
        guard: None,
        cookie: node.cookies.seal(&Cookie::Handshake).into(),
    };
    engine.apply(set).await?;
    let message = along(&handshake.way, &handshake.decryptor, message);
    engine.transmit(engine.new_request(), message).await
}

/// Tells the peer that it is not welcome: the channel is closed before it is open.
fn refuse(engine: &EngineLink, handshake: Handshake, sealing_key: Secret) {
    let sealed = Sealer::new(sealing_key).seal(&CLOSE);
    let engine = engine.clone();
    tokio::spawn(async move {
        if let Ok(record) = sealed {
            let message = along(&handshake.way, &handshake.decryptor, &record);
            if let Err(error) = engine.transmit(engine.new_request(), message).await {
                tracing::debug!(%error, "a refusal was not sent");
            }
        }
        clear(&engine, vec![Gone { decryptor: handshake.decryptor }]);
    });
}

/// A message along the way back of a handshake.
fn along(way: &[u8], return_to: &str, payload: &[u8]) -> Vec<u8> {
    let way = Message::parse(way).expect("it was encoded here");
    let return_route = [AddressRef::local(return_to.as_bytes())];
    let outgoing = Outgoing {
        onward: RouteParts { front: &[], rest: way.onward },
        return_route: RouteParts::new(&return_route),
        payload_len: payload.len(),
        tracing: None,
    };
    outgoing.to_frame(payload).split_off(4)
}
