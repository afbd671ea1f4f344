//! The server side of SCRAM-SHA-256 and SCRAM-SHA-256-PLUS (RFC 5802, RFC 7677), as arithmetic on messages.
//!
//! Called by `sasl`, which carries the messages. Besides the proof's verdict it yields the ClientKey, which the proof contains and
//! with which the pool logs in to the servers as the same role; that is why this is not pgwire's exchange, which keeps it. What
//! is refused, and with which words, follows PostgreSQL's auth-scram.c. Secrets are compared in constant time. Pure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::auth::Channel;
use crate::auth::error::AuthError;
use crate::auth::verifier::{Verifier, hmac};

/// The mechanism without channel binding.
pub(crate) const PLAIN: &str = "SCRAM-SHA-256";
/// The mechanism bound to the server's certificate.
pub(crate) const PLUS: &str = "SCRAM-SHA-256-PLUS";

const MALFORMED: AuthError = AuthError::Protocol("malformed SCRAM message");

/// An exchange after the client's first message.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// What the client must repeat in base64: its GS2 header, and the certificate's hash where it is bound to it.
    bound: Vec<u8>,
    client_first_bare: String,
    server_first: String,
    nonce: String,
}

/// A client's proof, taken apart.
pub(crate) struct Proof {
    /// True when it was made with the password of the verifier.
    pub holds: bool,
    /// Equivalent to the password when the proof holds, else noise.
    pub client_key: Zeroizing<[u8; 32]>,
    /// The server's last message: its own proof. Not to be sent unless the client's proof holds.
    pub server_final: String,
}

impl Exchange {
    /// Takes the client's first message, for the mechanism that it chose.
    pub fn begin(
        message: &[u8],
        mechanism: &str,
        channel: &Channel,
        verifier: &Verifier,
    ) -> Result<Self, AuthError> {
        let message = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
        let (flag, rest) = message.split_once(',').ok_or(MALFORMED)?;
        let (authorization, bare) = rest.split_once(',').ok_or(MALFORMED)?;
        let mut bound = format!("{flag},{authorization},").into_bytes();
        bound.extend_from_slice(binding_of(flag, mechanism, channel)?);
        if authorization.starts_with("a=") {
            return Err(AuthError::Unsupported(
                "client uses authorization identity, but it is not supported",
            ));
        }
        if !authorization.is_empty() {
            return Err(MALFORMED);
        }
        let client_nonce = client_nonce(bare)?;
        let nonce = format!("{client_nonce}{}", STANDARD.encode(rand::random::<[u8; 18]>()));
        Ok(Self {
            bound,
            client_first_bare: bare.to_owned(),
            server_first: format!("r={nonce},s={},i={}", verifier.salt, verifier.iterations),
            nonce,
        })
    }

    /// The server's first message.
    pub fn server_first(&self) -> &str {
        &self.server_first
    }

    /// Takes the client's last message. It takes the same time whether the proof holds or not.
    pub fn finish(&self, message: &[u8], verifier: &Verifier) -> Result<Proof, AuthError> {
        let message = std::str::from_utf8(message).map_err(|_| MALFORMED)?;
        let (unproved, proof) = message.rsplit_once(",p=").ok_or(MALFORMED)?;
        let mut attributes = unproved.split(',');
        let bound = attributes.next().and_then(|part| part.strip_prefix("c="));
        let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
        let (bound, nonce) = (bound.ok_or(MALFORMED)?, nonce.ok_or(MALFORMED)?);
        let bound = STANDARD.decode(bound).map_err(|_| MALFORMED)?;
        if bound != self.bound {
            return Err(AuthError::Binding("SCRAM channel binding check failed"));
        }
        if nonce != self.nonce {
            return Err(AuthError::Protocol(
                "invalid SCRAM response: nonce does not match",
            ));
        }
        let proof = Zeroizing::new(STANDARD.decode(proof).map_err(|_| MALFORMED)?);
        let proof: &[u8; 32] = proof.as_slice().try_into().map_err(|_| MALFORMED)?;
        let signed = format!("{},{},{unproved}", self.client_first_bare, self.server_first);
        let signature = hmac(&verifier.stored_key, &[signed.as_bytes()]);
        let mut client_key = Zeroizing::new(*proof);
        for (byte, mask) in client_key.iter_mut().zip(signature) {
            *byte ^= mask;
        }
        let claimed = Sha256::digest(*client_key);
        let server_signature = hmac(&verifier.server_key, &[signed.as_bytes()]);
        Ok(Proof {
            holds: claimed.as_slice().ct_eq(verifier.stored_key.as_slice()).into(),
            client_key,
            server_final: format!("v={}", STANDARD.encode(server_signature)),
        })
    }
}

