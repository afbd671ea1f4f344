//! The door: accepts connections, greets and authenticates them, and hands each one to its session.
//!
//! Started by `serve`. Invariant: every queue in it has an end: the kernel's backlog, the places for clients, the places for those
//! who are told that there is none, and the login timeout. When the process runs out of descriptors it waits, and nobody who is
//! in is dropped. It knows of a session only what [`Sessions`] says.

mod accept;
mod bind;
pub mod descriptors;
mod door;
mod entrance;
mod error;
mod request;
mod tls;

pub use accept::{Listener, ListenerSettings};
pub use bind::{Bound, Sockets};
pub use error::{DoorError, ListenError};
pub use tls::{Certificates, ClientTls, ClientTlsError, ClientTlsSettings};

use std::future::Future;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::session::client::Client;

/// Where clients go once they are in.
pub trait Sessions: Send + Sync + 'static {
    /// Serves a client until it leaves. When `stop` is cancelled it has the drain time to finish; then it is dropped.
    fn run(&self, client: Client, stop: CancellationToken) -> impl Future<Output = ()> + Send;

    /// Cancels what the client with this process number and secret is running; a wrong pair does nothing. The connection that
    /// asked is closed when it returns, which tells the asker that the request has been dealt with.
    fn cancel(&self, process: i32, secret: Bytes) -> impl Future<Output = ()> + Send;
}
