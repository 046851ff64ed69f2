//! Load of an authority: members that ask through secure channels, and every credential verified that they get.

use super::{Load, link};
use crate::opener::Opener;
use ockam_bench::channel::{Channel, Identity, Name, addressee, now};
use ockam_bench::flow::Frames;
use ockam_bench::request;
use ockam_crypto::{ChangeHistory, Credential, Identifier};
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How many members one answer lists at most.
const PAGE: u64 = 1000;

/// A node takes 512 messages per second and link for its control process, 256 of them at once, and drops the others:
/// requests of a link keep below that.
const PAUSE: Duration = Duration::from_micros(2_200);
const AT_ONCE: u32 = 64;

/// A member of the load with a key, and what its credentials must say besides the project.
pub struct Member {
    /// Who it is.
    pub identity: Identity,
    /// Names and values.
    pub attributes: Vec<(&'static str, String)>,
}

/// Secure channels over one link, through which anything may be asked.
struct Line {
    stream: TcpStream,
    channels: Vec<Channel>,
    places: HashMap<Name, usize>,
    /// Who is at the other end.
    peer: ChangeHistory,
    frames: Frames,
    unsent: Vec<u8>,
    /// When all that was sent would have been, one each [`PAUSE`].
    due: Instant,
}

impl Line {
    /// A channel for each identity, in their order.
    fn open(address: SocketAddr, identities: Vec<Identity>) -> io::Result<Line> {
        let count = identities.len();
        let mut opener = Opener::new(link(address)?, identities);
        let (mut channels, mut places) = (Vec::with_capacity(count), HashMap::with_capacity(count));
        for place in 0..count {
            for (name, channel) in opener.open(1, 1)? {
                places.insert(name, place);
                channels.push(channel);
            }
        }
        let peer = opener.peer().cloned().ok_or_else(|| io::Error::other("a line has a channel"))?;
        let (stream, due) = (opener.into_link(), Instant::now());
        Ok(Line { stream, channels, places, peer, frames: Frames::default(), unsent: Vec::new(), due })
    }

    /// Writes a request, when it is time for it.
    fn send(&mut self, place: usize, service: &str, payload: &[u8]) -> io::Result<()> {
        let now = Instant::now();
        self.due = (self.due + PAUSE).max(now);
        let early = self.due.saturating_duration_since(now + PAUSE * AT_ONCE);
        if !early.is_zero() {
            self.flush()?;
            std::thread::sleep(early);
        }
        self.channels[place].request(service, payload, &mut self.unsent);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// Sends what was written, receives once (blocking), and gives what came, with the places of the channels.
    fn receive(&mut self) -> io::Result<Vec<(usize, Vec<u8>)>> {
        self.flush()?;
        let silent = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "a request was not answered"),
            _ => error,
        };
        if !self.frames.receive(&self.stream).map_err(silent)? {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the system closed the connection"));
        }
        let mut came = Vec::new();
        while let Some(frame) = self.frames.take()? {
            let place = addressee(frame).and_then(|name| self.places.get(&name).copied());
            let place = place
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a frame for no channel of the link"))?;
            came.push((place, self.channels[place].response(frame)?));
        }
        Ok(came)
    }

    fn close(mut self) -> io::Result<()> {
        self.channels.iter_mut().for_each(|channel| channel.sending.close(&mut self.unsent));
        self.flush()
    }
}

