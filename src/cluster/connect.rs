//! Control connections: how pgladder itself talks SQL to a node.
//!
//! The poller and the prober of a node each own one, made by bb8-postgres's manager without a pool around it: a failed connect
//! is reported at once and with its cause, and a connection whose query timed out is closed instead of lent again.
//! Invariants: `number` differs between any two connections to a node; the password is looked up for each of them.
//! `open` may be dropped at any point.

use super::settings::{ClusterSettings, NodeConfig};
use bb8::ManageConnection as _;
use bb8_postgres::PostgresConnectionManager;
use std::{
    error::Error as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, Statement};

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The server refused, or the connection failed.
    #[error("{}", in_words(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No answer within the limit.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer came from another server or role than the one that was meant.
    #[error("the node is no longer the primary that was known")]
    Changed,
}

/// The server's own words, or the cause, where the driver says "db error" or less.
pub fn in_words(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// One poll of a node. Functions are named in full, so that no search_path can put another in their place. A replica's timeline
/// is that of the WAL it receives; without `pg_read_all_stats` (which `pg_monitor` includes) or without a receiver, the latest that
/// its control file knows of, from its last restartpoint or a flush of its buffers, which is never ahead of it.
const POLL: &str = "
WITH r AS MATERIALIZED (SELECT pg_catalog.pg_is_in_recovery() AS recovering)
SELECT r.recovering,
  (SELECT system_identifier FROM pg_catalog.pg_control_system()),
  CASE WHEN r.recovering THEN coalesce(
      (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver LIMIT 1),
      (SELECT greatest(timeline_id, min_recovery_end_timeline)
        FROM pg_catalog.pg_control_checkpoint(), pg_catalog.pg_control_recovery()))
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END,
  (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8,
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END,
  CASE WHEN r.recovering THEN
    extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8 END,
  pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')
FROM r";

/// What must not depend on the defaults of role, database or server: a commit that waits for no replica, and an isolation level
/// that a standby has.
const OPTIONS: &str = "-c synchronous_commit=local -c default_transaction_read_only=off \
                       -c default_transaction_isolation=read\\ committed";

/// A node, and the number of connections made to it.
#[derive(Debug)]
pub(super) struct Connector {
    node: NodeConfig,
    opened: AtomicU64,
}

/// An open control connection with its poll prepared.
pub(super) struct Control {
    pub client: Client,
    pub poll: Statement,
    pub number: u64,
}

impl Connector {
    pub(super) fn new(node: &NodeConfig) -> Self {
        Self {
            node: node.clone(),
            opened: AtomicU64::new(0),
        }
    }

    pub(super) async fn open(&self, settings: &ClusterSettings) -> Result<Control, ControlError> {
        let open = async {
            let manager = PostgresConnectionManager::new(self.login(settings), settings.tls.clone());
            let client = manager.connect().await?;
            let poll = client.prepare(POLL).await?;
            let number = self.opened.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Control { client, poll, number })
        };
        timeout(settings.connect_timeout, open)
            .await
            .map_err(|_| ControlError::TimedOut(settings.connect_timeout))?
    }

    /// How to log in now: the password may have changed since the last time.
    fn login(&self, settings: &ClusterSettings) -> Config {
        let NodeConfig { host, port, .. } = &self.node;
        let mut config = Config::new();
        config
            .host(host)
            .port(*port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("pgladder")
            .connect_timeout(settings.connect_timeout)
            .ssl_mode(settings.tls.mode(host))
            .options(OPTIONS);
        if let Some(password) = (settings.password)(host, *port, &settings.database, &settings.user) {
            config.password(password);
        }
        config
    }
}
