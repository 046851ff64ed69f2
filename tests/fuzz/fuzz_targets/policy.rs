//! Any bytes as the text and as the CBOR of a policy, and expressions of the fuzzer's choice: what is accepted is printed,
//! parsed, encoded and decoded without change, and is worth what a slow evaluator says.

#![no_main]

#[path = "../../../policy/tests/oracle/mod.rs"]
mod oracle;

libfuzzer_sys::fuzz_target!(|input: &[u8]| oracle::policy(input));
