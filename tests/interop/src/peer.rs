//! A node of either kind.

use crate::{OurNode, RawPeer, RealNode};
use ockam::{Route, route};
use std::net::SocketAddr;

/// Whose node it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The real library's.
    Real,
    /// This project's.
    Ours,
}

impl Kind {
    /// Every way to have three nodes in a row.
    pub const MIXTURES_OF_THREE: [[Kind; 3]; 8] = {
        use Kind::{Ours, Real};
        [
            [Real, Real, Real],
            [Real, Real, Ours],
            [Real, Ours, Real],
            [Real, Ours, Ours],
            [Ours, Real, Real],
            [Ours, Real, Ours],
            [Ours, Ours, Real],
            [Ours, Ours, Ours],
        ]
    };
}

/// A node of either kind that serves `echo` and `uppercase`.
#[expect(clippy::large_enum_variant, reason = "a test holds a handful of them")]
pub enum Peer {
    /// The real library's.
    Real(RealNode),
    /// This project's.
    Ours(OurNode),
}

impl Peer {
    /// Starts a node.
    pub fn start(kind: Kind) -> Peer {
        match kind {
            Kind::Real => Peer::Real(RealNode::start()),
            Kind::Ours => Peer::Ours(OurNode::start()),
        }
    }

    /// Starts a node that also serves `hop`.
    pub fn start_with_hop(kind: Kind) -> Peer {
        let peer = Peer::start(kind);
        if let Peer::Ours(node) = &peer {
            node.start_hop();
        }
        peer
    }

    /// Whose node it is.
    pub fn kind(&self) -> Kind {
        match self {
            Peer::Real(_) => Kind::Real,
            Peer::Ours(_) => Kind::Ours,
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        match self {
            Peer::Real(node) => node.address(),
            Peer::Ours(node) => node.address(),
        }
    }

    /// Has it dial a node. Gives the local address of the connection.
    pub fn connect(&self, to: SocketAddr) -> String {
        match self {
            Peer::Real(node) => node.connect(to),
            Peer::Ours(node) => node.connect(to),
        }
    }

    /// Has it listen for channels at `api`, for everyone. Ours does so by itself.
    pub fn serve_channels(&self) {
        if let Peer::Real(node) = self {
            node.serve_channels();
        }
    }

    /// Has it open a channel along local addresses, of which the last is a listener's. Gives the local address of the
    /// channel. One message went through it in each direction: ours asks for an echo by itself.
    #[track_caller]
    pub fn open(&self, way: &[&str]) -> String {
        match self {
            Peer::Real(node) => {
                let channel = node.open(Route::create(way.to_vec()));
                assert_eq!(node.ask(route![channel.clone(), "echo"], b"are you there?"), b"are you there?");
                channel.encryptor_address().address().to_owned()
            }
            Peer::Ours(node) => node.open(&multiaddr(way), &[]),
        }
    }

    /// Has it send `payload` along local addresses and gives the payload of the answer.
    #[track_caller]
    pub fn ask(&self, way: &[&str], payload: &[u8]) -> Vec<u8> {
        match self {
            Peer::Real(node) => node.ask(Route::create(way.to_vec()), payload),
            Peer::Ours(node) => {
                let printed = node.send(&hex::encode(payload), &multiaddr(way), &["--hex"]);
                hex::decode(printed.trim_end()).expect("`message send --hex` prints hexadecimal")
            }
        }
    }

    /// A link to it.
    pub fn link(&self) -> RawPeer {
        RawPeer::connect(self.address())
    }
}

/// Local addresses as our command wants them.
fn multiaddr(way: &[&str]) -> String {
    way.iter().map(|address| format!("/service/{address}")).collect()
}
