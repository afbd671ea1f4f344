//! Metrics and health over HTTP: `/healthz`, `/readyz`, `/metrics`.
//!
//! Bound and spawned by `serve`. Invariant: whatever connects, its cost is bounded: so many connections at once, one request on
//! each, a header of limited size, and a deadline for all of it. It has no authentication, and tells nothing that was cached.
//! It answers until the proxy has ended, so that a drain can be watched.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::metrics;
use super::readiness::Readiness;
use crate::listener::{Bound, ListenError, Sockets};
use crate::pool::Address;
use crate::session::Proxy;
use crate::session::stream::ClientStream;

/// Connections at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// From accepting a connection to the end of its header, and of its answer.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A request's header, with its first line.
const HEADER_BYTES_MAX: usize = 16 * 1024;
/// How long accepting pauses when the process is out of descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What is told about.
#[derive(Clone)]
pub struct Served {
    /// The proxy.
    pub proxy: Arc<Proxy>,
    /// Cancelled when it drains.
    pub stop: CancellationToken,
}

struct Shared {
    served: Served,
    since: Instant,
}

/// The bound server.
#[derive(Debug)]
pub struct Http {
    sockets: Sockets,
}

impl Http {
    /// Binds the address.
    pub async fn bind(address: &Address) -> Result<Self, ListenError> {
        let sockets = Sockets::bind(std::slice::from_ref(address)).await?;
        Ok(Self { sockets })
    }

    /// Where it listens, with the port that was chosen; `None` on a Unix socket.
    pub fn bound(&self) -> Option<SocketAddr> {
        self.sockets.bound().into_iter().find_map(|bound| match bound {
            Bound::Tcp(address) => Some(address),
            Bound::Unix(_) => None,
        })
    }

    /// Answers until `end` is cancelled; then whoever is still being answered is dropped.
    pub async fn run(mut self, served: Served, end: CancellationToken) {
        let router = router(served);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut tasks = JoinSet::new();
        loop {
            let accepted = async {
                let place = Arc::clone(&places).acquire_owned().await;
                (place, self.sockets.accept().await)
            };
            let (place, accepted) = tokio::select! {
                () = end.cancelled() => break,
                Some(ended) = tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "an HTTP connection ended by a panic");
                    }
                    continue;
                }
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let router = router.clone();
                    tasks.spawn(async move {
                        answer(stream, router).await;
                        drop(place);
                    });
                }
                Err(error) => pause(&error, &end).await,
            }
        }
        tasks.shutdown().await;
    }
}

async fn pause(error: &io::Error, end: &CancellationToken) {
    tracing::debug!(%error, "an HTTP connection was not accepted");
    tokio::select! {
        () = end.cancelled() => {}
        () = sleep(PAUSE) => {}
    }
}

/// One request and its answer.
async fn answer(stream: ClientStream, router: Router) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    match timeout(ANSWER_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "an HTTP connection ended early"),
        Err(_) => tracing::debug!("an HTTP client took too long"),
    }
}

fn router(served: Served) -> Router {
    let shared = Shared {
        served,
        since: Instant::now(),
    };
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(scrape))
        .with_state(Arc::new(shared))
}

async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let readiness = Readiness::of(&shared.served.proxy, shared.served.stop.is_cancelled());
    let status = if readiness.ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(readiness))
}

async fn scrape(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    const FORMAT: &str = "text/plain; version=0.0.4; charset=utf-8";
    let Served { proxy, stop } = &shared.served;
    let text = metrics::exposition(proxy, shared.since.elapsed(), stop.is_cancelled());
    ([(header::CONTENT_TYPE, FORMAT)], text)
}
