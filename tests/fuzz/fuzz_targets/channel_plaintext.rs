//! What records say: the quick look agrees with the whole reading, and a message is the same again.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::channel_plaintext(input));
