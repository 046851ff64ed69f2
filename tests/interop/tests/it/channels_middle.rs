//! A secure channel whose records are lost, kept, repeated and changed on their way (`wire.md` E.6, K.4, N.1). Each check
//! does it in both directions, so that the receiver is a real node once and a node of the tested kind once.

use ockam_interop::{Mailbox, Pair, Way, noise, with_payload};

both_ways!(the_window, a_fresh_window, reordered, repeated, changed, lost_within_the_window, lost_beyond_the_window,);

/// Record `n` carries `n`.
#[track_caller]
fn receive_number(mailbox: &mut Mailbox) -> u64 {
    u64::from_be_bytes(mailbox.receive().try_into().expect("a number"))
}

/// K.4, then both edges on both sides: the receiver accepts exactly these, whatever comes between.
fn the_window(pair: &Pair, way: Way) {
    /// The sequence of K.4 behind its first step, record 0, which has been accepted before. `true` is accepted.
    #[rustfmt::skip]
    const PUBLISHED: [(u64, bool); 13] = [
        (1, true),
        (0, false),
        (34, false),
        (33, true),
        (1, false),
        (34, true),
        (35, true),
        (33, false),
        (34, false),
        (64, true),
        (31, false),
        (96, true),
        (128, true),
    ];
    /// With 160 the highest: 33 ahead, 32 ahead; then, with 194 the highest, 32 behind, 33 behind, and a repetition.
    const EDGES: [(u64, bool); 7] =
        [(193, false), (192, true), (194, true), (162, true), (161, false), (162, false), (195, true)];
    let accepted = |range: std::ops::RangeInclusive<u64>| range.map(|n| (n, true));
    let sequence = PUBLISHED.into_iter().chain(accepted(97..=127)).chain(accepted(129..=160)).chain(EDGES);
    check_sequence(pair, way, &sequence.collect::<Vec<_>>());
}

/// With record 0 the highest: 33 is too far, 32 is not (N.1), and neither is anything between them.
fn a_fresh_window(pair: &Pair, way: Way) {
    check_sequence(
        pair,
        way,
        &[(33, false), (32, true), (33, true), (1, true), (0, false), (65, true), (32, false), (34, true)],
    );
}

/// Has enough records made, and sends them in this order. What is accepted arrives, in this order, and nothing else does.
fn check_sequence(pair: &Pair, way: Way, sequence: &[(u64, bool)]) {
    let last = sequence.iter().map(|(n, _)| *n).max().expect("a sequence");
    let mut mailbox = pair.mailbox();
    pair.middle.hold(way);
    (1..=last).for_each(|n| mailbox.send(&n.to_be_bytes()));
    pair.middle.held(way, last as usize);
    for (n, _) in sequence {
        pair.middle.send(way, &pair.middle.record(way, *n));
    }
    // When these were requests, their answers pass.
    for (n, _) in sequence.iter().filter(|(_, accepted)| *accepted) {
        assert_eq!(receive_number(&mut mailbox), *n);
    }
    // Until here everything before the next record was in order.
    pair.middle.pass(way);
    mailbox.assert_alive_and_silent();
}

/// Blocks of 32, each back to front: the first of them is at the far edge, the last at the near one.
fn reordered(pair: &Pair, way: Way) {
    let mut mailbox = pair.mailbox();
    let mut next = 1;
    for block in [32, 32, 7, 32, 20, 32, 32] {
        pair.middle.hold(way);
        let numbers = next..next + block as u64;
        numbers.clone().for_each(|n| mailbox.send(&n.to_be_bytes()));
        let records = pair.middle.held(way, block);
        records.iter().rev().for_each(|record| pair.middle.send(way, record));
        for n in numbers.rev() {
            assert_eq!(receive_number(&mut mailbox), n);
        }
        next += block as u64;
    }
    pair.middle.pass(way);
    mailbox.assert_alive_and_silent();
}

/// Every record comes three times, and the first one of all again and again.
fn repeated(pair: &Pair, way: Way) {
    let first = pair.middle.record(way, 0);
    pair.middle.rule_for_records(way, move |body| vec![body.clone(), body.clone(), first.clone(), body]);
    let mut mailbox = pair.mailbox();
    mailbox.echo_all(&(0..200).map(|i| noise(16, i)).collect::<Vec<_>>());
    mailbox.assert_alive_and_silent();
}

/// In front of every record come copies of it in which a bit is another one, or the length, or which are hardly there.
/// None arrives, and none harms the one that does.
fn changed(pair: &Pair, way: Way) {
    pair.middle.rule_for_records(way, |body| {
        let bits = [0, 4, 7, 8, 9, 20];
        let flip = |position: usize| with_payload(&body, |record| record[position] ^= 0x10);
        let flip_behind = |behind: usize| {
            with_payload(&body, |record| {
                let position = record.len() - behind;
                record[position] ^= 1;
            })
        };
        let cut = |len: usize| with_payload(&body, |record| record.truncate(len));
        let mut bodies: Vec<_> = bits.map(flip).into();
        bodies.extend([1, 16, 17].map(flip_behind));
        bodies.extend([0, 1, 7, 8, 9, 23, 24, 25].map(cut));
        bodies.push(with_payload(&body, |record| record.push(0)));
        bodies.push(with_payload(&body, |record| record.truncate(record.len() - 1)));
        // The next nonce, and the largest.
        bodies.push(with_payload(&body, |record| record[7] = record[7].wrapping_add(1)));
        bodies.push(with_payload(&body, |record| record[..8].fill(0xff)));
        bodies.push(body);
        bodies
    });
    let mut mailbox = pair.mailbox();
    mailbox.echo_all(&(0..70).map(|i| noise(16, i)).collect::<Vec<_>>());
    mailbox.assert_alive_and_silent();
}

/// 31 records in a row are lost, again and again: the one behind them is as far ahead as may be.
fn lost_within_the_window(pair: &Pair, way: Way) {
    let mut mailbox = pair.mailbox();
    for round in 0..5 {
        pair.middle.hold(way);
        (0..31).for_each(|i| mailbox.send(&noise(16, i)));
        pair.middle.held(way, 31);
        pair.middle.pass(way);
        let payload = noise(16, 1000 + round);
        mailbox.send(&payload);
        assert_eq!(hex::encode(mailbox.receive()), hex::encode(payload), "round {round}");
    }
}

/// 32 lost in a row are one too many: nothing that follows is accepted. The one that would have been the last to be
/// accepted still is, and with it what follows.
fn lost_beyond_the_window(pair: &Pair, way: Way) {
    let mut mailbox = pair.mailbox();
    pair.middle.hold(way);
    (1..=60u64).for_each(|n| mailbox.send(&n.to_be_bytes()));
    let records = pair.middle.held(way, 60);
    records[32..].iter().for_each(|record| pair.middle.send(way, record));
    pair.middle.send(way, &records[31]);
    assert_eq!(receive_number(&mut mailbox), 32);
    records[32..].iter().for_each(|record| pair.middle.send(way, record));
    for n in 33..=60 {
        assert_eq!(receive_number(&mut mailbox), n);
    }
    pair.middle.pass(way);
    mailbox.assert_alive_and_silent();
}
