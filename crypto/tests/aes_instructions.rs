//! Where the processor has instructions for AES, sealing and opening are made of them.
//!
//! A child is stepped through one sealing and one opening, instruction by instruction, and what it executes is looked at:
//! no clock, no sampling, and no trust in what a library says of itself. It proves this for the backend and the build
//! that the tests have, on the machine that they run on.

#![cfg(all(target_arch = "x86_64", target_os = "linux"))]

use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use ockam_crypto::{Opener, RECORD_OVERHEAD, Sealer, Secret, backend, cpu_features};
use std::hint::black_box;
use std::process::{Child, Command, Stdio};

/// In the environment of the child.
const CHILD: &str = "OCKAM_TEST_STEPPED";
/// Seventeen blocks, the last one short.
const TEXT_LEN: usize = 269;
const BLOCKS: usize = TEXT_LEN.div_ceil(16);
/// Of AES-256, per block.
const ROUNDS: usize = 14;
/// The widest instruction computes a round of so many blocks.
const WIDEST: usize = 4;
/// More steps than software would need.
const STEPS_MAX: usize = 5_000_000;

/// What was executed between two marks.
#[derive(Debug, Default)]
struct Executed {
    instructions: usize,
    aes_rounds: usize,
    carryless_products: usize,
}

impl Executed {
    fn count(&mut self, code: &[u8]) {
        self.instructions += 1;
        match opcode(code) {
            // AESENC, AESENCLAST: all that counter mode needs, in both directions.
            Some((0x38, 0xdc | 0xdd)) => self.aes_rounds += 1,
            // PCLMULQDQ.
            Some((0x3a, 0x44)) => self.carryless_products += 1,
            _ => {}
        }
    }
}

/// Map and opcode of an instruction with the mandatory prefix 66, in any of the three encodings.
fn opcode(code: &[u8]) -> Option<(u8, u8)> {
    let map = |number: u8| match number {
        2 => Some(0x38),
        3 => Some(0x3a),
        _ => None,
    };
    match *code {
        [0x66, 0x40..=0x4f, 0x0f, map @ (0x38 | 0x3a), opcode, ..] => Some((map, opcode)),
        [0x66, 0x0f, map @ (0x38 | 0x3a), opcode, ..] => Some((map, opcode)),
        [0xc4, first, second, opcode, ..] if second & 3 == 1 => Some((map(first & 31)?, opcode)),
        [0x62, first, second, _, opcode, ..] if second & 3 == 1 => Some((map(first & 7)?, opcode)),
        _ => None,
    }
}

/// The child: two marks, and between them what is looked at.
fn be_stepped() {
    let key = || Secret::new([7; 32]);
    let (mut sealer, mut opener) = (Sealer::new(key()), Opener::new(key()));
    let mut record = vec![0x5a; TEXT_LEN + RECORD_OVERHEAD];
    ptrace::traceme().expect("a child may be traced by its parent");
    raise(Signal::SIGSTOP).expect("the first mark");
    sealer.seal_in_place(black_box(&mut record)).expect("nonces are left");
    opener.open_in_place(black_box(&mut record)).expect("a genuine record");
    raise(Signal::SIGSTOP).expect("the second mark");
    assert!(record[8..8 + TEXT_LEN].iter().all(|byte| *byte == 0x5a));
}

/// Ends the child whatever happens.
struct Ends {
    child: Child,
    /// The thread that is traced: as long as nobody has heard of its end, the process has none.
    thread: Option<Pid>,
}

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.child.kill();
        if let Some(thread) = self.thread {
            while waitpid(thread, Some(WaitPidFlag::__WALL))
                .is_ok_and(|status| !matches!(status, WaitStatus::Signaled(..) | WaitStatus::Exited(..)))
            {}
        }
        let _ = self.child.wait();
    }
}

