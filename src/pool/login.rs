//! The login on a fresh stream: startup, authentication as the server asks for it, and the first facts.
//!
//! Called by `connect`. A server is not trusted before it has proved itself: messages are bounded, an AuthenticationOk in the
//! middle of a SCRAM exchange is refused, and bytes after the last ReadyForQuery fail the login. Not cancel safe: a dropped
//! login leaves a stream that must be closed, and its owner drops it.

use std::collections::BTreeMap;
use std::io;

use bytes::{Buf, Bytes, BytesMut};
use md5::{Digest, Md5};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::pool::credentials::Secret;
use crate::pool::error::{ConnectError, Refusal};
use crate::pool::facts::{self, LoginFacts};
use crate::pool::scram::{Binding, Scram};
use crate::pool::stream::ServerStream;

/// No message of a login is larger; a larger one is an attack or no PostgreSQL.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Who logs in.
pub(crate) struct Identity<'a> {
    pub user: &'a str,
    pub database: &'a str,
    pub application_name: &'a str,
    /// Further startup parameters.
    pub further: &'a [(&'a str, &'a str)],
    pub secret: Option<Secret>,
    pub binding: Binding,
}

/// What a login leaves besides the stream.
#[derive(Debug, Default)]
pub(crate) struct LoggedIn {
    pub parameters: BTreeMap<Box<str>, Box<str>>,
    pub process: i32,
    pub secret: Bytes,
    pub facts: LoginFacts,
}

/// Logs in and asks for the facts; leaves the stream idle and silent.
pub(crate) async fn login(stream: &mut ServerStream, who: &Identity<'_>) -> Result<LoggedIn, ConnectError> {
    let mut wire = Wire {
        stream,
        input: BytesMut::with_capacity(4096),
        output: BytesMut::new(),
    };
    let startup = [
        ("user", who.user),
        ("database", who.database),
        ("application_name", who.application_name),
    ];
    let startup = startup.into_iter().chain(who.further.iter().copied());
    frontend::startup_message(startup, &mut wire.output)?;
    wire.send().await?;
    authenticate(&mut wire, who).await?;
    let mut done = LoggedIn::default();
    wire.until_ready(&mut done).await?;
    let denied = match ask(&mut wire, &mut done, true).await {
        Err(ConnectError::Refused(refusal)) if &*refusal.sqlstate == "42501" => true,
        other => other.map(|()| false)?,
    };
    if denied {
        ask(&mut wire, &mut done, false).await?;
    }
    if !done.facts.is_complete() || !wire.input.is_empty() {
        return Err(ConnectError::Protocol(
            "the answer to the first query is not what was asked for",
        ));
    }
    Ok(done)
}

/// Answers what the server asks until it says AuthenticationOk.
async fn authenticate(wire: &mut Wire<'_>, who: &Identity<'_>) -> Result<(), ConnectError> {
    let mut scram = None;
    let mut proved = false;
    loop {
        let mut body = wire.expect_authentication().await?;
        if body.len() < 4 {
            return Err(ConnectError::Protocol("an authentication request is too short"));
        }
        match (body.get_i32(), scram.as_mut()) {
            (0, Some(_)) if !proved => {
                return Err(ConnectError::Protocol(
                    "the server ended SCRAM without proving itself",
                ));
            }
            (0, _) => return Ok(()),
            (3, None) => {
                let password = cleartext(who)?;
                frontend::password_message(password.as_bytes(), &mut wire.output)?;
            }
            (5, None) => {
                let salt = body
                    .first_chunk::<4>()
                    .ok_or(ConnectError::Protocol("the md5 salt is too short"))?;
                frontend::password_message(md5_answer(who, *salt)?.as_bytes(), &mut wire.output)?;
            }
            (10, None) => {
                let (mechanism, exchange) = begin_scram(who, &body)?;
                frontend::sasl_initial_response(mechanism, exchange.message(), &mut wire.output)?;
                scram = Some(exchange);
            }
            (11, Some(exchange)) => {
                exchange.update(&body).map_err(ConnectError::Scram)?;
                frontend::sasl_response(exchange.message(), &mut wire.output)?;
            }
            (12, Some(exchange)) => {
                exchange.finish(&body).map_err(ConnectError::Scram)?;
                proved = true;
            }
            (method, _) => return Err(ConnectError::Method(method)),
        }
        wire.send().await?;
    }
}

