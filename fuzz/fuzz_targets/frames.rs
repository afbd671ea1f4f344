//! libFuzzer's entry to `bodies::frames`.
//!
//! Built by `cargo fuzz` alone; `make fuzz` runs it.

#![no_main]

#[path = "../bodies.rs"]
#[allow(dead_code)]
mod bodies;

libfuzzer_sys::fuzz_target!(|data: &[u8]| bodies::frames(data));
