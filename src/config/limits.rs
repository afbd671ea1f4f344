//! `[limits]`: what one client, and all of them, may take.
//!
//! Read by `Config::load`; used by the listener and the session.

use std::time::Duration;

use super::kind::{Bytes, Span, Whole};
use super::reader::Section;

/// Limits of clients, and of the proxy itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitsConfig {
    /// Threads that serve clients; 0 for half of the processors.
    pub threads: usize,
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
            threads: 0,
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
    /// Threads that serve clients on a machine of so many processors.
    pub fn threads_of(&self, processors: usize) -> usize {
        match self.threads {
            0 => (processors / 2).max(1),
            threads => threads,
        }
    }

    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("threads", &mut self.threads, &Whole(0..=1024));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_processors_serve_clients_where_nothing_else_is_said() {
        let mut limits = LimitsConfig::default();
        assert_eq!([1, 2, 3, 16].map(|all| limits.threads_of(all)), [1, 1, 1, 8]);
        limits.threads = 3;
        assert_eq!([1, 16].map(|all| limits.threads_of(all)), [3, 3]);
    }
}
