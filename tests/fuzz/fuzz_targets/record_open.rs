//! Records on a living channel: accepted are the genuine, unseen ones within the window, and garbage moves nothing.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::record_open(input));
