//! Why a login failed, and what the client may read of it.
//!
//! Made in `auth`, told to the client by the listener. Invariant: the report of a refusal is the same for every reason; the
//! reason is for the log alone.

use std::io;

use crate::protocol::error::Report;
use crate::protocol::sqlstate;

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The client broke the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// The client closed the connection, as a program does that wants to ask for a password first.
    #[error("the client closed the connection during its login")]
    Gone,
    /// The connection broke.
    #[error("the connection broke during the login: {0}")]
    Io(#[from] io::Error),
}

impl AuthError {
    /// What the client reads; `None` when there is nobody to read it.
    pub fn report(&self) -> Option<Report> {
        match self {
            Self::Protocol(what) => Some(Report::fatal(sqlstate::PROTOCOL_VIOLATION, *what)),
            Self::Gone | Self::Io(_) => None,
        }
    }
}
