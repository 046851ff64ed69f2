//! Histories, attestations, handshake payloads: what is accepted says what was signed, and reads the same again.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::cbor_identity(input));
