//! Two living ends of a channel and a network that loses, doubles, reorders, changes and reflects their records.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::channel_records(input));
