//! A pool that is empty at the moment that matters, which chance finds too seldom.

use super::*;

/// Frames that look alike are resealed one after the other. When there is no slot for the next one, it waits with the rest,
/// opened as it is, and all are answered once there are slots.
#[test]
fn a_record_that_finds_no_slot_waits() {
    const RECORDS: usize = 10;
    let one_core = |seed| Some(World::new(seed, false)).filter(|world| world.cores.len() == 1);
    let mut world = (0..).find_map(one_core).expect("some worlds have one core");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    world.set("echo", Target::Echo);
    world.connect(0, &listener, 0);
    let (link, address) = world.cores[0].links.iter().map(|link| (link.id, link.address)).next().unwrap();
    // What is around a record on this way is long, so that nothing which leaves the way out of account knows what fits.
    let beyond = [b'x'; 250];
    let onward = [&address[..], &beyond, &beyond, &beyond].map(AddressRef::local);
    let (onward, return_route) = (RouteParts::new(&onward), RouteParts::EMPTY);
    let way = Outgoing { onward, return_route, payload_len: 0, tracing: None }.to_frame(&[]);
    let [inward, outward] = [7, 8].map(|key| Secret::new([key; 32]));
    let channel = Arc::new(Channel::new(
        9,
        (b"encryptor".to_vec().into(), b"decryptor"[..].into()),
        9 << 32,
        1,
        false,
        Granted::new(&Grants::default(), 0),
        (Sealer::new(outward), Opener::new(inward)),
        crate::path::channel::read_way(&way[4..]).expect("it begins inside"),
        Some(link),
        crate::path::bucket::Bucket::new(9, 0),
    ));
    world.order_all(|request| ToCore::Install { request, channel: channel.clone(), reachable: 0b10, serial: request });
    // Until nothing happens any more.
    (0..200).for_each(|_| world.tick());

    let [inward, outward] = [7, 8].map(|key| Secret::new([key; 32]));
    let (mut sealer, mut opener) = (Sealer::new(inward), Opener::new(outward));
    let (echo, back) = ([AddressRef::local(b"echo")], [AddressRef::local(b"s")]);
    let (onward, return_route) = (RouteParts::new(&echo), RouteParts::new(&back));
    let text = OutgoingPlaintext::new(Outgoing { onward, return_route, payload_len: 64, tracing: None });
    let to = [AddressRef::local(b"decryptor")];
    let frames: Vec<u8> = (0..RECORDS)
        .flat_map(|number| {
            let record = sealer.seal(&text.to_text(&[number as u8; 64])).expect("nonces are left");
            let (onward, return_route) = (RouteParts::new(&to), RouteParts::EMPTY);
            Outgoing { onward, return_route, payload_len: record.len(), tracing: None }.to_frame(&record)
        })
        .collect();
    // An answer says as much as its question: where it came from is as long as where it goes.
    let record = text.text_len() + ockam_crypto::RECORD_OVERHEAD;
    let answer = channel.sealing().way.rest.prefix_len(record) + record;

    // There is room for three answers, and a little less than for another one.
    let core = &mut world.cores[0];
    let mut slot = core.pool.take().unwrap();
    let head = core.pool.small().head;
    slot.bytes_mut(head..head + frames.len()).copy_from_slice(&frames);
    assert!(core.has_scribe_room(1));
    let hoard: Vec<Slot> = std::iter::from_fn(|| core.pool.take()).collect();
    core.scribe.end += core.scribe_room() - (4 * answer - 1);
    core.on_received(link.index(), slot, frames.len());
    let ingest = &core.links[link.index()].ingest;
    assert!(ingest.blocked && ingest.opened.is_some() && ingest.parked.len() == 1, "{ingest:?}");
    assert_eq!(core.counters.get(Counter::RecordsSealed), 3);
    hoard.into_iter().for_each(|slot| core.pool.put(slot));

    let wire = world.clients[0].wire.clone();
    let (mut framer, mut answered) = (Framer::new(), 0);
    framer.push(&wire.borrow().from_core[1..]);
    let mut read = wire.borrow().from_core.len();
    for _ in 0..200 {
        world.tick();
        let mut wire = wire.borrow_mut();
        framer.push(&wire.from_core[read..]);
        read = wire.from_core.len();
        wire.read = read;
        while let Some(frame) = framer.next().expect("the core sends frames") {
            let message = Message::parse(frame).expect("the core sends messages");
            assert_eq!(message.onward.iter().map(|address| address.name.to_vec()).collect::<Vec<_>>(), [beyond; 3]);
            let mut record = message.payload.to_vec();
            let text = opener.open_in_place(&mut record).expect("a genuine record").text;
            let Ok(Plaintext::Payload(message)) = Plaintext::parse(text) else { panic!("no message") };
            assert_eq!(message.payload, [answered as u8; 64]);
            answered += 1;
        }
    }
    assert_eq!(answered, RECORDS);
    assert_eq!(world.cores[0].counters.get(Counter::RecordsOpened), RECORDS as u64);
    world.reset(0);
    world.ends_well(0);
}
