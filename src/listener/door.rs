//! One connection from its acceptance to its session: greeting, limits, login, and what is said to those who stay outside.
//!
//! Called by the accept loop, one task per connection. Invariant: nobody gets past it without the configured login, and nobody
//! stays in front of it longer than the login timeout, whether bytes come or not. What a client does once it is in is the
//! session's.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::auth::{Auth, AuthError, Candidate};
use crate::listener::Sessions;
use crate::listener::entrance::{Entrance, Purpose};
use crate::listener::error::DoorError;
use crate::listener::request::Request;
use crate::listener::tls::ClientTls;
use crate::session::client::{Client, Peer};
use crate::session::stream::ClientStream;

/// What an accepted connection may become.
#[derive(Debug)]
pub(crate) struct Admission {
    /// False when too many are in: the connection is told so after its startup packet, unless it comes to cancel a request.
    pub may_enter: bool,
    /// Its place among the clients, or among those who are being refused, until its task ends.
    pub _place: OwnedSemaphorePermit,
}

/// What all connections share.
pub(crate) struct Door<S> {
    pub sessions: Arc<S>,
    pub auth: Arc<Auth>,
    pub login_timeout: Duration,
    pub tls: Option<Arc<ClientTls>>,
    pub tls_required: bool,
}

/// How a login ended well.
enum Entered {
    Client(Box<Client>),
    Done,
}

impl<S: Sessions> Door<S> {
    /// Serves one connection from its acceptance to its end.
    pub async fn attend(
        self: Arc<Self>,
        stream: ClientStream,
        peer: Peer,
        admission: Admission,
        stop: CancellationToken,
    ) {
        let mut entrance = Entrance::new(stream);
        let deadline = Instant::now() + self.login_timeout;
        // Boxed, because a login needs far more room than the session that follows it in this task for hours.
        let entered = Box::pin(async {
            tokio::select! {
                biased;
                () = stop.cancelled() => None,
                entered = timeout_at(deadline, self.enter(&mut entrance, peer, &admission)) => Some(entered),
            }
        })
        .await;
        let asked = entrance.asked();
        let error = match entered {
            Some(Ok(Ok(Entered::Client(client)))) => {
                drop(entrance);
                self.sessions.run(*client, stop).await;
                return;
            }
            Some(Ok(Ok(Entered::Done))) => return,
            Some(Ok(Err(error))) => error,
            Some(Err(_)) => DoorError::TimedOut { asked },
            None => DoorError::Stopping { asked },
        };
        log(&error, peer);
        Box::pin(entrance.refuse(error.report())).await;
    }

    async fn enter(
        &self,
        entrance: &mut Entrance,
        peer: Peer,
        admission: &Admission,
    ) -> Result<Entered, DoorError> {
        let request = match entrance.greet(self.tls.as_deref()).await? {
            Purpose::Cancel { process, secret } => {
                self.sessions.cancel(process, secret.into()).await;
                return Ok(Entered::Done);
            }
            Purpose::Login(request) => request,
        };
        if !admission.may_enter {
            return Err(DoorError::TooManyClients);
        }
        if self.tls_required && entrance.is_plain_tcp() {
            return Err(DoorError::TlsRequired);
        }
        let channel = entrance.channel().clone();
        let candidate = Candidate {
            user: &request.user,
            channel: &channel,
        };
        let authenticated = self.auth.authenticate(&mut entrance.wire()?, candidate).await;
        let identity = authenticated.map_err(|error| DoorError::Auth {
            user: Arc::clone(&request.user),
            error,
        })?;
        let (stream, input) = entrance.admit().await?;
        let Request {
            user,
            database,
            parameters,
            protocol_minor,
            ..
        } = request;
        Ok(Entered::Client(Box::new(Client {
            stream,
            input,
            user,
            database,
            parameters,
            protocol_minor,
            peer,
            identity,
        })))
    }
}

/// What an operator wants to see of those who did not get in: not port scans and health checks, but failed logins and limits.
fn log(error: &DoorError, peer: Peer) {
    match error {
        DoorError::Gone(_)
        | DoorError::Auth {
            error: AuthError::Gone | AuthError::Io(_),
            ..
        } => {
            tracing::debug!(%peer, %error, "a connection ended before its login");
        }
        DoorError::Startup(_) | DoorError::TimedOut { asked: false } | DoorError::Stopping { .. } => {
            tracing::debug!(%peer, %error, "a connection was closed before its login");
        }
        _ => tracing::info!(%peer, %error, "a client was refused"),
    }
}
