//! The roles that may log in, and what is known of each: from the configuration, and from the servers where they are asked.
//!
//! Called by `Auth::authenticate` once per login. Invariant: every role has a verifier, if only a made-up one, so that the exchange
//! goes the same way for all; and where servers are asked, no answer comes sooner than another, so that neither the cache nor the
//! configuration can be told from outside. Cancel safe.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::auth::cached::{Cached, Known};
use crate::auth::error::{AuthError, Reason};
use crate::auth::verifier::{ITERATIONS, Verifier, VerifierError};

/// What the configuration says of a role.
#[derive(Clone)]
pub enum UserSecret {
    /// Its password. The pool logs in to the servers with it too.
    Password(Zeroizing<String>),
    /// Its verifier. Where it is the servers' own, the pool logs in with the key that the client's login proves.
    Verifier(Verifier),
}

impl fmt::Debug for UserSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password(_) => "UserSecret::Password(…)",
            Self::Verifier(_) => "UserSecret::Verifier(…)",
        })
    }
}

/// Why a text cannot be a role's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UserSecretError {
    /// PostgreSQL accepts no empty password either.
    #[error("the password is empty")]
    Empty,
    /// An md5 hash proves nothing in a SCRAM exchange.
    #[error("an md5 hash cannot be used: clients log in with SCRAM-SHA-256")]
    Md5,
    /// It begins like a verifier.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
}

impl FromStr for UserSecret {
    type Err = UserSecretError;

    fn from_str(text: &str) -> Result<Self, UserSecretError> {
        let is_md5 = |digits: &str| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if text.is_empty() {
            Err(UserSecretError::Empty)
        } else if text.starts_with("SCRAM-SHA-256$") {
            Ok(Self::Verifier(text.parse()?))
        } else if text.strip_prefix("md5").is_some_and(is_md5) {
            Err(UserSecretError::Md5)
        } else {
            Ok(Self::Password(Zeroizing::new(text.to_owned())))
        }
    }
}

/// What a login is checked against.
#[derive(Debug)]
pub(crate) struct Found {
    pub verifier: Arc<Verifier>,
    /// Where the configuration has it.
    pub password: Option<Zeroizing<String>>,
    /// Set when the verifier is made up: whatever the client proves, it is refused.
    pub unusable: Option<Reason>,
}

struct Configured {
    verifier: Arc<Verifier>,
    password: Option<Zeroizing<String>>,
}

/// All sources.
pub(crate) struct Users {
    configured: HashMap<Box<str>, Configured>,
    asked: Option<Arc<Cached>>,
    mock_secret: Zeroizing<[u8; 32]>,
    /// Of the first real verifier seen: made-up ones have as many, because PostgreSQL gives all of a cluster the same.
    iterations: OnceLock<u32>,
}

impl Users {
    /// Derives the verifiers of passwords: about a millisecond each.
    pub fn new(users: &HashMap<Box<str>, UserSecret>, asked: Option<Arc<Cached>>) -> Self {
        let configured = configured(users);
        let iterations = OnceLock::new();
        if let Some(first) = configured.values().next() {
            iterations.get_or_init(|| first.verifier.iterations);
        }
        Self {
            configured,
            asked,
            mock_secret: Zeroizing::new(rand::random()),
            iterations,
        }
    }

    /// The same with other configured roles. What was made up stays as it was, so that a reload does not tell it apart.
    pub fn renewed(&self, users: &HashMap<Box<str>, UserSecret>) -> Self {
        Self {
            configured: configured(users),
            asked: self.asked.clone(),
            mock_secret: self.mock_secret.clone(),
            iterations: self.iterations.clone(),
        }
    }

    /// What is known of a role. The error says that the servers could not be asked, which is the same for every role.
    pub async fn find(&self, user: &str) -> Result<Found, AuthError> {
        let begun = Instant::now();
        let found = self.find_at_once_or_ask(user).await?;
        if let Some(asked) = &self.asked {
            asked.even_out(begun).await;
        }
        Ok(found)
    }

