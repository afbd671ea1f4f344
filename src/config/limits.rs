//! `[limits]`: what one client, and all of them, may take.
//!
//! Read by `Config::load`; used by the listener and the session.

use std::time::Duration;

use super::kind::{Bytes, Span, Whole};
use super::reader::Section;

/// Limits of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Clients connected at once.
    pub clients_max: usize,
    /// From accepting a connection to the end of its login.
    pub login_timeout: Duration,
    /// One message of a client that has logged in.
    pub message_bytes_max: u64,
    /// Messages of one extended-protocol batch that are held until their Sync or Flush.
    pub batch_bytes_max: u64,
    /// How long clients may finish their transactions when the proxy is asked to stop.
    pub drain_timeout: Duration,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            clients_max: 10_000,
            login_timeout: Duration::from_secs(15),
            // PostgreSQL's own limit.
            message_bytes_max: 1 << 30,
            batch_bytes_max: 16 << 20,
            drain_timeout: Duration::from_secs(30),
        }
    }
}

impl LimitsConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("clients_max", &mut self.clients_max, &Whole(1..=1_000_000));
        section.read("login_timeout", &mut self.login_timeout, &Span::new(100, 600));
        section.read(
            "message_bytes_max",
            &mut self.message_bytes_max,
            &Bytes(64 << 10..=1 << 30),
        );
        section.read(
            "batch_bytes_max",
            &mut self.batch_bytes_max,
            &Bytes(64 << 10..=1 << 30),
        );
        section.read("drain_timeout", &mut self.drain_timeout, &Span::new(1, 86_400));
    }
}
