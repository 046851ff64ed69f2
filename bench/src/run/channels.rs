//! Secure channels: sealed messages to `echo`, what sealing costs beside the bare cipher, handshakes, idle channels.

use super::{Contender, Loader, column, driver_notes, frames_row, interleave};
use crate::load::{self, Load, Measured};
use crate::machine::{self, Memory};
use crate::opener::Opener;
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::Summary;
use crate::system::{Failed, Owner, Setup, System};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ockam_bench::channel::Identity;
use ockam_crypto::{RECORD_OVERHEAD, Sealer, Secret};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// In flight of small messages, and the goal per CPU-second on the reference class.
const SMALL: (usize, u64, f64) = (64, 4096, 3.0e6);
/// Large payloads, and how many are in flight.
const LARGE: [(usize, &str); 3] = [(16 * 1024, "16 KiB"), (64 * 1024, "64 KiB"), (128 * 1024, "128 KiB")];
const LARGE_IN_FLIGHT: u64 = 16;
/// Of the bare cipher's speed.
const CIPHER_SHARE: f64 = 0.85;
/// Links that handshakes come over, how many are under way on each, and the goal per CPU-second of both ends. A node hears
/// 512 messages per second and link that are for control, two per handshake, and what is more it drops: with half as
/// many links it did so when the machine had a fast moment, and nobody answers who is not heard.
const LINKS: usize = 32;
const AT_ONCE: usize = 1;
const HANDSHAKES: f64 = 2500.0;
/// Of a new identity each, as many as can be wanted in a second.
const STRANGERS_PER_S: f64 = 3000.0;
/// Idle channels, the links that they share, how many are opened on one before the next one's turn, and the goal per
/// channel.
const IDLE: usize = 10_000;
const IDLE_LINKS: usize = 50;
const IDLE_TURN: usize = 10;
const IDLE_BYTES_MAX: f64 = 4096.0;

fn sealed<'a>(system: &'a System, payload_len: usize, in_flight: u64) -> Contender<'a> {
    let load: Loader<'a> = Box::new(move |system| {
        let stream = load::link(system.address)?;
        let (stream, channel) = system.channel(stream).map_err(std::io::Error::other)?;
        Ok(Load::sealed_window(stream, channel, payload_len, in_flight))
    });
    Contender { system, load }
}

fn plain<'a>(system: &'a System, payload_len: usize, in_flight: u64) -> Contender<'a> {
    Contender { system, load: Box::new(move |system| Load::echo_window(system.address, payload_len, in_flight)) }
}

/// Sealed messages, small and large.
pub fn run(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "channels",
        "Messages to `echo` through one secure channel, every answer opened and compared byte by byte in sequence, beside \
         the same messages without a channel. Each is opened, answered and sealed. `bare cipher` seals and opens texts of \
         the same length with one expanded key on one thread, by the library that the node uses; `records` does so by \
         the node's code, with nonces, window and a new key every 32 messages.",
    );
    let uring = setup.node("uring", 1)?;
    let epoll = setup.node("epoll", 1)?;
    let (payload, in_flight, goal) = SMALL;
    let contenders =
        [sealed(&uring, payload, in_flight), plain(&uring, payload, in_flight), sealed(&epoll, payload, in_flight)];
    let measured = interleave(setup, "64 B", &contenders)?;
    let small = cipher(setup, payload);
    for ((what, system), measured) in
        [("sealed", &uring), ("plain", &uring), ("sealed", &epoll)].into_iter().zip(&measured)
    {
        section.rows.push(frames_row(&format!("64 B, {what}, {in_flight} in flight"), system, payload, measured));
    }
    section.rows.extend(small.rows("64 B"));
    section.verdicts.push(Verdict::new(
        "sealed 64 B messages per CPU-second, one channel (uring)",
        column(&measured[0], |it| it.per_cpu_s),
        Limit::AtLeast(goal),
    ));

    for (payload, name) in LARGE {
        let contenders = [sealed(&uring, payload, LARGE_IN_FLIGHT), plain(&uring, payload, LARGE_IN_FLIGHT)];
        let measured = interleave(setup, name, &contenders)?;
        let cipher = cipher(setup, payload);
        for (what, measured) in ["sealed", "plain"].into_iter().zip(&measured) {
            let load = format!("{name}, {what}, {LARGE_IN_FLIGHT} in flight");
            section.rows.push(frames_row(&load, &uring, payload, measured));
        }
        section.rows.extend(cipher.rows(name));
        section.verdicts.push(Verdict::new(
            format!("{name}: records over the bare cipher"),
            Summary::ratio(&cipher.bare, &cipher.records),
            Limit::AtLeast(CIPHER_SHARE),
        ));
        // What the channel adds to a message is one opening and one sealing.
        let cost = |place: usize| measured[place].iter().map(|it: &Measured| 1e9 / it.per_cpu_s);
        let added = Summary::of(cost(0).zip(cost(1)).map(|(sealed, plain)| sealed - plain).collect());
        section.verdicts.push(Verdict::new(
            format!("{name}: bare cipher over what the channel adds in the engine"),
            Summary::ratio(&cipher.bare, &added),
            Limit::AtLeast(CIPHER_SHARE),
        ));
    }
    section.notes = driver_notes(&[&uring, &epoll]);
    Ok(section)
}

