//! A lent server connection.
//!
//! Held by one session. Dropping it gives the connection back, or closes it when it is dirty; then the next caller in line is
//! let in. There is nothing asynchronous in giving back: what must be undone on the server is undone by the session before.

use std::ops::{Deref, DerefMut};

use bb8::PooledConnection;
use tokio::sync::OwnedSemaphorePermit;

use crate::pool::connection::ServerConnection;
use crate::pool::manager::Connector;

/// Exclusive use of a connection.
pub struct Lease {
    // Fields drop in this order: the connection must be back before the gate opens.
    pub(crate) seat: PooledConnection<'static, Connector>,
    pub(crate) _gate: OwnedSemaphorePermit,
}

impl Lease {
    /// Closes the connection instead of giving it back.
    pub fn close(mut self) {
        self.dirty = true;
    }
}

impl Deref for Lease {
    type Target = ServerConnection;

    fn deref(&self) -> &ServerConnection {
        self.seat.connection()
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut ServerConnection {
        self.seat.connection_mut()
    }
}

impl std::fmt::Debug for Lease {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Lease")
            .field("id", &self.id)
            .field("process", &self.process)
            .finish_non_exhaustive()
    }
}
