//! A stream of frames split anywhere: chunked equals one-shot, and never more is held than was received and not yet given out.

#![no_main]

#[path = "../../../wire/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::frame_stream(input));