fn no_secret(who: &Identity<'_>, method: &'static str) -> ConnectError {
    ConnectError::NoSecret {
        method,
        user: who.user.to_owned(),
    }
}

fn cleartext<'a>(who: &'a Identity<'_>) -> Result<&'a str, ConnectError> {
    match &who.secret {
        Some(Secret::Password(password)) => Ok(password),
        _ => Err(no_secret(who, "password")),
    }
}

fn md5_answer(who: &Identity<'_>, salt: [u8; 4]) -> Result<String, ConnectError> {
    match &who.secret {
        Some(Secret::Password(password)) => Ok(md5_hash(who.user.as_bytes(), password.as_bytes(), salt)),
        Some(Secret::Md5Hash(hash)) => {
            let digits = hash.strip_prefix("md5").unwrap_or(hash);
            let digest = Md5::new().chain_update(digits).chain_update(salt).finalize();
            Ok(digest
                .iter()
                .fold("md5".to_owned(), |text, byte| format!("{text}{byte:02x}")))
        }
        _ => Err(no_secret(who, "md5")),
    }
}

fn begin_scram(who: &Identity<'_>, offered: &[u8]) -> Result<(&'static str, Scram), ConnectError> {
    let offers = |name: &[u8]| {
        offered
            .split(|&byte| byte == 0)
            .any(|mechanism| mechanism == name)
    };
    let (mechanism, binding) = match &who.binding {
        Binding::EndPoint(_) if offers(b"SCRAM-SHA-256-PLUS") => ("SCRAM-SHA-256-PLUS", who.binding.clone()),
        Binding::EndPoint(_) => ("SCRAM-SHA-256", Binding::NotOffered),
        _ => ("SCRAM-SHA-256", Binding::Unsupported),
    };
    if !offers(mechanism.as_bytes()) {
        return Err(ConnectError::Protocol(
            "the server offers no SASL mechanism that is known",
        ));
    }
    match &who.secret {
        Some(Secret::Password(password)) => Ok((mechanism, Scram::with_password(password, binding))),
        Some(Secret::ScramKeys {
            client_key,
            server_key,
        }) => Ok((mechanism, Scram::with_keys(client_key, server_key, binding))),
        _ => Err(no_secret(who, "scram-sha-256")),
    }
}

/// One simple query for the facts. A refusal leaves the connection ready for another query.
async fn ask(wire: &mut Wire<'_>, done: &mut LoggedIn, with_identifier: bool) -> Result<(), ConnectError> {
    frontend::query(&facts::query(with_identifier), &mut wire.output)?;
    wire.send().await?;
    wire.until_ready(done).await
}

struct Wire<'a> {
    stream: &'a mut ServerStream,
    input: BytesMut,
    output: BytesMut,
}

