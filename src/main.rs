//! The `pgladder` program: runs the command line and hands its exit status to the system.
//!
//! Everything it does lives in the library, so that tests and other programs reach it without a process.

use std::process::ExitCode;

use mimalloc::MiMalloc;

// Many clients wait at once, each with a few small allocations: more than the thread caches of glibc keep.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    pgladder::cli::run()
}
