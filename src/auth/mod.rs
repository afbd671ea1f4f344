//! Who a client is: the exchange that proves it, before anything else is said.
//!
//! Called by the listener with a client's stream right after its startup packet. A role that does not exist and a password that
//! is wrong give the same messages, the same text and take the same time; only the log tells them apart. Invariant: an
//! [`Identity`] exists only for a client that passed. It decides nothing about what the role may do: the servers do.

mod error;
mod identity;
mod wire;

pub use error::AuthError;
pub use identity::Identity;
pub use wire::Wire;

use std::collections::HashSet;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// Not at all; only for listening on loopback and Unix sockets.
    #[default]
    Trust,
}

/// What [`Auth::new`] needs to be told.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    /// How clients prove who they are.
    pub method: Method,
    /// Roles that may use the console.
    pub admins: HashSet<Box<str>>,
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The role it asks for.
    pub user: &'a Arc<str>,
}

/// The configured authentication, made ready.
#[derive(Debug)]
pub struct Auth {
    settings: AuthSettings,
}

impl Auth {
    /// Makes the settings ready.
    pub fn new(settings: AuthSettings) -> Self {
        Self { settings }
    }

    /// True when anybody may claim to be any role.
    pub fn trusts_everybody(&self) -> bool {
        self.settings.method == Method::Trust
    }

    /// Runs the exchange. The last message of a successful one may still be in the wire's output, before which
    /// AuthenticationOk must not be sent. Not cancel safe: a client whose exchange was dropped must be disconnected.
    #[expect(
        clippy::unused_async,
        reason = "the methods that exchange messages wait for them"
    )]
    pub async fn authenticate<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        _wire: &mut Wire<'_, S>,
        candidate: Candidate<'_>,
    ) -> Result<Identity, AuthError> {
        match self.settings.method {
            Method::Trust => Ok(Identity {
                user: Arc::clone(candidate.user),
                admin: self.settings.admins.contains(&**candidate.user),
                keys: None,
            }),
        }
    }
}