/// Nanoseconds of processor time that sealing a text and opening it take together.
struct Cipher {
    bare: Summary,
    records: Summary,
}

impl Cipher {
    fn rows(&self, name: &str) -> [Row; 2] {
        let row = |system: &str, value: &Summary| Row {
            load: name.to_owned(),
            system: system.to_owned(),
            metrics: vec![("CPU ns per frame", value.clone())],
        };
        [row("bare cipher", &self.bare), row("records", &self.records)]
    }
}

fn cipher(setup: &Setup, text_len: usize) -> Cipher {
    let thread_ns = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).unwrap_or_default().as_nanos() as f64
    };
    let bare = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &[7; 32]).expect("32 bytes are a key"));
    let (mut sealer, mut opener) = (Sealer::new(Secret::new([7; 32])), ockam_crypto::Opener::new(Secret::new([7; 32])));
    let mut record = vec![0x5a; text_len + RECORD_OVERHEAD];
    let mut text = vec![0x5a; text_len];
    let seconds = (setup.seconds / 4.0).min(0.5);
    // Enough for the clock, few enough to look at it often.
    let batch = (4_000_000 / (text_len + 256)).max(32);
    let timed = |once: &mut dyn FnMut(u64)| -> f64 {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        let (start, mut count) = (thread_ns(), 0);
        while count == 0 || Instant::now() < end {
            (0..batch).for_each(|_| {
                once(count);
                count += 1;
            });
        }
        (thread_ns() - start) / count as f64
    };
    let mut samples = (Vec::new(), Vec::new());
    for _ in 0..setup.repetitions {
        samples.0.push(timed(&mut |number| {
            let nonce = || {
                let mut nonce = [0; 12];
                nonce[4..].copy_from_slice(&number.to_be_bytes());
                Nonce::assume_unique_for_key(nonce)
            };
            let tag = bare.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut text).expect("a short text");
            bare.open_in_place_separate_tag(nonce(), Aad::empty(), tag.as_ref(), black_box(&mut text))
                .expect("what was sealed");
        }));
        samples.1.push(timed(&mut |_| {
            sealer.seal_in_place(&mut record).expect("nonces are left");
            opener.open_in_place(black_box(&mut record)).expect("what was sealed");
        }));
    }
    Cipher { bare: Summary::of(samples.0), records: Summary::of(samples.1) }
}

/// M7: handshakes with all that is verified in them, by processes.
pub fn handshakes(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "handshakes",
        format!(
            "Handshakes with `api` over {LINKS} links, {AT_ONCE} at once on each, identities made before, mutual authentication, no \
             resumption. Each ends with a message through the channel and its answer, and with the channel's end. \
             Processor time of node and load together: the load is the initiator."
        ),
    );
    let uring = setup.node("uring", 1)?;
    let strangers = (STRANGERS_PER_S * (setup.seconds + setup.warm_up_s)) as usize;
    let load = |count: usize| -> Loader<'_> {
        Box::new(move |system| {
            let identities = (0..count).map(|_| Identity::new()).collect::<std::io::Result<_>>()?;
            Load::handshakes(system.address, identities, LINKS, AT_ONCE)
        })
    };
    let contenders = [LINKS, strangers].map(|count| Contender { system: &uring, load: load(count) });
    let measured = interleave(setup, "handshakes", &contenders)?;
    for (what, measured) in ["of acquaintances", "of strangers"].into_iter().zip(&measured) {
        let both = column(measured, |it| 1e9 / (1e9 / it.per_cpu_s + it.load_ns));
        section.rows.push(Row {
            load: what.to_owned(),
            system: uring.name.clone(),
            metrics: vec![
                ("handshakes per CPU-s of both ends", both.clone()),
                ("node's CPU us each", column(measured, |it| 1e6 / it.per_cpu_s)),
                ("load's CPU us each", column(measured, |it| it.load_ns / 1e3)),
                ("handshakes/s", column(measured, |it| it.per_s)),
            ],
        });
        section.verdicts.push(Verdict::new(
            format!("handshakes {what} per CPU-second, both ends"),
            both,
            Limit::AtLeast(HANDSHAKES),
        ));
    }
    section.notes = driver_notes(&[&uring]);
    Ok(section)
}

