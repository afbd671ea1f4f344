//! Why there is no stream, in words that an operator can act upon.
//!
//! Made by whoever finds out, shown by `SHOW STREAM` and in the log. Invariant: a reason names what would have to change; whatever it
//! is, observed writes and TTL stay in force, and it is tried again.

use std::time::Duration;

use super::wire::WireError;
use crate::freshness::catalogs::CatalogError;

/// Why a database has no stream now.
#[derive(Debug, thiserror::Error)]
pub enum WhyNot {
    /// Nobody needs one.
    #[error("no cacheable statement has read a table yet")]
    NothingRead,
    /// It is being made.
    #[error("it is being made; the slot waits for transactions that have written")]
    Starting,
    /// Somebody alters tables, and the publication must not be in the way.
    #[error("a statement that may alter tables is under way")]
    Withheld,
    /// There is no primary to stream from.
    #[error("there is no primary")]
    NoPrimary,
    /// The server writes too little into its log.
    #[error("wal_level is {0}: set it to logical and restart the primary")]
    WalLevel(String),
    /// The role may not.
    #[error("the control user may not replicate: ALTER ROLE … REPLICATION")]
    NoReplication,
    /// The role may not make a publication.
    #[error(
        "the control user may not create a publication: GRANT CREATE ON DATABASE …, or name one in stream.publication"
    )]
    NoCreate,
    /// Replicas need them more.
    #[error(
        "of max_wal_senders = {max} too few are left: {used} are used, and 2 beyond those of the replicas stay free"
    )]
    Senders {
        /// The setting.
        max: i64,
        /// Those in use.
        used: i64,
    },
    /// No slot is left.
    #[error("all of max_replication_slots = {0} are used")]
    Slots(i64),
    /// The publication of the configuration is not there.
    #[error("there is no publication \"{0}\" in this database")]
    NoPublication(String),
    /// The publication of the configuration would hide writes.
    #[error(
        "publication \"{0}\" must publish insert, update, delete and truncate, and not via the partition root"
    )]
    Partial(String),
    /// Somebody changed the publication of the configuration.
    #[error("the publication was altered")]
    Altered,
    /// Transactions would not end.
    #[error(
        "the slot was not ready within {0:?}: a transaction that has written, or a prepared one, has been open for as long"
    )]
    SlotTimedOut(Duration),
    /// The control connection.
    #[error(transparent)]
    Control(#[from] CatalogError),
    /// A question on it.
    #[error("{}", crate::cluster::in_words(.0))]
    Asking(#[from] tokio_postgres::Error),
    /// It gave no answer, or one that makes no sense.
    #[error("the primary gave no sensible answer about {0}")]
    Answer(&'static str),
    /// The replication connection.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Nothing came for too long.
    #[error("the stream was silent for {0:?}")]
    Silent(Duration),
    /// Another server, or the same one after a crash.
    #[error("the primary changed")]
    Changed,
    /// The slot holds too much of the log.
    #[error("the slot retained {0} bytes of WAL, more than stream.retained_max")]
    Retained(u64),
    /// Too many commits wait for their confirmation.
    #[error(
        "too many commits were streamed that the primary does not show: does a synchronous standby fail to answer?"
    )]
    LedgerFull,
    /// The proxy stops.
    #[error("the proxy is stopping")]
    Stopping,
}
