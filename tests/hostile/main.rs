//! Clients that mean harm, or are merely slow: the memory of the proxy stays within its bounds, and nobody else waits for them.
//!
//! The proxy is the real program in a process of its own, so that its memory is not mixed up with that of the tests. It is asked
//! of the kernel, as the most that there ever was. Where the kernel does not tell (only Linux does), there is nothing to run.

#![cfg(target_os = "linux")]

mod budget;
mod program;
mod slow;
mod unauthenticated;
