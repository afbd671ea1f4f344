//! How the proxy is operated: its console, what a reload applies, metrics and health.
//!
//! One program, so that what the cases share is compiled once. Each case starts a real PostgreSQL and the proxy in this process.

mod console;
mod doubt;
mod flush;
mod http;
mod limits;
#[path = "../support/messages.rs"]
mod messages;
mod no_primary;
mod passwords;
mod protocol;
mod reload;
mod rules;
mod running;
mod vanishing;
mod waiting;