/// Bytes that the client's flag binds the exchange to.
fn binding_of<'a>(flag: &str, mechanism: &str, channel: &'a Channel) -> Result<&'a [u8], AuthError> {
    let end_point = channel.end_point();
    match flag {
        "n" | "y" if mechanism == PLUS => Err(AuthError::Protocol(
            "client selected SCRAM-SHA-256-PLUS, but the SCRAM message does not include channel binding data",
        )),
        // The client could bind, and thinks that it was not offered. It was: somebody in between removed the offer.
        "y" if end_point.is_some() => Err(AuthError::Binding("SCRAM channel binding negotiation error")),
        "n" | "y" => Ok(&[]),
        _ if !flag.starts_with("p=") => Err(MALFORMED),
        _ if mechanism != PLUS => Err(AuthError::Protocol(
            "client selected SCRAM-SHA-256 without channel binding, but the SCRAM message includes channel binding data",
        )),
        "p=tls-server-end-point" => end_point.ok_or(MALFORMED),
        _ => Err(AuthError::Protocol("unsupported SCRAM channel-binding type")),
    }
}

/// The nonce in `n=<ignored>,r=<nonce>[,extensions]`. The name in it is ignored, as PostgreSQL ignores it: the startup packet's
/// counts.
fn client_nonce(bare: &str) -> Result<&str, AuthError> {
    if bare.starts_with("m=") {
        return Err(AuthError::Unsupported(
            "client requires an unsupported SCRAM extension",
        ));
    }
    let mut attributes = bare.split(',');
    let name = attributes.next().filter(|part| part.starts_with("n="));
    let nonce = attributes.next().and_then(|part| part.strip_prefix("r="));
    let (Some(_), Some(nonce)) = (name, nonce) else {
        return Err(MALFORMED);
    };
    if nonce.is_empty() || !nonce.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(AuthError::Protocol("non-printable characters in SCRAM nonce"));
    }
    Ok(nonce)
}

