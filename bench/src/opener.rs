//! Opens secure channels over one link, many at once.

use ockam_bench::channel::{Channel, Handshake, Identity, Name, addressee};
use ockam_bench::flow::Frames;
use ockam_crypto::{ChangeHistory, Peer};
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::TcpStream;

/// See the module.
pub struct Opener {
    stream: TcpStream,
    /// Used in turn.
    identities: Vec<Identity>,
    begun: usize,
    under_way: HashMap<Name, Stage>,
    /// Who is at the other end, once it has said so: an initiator remembers it, too.
    peer: Option<Peer>,
    frames: Frames,
    unsent: Vec<u8>,
}

/// How far a channel is.
enum Stage {
    /// Message 1 was sent, by the identity with this number.
    Begun(Box<Handshake>, usize),
    /// Message 3 was sent, and a message through the channel.
    Asked(Box<Channel>),
}

impl Opener {
    /// Over a link that is up and that nobody else uses.
    pub fn new(stream: TcpStream, identities: Vec<Identity>) -> Opener {
        Opener {
            stream,
            identities,
            begun: 0,
            under_way: HashMap::new(),
            peer: None,
            frames: Frames::default(),
            unsent: Vec::new(),
        }
    }

    /// Begins another one.
    ///
    /// # Errors
    /// What the system's random numbers say.
    pub fn begin(&mut self) -> io::Result<()> {
        let (frame_1, handshake) = Handshake::begin()?;
        self.unsent.extend_from_slice(&frame_1);
        let identity = self.begun % self.identities.len();
        self.begun += 1;
        self.under_way.insert(handshake.decryptor(), Stage::Begun(Box::new(handshake), identity));
        Ok(())
    }

    /// Channels that are begun and have not answered yet.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Closes a channel.
    pub fn close(&mut self, mut channel: Channel) {
        channel.sending.close(&mut self.unsent);
    }

    /// Has an open channel answer once more.
    pub fn ask(&mut self, name: Name, mut channel: Channel) {
        channel.ask(&mut self.unsent);
        self.under_way.insert(name, Stage::Asked(Box::new(channel)));
    }

    /// Sends what was written.
    ///
    /// # Errors
    /// What the socket says.
    pub fn flush(&mut self) -> io::Result<()> {
        (&self.stream).write_all(&self.unsent)?;
        self.unsent.clear();
        Ok(())
    }

    /// Sends what was written, receives once (blocking) and goes on with every channel that got something. Gives those
    /// that have answered, with the address that they are received at.
    ///
    /// # Errors
    /// What the socket says; `InvalidData` for what is not the next message of a channel under way.
    pub fn receive(&mut self) -> io::Result<Vec<(Name, Channel)>> {
        self.flush()?;
        let silent = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => io::Error::new(error.kind(), "a handshake was not answered"),
            _ => error,
        };
        if !self.frames.receive(&self.stream).map_err(silent)? {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the system closed the connection"));
        }
        let mut open = Vec::new();
        while let Some(frame) = self.frames.take()? {
            let stage = addressee(frame).and_then(|name| self.under_way.remove_entry(&name));
            match stage {
                Some((name, Stage::Begun(handshake, identity))) => {
                    let (frame_3, mut channel, peer) =
                        handshake.finish(&self.identities[identity], self.peer.as_ref(), frame)?;
                    self.peer = Some(peer);
                    self.unsent.extend_from_slice(&frame_3);
                    channel.ask(&mut self.unsent);
                    self.under_way.insert(name, Stage::Asked(Box::new(channel)));
                }
                Some((name, Stage::Asked(mut channel))) => {
                    channel.answered(frame)?;
                    open.push((name, *channel));
                }
                None => return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame for no channel under way")),
            }
        }
        Ok(open)
    }

    /// Opens so many, `at_once` at a time.
    ///
    /// # Errors
    /// As [`Opener::receive`].
    pub fn open(&mut self, count: usize, at_once: usize) -> io::Result<Vec<(Name, Channel)>> {
        let mut open = Vec::with_capacity(count);
        while open.len() < count {
            while self.under_way() < at_once.min(count - open.len()) {
                self.begin()?;
            }
            open.extend(self.receive()?);
        }
        Ok(open)
    }

    /// Gives up what is under way on channels that are open: gives these channels back. Nothing else must be.
    ///
    /// # Panics
    /// A handshake is under way.
    pub fn give_up(&mut self) -> Vec<(Name, Channel)> {
        let given_up = |(name, stage)| match stage {
            Stage::Asked(mut channel) => {
                channel.give_up();
                (name, *channel)
            }
            Stage::Begun(..) => panic!("a handshake is under way"),
        };
        self.under_way.drain().map(given_up).collect()
    }

    /// Who is at the other end, once a channel was opened.
    pub fn peer(&self) -> Option<&ChangeHistory> {
        self.peer.as_ref().map(|peer| &peer.history)
    }

    /// The link, when nothing is under way on it.
    pub fn into_link(self) -> TcpStream {
        self.stream
    }
}
