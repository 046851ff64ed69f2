//! The pure path without a kernel: what reading a message, deciding about it and writing its new prefix cost. Times are
//! per message; each case ends in the verdict it is named after.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ockam_bench::flow::Flow;
use ockam_engine::path::route::{Ingress, Verdict, route};
use ockam_engine::path::tables::{Access, Connection, Directory, Replies, ReplyKey, Tables};
use ockam_engine::path::trail::Walk;
use ockam_engine_abi::{LinkId, Target};
use ockam_wire::{Address, Message, Outgoing};
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

const HERE: [u8; 32] = *b"00000000000000000000000000000001";
const THERE: [u8; 32] = *b"00000000000000000000000000000002";
const FLOW_CONTROL: u8 = 1;
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A node with two links, and as many others as a busy one has.
struct Node {
    tables: Tables,
    replies: Replies,
    here: LinkId,
    there: LinkId,
}

impl Node {
    fn new() -> Node {
        let mut tables = Tables::new(Arc::new(Directory::default()), false);
        let mut replies = Replies::new();
        let (here, there) = (LinkId::new(0, 1, 1), LinkId::new(0, 2, 1));
        tables.add_connection(HERE, Connection::Link(here));
        tables.add_connection(THERE, Connection::Link(there));
        for index in 3..1000_u32 {
            let mut address = HERE;
            address[..4].copy_from_slice(&index.to_le_bytes());
            tables.add_connection(address, Connection::Link(LinkId::new(0, index, 1)));
        }
        replies.admit(ReplyKey::Link(there));
        for (serial, (name, target)) in
            [("echo", Target::Echo), ("uppercase", Target::Uppercase), ("hop", Target::Hop)].into_iter().enumerate()
        {
            let access = Access { reachable: 1 << FLOW_CONTROL, guard: None };
            tables.set(name.as_bytes(), target, access, serial as u64);
        }
        Node { tables, replies, here, there }
    }

    /// Reads, decides and writes the prefix of what is sent; which link it is sent on.
    fn handle(&self, body: &[u8], prefix: &mut [u8]) -> LinkId {
        let message = Message::parse(body).expect("a message");
        let mut walk = Walk::of(&message);
        let ingress = Ingress::Link { link: self.here, address: &HERE, flow_control: FLOW_CONTROL, peer: PEER };
        match route(&self.tables, ingress, &self.replies, &message, &mut walk, 0) {
            Verdict::Send { link, .. } => {
                let outgoing = Outgoing {
                    onward: walk.onward.parts(),
                    return_route: walk.back.parts(),
                    payload_len: message.payload.len(),
                    tracing: message.tracing,
                };
                let length = outgoing.prefix_len();
                outgoing.write_prefix(&mut prefix[..length]);
                link
            }
            other => panic!("{other:?}"),
        }
    }
}

fn body(onward: &[Address]) -> Vec<u8> {
    let mut frame = Vec::new();
    Flow::new(onward, &[Address::local("0123456789abcdef0123456789abcdef")], 64).write(0, &mut frame);
    frame.split_off(4)
}

fn path(criterion: &mut Criterion) {
    let node = Node::new();
    let cases = [
        ("echo", body(&[Address::local("echo")]), node.here),
        ("relay", body(&[Address::local(THERE), Address::local("sink")]), node.there),
        ("hop", body(&[Address::local("hop"), Address::local(THERE), Address::local("sink")]), node.there),
    ];
    let mut prefix = [0; 512];

    let mut group = criterion.benchmark_group("64 B");
    group.throughput(Throughput::Elements(1));
    for (name, body, link) in &cases {
        assert_eq!(node.handle(body, &mut prefix), *link, "{name} goes where it should");
        group.bench_function(format!("{name}: parse"), |bencher| {
            bencher.iter(|| Message::parse(black_box(body)).is_ok());
        });
        group.bench_function(format!("{name}: parse, route"), |bencher| {
            bencher.iter(|| {
                let message = Message::parse(black_box(body)).expect("a message");
                let ingress = Ingress::Link { link: node.here, address: &HERE, flow_control: FLOW_CONTROL, peer: PEER };
                let mut walk = Walk::of(&message);
                let sent =
                    matches!(route(&node.tables, ingress, &node.replies, &message, &mut walk, 0), Verdict::Send { .. });
                black_box(&walk);
                sent
            });
        });
        group.bench_function(format!("{name}: parse, route, write prefix"), |bencher| {
            bencher.iter(|| black_box(node.handle(black_box(body), black_box(&mut prefix))));
        });
    }
    group.finish();
    floor(criterion);
}

/// What the floor's loop does to a frame instead.
fn floor(criterion: &mut Criterion) {
    let mut frames = Vec::new();
    let flow = Flow::new(&[Address::local("echo")], &[Address::local("0123456789abcdef0123456789abcdef")], 64);
    (0..1000).for_each(|sequence| flow.write(sequence, &mut frames));
    let mut group = criterion.benchmark_group("64 B");
    group.throughput(Throughput::Elements(1000));
    group.bench_function("floor: 1000 frames swapped", |bencher| {
        let mut swap = ockam_bench::relay::Swap::default();
        bencher.iter(|| {
            let room = swap.input.room();
            swap.input.bytes[room][..frames.len()].copy_from_slice(&frames);
            swap.input.received(frames.len());
            swap.output.clear();
            swap.answer().expect("frames");
            black_box(swap.output.len())
        });
    });
    group.finish();
}

criterion_group!(benches, path);
criterion_main!(benches);
