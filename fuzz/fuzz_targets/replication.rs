//! libFuzzer's entry to `bodies::replication`.
//!
//! Built by `cargo fuzz` alone; `make fuzz` runs it.

#![no_main]

#[path = "../bodies.rs"]
#[expect(dead_code, reason = "a target drives one of the bodies")]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::replication(data));
