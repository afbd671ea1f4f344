//! Why a connection did not become a client, and why the listener could not start.
//!
//! Made in `listener`; the door tells the client and writes the log. Invariant: what is said to a client comes from
//! [`DoorError::report`] alone. Like PostgreSQL, it says nothing to one that did not speak the protocol at all.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use crate::auth::AuthError;
use crate::protocol::error::Report;
use crate::protocol::sqlstate;
use crate::protocol::startup::StartupError;

/// Why a connection did not become a client.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// It was closed, or broke, before the login was done.
    #[error("the connection ended before the login was done")]
    Gone(#[source] Option<io::Error>),
    /// The first packet is not PostgreSQL's.
    #[error("{0}")]
    Startup(#[from] StartupError),
    /// Bytes followed a request for encryption without waiting for its answer: they may have been injected.
    #[error("received unencrypted data after an encryption request")]
    Injected,
    /// The TLS handshake failed.
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    /// TLS came without being asked for, and did not say that it carries PostgreSQL's protocol.
    #[error("received direct TLS connection request without the ALPN protocol \"postgresql\"")]
    NoAlpn,
    /// Plain TCP where TLS is demanded.
    #[error("this server accepts TLS connections only")]
    TlsRequired,
    /// The startup packet asks for what is not given.
    #[error("{}", .0.message)]
    Request(Report),
    /// As many clients as are allowed are connected.
    #[error("sorry, too many clients already")]
    TooManyClients,
    /// The login did not finish in time. Nothing is said to a client that has not asked for anything.
    #[error("canceling authentication due to timeout")]
    TimedOut {
        /// True when the startup packet had arrived.
        asked: bool,
    },
    /// The proxy is shutting down.
    #[error("terminating connection due to administrator command")]
    Stopping {
        /// True when the startup packet had arrived.
        asked: bool,
    },
    /// It could not prove who it is.
    #[error("login of \"{user}\": {error}")]
    Auth {
        /// Who it wanted to be.
        user: Arc<str>,
        /// Why not.
        error: AuthError,
    },
}

impl DoorError {
    /// What the client reads; `None`: the connection is closed without a word.
    pub fn report(&self) -> Option<Report> {
        let code = match self {
            Self::Request(report) => return Some(report.clone()),
            Self::Auth { user, error } => return error.report(user),
            Self::Gone(_)
            | Self::Injected
            | Self::Tls(_)
            | Self::NoAlpn
            | Self::Startup(StartupError::Length)
            | Self::TimedOut { asked: false }
            | Self::Stopping { asked: false } => return None,
            Self::Startup(StartupError::Layout) => sqlstate::PROTOCOL_VIOLATION,
            Self::Startup(StartupError::Version(..)) => sqlstate::FEATURE_NOT_SUPPORTED,
            Self::TlsRequired => sqlstate::INVALID_AUTHORIZATION,
            Self::TooManyClients => sqlstate::TOO_MANY_CONNECTIONS,
            Self::TimedOut { asked: true } => sqlstate::QUERY_CANCELED,
            Self::Stopping { asked: true } => sqlstate::ADMIN_SHUTDOWN,
        };
        Some(Report::fatal(code, self.to_string()))
    }
}

impl From<io::Error> for DoorError {
    fn from(error: io::Error) -> Self {
        Self::Gone(Some(error))
    }
}

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// As configured.
        address: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// Somebody answers on the Unix socket.
    #[error("cannot listen on {}: another server answers there", .0.display())]
    SocketInUse(PathBuf),
    /// Trust would let the network in.
    #[error("authentication \"trust\" is for loopback and Unix sockets only, not for {0}")]
    TrustBeyondLoopback(SocketAddr),
    /// TLS is demanded of clients, and there is no certificate to offer it with.
    #[error("TLS is required of clients, but no certificate is configured")]
    NoCertificate,
    /// No address is configured.
    #[error("there is no address to listen on")]
    NoAddress,
}
