//! A TCP address that leads to a server for as long as a test wants it to.
//!
//! Stands between the proxy and a node where a connection is to be lost without the node's doing, or where an address is to lead
//! to another server at the next login. Cutting closes what is open; new connections are taken all the time.

use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub struct Forwarder {
    pub port: u16,
    state: Arc<Mutex<State>>,
    _ends: DropGuard,
}

struct State {
    target: SocketAddr,
    /// Of the connections that are open now.
    open: CancellationToken,
}

impl Forwarder {
    pub async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let stop = CancellationToken::new();
        let state = Arc::new(Mutex::new(State {
            target,
            open: stop.child_token(),
        }));
        let tasks = TaskTracker::new();
        tasks.spawn(accept(listener, Arc::clone(&state), stop.clone(), tasks.clone()));
        Self {
            port,
            state,
            _ends: stop.drop_guard(),
        }
    }

    /// New connections lead there; those that are open stay.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.lock().target = target;
    }

    /// Closes what is open.
    pub fn cut(&self) {
        let mut state = self.state.lock();
        let next = CancellationToken::new();
        std::mem::replace(&mut state.open, next).cancel();
    }
}

async fn accept(
    listener: TcpListener,
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        let mut client = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((client, _)) => client,
                Err(_) => continue,
            },
        };
        let (target, open) = {
            let state = state.lock();
            (state.target, state.open.clone())
        };
        let stop = stop.clone();
        tasks.spawn(async move {
            let forward = async {
                let mut server = TcpStream::connect(target).await?;
                copy_bidirectional(&mut client, &mut server).await
            };
            tokio::select! {
                () = open.cancelled() => {}
                () = stop.cancelled() => {}
                // Whoever ended it knows why.
                Ok(_) | Err(_) = forward => {}
            }
        });
    }
}