#[cfg(test)]
mod tests {
    use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};

    use super::*;

    fn tls() -> Channel {
        Channel::Tls {
            end_point: Some(b"hash of the certificate".to_vec()),
            certificate_name: None,
        }
    }

    fn bound(hash: &[u8]) -> ChannelBinding {
        ChannelBinding::tls_server_end_point(hash.to_vec())
    }

    /// A whole exchange with postgres-protocol as the client; the client key when both sides are content.
    fn exchange(password: &str, binding: ChannelBinding, channel: &Channel) -> Result<[u8; 32], AuthError> {
        let verifier = Verifier::of_password("pencil");
        let mechanism = match channel {
            Channel::Plain => PLAIN,
            Channel::Tls { .. } => PLUS,
        };
        let mut client = ScramSha256::new(password.as_bytes(), binding);
        let exchange = Exchange::begin(client.message(), mechanism, channel, &verifier)?;
        client
            .update(exchange.server_first().as_bytes())
            .expect("a good first message");
        let proof = exchange.finish(client.message(), &verifier)?;
        if !proof.holds {
            return Err(AuthError::Unsupported("the proof does not hold"));
        }
        client
            .finish(proof.server_final.as_bytes())
            .expect("the server proved itself");
        assert_eq!(
            Sha256::digest(*proof.client_key).as_slice(),
            verifier.stored_key.as_slice()
        );
        Ok(*proof.client_key)
    }

    #[test]
    fn the_right_password_proves_itself_and_yields_its_key() {
        exchange("pencil", ChannelBinding::unsupported(), &Channel::Plain).expect("proven");
        exchange("pencil", bound(b"hash of the certificate"), &tls()).expect("proven, and bound");
    }

    #[test]
    fn another_password_or_another_channel_proves_nothing() {
        let wrong = exchange("pencils", ChannelBinding::unsupported(), &Channel::Plain);
        assert!(matches!(
            wrong,
            Err(AuthError::Unsupported("the proof does not hold"))
        ));
        let foreign = exchange("pencil", bound(b"hash of another"), &tls());
        assert!(matches!(
            foreign,
            Err(AuthError::Binding("SCRAM channel binding check failed"))
        ));
    }

    fn begin(message: &str, mechanism: &str, channel: &Channel) -> Option<String> {
        let verifier = Verifier::mock(&[7; 32], "ann", 4096);
        let begun = Exchange::begin(message.as_bytes(), mechanism, channel, &verifier);
        begun
            .err()
            .map(|error| error.report("ann").expect("told").code.to_owned())
    }

    #[test]
    fn first_messages_that_cannot_be_are_refused_as_postgresql_does() {
        let check = |message: &str, mechanism: &str, channel: &Channel, code: Option<&str>| {
            assert_eq!(begin(message, mechanism, channel).as_deref(), code, "{message}");
        };
        check("n,,n=,r=abc", PLAIN, &Channel::Plain, None);
        check("n,,n=ann,r=abc,x=1", PLAIN, &tls(), None);
        check("y,,n=,r=abc", PLAIN, &Channel::Plain, None);
        check("y,,n=,r=abc", PLAIN, &tls(), Some("28000"));
        check("p=tls-server-end-point,,n=,r=abc", PLUS, &tls(), None);
        check("p=tls-server-end-point,,n=,r=abc", PLAIN, &tls(), Some("08P01"));
        check("p=tls-unique,,n=,r=abc", PLUS, &tls(), Some("08P01"));
        check("n,,n=,r=abc", PLUS, &tls(), Some("08P01"));
        check("y,,n=,r=abc", PLUS, &tls(), Some("08P01"));
        check("n,a=root,n=,r=abc", PLAIN, &Channel::Plain, Some("0A000"));
        check("n,,m=x,n=,r=abc", PLAIN, &Channel::Plain, Some("0A000"));
        for malformed in [
            "",
            "n",
            "n,",
            "n,,",
            "z,,n=,r=abc",
            "n,b,n=,r=abc",
            "n,,r=abc",
            "n,,n=,r=",
            "n,,n=,r=a b",
        ] {
            check(malformed, PLAIN, &Channel::Plain, Some("08P01"));
        }
    }

    #[test]
    fn last_messages_that_cannot_be_are_refused() {
        let verifier = Verifier::of_password("pencil");
        let exchange = Exchange::begin(b"n,,n=,r=abc", PLAIN, &Channel::Plain, &verifier).expect("begun");
        let nonce = &exchange.nonce;
        let proof = STANDARD.encode([0; 32]);
        let check = |message: &str, code: Option<&str>| {
            let error = exchange.finish(message.as_bytes(), &verifier).err();
            let told = error.map(|error| error.report("ann").expect("told").code);
            assert_eq!(told, code, "{message}");
        };
        check(&format!("c=biws,r={nonce},p={proof}"), None);
        check(&format!("c=eSws,r={nonce},p={proof}"), Some("28000"));
        check(&format!("c=biws,r={nonce}x,p={proof}"), Some("08P01"));
        check(&format!("c=biws,r=abc,p={proof}"), Some("08P01"));
        check(&format!("r={nonce},c=biws,p={proof}"), Some("08P01"));
        check(&format!("c=biws,r={nonce}"), Some("08P01"));
        check(
            &format!("c=biws,r={nonce},p={}", STANDARD.encode([0; 31])),
            Some("08P01"),
        );
        check(&format!("c=biws,r={nonce},p=*"), Some("08P01"));
        check("", Some("08P01"));
    }
}
