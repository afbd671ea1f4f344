//! What became of a session's latest statement: the one row of `SHOW pgladder.last`.
//!
//! Written by the session when a statement is answered, read by its next one. Every decision has a reason here, in words that
//! the manual explains. It counts nothing: the counters stand in `proxy`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::rules::Rule;
use crate::freshness::level::Level;
use crate::route::Because;

/// The columns of `SHOW pgladder.last`.
pub const COLUMNS: [&str; 7] = [
    "served_by",
    "node",
    "reason",
    "age_ms",
    "freshness",
    "ttl_ms",
    "rule",
];

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServedBy {
    /// The result cache.
    Cache,
    /// A replica.
    Replica,
    /// The primary.
    Primary,
    /// The proxy itself.
    Proxy,
}

impl fmt::Display for ServedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache => "cache",
            Self::Replica => "replica",
            Self::Primary => "primary",
            Self::Proxy => "proxy",
        })
    }
}

/// Why it was answered there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// An entry of the cache was current.
    Hit,
    /// An entry of the cache misses a write, as its level allows.
    StaleHit,
    /// A replica has replayed all that the primary had written when the read arrived.
    ReadIndex,
    /// It shared the answer of another client's execution.
    Shared,
    /// The route's own reason.
    Route(Because),
    /// A replica might have served it, but none has replayed the newest write of its tables.
    ReplicasBehind,
    /// A replica might have served it, but the position of the newest write of its tables is not known yet.
    FencePending,
    /// A replica might have served it, but none is usable.
    NoReplica,
    /// A replica might have served it, but the catalog is changing.
    CatalogChanging,
    /// The freshness level asks for the primary.
    Level(Level),
    /// A replica refused it or was lost, and the primary answered; the SQLSTATE where there was one.
    Retried(Option<Box<str>>),
    /// On a replica it waited for a lock that the primary need not hold any more.
    ReplicaBlocked,
    /// The proxy's own statement, or a turn of a transaction that no server needed to see.
    Own,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hit => f.write_str("cache hit"),
            Self::StaleHit => f.write_str("cache hit, older than a write that its level may miss"),
            Self::ReadIndex => {
                f.write_str("the replica has replayed what the primary had written when the read arrived")
            }
            Self::Shared => f.write_str("shared another client's execution"),
            Self::Route(because) => because.fmt(f),
            Self::ReplicasBehind => f.write_str("replicas have not replayed the newest write of its tables"),
            Self::FencePending => f.write_str("the newest write of its tables is too recent for a replica"),
            Self::NoReplica => f.write_str("no usable replica"),
            Self::CatalogChanging => f.write_str("the catalog is changing"),
            Self::Level(level) => write!(f, "freshness {level} reads from the primary"),
            Self::Retried(Some(code)) => write!(f, "a replica refused it with SQLSTATE {code}"),
            Self::Retried(None) => f.write_str("a replica was lost while it ran"),
            Self::ReplicaBlocked => f.write_str("on a replica it waited for a lock"),
            Self::Own => f.write_str("answered without a server"),
        }
    }
}

/// The latest statement.
#[derive(Debug, Clone)]
pub struct Last {
    /// Who answered.
    pub served_by: ServedBy,
    /// The node's address, where a server answered now or filled the entry.
    pub node: Option<Arc<str>>,
    /// Why there.
    pub reason: Reason,
    /// Age of the answer, where it came from the cache.
    pub age: Option<Duration>,
    /// The level that it ran under.
    pub level: Level,
    /// How old an answer of it may be, where it may be cached.
    pub ttl: Option<Duration>,
    /// The cache rule about it.
    pub rule: Option<Arc<Rule>>,
}

impl Last {
    /// Answered by the proxy itself.
    pub fn own(level: Level) -> Self {
        Self {
            served_by: ServedBy::Proxy,
            node: None,
            reason: Reason::Own,
            age: None,
            level,
            ttl: None,
            rule: None,
        }
    }

    /// The values in the order of `COLUMNS`.
    pub fn row(&self) -> [Option<String>; 7] {
        let milliseconds = |duration: Duration| duration.as_millis().to_string();
        [
            Some(self.served_by.to_string()),
            self.node.as_deref().map(str::to_owned),
            Some(self.reason.to_string()),
            self.age.map(milliseconds),
            Some(self.level.to_string()),
            self.ttl.map(milliseconds),
            self.rule.as_ref().map(ToString::to_string),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_says_who_why_and_how_old() {
        let last = Last {
            served_by: ServedBy::Cache,
            node: Some("db1:5432".into()),
            reason: Reason::Hit,
            age: Some(Duration::from_millis(1_500)),
            level: Level::Fresh,
            ttl: Some(Duration::from_secs(60)),
            rule: None,
        };
        let row = last.row().map(Option::unwrap_or_default);
        assert_eq!(
            row,
            ["cache", "db1:5432", "cache hit", "1500", "fresh", "60000", ""]
        );
        assert_eq!(Last::own(Level::Strict).row()[1], None);
    }
}
