//! Change histories: what is accepted was signed, and reads the same again.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::change_history(input));
