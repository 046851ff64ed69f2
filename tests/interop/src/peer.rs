//! A node of either kind.

use crate::{OurNode, RawPeer, RealNode};
use std::net::SocketAddr;

/// Whose node it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The real library's.
    Real,
    /// This project's.
    Ours,
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

    /// A link to it.
    pub fn link(&self) -> RawPeer {
        RawPeer::connect(self.address())
    }
}