impl Wire<'_> {
    async fn send(&mut self) -> Result<(), ConnectError> {
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next whole message, with its tag and length.
    async fn next(&mut self) -> Result<Bytes, ConnectError> {
        loop {
            if let Some(total) = whole(&self.input)? {
                return Ok(self.input.split_to(total).freeze());
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
            }
        }
    }

    async fn expect_authentication(&mut self) -> Result<Bytes, ConnectError> {
        loop {
            let message = self.next().await?;
            match message[0] {
                b'R' => return Ok(message.slice(5..)),
                b'E' => return Err(ConnectError::Refused(refusal(message))),
                b'N' | b'v' => {}
                _ => {
                    return Err(ConnectError::Protocol(
                        "a message came before the authentication was done",
                    ));
                }
            }
        }
    }

    /// Takes in everything up to ReadyForQuery; an ErrorResponse on the way is the result.
    async fn until_ready(&mut self, done: &mut LoggedIn) -> Result<(), ConnectError> {
        let mut refused = None;
        loop {
            let message = self.next().await?;
            let body = message.slice(5..);
            match message[0] {
                b'S' => parameter(&body, &mut done.parameters)?,
                b'K' if body.len() >= 8 => {
                    done.process = body.slice(..4).get_i32();
                    done.secret = body.slice(4..);
                }
                b'D' => {
                    let row = facts::two_columns(&body).filter(|(name, value)| done.facts.take(name, *value));
                    row.ok_or(ConnectError::Protocol(
                        "a value of the first query cannot be read",
                    ))?;
                }
                // A fatal error is not followed by ReadyForQuery but by the end of the stream.
                b'E' if field(&body, b'V').is_some_and(|severity| severity != b"ERROR") => {
                    return Err(ConnectError::Refused(refusal(message)));
                }
                b'E' => refused = Some(refusal(message)),
                b'Z' => return refused.map_or(Ok(()), |refusal| Err(ConnectError::Refused(refusal))),
                b'N' | b'T' | b'C' => {}
                _ => {
                    return Err(ConnectError::Protocol(
                        "an unexpected message came during the login",
                    ));
                }
            }
        }
    }
}

/// The length of the first message when all of it is there.
fn whole(input: &[u8]) -> Result<Option<usize>, ConnectError> {
    let Some((&[_tag, a, b, c, d], _)) = input.split_first_chunk::<5>() else {
        return Ok(None);
    };
    match usize::try_from(i32::from_be_bytes([a, b, c, d])) {
        Ok(length) if (4..=MESSAGE_BYTES_MAX).contains(&length) => {
            Ok(Some(length + 1).filter(|&n| n <= input.len()))
        }
        _ => Err(ConnectError::Protocol("a message has an impossible length")),
    }
}

fn parameter(body: &[u8], parameters: &mut BTreeMap<Box<str>, Box<str>>) -> Result<(), ConnectError> {
    let mut parts = body.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    match (parts.next(), parts.next(), parts.next()) {
        (Some(name), Some(value), Some(_)) => {
            parameters.insert(name.into(), value.into());
            Ok(())
        }
        _ => Err(ConnectError::Protocol("a ParameterStatus is cut off")),
    }
}

fn refusal(message: Bytes) -> Refusal {
    let text = |tag| field(&message[5..], tag).map_or("".into(), String::from_utf8_lossy);
    let (sqlstate, said) = (text(b'C').into(), text(b'M').into());
    Refusal {
        sqlstate,
        message: said,
        frame: message,
    }
}

fn field(body: &[u8], tag: u8) -> Option<&[u8]> {
    body.split(|&byte| byte == 0)
        .filter_map(|part| part.split_first())
        .find(|part| *part.0 == tag)
        .map(|part| part.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_split_only_by_a_possible_length() {
        assert!(matches!(whole(b"Z\0\0"), Ok(None)));
        assert!(matches!(whole(b"Z\0\0\0\x05"), Ok(None)));
        assert!(matches!(whole(b"Z\0\0\0\x05IZ"), Ok(Some(6))));
        assert!(whole(b"Z\0\0\0\x03").is_err());
        assert!(
            whole(b"HTTP/1.1 400").is_err(),
            "another protocol is noticed by its length"
        );
        assert!(whole(b"Z\xff\xff\xff\xff").is_err());
    }

    #[test]
    fn a_stored_md5_hash_answers_like_the_password() {
        let who = |secret| Identity {
            user: "ann",
            database: "app",
            application_name: "",
            further: &[],
            secret: Some(secret),
            binding: Binding::Unsupported,
        };
        let password = who(Secret::Password("secret".to_owned().into()));
        let hash = Md5::digest("secretann")
            .iter()
            .fold("md5".to_owned(), |t, b| format!("{t}{b:02x}"));
        let hashed = who(Secret::Md5Hash(hash));
        let salt = [1, 2, 3, 4];
        assert_eq!(
            md5_answer(&password, salt).expect("md5"),
            md5_answer(&hashed, salt).expect("md5")
        );
        assert!(matches!(cleartext(&hashed), Err(ConnectError::NoSecret { .. })));
    }
}
