//! Credentials and revocation lists: what is accepted is the authority's word, about that subject, in those bytes, now.

#![no_main]

#[path = "../../../crypto/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::credential(input));
