//! Why a login failed, and what the client may read of it.
//!
//! Made in `auth`, told to the client by the listener. Invariant: a refusal reads the same to the client whatever its reason; the
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
    /// The client asked for a part of the protocol that PostgreSQL does not have either.
    #[error("{0}")]
    Unsupported(&'static str),
    /// The exchange is not bound to this connection: somebody may sit in between.
    #[error("{0}")]
    Binding(&'static str),
    /// The client did not prove that it is the role.
    #[error("password authentication failed: {0}")]
    Refused(Reason),
    /// The client showed no certificate, or one of another name.
    #[error("certificate authentication failed: {0}")]
    Certificate(CertificateReason),
    /// The verifiers could not be asked for.
    #[error("the roles' verifiers are not available: {0}")]
    Unavailable(String),
    /// The client closed the connection, as a program does that wants to ask for a password first.
    #[error("the client closed the connection during its login")]
    Gone,
    /// The connection broke.
    #[error("the connection broke during the login: {0}")]
    Io(#[from] io::Error),
}

/// Why a password was not accepted; the client does not learn it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The proof was made with another password.
    #[error("wrong password")]
    WrongPassword,
    /// Nobody knows the role.
    #[error("the role is not known")]
    UnknownRole,
    /// The role has no password, or one that is not kept as SCRAM-SHA-256.
    #[error("the role has no SCRAM-SHA-256 verifier")]
    NoVerifier,
}

/// Why a certificate was not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateReason {
    /// None was shown.
    #[error("no client certificate")]
    Missing,
    /// It was issued to somebody else.
    #[error("the certificate's common name is another")]
    OtherName,
}

impl AuthError {
    /// What the client that wanted to be `user` reads; `None` when there is nobody to read it.
    pub fn report(&self, user: &str) -> Option<Report> {
        let report = match self {
            Self::Protocol(what) => Report::fatal(sqlstate::PROTOCOL_VIOLATION, *what),
            Self::Unsupported(what) => Report::fatal(sqlstate::FEATURE_NOT_SUPPORTED, *what),
            Self::Binding(what) => Report::fatal(sqlstate::INVALID_AUTHORIZATION, *what),
            Self::Refused(_) => Report::fatal(
                sqlstate::INVALID_PASSWORD,
                format!("password authentication failed for user \"{user}\""),
            ),
            Self::Certificate(CertificateReason::Missing) => Report::fatal(
                sqlstate::INVALID_AUTHORIZATION,
                "connection requires a valid client certificate",
            ),
            Self::Certificate(CertificateReason::OtherName) => Report::fatal(
                sqlstate::INVALID_AUTHORIZATION,
                format!("certificate authentication failed for user \"{user}\""),
            ),
            Self::Unavailable(_) => Report::fatal(
                sqlstate::CANNOT_CONNECT_NOW,
                "authentication is not possible now: the server that knows the roles does not answer",
            ),
            Self::Gone | Self::Io(_) => return None,
        };
        Some(report)
    }
}
