//! The client side of SCRAM-SHA-256 towards a server, by password or by the role's ClientKey (RFC 5802, RFC 7677).
//!
//! Called by `login`. With a password the arithmetic is postgres-protocol's; with a key, which is all that the proxy learns when
//! a client logs in by SCRAM, it is done here: the exchange needs neither the password nor its derivation. The login succeeds
//! only after [`Scram::finish`] verified the server's signature. It does no I/O.

use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use postgres_protocol::authentication::sasl::{self, ScramSha256};
use rand::Rng;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// Characters of the client's nonce; 24 of a 64-letter alphabet are 144 bits.
const NONCE_CHARS: usize = 24;

/// How the exchange is bound to the TLS channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// No TLS, or a certificate whose hash is not defined.
    Unsupported,
    /// TLS, but the server did not offer SCRAM-SHA-256-PLUS: a server that did offer it then notices the attack.
    NotOffered,
    /// The hash of the server's certificate (tls-server-end-point, RFC 5929).
    EndPoint(Vec<u8>),
}

impl Binding {
    fn header(&self) -> &'static str {
        match self {
            Self::Unsupported => "n,,",
            Self::NotOffered => "y,,",
            Self::EndPoint(_) => "p=tls-server-end-point,,",
        }
    }

    fn into_protocol(self) -> sasl::ChannelBinding {
        match self {
            Self::Unsupported => sasl::ChannelBinding::unsupported(),
            Self::NotOffered => sasl::ChannelBinding::unrequested(),
            Self::EndPoint(hash) => sasl::ChannelBinding::tls_server_end_point(hash),
        }
    }
}

/// An exchange in progress.
pub enum Scram {
    /// From a password.
    Password(ScramSha256),
    /// From the role's keys.
    Keys(KeyExchange),
}

impl Scram {
    /// Begins with a password.
    pub fn with_password(password: &str, binding: Binding) -> Self {
        Self::Password(ScramSha256::new(password.as_bytes(), binding.into_protocol()))
    }

    /// Begins with the keys.
    pub fn with_keys(client: &[u8; 32], server: &[u8; 32], binding: Binding) -> Self {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut random = rand::rng();
        let letter = |_| char::from(ALPHABET[random.random_range(0..ALPHABET.len())]);
        let nonce = (0..NONCE_CHARS).map(letter).collect();
        Self::Keys(KeyExchange::new(client, server, binding, nonce))
    }

    /// The next message for the server.
    pub fn message(&self) -> &[u8] {
        match self {
            Self::Password(exchange) => exchange.message(),
            Self::Keys(exchange) => exchange.message.as_bytes(),
        }
    }

    /// Takes the server's first message.
    pub fn update(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Password(exchange) => exchange.update(message),
            Self::Keys(exchange) => exchange.update(message),
        }
    }

    /// Takes the server's last message and verifies its signature.
    pub fn finish(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Self::Password(exchange) => exchange.finish(message),
            Self::Keys(exchange) => exchange.finish(message),
        }
    }
}

/// An exchange from the role's keys.
pub struct KeyExchange {
    client_key: Zeroizing<[u8; 32]>,
    server_key: Zeroizing<[u8; 32]>,
    binding: Binding,
    nonce: String,
    message: String,
    signed: Option<String>,
}

impl KeyExchange {
    fn new(client: &[u8; 32], server: &[u8; 32], binding: Binding, nonce: String) -> Self {
        let message = format!("{}n=,r={nonce}", binding.header());
        let (client_key, server_key) = (Zeroizing::new(*client), Zeroizing::new(*server));
        Self {
            client_key,
            server_key,
            binding,
            nonce,
            message,
            signed: None,
        }
    }

    fn update(&mut self, message: &[u8]) -> io::Result<()> {
        let first = std::str::from_utf8(message).map_err(|_| bad("the first message is not UTF-8"))?;
        let nonce = first.split(',').next().and_then(|part| part.strip_prefix("r="));
        let nonce = nonce.ok_or_else(|| bad("the first message has no nonce"))?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() || self.signed.is_some() {
            return Err(bad("the nonce is not an extension of ours"));
        }
        let mut channel = self.binding.header().as_bytes().to_vec();
        if let Binding::EndPoint(hash) = &self.binding {
            channel.extend_from_slice(hash);
        }
        let unproved = format!("c={},r={nonce}", STANDARD.encode(channel));
        let signed = format!("n=,r={},{first},{unproved}", self.nonce);
        let stored_key: [u8; 32] = Sha256::digest(*self.client_key).into();
        let signature = hmac(&stored_key, &signed);
        let mut proof = Zeroizing::new(*self.client_key);
        proof
            .iter_mut()
            .zip(signature)
            .for_each(|(byte, mask)| *byte ^= mask);
        self.message = format!("{unproved},p={}", STANDARD.encode(*proof));
        self.signed = Some(signed);
        Ok(())
    }

