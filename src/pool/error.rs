//! Why no server connection could be had, one enum for the caller who waits and one for a single attempt to connect.
//!
//! Called by everything in `pool`; the session turns a [`PoolError`] into the client's ErrorResponse. A server's own refusal is
//! kept byte for byte, so that the client reads what PostgreSQL said. No secret is ever part of an error.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::cluster::NodeId;
use crate::pool::tls::TlsError;

/// An ErrorResponse that ended a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Five characters, as the server sent them.
    pub sqlstate: Box<str>,
    /// The primary message; bytes that are no UTF-8 are replaced here, never in `frame`.
    pub message: Box<str>,
    /// The whole message with tag and length, for relaying.
    pub frame: Bytes,
}

/// Why a lease was not granted.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// As many callers as are allowed already wait for this pool.
    #[error("{waiting} requests already wait for a server connection")]
    QueueFull {
        /// The queue's limit.
        waiting: usize,
    },
    /// The caller's deadline passed: every connection of the pool stayed busy.
    #[error("no server connection became free in time")]
    TimedOut,
    /// The caller's deadline passed: the node's connections are all in use by other pools.
    #[error("all {limit} connections allowed to this node are in use")]
    TooManyConnections {
        /// The cap of the node over all pools.
        limit: usize,
    },
    /// The server refused the login, and said why.
    #[error("the server refused the connection: {} (SQLSTATE {})", .0.message, .0.sqlstate)]
    Refused(Refusal),
    /// The connection could not be made.
    #[error(transparent)]
    Connect(ConnectError),
    /// The configuration has no such node.
    #[error("node {} is not configured", .0.0)]
    UnknownNode(NodeId),
}

impl PoolError {
    /// The SQLSTATE for the client: the server's own where there is one.
    pub fn sqlstate(&self) -> &str {
        match self {
            Self::QueueFull { .. } | Self::TimedOut | Self::TooManyConnections { .. } => "53300",
            Self::Refused(refusal) => &refusal.sqlstate,
            Self::Connect(_) | Self::UnknownNode(_) => "08001",
        }
    }
}

/// Why one attempt to connect and log in failed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The host has no address, or the socket answered with an error.
    #[error("could not connect to {address}: {source}")]
    Unreachable {
        /// The server as configured.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Connecting, TLS and login together took too long.
    #[error("connecting to {address} took longer than {limit:?}")]
    TimedOut {
        /// The server as configured.
        address: String,
        /// The configured limit.
        limit: Duration,
    },
    /// TLS could not be agreed on.
    #[error("TLS to the server failed: {0}")]
    Tls(#[from] TlsError),
    /// The server closed or broke the connection during login.
    #[error("the connection broke during login: {0}")]
    Io(#[from] io::Error),
    /// The server sent what the protocol does not allow here.
    #[error("the server broke the protocol during login: {0}")]
    Protocol(&'static str),
    /// The server asks for an authentication that is not supported.
    #[error("the server asks for authentication method {0}, which is not supported")]
    Method(i32),
    /// No secret is known that this method can use.
    #[error("the server asks for {method}, and no secret for it is known for user \"{user}\"")]
    NoSecret {
        /// The authentication's name.
        method: &'static str,
        /// The role.
        user: String,
    },
    /// The server did not prove that it knows the secret, or broke the SCRAM exchange.
    #[error("SCRAM with the server failed: {0}")]
    Scram(io::Error),
    /// The server refused.
    #[error("the server refused the connection: {} (SQLSTATE {})", .0.message, .0.sqlstate)]
    Refused(Refusal),
    /// Internal: the node's cap was not freed in time; the caller asks again until its own deadline.
    #[error("all connections allowed to this node are in use")]
    NodeFull,
    /// Internal: a pooled connection was found closed, evicted or retired at checkout.
    #[error("a pooled connection was no longer usable")]
    Stale,
}

impl From<ConnectError> for PoolError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::Refused(refusal) => Self::Refused(refusal),
            other => Self::Connect(other),
        }
    }
}

/// Why a cancel request may not have reached its server.
#[derive(Debug, thiserror::Error)]
pub enum CancelError {
    /// The request could not be sent.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The server did not close the connection in time: the cancel may still arrive later.
    #[error("the server did not finish the cancel request in {0:?}")]
    TimedOut(Duration),
    /// The configuration has no such node.
    #[error("node {} is not configured", .0.0)]
    UnknownNode(NodeId),
}
