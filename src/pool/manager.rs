//! How bb8 makes, checks and takes back connections of one pool.
//!
//! Called by bb8 alone. bb8 holds a [`Seat`]; the connection behind an idle seat is on the node's shelf. Invariants: what comes
//! back dirty or of an older generation is closed; what is lent was silent a moment before. Checking costs no round-trip.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bb8::ManageConnection;
use bytes::BytesMut;

use crate::pool::address::Address;
use crate::pool::connect;
use crate::pool::connection::{AppliedSettings, Drawn, PoolKey, ServerConnection};
use crate::pool::credentials::Credentials;
use crate::pool::demand::Demand;
use crate::pool::error::ConnectError;
use crate::pool::login::{self, Identity};
use crate::pool::pools::{PoolSettings, SampleNumbers};
use crate::pool::shelf::Shelf;
use crate::pool::tls::ServerTls;

/// What all pools share for making connections.
pub(crate) struct Shared {
    pub settings: PoolSettings,
    pub tls: ServerTls,
    pub credentials: Arc<dyn Credentials>,
    pub samples: Arc<dyn SampleNumbers>,
    pub connection_ids: AtomicU64,
}

/// Makes the connections of one pool.
pub(crate) struct Connector {
    pub key: PoolKey,
    pub address: Address,
    pub shared: Arc<Shared>,
    pub shelf: Arc<Shelf>,
    pub demand: Arc<Demand>,
}

/// A place in bb8's books: a lent connection, or the ticket of a parked one.
pub(crate) struct Seat {
    shelf: Arc<Shelf>,
    place: Place,
}

enum Place {
    Lent(Box<ServerConnection>),
    Parked(u64),
    Gone,
}

impl Seat {
    pub(crate) fn connection(&self) -> &ServerConnection {
        match &self.place {
            Place::Lent(connection) => connection,
            _ => unreachable!("bb8 lends only seats that were checked out"),
        }
    }

    pub(crate) fn connection_mut(&mut self) -> &mut ServerConnection {
        match &mut self.place {
            Place::Lent(connection) => connection,
            _ => unreachable!("bb8 lends only seats that were checked out"),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        // bb8's reaper drops seats of connections that idled or lived too long.
        if let Place::Parked(ticket) = self.place {
            drop(self.shelf.take(ticket));
        }
    }
}

impl Connector {
    async fn log_in(&self) -> Result<Box<ServerConnection>, ConnectError> {
        let settings = &self.shared.settings;
        let generation = self.shelf.generation();
        let slot = self
            .shelf
            .slot(&self.key, settings.connect_timeout)
            .await
            .ok_or(ConnectError::NodeFull)?;
        let attempt = async {
            let mut stream = connect::open(&self.address, &self.shared.tls).await?;
            let (user, database) = (&*self.key.user, &*self.key.database);
            let identity = Identity {
                user,
                database,
                application_name: &settings.application_name,
                further: &[],
                secret: self.shared.credentials.secret(
                    user,
                    database,
                    self.address.host(),
                    self.address.port(),
                ),
                binding: connect::binding(&stream),
            };
            let logged_in = login::login(&mut stream, &identity).await?;
            Ok::<_, ConnectError>((stream, logged_in))
        };
        let (stream, logged_in) = tokio::time::timeout(settings.connect_timeout, Box::pin(attempt))
            .await
            .map_err(|_| ConnectError::TimedOut {
                address: self.address.to_string(),
                limit: settings.connect_timeout,
            })??;
        Ok(Box::new(ServerConnection {
            id: self.shared.connection_ids.fetch_add(1, Ordering::Relaxed),
            key: self.key.clone(),
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            parameters: logged_in.parameters,
            process: logged_in.process,
            secret: logged_in.secret,
            login: logged_in.facts,
            opened_at: Instant::now(),
            opened_at_sample: self.shared.samples.next_sample_number(self.key.node),
            replayed: None,
            dirty: false,
            prepared: ServerConnection::prepared_names(settings.prepared_statements_max),
            settings: AppliedSettings::new(),
            tainted_by: None,
            brought_to: None,
            drawn: Drawn::default(),
            generation,
            _slot: slot,
        }))
    }
}

impl ManageConnection for Connector {
    type Connection = Seat;
    type Error = ConnectError;

    async fn connect(&self) -> Result<Seat, ConnectError> {
        let connection = self.log_in().await?;
        // Parked at once, for its caller may have gone: then it must not hold a place that another pool needs.
        let ticket = self.shelf.park(connection, &self.demand);
        let place = ticket.map_or(Place::Gone, Place::Parked);
        Ok(Seat {
            shelf: Arc::clone(&self.shelf),
            place,
        })
    }

    async fn is_valid(&self, seat: &mut Seat) -> Result<(), ConnectError> {
        let Place::Parked(ticket) = std::mem::replace(&mut seat.place, Place::Gone) else {
            return Err(ConnectError::Stale);
        };
        let connection = self.shelf.take(ticket).ok_or(ConnectError::Stale)?;
        if connection.generation != self.shelf.generation() || !connection.stream.is_silent() {
            return Err(ConnectError::Stale);
        }
        seat.place = Place::Lent(connection);
        Ok(())
    }

    fn has_broken(&self, seat: &mut Seat) -> bool {
        let Place::Lent(connection) = std::mem::replace(&mut seat.place, Place::Gone) else {
            return true;
        };
        if connection.dirty || !connection.input.is_empty() || !connection.output.is_empty() {
            return true;
        }
        match self.shelf.park(connection, &self.demand) {
            Some(ticket) => {
                seat.place = Place::Parked(ticket);
                false
            }
            None => true,
        }
    }
}
