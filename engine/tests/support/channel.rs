//! Channels between an engine of a test and the test: both ends get their keys, and this side of the wire is made of the
//! crypto crate.

use super::{Engine, FLOW, Peer, frame};
use ockam_crypto::{Opener, OutgoingPlaintext, Plaintext, Sealer, Secret};
use ockam_engine_abi::{Command, Key, LinkId, Notice};
use ockam_wire::{Address, AddressRef, Outgoing, RouteParts};
use std::net::SocketAddr;

/// The flow control of what comes out of the channels here.
pub const CHANNEL_FLOW: u8 = 9;
pub const INWARD: [u8; 32] = [0x11; 32];
pub const OUTWARD: [u8; 32] = [0x22; 32];
pub const DECRYPTOR: &str = "dddddddddddddddddddddddddddddddd";
pub const ENCRYPTOR: &str = "eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee";
pub const PEERS: &str = "iiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii";

/// The peer's end of a channel.
pub struct End {
    pub sealer: Sealer,
    pub opener: Opener,
    /// The engine's end.
    pub decryptor: String,
}

impl End {
    pub fn new(number: u32) -> End {
        let [mut inward, mut outward] = [INWARD, OUTWARD];
        inward[31] = number as u8;
        outward[31] = number as u8;
        End {
            sealer: Sealer::new(Secret::new(inward)),
            opener: Opener::new(Secret::new(outward)),
            decryptor: name(DECRYPTOR, number),
        }
    }

    /// A frame with a message to `onward` behind the engine's end.
    pub fn frame(&mut self, onward: &[&str], back: &[&str], payload: &[u8]) -> Vec<u8> {
        let record = self.record(onward, back, payload, None);
        frame(&[&self.decryptor], &[], &record)
    }

    pub fn record(&mut self, onward: &[&str], back: &[&str], payload: &[u8], tracing: Option<&str>) -> Vec<u8> {
        let parse = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect::<Vec<Address>>();
        let (onward, back) = (parse(onward), parse(back));
        let refs = |addresses: &'static [Address]| addresses.iter().map(Address::as_ref).collect::<Vec<AddressRef>>();
        let (onward, back) = (refs(onward.leak()), refs(back.leak()));
        let outgoing = OutgoingPlaintext::new(Outgoing {
            onward: RouteParts::new(&onward),
            return_route: RouteParts::new(&back),
            payload_len: payload.len(),
            tracing,
        });
        self.seal(&outgoing.to_text(payload))
    }

    pub fn seal(&mut self, text: &[u8]) -> Vec<u8> {
        self.sealer.seal(text).unwrap()
    }

    /// What the engine's end sent: the inner onward route, return route and payload.
    pub fn open(&mut self, record: &[u8]) -> (Vec<Address>, Vec<Address>, Vec<u8>) {
        let mut record = record.to_vec();
        let text = self.opener.open_in_place(&mut record).expect("the engine seals with its key").text;
        let Ok(Plaintext::Payload(message)) = Plaintext::parse(text) else { panic!("{text:02x?}") };
        let own = |route: ockam_wire::Route<'_>| route.iter().map(AddressRef::to_address).collect();
        (own(message.onward), own(message.return_route), message.payload.to_vec())
    }

    pub fn receive(&mut self, peer: &mut Peer) -> (Vec<Address>, Vec<Address>, Vec<u8>) {
        let sealed = peer.receive();
        assert!(sealed.back.is_empty(), "a record has no return route");
        self.open(&sealed.payload)
    }
}

pub fn name(base: &str, number: u32) -> String {
    format!("{}{number:02}", &base[2..])
}

pub fn address(text: &str) -> Address {
    text.parse().unwrap()
}

/// Which link the engine has with this peer, and its local address.
pub fn link_of(engine: &mut Engine, peer: SocketAddr) -> (LinkId, String) {
    let request = engine.request();
    engine.send(Command::Dump { request }, None);
    let mut found = None;
    loop {
        match engine.notice().0 {
            Notice::Link { link, address, peer: far, .. } if far == peer => {
                found = Some((link, String::from_utf8(address.0).unwrap()));
            }
            Notice::DumpEnd { .. } => return found.expect("the engine has that link"),
            _ => {}
        }
    }
}

/// The command that makes the engine the responder of channel `number` towards the peer behind `link`.
pub fn install(engine: &mut Engine, number: u32, way: &[&str], expires_in_ms: Option<u64>) -> Command {
    let [mut inward, mut outward] = [INWARD, OUTWARD];
    inward[31] = number as u8;
    outward[31] = number as u8;
    Command::InstallChannel {
        request: engine.request(),
        channel: number,
        decryptor: name(DECRYPTOR, number).into_bytes().into(),
        encryptor: name(ENCRYPTOR, number).into_bytes().into(),
        sealing_key: Key::new(&outward),
        opening_key: Key::new(&inward),
        way: frame(way, &[], &[])[4..].to_vec().into(),
        follows_peer: true,
        reachable: 1 << FLOW,
        flow_control: CHANNEL_FLOW,
        expires_in_ms,
        grants: ockam_engine_abi::Grants::default(),
        cookie: vec![4, 4].into(),
    }
}

pub fn installed(engine: &mut Engine, command: Command) {
    let Command::InstallChannel { request, .. } = command else { unreachable!() };
    engine.send(command, None);
    engine.applied(request);
}

pub fn another(engine: &mut Engine, at: SocketAddr, number: u32) -> (Peer, End) {
    let mut peer = Peer::connect(at);
    peer.send(&frame(&["echo"], &["me"], b"up"));
    peer.receive();
    let (_, link) = link_of(engine, peer.stream.local_addr().unwrap());
    let command = install(engine, number, &[&link, PEERS], None);
    installed(engine, command);
    (peer, End::new(number))
}