fn step_through(environment: &[(&str, &str)]) -> Executed {
    let mut command = Command::new(std::env::current_exe().expect("this test"));
    command.args(["--exact", "aes_is_computed_by_instructions_where_there_are", "--nocapture"]);
    command.env(CHILD, "1").envs(environment.iter().copied()).stdout(Stdio::null());
    let mut child = Ends { child: command.spawn().expect("a child"), thread: None };
    // It is traced by one of its threads, whose number is the first thing heard of it.
    let wait = |pid: Option<Pid>| waitpid(pid, Some(WaitPidFlag::__WALL)).expect("the child's next stop");
    let WaitStatus::Stopped(thread, Signal::SIGSTOP) = wait(None) else {
        panic!("the child {} did not stop at the first mark", child.child.id());
    };
    child.thread = Some(thread);
    let mut executed = Executed::default();
    for _ in 0..STEPS_MAX {
        ptrace::step(thread, None).expect("a step");
        match wait(Some(thread)) {
            WaitStatus::Stopped(_, Signal::SIGTRAP) => {
                let at = ptrace::getregs(thread).expect("its registers").rip;
                let words = [at, at + 8].map(|at| ptrace::read(thread, at as ptrace::AddressType));
                // The second one may lie behind the last page of code.
                let code = words.into_iter().flatten().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
                executed.count(&code);
            }
            WaitStatus::Stopped(_, Signal::SIGSTOP) => return executed,
            other => panic!("{other:?} between the marks, after {executed:?}"),
        }
    }
    panic!("no end after {executed:?}");
}

#[test]
fn aes_is_computed_by_instructions_where_there_are() {
    if std::env::var_os(CHILD).is_some() {
        return be_stepped();
    }
    let executed = step_through(&[]);
    println!("{}: {executed:?}", backend());
    if cpu_features().contains(&"aes") {
        // Every round of every block, there and back.
        assert!(executed.aes_rounds >= 2 * ROUNDS * BLOCKS / WIDEST, "software AES ran: {executed:?}");
    } else {
        assert_eq!(executed.aes_rounds, 0, "{executed:?} on a processor without AES");
    }
    if cpu_features().contains(&"pclmulqdq") {
        assert!(executed.carryless_products > 0, "software GHASH ran: {executed:?}");
    }
    // The same library told that the processor has none: this test sees the difference.
    if backend() == "aws-lc" {
        let software = step_through(&[("OPENSSL_ia32cap", "~0x200000000000000")]);
        println!("in software: {software:?}");
        assert_eq!(software.aes_rounds, 0);
        assert!(software.instructions > executed.instructions);
    }
}

/// What a node says of the processor is what the kernel says of it.
#[test]
fn features_are_those_of_the_processor() {
    let text = std::fs::read_to_string("/proc/cpuinfo").expect("Linux has it");
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")).expect("x86-64 has flags");
    let flags: Vec<&str> = flags.split_ascii_whitespace().collect();
    for name in ["aes", "pclmulqdq", "avx", "avx2", "avx512f", "vaes", "vpclmulqdq"] {
        assert_eq!(cpu_features().contains(&name), flags.contains(&name), "{name}");
    }
}

#[test]
fn instructions_are_told_apart() {
    for (code, name) in [
        (&[0x66, 0x0f, 0x38, 0xdc, 0xc1][..], Some((0x38, 0xdc))),
        (&[0x66, 0x45, 0x0f, 0x38, 0xdd, 0xc1], Some((0x38, 0xdd))),
        (&[0xc4, 0xe2, 0x71, 0xdc, 0xc2], Some((0x38, 0xdc))),
        (&[0x62, 0xf2, 0x75, 0x48, 0xdd, 0xc2], Some((0x38, 0xdd))),
        (&[0x66, 0x0f, 0x3a, 0x44, 0xc1, 0x00], Some((0x3a, 0x44))),
        (&[0x66, 0x0f, 0xef, 0xc1], None),
        (&[0xc3], None),
    ] {
        assert_eq!(opcode(code), name, "{code:x?}");
    }
}
