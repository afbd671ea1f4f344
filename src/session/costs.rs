//! What freshness costs, over all sessions: waiting, bypasses, answers that were not kept, and how stale those served were.
//!
//! Counted by the session where it happens; read by the console and the metrics. It decides nothing. Where a unit was answered, and
//! for which reason, `reasons` counts.

use crate::telemetry::histogram::{AGES_US, Histogram, LATENCIES_US};
use crate::telemetry::tally::{Kind, Tally, kinds};

kinds! {
    /// What a unit waits for in the proxy.
    pub enum Wait {
        /// A server connection: a place in a pool, a login, a primary.
        Connection = "connection",
        /// Another client's execution of the same read.
        Answer = "answer",
        /// How far the primary has written, or a replica has replayed.
        Position = "position",
        /// The catalog to be compared, or loaded.
        Catalog = "catalog",
    }
}

kinds! {
    /// Why a read that the cache might have served was run for its client alone.
    pub enum Bypass {
        /// A write of its tables is on its way, which this session may have seen.
        WriteInFlight = "write_in_flight",
        /// The stream is too far behind to tell whether the entry is good.
        StreamLate = "stream_late",
        /// The answer is too large to be shared.
        TooLarge = "too_large",
        /// One execution after the other that it waited for ended without an answer.
        Crowded = "crowded",
    }
}

kinds! {
    /// Why the answer of a read that the cache looked for was not kept.
    pub enum NotKept {
        /// A write of its tables came, or was on its way.
        Write = "write",
        /// It is larger than `cache.entry_bytes_max` or the whole cache, or not an answer alone.
        TooLarge = "too_large",
        /// The server refused the statement, or was lost.
        Failed = "failed",
        /// It took less than `cache.min_cost_ms`.
        Cheap = "cheap",
        /// With `cache.doorkeeper` only what is asked for a second time is kept.
        First = "first",
    }
}

kinds! {
    /// What became of reading a hit again on the primary.
    pub enum Sampled {
        /// The same answer.
        Same = "same",
        /// Another one, which a write explains.
        Written = "written",
        /// Another one, of tables that the stream does not carry: they may have been written past the proxy.
        Unknown = "unknown",
        /// Another one, which nothing explains: the cache lied.
        Wrong = "wrong",
        /// The primary could not be asked.
        Failed = "failed",
        /// Not begun, because others ran.
        Dropped = "dropped",
    }
}

/// Since the start.
#[derive(Debug)]
pub struct Costs {
    waits: Vec<Histogram>,
    /// Reads from the cache that were bypassed.
    pub bypasses: Tally<Bypass>,
    /// Answers that were not kept.
    pub not_kept: Tally<NotKept>,
    /// Hits that were read again on the primary.
    pub samples: Tally<Sampled>,
    /// Of answers from the cache: for how long they had missed a write, which their level allowed.
    pub staleness: Histogram,
}

impl Default for Costs {
    fn default() -> Self {
        Self {
            waits: Wait::ALL.iter().map(|_| Histogram::new(&LATENCIES_US)).collect(),
            bypasses: Tally::default(),
            not_kept: Tally::default(),
            samples: Tally::default(),
            staleness: Histogram::new(&AGES_US),
        }
    }
}

impl Costs {
    /// How long units waited for that.
    pub fn waited_for(&self, wait: Wait) -> &Histogram {
        &self.waits[wait.place()]
    }
}
