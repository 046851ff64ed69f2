//! What the machine gives, before and after everything else: a run whose machine drifted is not worth reading.
//!
//! L1 a TCP hop per size, L2 a direct stream, L4 memcpy, L5 system call and ring NOP, L6 wake-ups, L7 page fault
//! (`performance.md` section 8; L3 and L8 are for channels).

use crate::load::Sink;
use crate::machine;
use crate::report::{Limit, Row, Section, Verdict};
use crate::stats::{Summary, median};
use crate::system::{Failed, Setup};
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::hint::black_box;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Bytes of the hops.
const HOPS: [usize; 5] = [64, 16 * 1024, 48 * 1024, 64 * 1024, 256 * 1024];
/// Each value is the median of so many short measurements.
const SAMPLES: usize = 9;
/// A hop may drift so much within a run.
const DRIFT: f64 = 0.05;

/// Measures, in about 15 seconds.
pub fn run(setup: &Setup, name: &'static str) -> Result<Section, Failed> {
    let mut section = Section::new(name, "What the machine gives, on one CPU unless said otherwise.");
    let [first, last] = [setup.cpus.first(), setup.cpus.last()].map(|cpu| cpu.copied().unwrap_or(0));
    machine::run_on(&[first])?;
    for size in HOPS {
        add(&mut section, &format!("L1 TCP hop, {} (send + receive, CPU)", bytes(size)), "us", hop(size)?);
    }
    for size in [64 * 1024, 4 * 1024 * 1024, 64 * 1024 * 1024] {
        add(&mut section, &format!("L4 memcpy, {}", bytes(size)), "GB/s", copy(size));
    }
    add(&mut section, "L5 system call (getppid)", "ns", system_call());
    match ring_nop(setup) {
        Ok([alone, batch]) => {
            add(&mut section, "L5 ring NOP through tokio-uring, alone", "ns", Summary::single(alone));
            add(&mut section, "L5 ring NOP through tokio-uring, 32 at once", "ns", Summary::single(batch));
        }
        Err(error) => section.notes.push(format!("no ring NOP: {error}")),
    }
    add(&mut section, "L6 pipe round trip, same CPU", "us", pipe(first, first)?);
    if first != last {
        add(&mut section, "L6 pipe round trip, cross CPU", "us", pipe(first, last)?);
        add(&mut section, "L6 shared line round trip, cross CPU", "us", spin(first, last)?);
    }
    add(&mut section, "L7 minor page fault", "ns", page_fault()?);
    machine::run_on(&setup.cpus)?;
    add(&mut section, "L2 direct stream, 128 KiB writes, free", "Gbit/s", direct()?);
    for row in &section.rows {
        let [(unit, value)] = &row.metrics[..] else { continue };
        eprintln!("  {}: {:.2} {unit}", row.load, value.median);
    }
    Ok(section)
}

/// Compares two calibrations of one run.
pub fn drift(before: &Section, after: &Section) -> Section {
    let mut section = Section::new("drift", "Calibration after the run over calibration before it.");
    for row in before.rows.iter().filter(|row| row.load.starts_with("L1")) {
        let Some((unit, value)) = row.metrics.first() else { continue };
        let Some(later) = after.value(&row.load, &row.system, unit) else { continue };
        let drift = (later.median / value.median - 1.0).abs();
        section.verdicts.push(Verdict::new(
            format!("{}: relative change", row.load),
            Summary::single(drift),
            Limit::AtMost(DRIFT),
        ));
    }
    section
}

fn add(section: &mut Section, what: &str, unit: &'static str, value: Summary) {
    section.rows.push(Row { load: what.to_owned(), system: "machine".into(), metrics: vec![(unit, value)] });
}

fn bytes(size: usize) -> String {
    match size {
        0..1024 => format!("{size} B"),
        1024..1_048_576 => format!("{} KiB", size / 1024),
        _ => format!("{} MiB", size / 1_048_576),
    }
}

/// Repeats `work`, which answers with a value, [`SAMPLES`] times after once for warmth.
fn sampled(mut work: impl FnMut() -> Result<f64, Failed>) -> Result<Summary, Failed> {
    work()?;
    Ok(Summary::of((0..SAMPLES).map(|_| work()).collect::<Result<_, _>>()?))
}

fn thread_cpu() -> f64 {
    let Timespec { tv_sec, tv_nsec } = clock_gettime(ClockId::ThreadCPUTime);
    tv_sec as f64 + tv_nsec as f64 / 1e9
}

/// Microseconds of processor time to send and receive `size` bytes over loopback, one thread on both ends.
fn hop(size: usize) -> Result<Summary, Failed> {
    let (mut from, mut to) = connection()?;
    let (sent, mut received) = (vec![7; size], vec![0; size]);
    let rounds = (40_000_000 / (size + 4_000)).min(4000);
    sampled(|| {
        let start = thread_cpu();
        for _ in 0..rounds {
            // In parts, so that both ends never wait for each other.
            for (sent, received) in sent.chunks(64 * 1024).zip(received.chunks_mut(64 * 1024)) {
                from.write_all(sent)?;
                to.read_exact(received)?;
            }
        }
        Ok((thread_cpu() - start) / rounds as f64 * 1e6)
    })
}

fn connection() -> Result<(TcpStream, TcpStream), Failed> {
    let sink = Sink::new()?;
    let from = TcpStream::connect(sink.address)?;
    from.set_nodelay(true)?;
    Ok((from, sink.accept_silent()?))
}

/// Bytes per nanosecond.
fn copy(size: usize) -> Summary {
    let (from, mut to) = (vec![1_u8; size], vec![0_u8; size]);
    let rounds = (512 * 1024 * 1024 / size).max(4);
    let samples = (0..SAMPLES).map(|_| {
        let start = Instant::now();
        for _ in 0..rounds {
            black_box(&mut to).copy_from_slice(black_box(&from));
        }
        (size * rounds) as f64 / start.elapsed().as_nanos() as f64
    });
    Summary::of(samples.collect())
}

