//! What a server keeps of a password: PostgreSQL's SCRAM-SHA-256 verifier, as it stands in `pg_authid.rolpassword`.
//!
//! Read from the configuration or from a server, derived from a configured password, or made up for a role that has none, so that
//! the exchange with an unknown role looks like any other. Invariant: its keys never show in `Debug` and are overwritten when
//! dropped. The derivation from a password is postgres-protocol's. Pure.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Rounds of the derivation where nothing else is known: PostgreSQL's default.
pub(crate) const ITERATIONS: u32 = 4096;
/// Bytes of salt that PostgreSQL makes.
const SALT_BYTES: usize = 16;
const PREFIX: &str = "SCRAM-SHA-256$";

/// `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`.
#[derive(Clone, PartialEq, Eq)]
pub struct Verifier {
    /// In base64, as it is sent.
    pub(crate) salt: Box<str>,
    pub(crate) iterations: u32,
    pub(crate) stored_key: Zeroizing<[u8; 32]>,
    pub(crate) server_key: Zeroizing<[u8; 32]>,
}

/// Why a text is no verifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>")]
pub struct VerifierError;

impl Verifier {
    /// Derives a verifier with a random salt; about a millisecond.
    pub fn of_password(password: &str) -> Self {
        postgres_protocol::password::scram_sha_256(password.as_bytes())
            .parse()
            .expect("what postgres-protocol derives has PostgreSQL's form")
    }

    /// The verifier of a role that has none. The same role gets the same salt each time, as a real one does; no password fits.
    pub(crate) fn mock(secret: &[u8; 32], user: &str, iterations: u32) -> Self {
        let part = |what: &str| hmac(secret, &[what.as_bytes(), user.as_bytes()]);
        Self {
            salt: STANDARD.encode(&part("salt")[..SALT_BYTES]).into(),
            iterations,
            stored_key: Zeroizing::new(part("stored")),
            server_key: Zeroizing::new(part("server")),
        }
    }
}

impl FromStr for Verifier {
    type Err = VerifierError;

    fn from_str(text: &str) -> Result<Self, VerifierError> {
        let parts = text
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.split_once('$'))
            .and_then(|(head, keys)| Some((head.split_once(':')?, keys.split_once(':')?)));
        let ((iterations, salt), (stored, server)) = parts.ok_or(VerifierError)?;
        let iterations = iterations.parse().map_err(|_| VerifierError)?;
        if iterations == 0 || STANDARD.decode(salt).map_err(|_| VerifierError)?.is_empty() {
            return Err(VerifierError);
        }
        Ok(Self {
            salt: salt.into(),
            iterations,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier")
            .field("iterations", &self.iterations)
            .finish_non_exhaustive()
    }
}

fn key(text: &str) -> Result<Zeroizing<[u8; 32]>, VerifierError> {
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| VerifierError)?);
    let key = bytes.as_slice().try_into().map_err(|_| VerifierError)?;
    Ok(Zeroizing::new(key))
}

/// HMAC-SHA-256 of the parts, one after the other.
pub(crate) fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by PostgreSQL for the password "secret".
    const REAL: &str = "SCRAM-SHA-256$4096:VGVzdFNhbHQxMjM0NTY3OA==$\
                        nWmjXxlcLmAyq5DZLd1QRoRuVkF5xYCTxKE0nPT0NqI=:cpYsmBDMVTmgJXr5JZXRwMPGwgd3wQyvVvDlXWvOjIk=";

    #[test]
    fn a_verifier_is_read_whole_or_not_at_all() {
        let verifier: Verifier = REAL.parse().expect("valid");
        assert_eq!(
            (verifier.iterations, &*verifier.salt),
            (4096, "VGVzdFNhbHQxMjM0NTY3OA==")
        );
        for cut in 0..REAL.len() {
            assert!(REAL[..cut].parse::<Verifier>().is_err(), "cut at {cut}");
        }
        for wrong in [
            "md5d41d8cd98f00b204e9800998ecf8427e",
            &REAL.replace("4096", "0"),
            &REAL.replace("4096", "-1"),
            &REAL.replace("VGVzdFNhbHQxMjM0NTY3OA==", ""),
            &REAL.replace("nWmj", "nW*j"),
            &format!("{REAL}="),
        ] {
            assert!(wrong.parse::<Verifier>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_password_gets_another_salt_each_time() {
        let (one, two) = (Verifier::of_password("secret"), Verifier::of_password("secret"));
        assert_ne!(one.salt, two.salt);
        assert_ne!(one.stored_key, two.stored_key);
    }

    #[test]
    fn a_made_up_verifier_stays_the_same_for_its_role_only() {
        let mock = |secret: u8, user| Verifier::mock(&[secret; 32], user, ITERATIONS);
        assert_eq!(mock(1, "ann"), mock(1, "ann"));
        assert_ne!(mock(1, "ann").salt, mock(1, "bob").salt);
        assert_ne!(mock(1, "ann").salt, mock(2, "ann").salt);
        let real = Verifier::of_password("secret");
        assert_eq!(mock(1, "ann").salt.len(), real.salt.len());
    }

    #[test]
    fn keys_are_not_shown() {
        let shown = format!("{:?}", REAL.parse::<Verifier>().expect("valid"));
        assert_eq!(shown, "Verifier { iterations: 4096, .. }");
    }
}