    fn finish(&mut self, message: &[u8]) -> io::Result<()> {
        let signed = self
            .signed
            .take()
            .ok_or_else(|| bad("the last message came before the first"))?;
        let signature = message
            .strip_prefix(b"v=")
            .ok_or_else(|| bad("the server sent no signature"))?;
        let signature = STANDARD
            .decode(signature)
            .map_err(|_| bad("the signature is not base64"))?;
        if bool::from(signature.ct_eq(&hmac(&self.server_key, &signed))) {
            Ok(())
        } else {
            Err(bad(
                "the server's signature is wrong: it does not hold this role's verifier",
            ))
        }
    }
}

fn hmac(key: &[u8; 32], text: &str) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of RFC 7677, section 3, whose password is "pencil"; PostgreSQL leaves the user name empty, so the proof is
    /// computed over another text, and the server's part is played by the definition.
    const SERVER_FIRST: &str =
        "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn keys() -> ([u8; 32], [u8; 32]) {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let mut block = Hmac::<Sha256>::new_from_slice(b"pencil").expect("any key");
        block.update(&salt);
        block.update(&[0, 0, 0, 1]);
        let mut round: [u8; 32] = block.finalize().into_bytes().into();
        let mut salted = round;
        for _ in 1..4096 {
            let mut mac = Hmac::<Sha256>::new_from_slice(b"pencil").expect("any key");
            mac.update(&round);
            round = mac.finalize().into_bytes().into();
            salted
                .iter_mut()
                .zip(round)
                .for_each(|(byte, mask)| *byte ^= mask);
        }
        (hmac(&salted, "Client Key"), hmac(&salted, "Server Key"))
    }

    fn exchange(binding: Binding) -> KeyExchange {
        let (client, server) = keys();
        KeyExchange::new(&client, &server, binding, "rOprNGfwEbeRWgbNEkqO".to_owned())
    }

    #[test]
    fn keys_reproduce_the_signatures_of_the_rfc() {
        let (client, server) = keys();
        let signed = format!(
            "n=user,r=rOprNGfwEbeRWgbNEkqO,{SERVER_FIRST},c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
        );
        assert_eq!(
            STANDARD.encode(hmac(&server, &signed)),
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        );
        let stored: [u8; 32] = Sha256::digest(client).into();
        let mut proof = client;
        proof
            .iter_mut()
            .zip(hmac(&stored, &signed))
            .for_each(|(byte, mask)| *byte ^= mask);
        assert_eq!(
            STANDARD.encode(proof),
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
    }

    #[test]
    fn the_server_must_prove_itself() {
        let mut exchange = exchange(Binding::Unsupported);
        assert_eq!(exchange.message, "n,,n=,r=rOprNGfwEbeRWgbNEkqO");
        exchange
            .update(SERVER_FIRST.as_bytes())
            .expect("a good first message");
        let signed = exchange.signed.clone().expect("signed");
        let right = format!("v={}", STANDARD.encode(hmac(&keys().1, &signed)));
        let wrong = format!("v={}", STANDARD.encode(hmac(&keys().0, &signed)));
        assert!(exchange.finish(wrong.as_bytes()).is_err());
        exchange.signed = Some(signed);
        exchange.finish(right.as_bytes()).expect("the right signature");
        assert!(
            exchange.finish(right.as_bytes()).is_err(),
            "an exchange ends once"
        );
    }

    #[test]
    fn a_replayed_or_foreign_nonce_is_refused() {
        for first in [
            "r=rOprNGfwEbeRWgbNEkqO,s=AA==,i=1",
            "r=other,s=AA==,i=1",
            "s=AA==",
            "",
        ] {
            assert!(
                exchange(Binding::Unsupported).update(first.as_bytes()).is_err(),
                "{first}"
            );
        }
    }

    #[test]
    fn the_channel_is_part_of_what_is_signed() {
        let mut bound = exchange(Binding::EndPoint(vec![1, 2, 3]));
        bound
            .update(SERVER_FIRST.as_bytes())
            .expect("a good first message");
        let expected = STANDARD.encode(b"p=tls-server-end-point,,\x01\x02\x03");
        assert!(
            bound.message.starts_with(&format!("c={expected},")),
            "{}",
            bound.message
        );
    }
}
