//! Control connections: how pgladder itself talks SQL to a node.
//!
//! The poller and the prober of a node each own one, made through the node's bb8 pool as a dedicated connection: that reports a
//! failed connect at once and with its cause, and a connection whose query timed out is closed instead of lent again.
//! Invariant: `number` differs between any two connections to a node. `open` may be dropped at any point.

use super::settings::{ClusterSettings, NodeConfig};
use bb8::Pool;
use bb8_postgres::PostgresConnectionManager;
use std::{
    error::Error as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls, Statement};

/// Why a node gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// The server refused, or the connection failed.
    #[error("{}", with_cause(.0))]
    Postgres(#[from] tokio_postgres::Error),
    /// No answer within the limit.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// The answer came from another server or role than the one that was meant.
    #[error("the node is no longer the primary that was known")]
    Changed,
}

fn with_cause(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} ({})", db.message(), db.code().code());
    }
    error
        .source()
        .map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

/// One poll of a node. Functions are named in full, so that no search_path can put another in their place. A replica's timeline
/// is that of the WAL it receives; without `pg_monitor` or a receiver, of its last restartpoint, which is never ahead of it.
const POLL: &str = "
WITH r AS MATERIALIZED (SELECT pg_catalog.pg_is_in_recovery() AS recovering)
SELECT r.recovering,
  (SELECT system_identifier FROM pg_catalog.pg_control_system()),
  CASE WHEN r.recovering THEN coalesce(
      (SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver LIMIT 1),
      (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()))
    ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8))::bit(32)::int4 END,
  (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8,
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_insert_lsn() END,
  CASE WHEN r.recovering THEN pg_catalog.pg_last_wal_replay_lsn() ELSE pg_catalog.pg_current_wal_flush_lsn() END,
  CASE WHEN r.recovering THEN
    extract(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())::float8 END
FROM r";

/// A node's pool and the numbers of its connections.
#[derive(Debug)]
pub(super) struct Connector {
    pool: Pool<PostgresConnectionManager<NoTls>>,
    connect_timeout: Duration,
    opened: AtomicU64,
}

/// An open control connection with its poll prepared.
pub(super) struct Control {
    pub client: Client,
    pub poll: Statement,
    pub number: u64,
}

impl Connector {
    pub(super) fn new(node: &NodeConfig, settings: &ClusterSettings) -> Self {
        let mut config = tokio_postgres::Config::new();
        config
            .host(&node.host)
            .port(node.port)
            .user(&settings.user)
            .dbname(&settings.database)
            .application_name("pgladder")
            .connect_timeout(settings.connect_timeout)
            .options("-c synchronous_commit=local -c default_transaction_read_only=off");
        if let Some(password) = (settings.password)(&node.host, node.port, &settings.database, &settings.user)
        {
            config.password(password);
        }
        let manager = PostgresConnectionManager::new(config, NoTls);
        // Two: the poller's and the prober's.
        let pool = Pool::builder()
            .max_size(2)
            .max_lifetime(None)
            .idle_timeout(None)
            .build_unchecked(manager);
        Self {
            pool,
            connect_timeout: settings.connect_timeout,
            opened: AtomicU64::new(0),
        }
    }

    pub(super) async fn open(&self) -> Result<Control, ControlError> {
        let open = async {
            let client = self.pool.dedicated_connection().await?;
            let poll = client.prepare(POLL).await?;
            let number = self.opened.fetch_add(1, Ordering::SeqCst) + 1;
            Ok(Control { client, poll, number })
        };
        timeout(self.connect_timeout, open)
            .await
            .map_err(|_| ControlError::TimedOut(self.connect_timeout))?
    }
}
