//! `[pool]`: server connections, how many and for how long.
//!
//! Read by `Config::load`; used by the pools. A pool is made for each node, database and user that clients ask for.

use std::time::Duration;

use super::kind::{NOT_EMPTY, Span, Whole};
use super::reader::Section;

/// Limits of server connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolConfig {
    /// Connections of one pool (node, database, user).
    pub size: u32,
    /// Connections to one node over all pools.
    pub node_connections_max: usize,
    /// Clients that may wait for one pool.
    pub queue_max: usize,
    /// How long a client waits for a connection.
    pub queue_timeout: Duration,
    /// Connecting, TLS and login together.
    pub connect_timeout: Duration,
    /// An idle connection is closed after this time.
    pub idle_timeout: Duration,
    /// A connection is closed at this age, when it is not in use.
    pub lifetime: Duration,
    /// Prepared statements kept on one connection.
    pub prepared_statements_max: usize,
    /// What `pg_stat_activity` shows until a client says otherwise.
    pub application_name: String,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            size: 16,
            node_connections_max: 64,
            queue_max: 1024,
            queue_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(600),
            lifetime: Duration::from_secs(3600),
            prepared_statements_max: 200,
            application_name: "pgladder".to_owned(),
        }
    }
}

impl PoolConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("size", &mut self.size, &Whole(1..=10_000));
        section.read(
            "node_connections_max",
            &mut self.node_connections_max,
            &Whole(1..=100_000),
        );
        section.read("queue_max", &mut self.queue_max, &Whole(0..=1_000_000));
        section.read("queue_timeout", &mut self.queue_timeout, &Span::new(1, 3_600));
        section.read("connect_timeout", &mut self.connect_timeout, &Span::new(10, 300));
        section.read(
            "idle_timeout",
            &mut self.idle_timeout,
            &Span::new(1_000, 7 * 86_400),
        );
        section.read("lifetime", &mut self.lifetime, &Span::new(1_000, 30 * 86_400));
        let statements = &mut self.prepared_statements_max;
        section.read("prepared_statements_max", statements, &Whole(1..=100_000));
        section.read("application_name", &mut self.application_name, &NOT_EMPTY);
    }
}
