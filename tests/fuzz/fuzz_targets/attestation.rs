//! Attestations, at any time and for any identity: what is accepted was signed by it and is valid then.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::attestation(input));