/// M11: what a channel costs that nobody uses.
pub fn idle(setup: &Setup) -> Result<Section, Failed> {
    let mut section = Section::new(
        "idle-channels",
        format!(
            "Memory of a node that answers {IDLE} secure channels over {IDLE_LINKS} links, above that of the same node \
             with these links and one channel on each. Every channel has answered a message, and answers one more at \
             the end."
        ),
    );
    let system = setup.node("uring", 1)?;
    if !matches!(system.owner, Owner::Node(_)) {
        section.notes.push("not measured: an engine alone answers no handshakes".into());
        return Ok(section);
    }
    let mut openers = Vec::new();
    for _ in 0..IDLE_LINKS {
        openers.push(Opener::new(load::link(system.address)?, vec![Identity::new()?]));
    }
    let void = |error: std::io::Error| Failed::new(format!("void: {}: {error}", system.name));
    let mut channels = Vec::new();
    for opener in &mut openers {
        channels.push(opener.open(1, 1).map_err(void)?);
    }
    // Whatever start-up left to do is done.
    std::thread::sleep(Duration::from_secs(3));
    let memory = |pid: u32| -> Result<Memory, Failed> { Ok(machine::memory(pid)?) };
    let before: Vec<Memory> = system.pids.iter().map(|pid| memory(*pid)).collect::<Result<_, _>>()?;
    let start = Instant::now();
    while channels.iter().map(Vec::len).sum::<usize>() < IDLE {
        for (opener, channels) in openers.iter_mut().zip(&mut channels) {
            let count = IDLE_TURN.min(IDLE / IDLE_LINKS - channels.len());
            channels.extend(opener.open(count, count).map_err(void)?);
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    // Memory that was used only while channels came up is given back by then.
    std::thread::sleep(Duration::from_secs(5));
    let after: Vec<Memory> = system.pids.iter().map(|pid| memory(*pid)).collect::<Result<_, _>>()?;
    let count: usize = channels.iter().map(Vec::len).sum();
    let mut answered = 0;
    for (opener, channels) in openers.iter_mut().zip(channels) {
        channels.into_iter().for_each(|(name, channel)| opener.ask(name, channel));
        while opener.under_way() > 0 {
            answered += opener.receive().map_err(void)?.len();
        }
    }
    let opened = (count - IDLE_LINKS) as f64;
    let mut total = 0.0;
    for (process, (before, after)) in ["engine", "control"].into_iter().zip(before.iter().zip(&after)) {
        let each = |after: u64, before: u64| after.saturating_sub(before) as f64 / opened;
        let pss = each(after.pss, before.pss);
        total += pss;
        eprintln!("  {count} channels: {process}: {pss:.0} B each");
        section.rows.push(Row {
            load: format!("{count} channels"),
            system: format!("{}: {process}", system.name),
            metrics: vec![
                ("PSS bytes per channel", Summary::single(pss)),
                ("private bytes per channel", Summary::single(each(after.private, before.private))),
                ("PSS MB", Summary::single(after.pss as f64 / 1e6)),
                ("channels/s while opening", Summary::single(opened / elapsed)),
            ],
        });
    }
    section.verdicts.push(Verdict::new(
        "PSS bytes per idle channel, engine and control",
        Summary::single(total),
        Limit::AtMost(IDLE_BYTES_MAX),
    ));
    section.verdicts.push(Verdict::new(
        "channels that are open and answer",
        Summary::single(answered as f64),
        Limit::AtLeast(IDLE as f64),
    ));
    Ok(section)
}
