//! The messages of a SCRAM login: AuthenticationSASL, the client's choice, two rounds, and the verdict.
//!
//! Called by `Auth::authenticate`; the arithmetic is `scram`'s. An exchange with a made-up verifier runs to its end like any other
//! and then fails. Invariant: nothing is said of the verdict before the client's proof was checked.

use std::future::Future;

use bytes::{Buf, Bytes};
use pgwire::messages::Message;
use pgwire::messages::startup::Authentication;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::auth::error::{AuthError, Reason};
use crate::auth::scram::{Exchange, PLAIN, PLUS, Proof};
use crate::auth::users::Found;
use crate::auth::{Channel, Wire};

/// A login whose proof held.
pub(crate) struct Proven {
    pub proof: Proof,
    pub found: Found,
}

/// Runs the exchange. `lookup` finds the verifier; it is awaited once, when the client has chosen its mechanism.
pub(crate) async fn run<S: AsyncRead + AsyncWrite + Unpin + Send>(
    wire: &mut Wire<'_, S>,
    channel: &Channel,
    lookup: impl Future<Output = Result<Found, AuthError>> + Send,
) -> Result<Proven, AuthError> {
    let offered: &[&str] = if channel.end_point().is_some() {
        &[PLUS, PLAIN]
    } else {
        &[PLAIN]
    };
    let mechanisms = offered.iter().map(|&name| name.to_owned()).collect();
    say(wire, &Authentication::SASL(mechanisms)).await?;
    let (mechanism, response) = initial_response(wire.password_message().await?, offered)?;
    let response = if let Some(response) = response {
        response
    } else {
        say(wire, &Authentication::SASLContinue(Bytes::new())).await?;
        wire.password_message().await?
    };
    let found = lookup.await?;
    let exchange = Exchange::begin(&response, mechanism, channel, &found.verifier)?;
    let server_first = Bytes::copy_from_slice(exchange.server_first().as_bytes());
    say(wire, &Authentication::SASLContinue(server_first)).await?;
    let proof = exchange.finish(&wire.password_message().await?, &found.verifier)?;
    match (&found.unusable, proof.holds) {
        (Some(reason), _) => Err(AuthError::Refused(reason.clone())),
        (None, false) => Err(AuthError::Refused(Reason::WrongPassword)),
        (None, true) => {
            let last = Bytes::copy_from_slice(proof.server_final.as_bytes());
            encode(wire, &Authentication::SASLFinal(last));
            Ok(Proven { proof, found })
        }
    }
}

/// SASLInitialResponse: the mechanism, and the first message unless the client waits to be asked for it.
fn initial_response<'a>(mut body: Bytes, offered: &[&'a str]) -> Result<(&'a str, Option<Bytes>), AuthError> {
    const MALFORMED: AuthError = AuthError::Protocol("invalid message format");
    let end = body.iter().position(|&byte| byte == 0).ok_or(MALFORMED)?;
    let name = body.split_to(end);
    body.advance(1);
    let chosen = offered.iter().find(|mechanism| mechanism.as_bytes() == &name[..]);
    let chosen = chosen.ok_or(AuthError::Protocol(
        "client selected an invalid SASL authentication mechanism",
    ))?;
    let length = body.try_get_i32().map_err(|_| MALFORMED)?;
    match usize::try_from(length) {
        Ok(length) if length == body.len() => Ok((chosen, Some(body))),
        Err(_) if length == -1 && body.is_empty() => Ok((chosen, None)),
        _ => Err(MALFORMED),
    }
}

async fn say<S: AsyncRead + AsyncWrite + Unpin>(
    wire: &mut Wire<'_, S>,
    message: &Authentication,
) -> Result<(), AuthError> {
    encode(wire, message);
    wire.send().await
}

fn encode<S>(wire: &mut Wire<'_, S>, message: &Authentication) {
    message
        .encode(wire.output)
        .expect("encoding into a growing buffer cannot fail");
}
