//! What a stream shows of itself: for `SHOW STREAM`, the metrics, and the log.
//!
//! Written by `follow` and `running`, read by the console. Immutable values under a short lock; nothing waits for them.

use std::time::{Duration, Instant};

use crate::protocol::lsn::Lsn;

/// What a database's freshness rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On what the proxy sees and on TTL; `Status::why_not` says why.
    Observed,
    /// The same, while a stream is being made.
    Starting,
    /// On the stream, for the tables that it carries.
    Streaming,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Observed => "observed",
            Self::Starting => "starting",
            Self::Streaming => "streaming",
        })
    }
}

/// A stream at one moment.
#[derive(Debug, Clone)]
pub struct Status {
    /// What freshness rests on.
    pub mode: Mode,
    /// Why there is no stream.
    pub why_not: Option<String>,
    /// The publication that is streamed.
    pub publication: Option<String>,
    /// How far it has come.
    pub position: Option<Lsn>,
    /// Everything committed before has arrived.
    pub as_of: Option<Instant>,
    /// Tables of which it misses nothing.
    pub carried: usize,
    /// Tables whose barrier has not been passed.
    pub waiting: usize,
    /// Tables that it cannot carry, each with the reason.
    pub not_carried: Vec<String>,
    /// Commits that arrived and are not visible on the primary yet.
    pub unseen: usize,
    /// Bytes received since the start of the proxy.
    pub bytes: u64,
    /// Transactions received since then.
    pub transactions: u64,
    /// Streams begun since then.
    pub begun: u64,
}

impl Status {
    /// Of a stream that is not there.
    pub fn observed(why_not: String) -> Self {
        Self {
            mode: Mode::Observed,
            why_not: Some(why_not),
            publication: None,
            position: None,
            as_of: None,
            carried: 0,
            waiting: 0,
            not_carried: Vec::new(),
            unseen: 0,
            bytes: 0,
            transactions: 0,
            begun: 0,
        }
    }

    /// How far it is behind.
    pub fn delay(&self, now: Instant) -> Option<Duration> {
        self.as_of.map(|as_of| now.saturating_duration_since(as_of))
    }
}
