//! A client that has passed the door: its socket, who it proved to be, and what its startup packet asked for.
//!
//! Made by the listener once per connection and handed to the session, which owns it from then on. Invariant: `identity` was
//! proven by the configured method before the value exists, and `parameters` holds settings only, neither the user, the
//! database, nor an option of the protocol.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::BytesMut;

use crate::auth::Identity;
use crate::session::stream::ClientStream;

/// Where a client connects from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An address.
    Tcp(SocketAddr),
    /// A Unix socket, whose other end has no name.
    Unix,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix => f.write_str("unix socket"),
        }
    }
}

/// An authenticated client. It has read AuthenticationOk; ParameterStatus, BackendKeyData and ReadyForQuery are still to be sent.
#[derive(Debug)]
pub struct Client {
    /// Its socket.
    pub stream: ClientStream,
    /// Bytes that arrived behind the login: the head of its first request, if it did not wait for ReadyForQuery.
    pub input: BytesMut,
    /// The role it logged in as.
    pub user: Arc<str>,
    /// The database it asked for.
    pub database: Arc<str>,
    /// Settings by lower-cased name, from the startup packet and, where that does not name them, from its `options`.
    pub parameters: BTreeMap<Box<str>, Box<str>>,
    /// Minor version of protocol 3 that is spoken with it: 0 or 2.
    pub protocol_minor: u16,
    /// Where it connects from.
    pub peer: Peer,
    /// What the login proved.
    pub identity: Identity,
}
