//! The accept loop: who may come to the door, and what happens when there is no room or no descriptor.
//!
//! `serve` binds a [`Listener`] and runs it until the stop token; then the sockets close at once, the clients have the drain time,
//! and whoever is left is dropped. Invariant: a panic in one client's task ends that client alone. `run` is to be awaited to its
//! end: dropping it drops every client.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nix::errno::Errno;
use socket2::{SockRef, TcpKeepalive};
use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::listener::Sessions;
use crate::listener::bind::{Bound, Sockets};
use crate::listener::descriptors;
use crate::listener::door::{Admission, Door};
use crate::listener::error::{DoorError, ListenError};
use crate::listener::tls::ClientTls;
use crate::pool::Address;
use crate::session::client::Peer;
use crate::session::stream::ClientStream;

/// Connections beyond the limit that are heard out and refused at the same time; more are refused unheard.
const REFUSALS_MAX: usize = 64;
/// How long accepting pauses when the process or the system is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// Silence after which the kernel asks whether the client is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// What the listener needs to be told.
#[derive(Clone, Debug)]
pub struct ListenerSettings {
    /// Where to listen. The host `*` is every interface.
    pub addresses: Vec<Address>,
    /// Most connections that are clients, or on the way to become one, at a time.
    pub clients_max: usize,
    /// Longest time from the acceptance of a connection to the end of its login.
    pub login_timeout: Duration,
    /// Longest time that clients have to finish once the listener stops.
    pub drain_timeout: Duration,
    /// TLS for clients; without it a request for TLS is declined.
    pub tls: Option<Arc<ClientTls>>,
    /// True when TCP clients must use TLS.
    pub tls_required: bool,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            clients_max: 10_000,
            login_timeout: Duration::from_secs(15),
            drain_timeout: Duration::from_secs(30),
            tls: None,
            tls_required: false,
        }
    }
}

/// A bound listener.
#[derive(Debug)]
pub struct Listener {
    sockets: Sockets,
    settings: ListenerSettings,
    auth: Arc<Auth>,
}

impl Listener {
    /// Binds the addresses, and raises the limit of open files.
    pub async fn bind(settings: ListenerSettings, auth: Arc<Auth>) -> Result<Self, ListenError> {
        if settings.tls_required && settings.tls.is_none() {
            return Err(ListenError::NoCertificate);
        }
        let sockets = Sockets::bind(&settings.addresses).await?;
        for bound in sockets.bound() {
            if let Bound::Tcp(address) = bound
                && auth.trusts_everybody()
                && !address.ip().is_loopback()
            {
                return Err(ListenError::TrustBeyondLoopback(address));
            }
        }
        let descriptors = descriptors::raise();
        if descriptors.is_some_and(|limit| limit < settings.clients_max as u64) {
            tracing::warn!(
                descriptors,
                clients_max = settings.clients_max,
                "fewer open files are allowed than clients"
            );
        }
        Ok(Self {
            sockets,
            settings,
            auth,
        })
    }

    /// Where it listens, with the ports that were chosen.
    pub fn bound(&self) -> Vec<Bound> {
        self.sockets.bound()
    }

    /// Accepts until `stop` is cancelled, and returns when no client is left.
    pub async fn run<S: Sessions>(mut self, sessions: Arc<S>, stop: CancellationToken) {
        let mut reception = Reception {
            door: Arc::new(Door {
                sessions,
                auth: self.auth,
                login_timeout: self.settings.login_timeout,
                tls: self.settings.tls,
                tls_required: self.settings.tls_required,
            }),
            places: Arc::new(Semaphore::new(
                self.settings.clients_max.min(Semaphore::MAX_PERMITS),
            )),
            refusals: Arc::new(Semaphore::new(REFUSALS_MAX)),
            tasks: JoinSet::new(),
            stop: stop.clone(),
        };
        let mut starving = false;
        loop {
            let accepted = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(ended) = reception.tasks.join_next() => {
                    note(ended);
                    continue;
                }
                accepted = self.sockets.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    starving = false;
                    reception.receive(stream, peer);
                }
                Err(error) if is_of_one_connection(&error) => {
                    tracing::debug!(%error, "a connection was gone before it was accepted");
                }
                Err(error) => {
                    if !std::mem::replace(&mut starving, true) {
                        tracing::error!(%error, "accepting pauses: connections wait in the kernel's queue");
                    }
                    tokio::select! {
                        () = stop.cancelled() => break,
                        () = sleep(PAUSE) => {}
                    }
                }
            }
        }
        drop(self.sockets);
        reception.drain(self.settings.drain_timeout).await;
    }
}

/// What the accept loop works with.
struct Reception<S> {
    door: Arc<Door<S>>,
    places: Arc<Semaphore>,
    refusals: Arc<Semaphore>,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

impl<S: Sessions> Reception<S> {
    fn receive(&mut self, stream: ClientStream, peer: Peer) {
        if let ClientStream::Tcp(socket) = &stream {
            tune(socket);
        }
        let place = Arc::clone(&self.places).try_acquire_owned();
        let may_enter = place.is_ok();
        match place.or_else(|_| Arc::clone(&self.refusals).try_acquire_owned()) {
            Ok(place) => {
                let door = Arc::clone(&self.door);
                let admission = Admission {
                    may_enter,
                    _place: place,
                };
                self.tasks
                    .spawn(door.attend(stream, peer, admission, self.stop.clone()));
            }
            Err(_) => turn_away(&stream, peer),
        }
    }

    async fn drain(mut self, limit: Duration) {
        let all = async {
            while let Some(ended) = self.tasks.join_next().await {
                note(ended);
            }
        };
        if timeout(limit, all).await.is_err() {
            tracing::warn!(
                clients = self.tasks.len(),
                "the drain time is over: clients are disconnected"
            );
            self.tasks.shutdown().await;
        }
    }
}

/// Refuses in one attempt to write, without hearing what the connection is for.
fn turn_away(stream: &ClientStream, peer: Peer) {
    let mut output = BytesMut::new();
    if let Some(report) = DoorError::TooManyClients.report() {
        report.encode(&mut output);
    }
    // What has arrived is taken first: unread bytes would turn the close into a reset.
    let mut heard = BytesMut::with_capacity(1024);
    let heard = stream.try_read_buf(&mut heard);
    let told = stream.try_write(&output);
    tracing::debug!(%peer, ?heard, ?told, "a connection was turned away: too many are being refused");
}

fn tune(socket: &tokio::net::TcpStream) {
    let keepalive = TcpKeepalive::new()
        .with_time(KEEPALIVE_IDLE)
        .with_interval(KEEPALIVE_INTERVAL)
        .with_retries(KEEPALIVE_RETRIES);
    let tuned = socket
        .set_nodelay(true)
        .and_then(|()| SockRef::from(socket).set_tcp_keepalive(&keepalive));
    if let Err(error) = tuned {
        // The connection is gone already, or works all the same.
        tracing::debug!(%error, "a socket's options could not be set");
    }
}

/// True for errors of a single connection, after which the next one can be accepted at once (accept(2)).
fn is_of_one_connection(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(
            Errno::ECONNABORTED
                | Errno::ECONNRESET
                | Errno::EINTR
                | Errno::EPERM
                | Errno::EPROTO
                | Errno::ENETDOWN
                | Errno::ENETUNREACH
                | Errno::EHOSTUNREACH
        )
    )
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a client's task ended by a panic");
    }
}
