//! What a channel costs: sealing and opening records, handshakes with everything that is verified in them, and credentials.
//!
//! `cargo bench -p ockam-crypto`; for the other backend `--no-default-features --features portable`. What is measured is
//! CPU time, so that other work on the machine disturbs it little.

use criterion::measurement::{Measurement, ValueFormatter, WallTime};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ockam_crypto::*;
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::time::Duration;

/// What this thread ran.
struct CpuTime;

impl Measurement for CpuTime {
    type Intermediate = Duration;
    type Value = Duration;

    fn start(&self) -> Duration {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).expect("no thread has run for less than nothing")
    }

    fn end(&self, started: Duration) -> Duration {
        self.start() - started
    }

    fn add(&self, first: &Duration, second: &Duration) -> Duration {
        *first + *second
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        value.as_nanos() as f64
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn key() -> Secret {
    Secret::new([7; 32])
}

/// Sealing includes the rekey of every 32nd message; opening too.
fn records(criterion: &mut Criterion<CpuTime>) {
    let mut group = criterion.benchmark_group(format!("record/{}", backend()));
    for text_len in [64, 1024, 16 * 1024, 128 * 1024] {
        group.throughput(Throughput::Bytes(text_len as u64));
        let mut record = vec![0; text_len + RECORD_OVERHEAD];
        let mut sealer = Sealer::new(key());
        group.bench_function(format!("seal {text_len}"), |bencher| {
            bencher.iter(|| sealer.seal_in_place(black_box(&mut record)).expect("nonces are left"));
        });
        // The difference is what opening costs: a record can be opened once only.
        let (mut sealer, mut opener) = (Sealer::new(key()), Opener::new(key()));
        group.bench_function(format!("seal and open {text_len}"), |bencher| {
            bencher.iter(|| {
                sealer.seal_in_place(black_box(&mut record)).expect("nonces are left");
                opener.open_in_place(black_box(&mut record)).expect("a genuine record").nonce
            });
        });
    }
    group.finish();
}

struct Someone {
    static_key: X25519Key,
    history: ChangeHistory,
    payload: Vec<u8>,
}

fn someone(seed: u8) -> Someone {
    let identity_key = SigningKey::new(Secret::new([seed; 32]));
    let history = ChangeHistory::create(&identity_key, Validity { from: 0, until: 100 }).expect("a valid time");
    let static_key = X25519Key::new(Secret::new([seed + 1; 32]));
    let purpose = PurposePublicKey::SecureChannel(*static_key.public());
    let attestation = Attestation::create(&history, &identity_key, purpose, 0, 100).expect("a valid time");
    let payload = encode_payload(&history, &attestation, &[]);
    Someone { static_key, history, payload }
}

/// Both ends, from fresh random bytes to four expanded keys.
fn handshakes(criterion: &mut Criterion<CpuTime>) {
    let (alice, bob) = (someone(10), someone(20));
    let handshake = |ephemerals: (Secret, Secret), known: Option<&Someone>| {
        let authenticate = |claimed: &Claimed| {
            let claim = Claim::parse(&claimed.payload).expect("a genuine claim");
            let known = known.map(|_| if claimed.static_key == *alice.static_key.public() { &alice } else { &bob });
            claim.authenticate(&claimed.static_key, known.map(|known| &known.history), 50).expect("a genuine peer")
        };
        let (message_1, initiator) = initiate(ephemerals.0);
        let responder = accept(&message_1).expect("a genuine message");
        let (message_2, responder) =
            responder.write(&bob.static_key, ephemerals.1, &bob.payload).expect("a short payload");
        let (claimed, initiator) = initiator.read(&message_2).expect("a genuine message");
        let bob_seen = authenticate(&claimed);
        let (message_3, at_alice) = initiator.write(&alice.static_key, &alice.payload).expect("a short payload");
        let (claimed, at_bob) = responder.read(&message_3).expect("a genuine message");
        let alice_seen = authenticate(&claimed);
        let ends = [at_alice, at_bob].map(|end| (Sealer::new(end.sealing_key), Opener::new(end.opening_key)));
        (ends, alice_seen, bob_seen)
    };
    let fresh = || (Secret::new([3; 32]), Secret::new([4; 32]));
    let mut group = criterion.benchmark_group("handshake");
    group.throughput(Throughput::Elements(1));
    group.bench_function("between strangers", |bencher| {
        bencher.iter_batched(fresh, |ephemerals| handshake(ephemerals, None), BatchSize::SmallInput);
    });
    group.bench_function("between acquaintances", |bencher| {
        bencher.iter_batched(fresh, |ephemerals| handshake(ephemerals, Some(&alice)), BatchSize::SmallInput);
    });
    group.finish();
}

/// What an authority does for each member, each node for each peer that shows a credential, and each node for each list.
fn credentials(criterion: &mut Criterion<CpuTime>) {
    let key = |seed| SigningKey::new(Secret::new([seed; 32]));
    let history = ChangeHistory::create(&key(30), Validity { from: 0, until: 100 }).expect("a valid time");
    let purpose = PurposePublicKey::CredentialSigning(key(31).public());
    let attestation = Attestation::create(&history, &key(30), purpose, 0, 100).expect("a valid time");
    let issuer = Issuer::new(&history, attestation, key(31)).expect("its own key");
    let mut attributes = Attributes::new();
    for name in ["ockam-relay", "ockam-role", "project_id", "trust_context_id"] {
        attributes.insert(name, "767d461c-9851-4c0b-bfc6-6d3334b5bcc2").expect("an attribute that may be");
    }
    let subject = Identifier([5; 32]);
    let issue = || {
        let attributes = black_box(&attributes);
        Credential::issue(&issuer, subject, None, PROJECT_MEMBER_SCHEMA, attributes, 0, 100).expect("a valid time")
    };
    let mut group = criterion.benchmark_group("credential");
    group.throughput(Throughput::Elements(1));
    group.bench_function("issue", |bencher| bencher.iter(issue));
    let credential = issue();
    group.bench_function("verify", |bencher| {
        bencher
            .iter(|| Credential::verify(black_box(credential.encoded()), &subject, [&history], 50).expect("genuine"));
    });
    group.finish();

    let revoked = (0..100_000u32).map(|number| {
        let mut subject = [0; 32];
        subject[..4].copy_from_slice(&number.to_be_bytes());
        (Identifier(subject), 50)
    });
    let list = RevocationList::sign(&issuer, 1, 50, revoked).expect("a short list");
    let mut group = criterion.benchmark_group("revocation list of 100,000");
    group.bench_function("verify", |bencher| {
        bencher.iter(|| RevocationList::verify(black_box(list.encoded()), &history, 50).expect("genuine"));
    });
    group.throughput(Throughput::Elements(1));
    group.bench_function("ask", |bencher| bencher.iter(|| list.revokes(black_box(&credential))));
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(CpuTime);
    targets = records, handshakes, credentials
}
criterion_main!(benches);
