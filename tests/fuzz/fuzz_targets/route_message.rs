//! Any bytes as the body of a frame, compared with a slow model, then forwarded one step.

#![no_main]

#[path = "../../../wire/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::route_message(input));
