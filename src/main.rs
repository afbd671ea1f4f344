//! The `pgladder` program: parses arguments and calls a command.
//!
//! Everything it does lives in the library; this file only turns an error into an exit code.

fn main() {}
