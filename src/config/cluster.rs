//! `[cluster]`: how nodes are watched, and when a replica is too far behind.
//!
//! Read by `Config::load`; used by the cluster and the catalog. The control user logs in to every node; it needs CONNECT and
//! `pg_monitor` only. Its secret is looked up as for servers, never kept here.

use std::time::Duration;

use super::kind::{Bytes, NOT_EMPTY, Optional, Span, Whole};
use super::reader::Section;

/// How nodes are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Time from one poll of a node to the next.
    pub poll_interval: Duration,
    /// How long one poll may take.
    pub poll_timeout: Duration,
    /// The longest pause between attempts to reach a node that is down.
    pub reconnect_wait_max: Duration,
    /// A replica that lags longer leaves.
    pub lag_max: Duration,
    /// A replica that lags more bytes of WAL leaves; `None`: no limit.
    pub lag_bytes_max: Option<u64>,
    /// It returns when its lag is at most this share, in percent, of both limits ...
    pub return_percent: u32,
    /// ... in so many polls one after the other.
    pub return_samples: u32,
    /// Time from one look for DDL made past the proxy to the next.
    pub catalog_interval: Duration,
    /// How long a statement waits for a primary while there is none.
    pub primary_wait: Duration,
    /// The user that the proxy itself logs in as: by default `PGUSER`, else the user whose process this is.
    pub control_user: String,
    /// The database that positions are asked in.
    pub control_database: String,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            poll_interval: Duration::from_millis(100),
            poll_timeout: Duration::from_secs(2),
            reconnect_wait_max: Duration::from_secs(1),
            lag_max: Duration::from_secs(10),
            lag_bytes_max: Some(64 << 20),
            return_percent: 50,
            return_samples: 3,
            catalog_interval: Duration::from_secs(5),
            primary_wait: Duration::from_secs(10),
            control_user: effective_user(),
            control_database: "postgres".to_owned(),
        }
    }
}

impl ClusterConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("poll_interval", &mut self.poll_interval, &Span::new(10, 60));
        section.read("poll_timeout", &mut self.poll_timeout, &Span::new(10, 60));
        section.read(
            "reconnect_wait_max",
            &mut self.reconnect_wait_max,
            &Span::new(10, 300),
        );
        section.read("lag_max", &mut self.lag_max, &Span::new(10, 7 * 86_400));
        let lag_bytes = Optional {
            none: "unlimited",
            kind: Bytes(1 << 10..=1 << 50),
        };
        section.read("lag_bytes_max", &mut self.lag_bytes_max, &lag_bytes);
        section.read("return_percent", &mut self.return_percent, &Whole(1..=100));
        section.read("return_samples", &mut self.return_samples, &Whole(1..=1_000));
        section.read(
            "catalog_interval",
            &mut self.catalog_interval,
            &Span::new(100, 3_600),
        );
        section.read("primary_wait", &mut self.primary_wait, &Span::new(1, 3_600));
        section.read("control_user", &mut self.control_user, &NOT_EMPTY);
        section.read("control_database", &mut self.control_database, &NOT_EMPTY);
    }
}

/// The name of the user whose process this is, as libpq takes it; empty where the system has no name for it.
fn effective_user() -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid());
    user.ok().flatten().map_or_else(String::new, |user| user.name)
}
