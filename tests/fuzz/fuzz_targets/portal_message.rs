//! Any bytes as a message of a portal, compared with a slow model, then written again.

#![no_main]

#[path = "../../../wire/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::portal_message(input));
