//! Messages of a handshake, changed and misplaced: none but the genuine next one is accepted, and none changes a state.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::handshake_xx(input));
