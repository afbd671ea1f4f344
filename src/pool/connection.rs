//! One server connection after its login: the socket, what the server said, and what has been changed on it since.
//!
//! Owned by the pool while idle and by one session while lent. It is dirty from before the first request to ReadyForQuery idle;
//! the session sets and clears the flag, the pool closes what comes back dirty. It does no I/O of its own.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use tokio::sync::OwnedSemaphorePermit;

use crate::cluster::NodeId;
use crate::pool::facts::LoginFacts;
use crate::pool::prepared::PreparedNames;
use crate::pool::stream::ServerStream;
use crate::protocol::lsn::Lsn;

/// What a pool is for; connections are never shared between two keys.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PoolKey {
    /// The server.
    pub node: NodeId,
    /// The database.
    pub database: Arc<str>,
    /// The role that logs in.
    pub user: Arc<str>,
}

/// Where a cancel request for a running query goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CancelTarget {
    /// The server.
    pub node: NodeId,
    /// The backend's process id, from BackendKeyData.
    pub process: i32,
    /// Its secret: 4 bytes in protocol 3.0.
    pub secret: Bytes,
}

/// Values by the setting's name in lower case.
pub type AppliedSettings = BTreeMap<Box<str>, Box<str>>;

/// Whose numbers `currval` and `lastval` would tell on a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Drawn {
    /// Nobody has drawn from a sequence here.
    #[default]
    ByNobody,
    /// This session alone may have.
    By(u64),
    /// More than one may have.
    BySeveral,
}

/// A logged-in connection.
#[derive(Debug)]
pub struct ServerConnection {
    /// Unique in this process.
    pub id: u64,
    /// The pool it belongs to.
    pub key: PoolKey,
    /// The socket.
    pub stream: ServerStream,
    /// Bytes read and not yet taken; empty while idle.
    pub input: BytesMut,
    /// Bytes to be written; empty while idle.
    pub output: BytesMut,
    /// The latest ParameterStatus values, kept current by the session.
    pub parameters: BTreeMap<Box<str>, Box<str>>,
    /// The backend's process id.
    pub process: i32,
    /// The backend's cancel secret.
    pub secret: Bytes,
    /// What held right after the login.
    pub login: LoginFacts,
    /// When the login was done.
    pub opened_at: Instant,
    /// Samples of this node with a greater number were sent after this connection was open.
    pub opened_at_sample: u64,
    /// The replay position asked on this very connection, if any.
    pub replayed: Option<Lsn>,
    /// True while an answer may be outstanding.
    pub dirty: bool,
    /// The prepared statements it has.
    pub prepared: PreparedNames,
    /// The settings changed since login.
    pub settings: AppliedSettings,
    /// The settings that it was brought to as a whole, while nothing has changed them since: the next session that wants the very
    /// same ones has nothing to compare.
    pub brought_to: Option<Arc<AppliedSettings>>,
    /// Who may have drawn from sequences here.
    pub drawn: Drawn,
    /// The session that ran something here whose trace cannot be told: anybody else resets the connection in full first.
    pub tainted_by: Option<u64>,
    pub(crate) generation: u64,
    pub(crate) _slot: OwnedSemaphorePermit,
}

impl ServerConnection {
    /// Where to send a cancel request for what runs here.
    pub fn cancel_target(&self) -> CancelTarget {
        CancelTarget {
            node: self.key.node,
            process: self.process,
            secret: self.secret.clone(),
        }
    }

    pub(crate) fn prepared_names(statements_max: usize) -> PreparedNames {
        PreparedNames::new(NonZeroUsize::new(statements_max).unwrap_or(NonZeroUsize::MIN))
    }
}

impl Drop for ServerConnection {
    fn drop(&mut self) {
        if !self.dirty {
            self.stream.say_terminate();
        }
    }
}
