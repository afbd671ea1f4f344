//! A lent server connection.
//!
//! Held by one session. Dropping it hands the connection to whoever has waited longest for one, or else gives it back; one that is
//! dirty is closed. There is nothing asynchronous in giving back: what must be undone on the server is undone by the session before.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::pool::connection::ServerConnection;
use crate::pool::line::Place;
use crate::pool::pools::{Pool, Seated};

/// Exclusive use of a connection.
pub struct Lease {
    /// Taken when it is dropped.
    lent: Option<(Seated, Place<Seated>)>,
    pool: Arc<Pool>,
}

impl Lease {
    pub(crate) fn new(pool: Arc<Pool>, seat: Seated, place: Place<Seated>) -> Self {
        pool.count_lease();
        Self {
            lent: Some((seat, place)),
            pool,
        }
    }

    /// Closes the connection instead of giving it back.
    pub fn close(mut self) {
        self.dirty = true;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some((seat, place)) = self.lent.take() else {
            return;
        };
        let left = if self.pool.may_hand_over(seat.connection()) {
            place.hand_over(seat).err()
        } else {
            Some((place, seat))
        };
        if let Some((place, seat)) = left {
            // It must be back before the place is free.
            drop(seat);
            drop(place);
        }
    }
}

impl Deref for Lease {
    type Target = ServerConnection;

    fn deref(&self) -> &ServerConnection {
        let (seat, _) = self.lent.as_ref().expect("taken by drop alone");
        seat.connection()
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut ServerConnection {
        let (seat, _) = self.lent.as_mut().expect("taken by drop alone");
        seat.connection_mut()
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