/// Has an enroller add members, so many requests under way at once. Each answer is looked at.
///
/// # Errors
/// What the socket says; `InvalidData` for an answer that is not the right one.
pub fn add_members(
    address: SocketAddr,
    enroller: Identity,
    at_once: usize,
    mut members: impl Iterator<Item = (Identifier, Vec<(&'static str, String)>)>,
) -> io::Result<()> {
    let mut line = Line::open(address, vec![enroller])?;
    let mut sent = 0;
    // Answers may overtake each other.
    let mut under_way = HashSet::new();
    loop {
        while under_way.len() < at_once {
            let Some((member, attributes)) = members.next() else { break };
            let attributes: Vec<_> = attributes.iter().map(|(name, value)| (*name, value.as_str())).collect();
            sent += 1;
            under_way.insert(sent);
            line.send(0, request::MEMBERS, &request::add_member(sent, &member, &attributes))?;
        }
        if under_way.is_empty() {
            return line.close();
        }
        for (_, payload) in line.receive()? {
            let (id, _) = request::answer(&payload)?;
            if !under_way.remove(&id) {
                return Err(unasked(id));
            }
        }
    }
}

/// Lists the identifiers of all members, page by page.
///
/// # Errors
/// As [`add_members`].
pub fn member_ids(address: SocketAddr, enroller: Identity) -> io::Result<Vec<Identifier>> {
    let mut line = Line::open(address, vec![enroller])?;
    let mut all: Vec<Identifier> = Vec::new();
    for id in 1.. {
        line.send(0, request::MEMBERS, &request::member_ids(id, all.last(), PAGE))?;
        let mut came = line.receive()?;
        while came.is_empty() {
            came = line.receive()?;
        }
        let page = request::identifiers(answer(id, &came[0].1)?)?;
        all.extend_from_slice(&page);
        if page.len() < PAGE as usize {
            break;
        }
    }
    line.close()?;
    Ok(all)
}

/// Has one member get a credential over a link and a channel of its own, and verifies it.
///
/// # Errors
/// As [`add_members`].
pub fn credential(address: SocketAddr, project: &str, member: Member) -> io::Result<()> {
    let (identities, expected) = split(project, vec![member]);
    let mut line = Line::open(address, identities)?;
    line.send(0, request::ISSUER, &request::issue(1))?;
    loop {
        if let Some((_, payload)) = line.receive()?.first() {
            verify(answer(1, payload)?, &expected[0], &line.peer)?;
            return line.close();
        }
    }
}

impl Load {
    /// Members that ask an authority for a credential each in turn, over so many links, so many at once on each. They have
    /// channels when this returns. Every credential is verified, and compared with what its member has.
    pub fn credentials(
        address: SocketAddr,
        project: &str,
        mut members: Vec<Member>,
        links: usize,
        at_once: usize,
    ) -> io::Result<Load> {
        let mut load = Load::new();
        for left in (1..=links).rev() {
            let dealt = members.split_off(members.len() - members.len() / left);
            let (identities, expected) = split(project, dealt);
            let line = Line::open(address, identities)?;
            load.thread(move |frames, stop| ask_in_turn(line, &expected, at_once, frames, stop));
        }
        Ok(load)
    }
}

/// Who a credential must be about, and what it must say.
type Expected = (Identifier, Vec<(&'static str, String)>);

fn split(project: &str, members: Vec<Member>) -> (Vec<Identity>, Vec<Expected>) {
    let split = |Member { identity, mut attributes }: Member| {
        attributes.push(("trust_context_id", project.to_owned()));
        attributes.sort();
        let expected = (identity.identifier(), attributes);
        (identity, expected)
    };
    members.into_iter().map(split).unzip()
}

fn ask_in_turn(
    mut line: Line,
    expected: &[Expected],
    at_once: usize,
    frames: &AtomicU64,
    stop: &AtomicBool,
) -> io::Result<()> {
    let mut rest: VecDeque<usize> = (0..expected.len()).collect();
    let mut asked = vec![0; expected.len()];
    let (mut id, mut under_way) = (0, 0);
    loop {
        while !stop.load(Ordering::Relaxed) && under_way < at_once {
            let Some(place) = rest.pop_front() else { break };
            id += 1;
            asked[place] = id;
            under_way += 1;
            line.send(place, request::ISSUER, &request::issue(id))?;
        }
        if under_way == 0 {
            return line.close();
        }
        for (place, payload) in line.receive()? {
            let body = answer(asked[place], &payload)?;
            verify(body, &expected[place], &line.peer)?;
            frames.fetch_add(1, Ordering::Relaxed);
            under_way -= 1;
            rest.push_back(place);
        }
    }
}

/// The body of the answer to the only request under way.
fn answer(id: u32, payload: &[u8]) -> io::Result<&[u8]> {
    match request::answer(payload)? {
        (to, body) if to == id => Ok(body),
        (to, _) => Err(unasked(to)),
    }
}

fn unasked(id: u32) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("an answer to request {id}, which is not under way"))
}

fn verify(encoded: &[u8], (subject, attributes): &Expected, authority: &ChangeHistory) -> io::Result<()> {
    let invalid = |why: String| io::Error::new(io::ErrorKind::InvalidData, format!("a credential of {subject}: {why}"));
    let credential =
        Credential::verify(encoded, subject, [authority], now()).map_err(|error| invalid(error.to_string()))?;
    let said = credential.attributes().texts();
    match said.eq(attributes.iter().map(|(name, value)| (*name, value.as_str()))) {
        true => Ok(()),
        false => Err(invalid("it says other attributes than the member has".into())),
    }
}
