//! Who a client is: the exchange that proves it, before anything else is said.
//!
//! Called by the listener with a client's stream right after its startup packet. A role that does not exist and a password that
//! is wrong give the same messages, the same text and take the same time; only the log tells them apart. Invariant: an
//! [`Identity`] exists only for a client that passed. It decides nothing about what the role may do: the servers do.

mod cached;
mod error;
mod identity;
mod query;
mod sasl;
mod scram;
mod users;
mod verifier;
mod wire;

pub use cached::{Answer, Unavailable, Verifiers};
pub use error::{AuthError, CertificateReason, Reason};
pub use identity::Identity;
pub use query::{DEFAULT_QUERY, Primary, PrimaryVerifiers, QuerySettings};
pub use users::{UserSecret, UserSecretError};
pub use verifier::{Verifier, VerifierError};
pub use wire::Wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::auth::cached::Cached;
use crate::auth::sasl::Proven;
use crate::auth::users::Users;
use crate::pool::Secret;

/// How clients prove who they are. md5 and cleartext passwords are not offered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// By SCRAM-SHA-256, bound to the channel over TLS where the client can.
    #[default]
    Scram,
    /// By a TLS certificate whose common name is the role.
    Certificate,
    /// Not at all; only for listening on loopback and Unix sockets.
    Trust,
}

/// What [`Auth::new`] needs to be told.
#[derive(Clone, Debug)]
pub struct AuthSettings {
    /// How clients prove who they are.
    pub method: Method,
    /// Roles that the configuration knows.
    pub users: HashMap<Box<str>, UserSecret>,
    /// Whom to ask for the verifiers of all other roles.
    pub query: Option<Arc<dyn Verifiers>>,
    /// How long an answer to that may be used again: for so long a changed password may be refused, and the old one taken.
    pub query_ttl: Duration,
    /// Roles that may use the console.
    pub admins: HashSet<Box<str>>,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            method: Method::default(),
            users: HashMap::new(),
            query: None,
            query_ttl: Duration::from_secs(5),
            admins: HashSet::new(),
        }
    }
}

/// What the connection itself proves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Channel {
    /// Nothing.
    #[default]
    Plain,
    /// TLS.
    Tls {
        /// The hash of the proxy's certificate that SCRAM can be bound to (tls-server-end-point); `None` where none is defined.
        end_point: Option<Vec<u8>>,
        /// The common name of the client's certificate, which a configured authority signed.
        certificate_name: Option<Box<str>>,
    },
}

impl Channel {
    fn end_point(&self) -> Option<&[u8]> {
        match self {
            Self::Plain => None,
            Self::Tls { end_point, .. } => end_point.as_deref(),
        }
    }
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// The role it asks for.
    pub user: &'a Arc<str>,
    /// How it is connected.
    pub channel: &'a Channel,
}

/// The configured authentication, made ready.
#[derive(Debug)]
pub struct Auth {
    method: Method,
    roles: ArcSwap<Roles>,
}

/// What can be exchanged while logins go on.
#[derive(Debug)]
struct Roles {
    users: Users,
    admins: HashSet<Box<str>>,
}

impl Auth {
    /// Makes the settings ready; a configured password takes about a millisecond.
    pub fn new(settings: AuthSettings) -> Self {
        let ttl = settings.query_ttl;
        let asked = settings.query.map(|source| Cached::new(source, ttl));
        Self {
            method: settings.method,
            roles: ArcSwap::from_pointee(Roles {
                users: Users::new(&settings.users, asked.map(Arc::new)),
                admins: settings.admins,
            }),
        }
    }

    /// Other configured roles and admins, for logins from now on. Derives the verifiers of passwords, as `new` does.
    pub fn renew(&self, users: &HashMap<Box<str>, UserSecret>, admins: HashSet<Box<str>>) {
        let users = self.roles.load().users.renewed(users);
        self.roles.store(Arc::new(Roles { users, admins }));
    }

    /// True when anybody may claim to be any role.
    pub fn trusts_everybody(&self) -> bool {
        self.method == Method::Trust
    }

    /// Runs the exchange. The last message of a successful one may still be in the wire's output, before which
    /// AuthenticationOk must not be sent. Not cancel safe: a client whose exchange was dropped must be disconnected.
    pub async fn authenticate<S: AsyncRead + AsyncWrite + Unpin + Send>(
        &self,
        wire: &mut Wire<'_, S>,
        candidate: Candidate<'_>,
    ) -> Result<Identity, AuthError> {
        let roles = self.roles.load_full();
        let keys = match self.method {
            Method::Trust => None,
            Method::Certificate => {
                check_certificate(candidate)?;
                None
            }
            Method::Scram => Some(prove(&roles.users, wire, candidate).await?),
        };
        Ok(Identity {
            user: Arc::clone(candidate.user),
            admin: roles.admins.contains(&**candidate.user),
            keys,
        })
    }
}

async fn prove<S: AsyncRead + AsyncWrite + Unpin + Send>(
    users: &Users,
    wire: &mut Wire<'_, S>,
    candidate: Candidate<'_>,
) -> Result<Secret, AuthError> {
    let exchange = sasl::run(wire, candidate.channel, users.find(candidate.user));
    let Proven { proof, found } = exchange.await.inspect_err(|error| {
        if matches!(error, AuthError::Refused(_)) {
            users.forget(candidate.user);
        }
    })?;
    Ok(match found.password {
        // Its verifier has a salt of our own making: its keys are of no use with a server.
        Some(password) => Secret::Password(password),
        None => Secret::ScramKeys {
            client_key: proof.client_key,
            server_key: found.verifier.server_key.clone(),
        },
    })
}

fn check_certificate(candidate: Candidate<'_>) -> Result<(), AuthError> {
    let Channel::Tls {
        certificate_name: Some(name),
        ..
    } = candidate.channel
    else {
        return Err(AuthError::Certificate(CertificateReason::Missing));
    };
    if **name == **candidate.user {
        Ok(())
    } else {
        Err(AuthError::Certificate(CertificateReason::OtherName))
    }
}

#[cfg(test)]
mod tests;