    /// Forgets what a server said of a role whose login failed: its password may have been changed since.
    pub fn forget(&self, user: &str) {
        if let Some(asked) = &self.asked {
            asked.forget(user);
        }
    }

    async fn find_at_once_or_ask(&self, user: &str) -> Result<Found, AuthError> {
        let unusable = if let Some(configured) = self.configured.get(user) {
            return Ok(Found {
                verifier: Arc::clone(&configured.verifier),
                password: configured.password.clone(),
                unusable: None,
            });
        } else if let Some(asked) = &self.asked {
            match asked.look_up(user).await? {
                Known::Verifier(verifier) => {
                    self.iterations.get_or_init(|| verifier.iterations);
                    return Ok(Found {
                        verifier,
                        password: None,
                        unusable: None,
                    });
                }
                Known::NoVerifier => Reason::NoVerifier,
                Known::Nothing => Reason::UnknownRole,
            }
        } else {
            Reason::UnknownRole
        };
        let iterations = self.iterations.get().copied().unwrap_or(ITERATIONS);
        Ok(Found {
            verifier: Arc::new(Verifier::mock(&self.mock_secret, user, iterations)),
            password: None,
            unusable: Some(unusable),
        })
    }
}

fn configured(users: &HashMap<Box<str>, UserSecret>) -> HashMap<Box<str>, Configured> {
    let users = users.iter();
    users
        .map(|(name, secret)| (name.clone(), Configured::new(secret)))
        .collect()
}

impl Configured {
    fn new(secret: &UserSecret) -> Self {
        match secret {
            UserSecret::Password(password) => Self {
                verifier: Arc::new(Verifier::of_password(password)),
                password: Some(password.clone()),
            },
            UserSecret::Verifier(verifier) => Self {
                verifier: Arc::new(verifier.clone()),
                password: None,
            },
        }
    }
}

impl fmt::Debug for Users {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Users")
            .field("configured", &self.configured.len())
            .field("asked", &self.asked)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Result<&str, UserSecretError>) {
        let read = text.parse::<UserSecret>().map(|secret| format!("{secret:?}"));
        assert_eq!(read.as_deref().map_err(|error| *error), expected, "{text}");
    }

    #[test]
    fn a_secret_is_a_password_or_a_verifier() {
        check("secret", Ok("UserSecret::Password(…)"));
        check("md5 is my favourite", Ok("UserSecret::Password(…)"));
        check("", Err(UserSecretError::Empty));
        check("md5d41d8cd98f00b204e9800998ecf8427e", Err(UserSecretError::Md5));
        check(
            "SCRAM-SHA-256$4096:x",
            Err(UserSecretError::Verifier(VerifierError)),
        );
    }

    #[tokio::test]
    async fn an_unknown_role_looks_like_a_known_one() {
        let verifier = "SCRAM-SHA-256$9000:VGVzdFNhbHQxMjM0NTY3OA==$nWmjXxlcLmAyq5DZLd1QRoRuVkF5xYCTxKE0nPT0NqI=:cpYsmBDMVTmgJXr5JZXRwMPGwgd3wQyvVvDlXWvOjIk=";
        let known = [("ann".into(), verifier.parse().expect("a verifier"))];
        let users = Users::new(&known.into(), None);
        let ann = users.find("ann").await.expect("found");
        assert_eq!(ann.unusable, None);
        let eve = users.find("eve").await.expect("made up");
        assert_eq!(eve.unusable, Some(Reason::UnknownRole));
        assert_eq!(eve.verifier.iterations, ann.verifier.iterations);
        assert_eq!(eve.verifier.salt.len(), ann.verifier.salt.len());
        assert_eq!(users.find("eve").await.expect("made up").verifier, eve.verifier);
    }
}
