//! The `pgladder` program: runs the command line and hands its exit status to the system.
//!
//! Everything it does lives in the library, so that tests and other programs reach it without a process.

use std::process::ExitCode;

fn main() -> ExitCode {
    pgladder::cli::run()
}