fn system_call() -> Summary {
    const CALLS: u32 = 200_000;
    let samples = (0..SAMPLES).map(|_| {
        let start = Instant::now();
        for _ in 0..CALLS {
            black_box(rustix::process::getppid());
        }
        start.elapsed().as_nanos() as f64 / f64::from(CALLS)
    });
    Summary::of(samples.collect())
}

/// Nanoseconds per NOP alone and in batches; the raw ring is unsafe to drive, so a runtime drives it.
fn ring_nop(setup: &Setup) -> Result<[f64; 2], Failed> {
    let program = setup.beside("ockam-bench-rivals")?;
    let output = Command::new(program).arg("nop").output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let values: Vec<f64> = text.split_ascii_whitespace().filter_map(|value| value.parse().ok()).collect();
    <[f64; 2]>::try_from(values)
        .map_err(|_| Failed::new(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

/// Microseconds for a byte to a thread and back through pipes.
fn pipe(here: usize, there: usize) -> Result<Summary, Failed> {
    const ROUNDS: u32 = 2000;
    let (mut ask_read, mut ask) = std::io::pipe()?;
    let (mut answer_read, mut answer) = std::io::pipe()?;
    machine::run_on(&[here])?;
    let other = std::thread::spawn(move || -> std::io::Result<()> {
        machine::run_on(&[there])?;
        let mut byte = [0];
        while ask_read.read(&mut byte)? == 1 {
            answer.write_all(&byte)?;
        }
        Ok(())
    });
    let result = sampled(|| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            ask.write_all(&[1])?;
            answer_read.read_exact(&mut [0])?;
        }
        Ok(start.elapsed().as_secs_f64() / f64::from(ROUNDS) * 1e6)
    });
    drop(ask);
    other.join().map_err(|_| Failed::new("a thread panicked"))??;
    result
}

/// Microseconds for a number to a thread and back through shared memory, both spinning.
fn spin(here: usize, there: usize) -> Result<Summary, Failed> {
    const ROUNDS: u64 = 20_000;
    static LINE: AtomicU64 = AtomicU64::new(0);
    LINE.store(0, Ordering::Release);
    machine::run_on(&[here])?;
    let last = 2 * ROUNDS * (SAMPLES as u64 + 1);
    let other = std::thread::spawn(move || -> std::io::Result<()> {
        machine::run_on(&[there])?;
        for expected in (1..last).step_by(2) {
            while LINE.load(Ordering::Acquire) != expected {
                std::hint::spin_loop();
            }
            LINE.store(expected + 1, Ordering::Release);
        }
        Ok(())
    });
    let mut next = 1;
    let result = sampled(|| {
        let start = Instant::now();
        for _ in 0..ROUNDS {
            LINE.store(next, Ordering::Release);
            while LINE.load(Ordering::Acquire) != next + 1 {
                std::hint::spin_loop();
            }
            next += 2;
        }
        Ok(start.elapsed().as_secs_f64() / ROUNDS as f64 * 1e6)
    });
    other.join().map_err(|_| Failed::new("a thread panicked"))??;
    result
}

/// Nanoseconds per first touch of a page.
fn page_fault() -> Result<Summary, Failed> {
    // 64 MiB: more than an allocator keeps for the next one.
    const PAGES: usize = 16 * 1024;
    sampled(|| {
        let mut memory = vec![0_u8; PAGES * 4096];
        let before = faults()?;
        let start = Instant::now();
        for page in memory.chunks_mut(4096) {
            page[0] = 1;
        }
        let elapsed = start.elapsed();
        black_box(&memory);
        let faults = faults()? - before;
        if faults < PAGES as u64 / 2 {
            return Err(Failed::new("pages come in larger units here: the fault was not measured"));
        }
        Ok(elapsed.as_nanos() as f64 / faults as f64)
    })
}

/// Minor faults of this process so far.
fn faults() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/self/stat")?;
    // Behind the name, which may hold anything, the tenth field is the eighth.
    let fields = text.rsplit_once(") ").map_or("", |(_, fields)| fields);
    let count = fields.split_ascii_whitespace().nth(7).and_then(|field| field.parse().ok());
    count.ok_or(Failed::new("/proc/self/stat has another format"))
}

/// Gbit/s of one stream between two threads.
fn direct() -> Result<Summary, Failed> {
    let (mut from, mut to) = connection()?;
    let received = AtomicU64::new(0);
    let samples = std::thread::scope(|scope| -> Result<Vec<f64>, Failed> {
        scope.spawn(|| {
            let mut buffer = vec![0; 256 * 1024];
            while let Ok(count) = to.read(&mut buffer)
                && count > 0
            {
                received.fetch_add(count as u64, Ordering::Relaxed);
            }
        });
        let sender = from.try_clone()?;
        scope.spawn(move || {
            let block = vec![7; 128 * 1024];
            while from.write_all(&block).is_ok() {}
        });
        std::thread::sleep(Duration::from_millis(300));
        let samples = (0..SAMPLES).map(|_| {
            let (before, start) = (received.load(Ordering::Relaxed), Instant::now());
            std::thread::sleep(Duration::from_millis(200));
            (received.load(Ordering::Relaxed) - before) as f64 * 8.0 / start.elapsed().as_nanos() as f64
        });
        let samples = samples.collect();
        sender.shutdown(std::net::Shutdown::Both)?;
        Ok(samples)
    })?;
    if median(samples.clone()) == 0.0 {
        return Err(Failed::new("nothing came through a direct stream"));
    }
    Ok(Summary::of(samples))
}
