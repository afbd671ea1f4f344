//! What the proxy knows to log in to a server as a role, and where it comes from.
//!
//! Called by `login` for each new server connection, so that a changed password counts from the next login on. A secret never
//! shows in `Debug` and is overwritten when dropped. It does not decide which method is used: the server asks for one.

use std::fmt;
use std::sync::Arc;

use zeroize::Zeroizing;

/// A secret of one role.
#[derive(Clone)]
pub enum Secret {
    /// The password itself: good for every method.
    Password(Zeroizing<String>),
    /// `md5` and 32 hex digits, as in pg_authid: good for md5 only.
    Md5Hash(String),
    /// The keys of SCRAM-SHA-256, learnt when the client logged in: good for SCRAM against the same verifier only.
    ScramKeys {
        /// Equivalent to the password for this verifier.
        client_key: Zeroizing<[u8; 32]>,
        /// With it the server proves that it holds the verifier.
        server_key: Zeroizing<[u8; 32]>,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "Secret::Password(…)",
            Self::Md5Hash(_) => "Secret::Md5Hash(…)",
            Self::ScramKeys { .. } => "Secret::ScramKeys(…)",
        })
    }
}

/// A source of secrets.
pub trait Credentials: Send + Sync {
    /// The secret of `user` for a server, or `None`: then only a server that trusts the proxy lets it in.
    fn secret(&self, user: &str, database: &str, host: &str, port: u16) -> Option<Secret>;
}

/// Sources asked in order; the first that knows a secret wins.
#[derive(Clone, Default)]
pub struct FirstOf(pub Vec<Arc<dyn Credentials>>);

impl Credentials for FirstOf {
    fn secret(&self, user: &str, database: &str, host: &str, port: u16) -> Option<Secret> {
        self.0
            .iter()
            .find_map(|source| source.secret(user, database, host, port))
    }
}
