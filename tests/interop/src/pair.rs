//! A secure channel with a man in the middle.

use crate::{Kind, Mailbox, Middle, Peer, RealNode, Way};
use ockam::{Address, route};

/// Which end of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role {
    /// Opened it.
    Initiator,
    /// Accepted it.
    Responder,
}

/// A channel between a real node, from which tests drive it, and a node of either kind. One message went through it in
/// each direction.
pub struct Pair {
    /// The real node.
    pub near: RealNode,
    /// The encryptor of its end.
    pub end: Address,
    /// The other node.
    pub far: Peer,
    /// The encryptor of the other node's end, when that opened the channel.
    pub far_end: Option<String>,
    /// Between them.
    pub middle: Middle,
    /// The local address of the connection, at the node that opened the channel.
    pub connection: String,
    role: Role,
}

impl Pair {
    /// Opens a channel whose far end is of this kind and has this role.
    pub fn open(far: Kind, role: Role) -> Pair {
        let (near, far) = (RealNode::start(), Peer::start(far));
        match role {
            Role::Responder => {
                far.serve_channels();
                let middle = Middle::before(far.address());
                let connection = near.connect(middle.address());
                let channel = near.open(route![connection.as_str(), "api"]);
                let end = channel.encryptor_address().clone();
                assert_eq!(near.ask(route![channel, "echo"], b"are you there?"), b"are you there?");
                Pair { near, end, far, far_end: None, middle, connection, role }
            }
            Role::Initiator => {
                near.serve_channels();
                let middle = Middle::before(near.address());
                let connection = far.connect(middle.address());
                let far_end = far.open(&[&connection, "api"]);
                let [(end, _)] = &near.ends(1)[..] else { unreachable!("one end was asked for") };
                Pair { end: end.clone(), near, far, far_end: Some(far_end), middle, connection, role }
            }
        }
    }

    /// The direction towards the far end.
    pub fn to_far(&self) -> Way {
        if self.role == Role::Responder { Way::ToTarget } else { Way::ToDialer }
    }

    /// The direction towards the real node from which the channel is driven.
    pub fn to_near(&self) -> Way {
        if self.role == Role::Responder { Way::ToDialer } else { Way::ToTarget }
    }

    /// At the real node.
    pub fn mailbox(&self) -> Mailbox<'_> {
        self.near.mailbox(&self.end)
    }
}
