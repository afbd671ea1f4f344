//! A listener in this process, whose sessions answer ReadyForQuery and then send back what they read; and a client of bare bytes.
//!
//! Used by the tests of the door. A session of the user `stubborn` ignores the stop, one of `panic` panics. Every wait here is
//! bounded by the test runner's patience only, because a paused clock must not end it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use pgladder::auth::{Auth, AuthSettings, Identity, Method};
use pgladder::listener::{Bound, Listener, ListenerSettings, Sessions};
use pgladder::pool::Address;
use pgladder::protocol::backend::{Status, ready_for_query};
use pgladder::session::client::Client;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";
pub const GSSENC_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x30";

/// Anybody may come in.
pub fn trust() -> AuthSettings {
    AuthSettings {
        method: Method::Trust,
        ..AuthSettings::default()
    }
}

/// These may come in, each with a password or a verifier.
pub fn scram(users: &[(&str, &str)]) -> AuthSettings {
    let users = users.iter();
    AuthSettings {
        users: users
            .map(|(name, secret)| ((*name).into(), secret.parse().expect("a secret")))
            .collect(),
        ..AuthSettings::default()
    }
}

/// What a session was given.
#[derive(Debug)]
pub struct Seen {
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub minor: u16,
    pub input: Vec<u8>,
    pub identity: Identity,
    pub tls: bool,
    parameters: BTreeMap<Box<str>, Box<str>>,
}

impl Seen {
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(|value| &**value)
    }
}

/// Sessions that echo.
struct Echo {
    clients: mpsc::Sender<Seen>,
    cancels: mpsc::Sender<(i32, Vec<u8>)>,
}

impl Sessions for Echo {
    async fn run(&self, client: Client, stop: CancellationToken) {
        let mut stream = client.stream;
        assert!(&*client.user != "panic", "a session that panics, on purpose");
        let stubborn = &*client.user == "stubborn";
        let seen = Seen {
            user: client.user,
            database: client.database,
            minor: client.protocol_minor,
            input: client.input.to_vec(),
            identity: client.identity,
            tls: stream.is_tls(),
            parameters: client.parameters,
        };
        self.clients.send(seen).await.expect("the test listens");
        let mut buffer = BytesMut::new();
        ready_for_query(Status::Idle, &mut buffer);
        loop {
            if stream.write_all_buf(&mut buffer).await.is_err() || stream.flush().await.is_err() {
                return;
            }
            let read = tokio::select! {
                () = stop.cancelled(), if !stubborn => return,
                read = stream.read_buf(&mut buffer) => read,
            };
            if matches!(read, Ok(0) | Err(_)) || buffer.starts_with(b"X") {
                return;
            }
        }
    }

    async fn cancel(&self, process: i32, secret: Bytes) {
        let asked = (process, secret.to_vec());
        self.cancels.send(asked).await.expect("the test listens");
    }
}

/// A running listener.
pub struct Listening {
    pub address: SocketAddr,
    pub stop: CancellationToken,
    directory: tempfile::TempDir,
    clients: Mutex<mpsc::Receiver<Seen>>,
    cancels: Mutex<mpsc::Receiver<(i32, Vec<u8>)>>,
    tasks: TaskTracker,
}

impl Listening {
    pub async fn start(auth: AuthSettings, change: impl FnOnce(&mut ListenerSettings)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let mut settings = ListenerSettings {
            addresses: vec![
                Address::Tcp {
                    host: "127.0.0.1".into(),
                    port: 0,
                },
                Address::Unix {
                    directory: directory.path().to_path_buf(),
                    port: 6432,
                },
            ],
            ..ListenerSettings::default()
        };
        change(&mut settings);
        let listener = Listener::bind(settings, Arc::new(Auth::new(auth)))
            .await
            .expect("bound");
        let tcp = listener.bound().into_iter().find_map(|bound| match bound {
            Bound::Tcp(address) => Some(address),
            Bound::Unix(_) => None,
        });
        let ((clients, seen), (cancels, cancelled)) = (mpsc::channel(1000), mpsc::channel(10));
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(listener.run(Arc::new(Echo { clients, cancels }), stop.clone()));
        tasks.close();
        Self {
            address: tcp.expect("a TCP socket"),
            stop,
            directory,
            clients: Mutex::new(seen),
            cancels: Mutex::new(cancelled),
            tasks,
        }
    }

    pub fn directory(&self) -> &str {
        self.directory.path().to_str().expect("UTF-8")
    }

    pub fn port(&self, host: &str) -> u16 {
        if host.starts_with('/') {
            6432
        } else {
            self.address.port()
        }
    }

    pub async fn connect(&self) -> Raw {
        let stream = TcpStream::connect(self.address).await.expect("connected");
        Raw { stream }
    }

    /// A client that is in.
    pub async fn log_in(&self, user: &str) -> Raw {
        let mut raw = self.connect().await;
        raw.send(&startup(0, &[("user", user)])).await;
        raw.expect_ready().await;
        raw
    }

    /// Logs in as soon as there is a place.
    pub async fn eventually_log_in(&self, user: &str) -> Raw {
        loop {
            let mut raw = self.connect().await;
            raw.send(&startup(0, &[("user", user)])).await;
            let (tag, _) = raw.message().await;
            if tag == b'R' {
                return raw;
            }
            assert_eq!(tag, b'E');
        }
    }

    pub async fn next_client(&self) -> Seen {
        let seen = std::future::poll_fn(|cx| self.clients.lock().poll_recv(cx)).await;
        seen.expect("a client")
    }

    pub async fn next_cancel(&self) -> (i32, Vec<u8>) {
        let asked = std::future::poll_fn(|cx| self.cancels.lock().poll_recv(cx)).await;
        asked.expect("a cancel request")
    }

    pub fn no_client_came(&self) -> bool {
        self.clients.lock().try_recv().is_err()
    }

    /// Waits until the listener has returned.
    pub async fn ended(self) -> Ended {
        self.tasks.wait().await;
        Ended(self.address)
    }
}

/// Where a listener was.
pub struct Ended(SocketAddr);

impl Ended {
    pub async fn expect_refused(&self) {
        let refused = TcpStream::connect(self.0).await.expect_err("nobody listens");
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}

/// An ErrorResponse.
#[derive(Debug)]
pub struct Refused {
    pub severity: String,
    pub code: String,
    pub message: String,
}

/// A client of bare bytes.
pub struct Raw {
    pub stream: TcpStream,
}

impl Raw {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("written");
    }

    pub async fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.stream.read_exact(&mut bytes).await.expect("an answer");
        bytes
    }

    /// Tag and body of the next message.
    pub async fn message(&mut self) -> (u8, Vec<u8>) {
        let head = self.bytes(5).await;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        (head[0], self.bytes(length - 4).await)
    }

    pub async fn error(&mut self) -> Refused {
        let (tag, body) = self.message().await;
        assert_eq!(
            tag,
            b'E',
            "an ErrorResponse, not {:?}",
            String::from_utf8_lossy(&body)
        );
        let fields = pgladder::protocol::error::fields(&body);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
        Refused {
            severity: text(fields.severity),
            code: text(fields.code),
            message: text(fields.message),
        }
    }

    pub async fn expect_ready(&mut self) {
        assert_eq!(self.message().await, (b'R', vec![0, 0, 0, 0]));
        assert_eq!(self.message().await, (b'Z', vec![b'I']));
    }

    pub async fn expect_echo(&mut self, bytes: &[u8]) {
        assert_eq!(self.bytes(bytes.len()).await, bytes);
    }

    /// The connection ends, and nothing comes before.
    pub async fn expect_end(&mut self) {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest).await {
            Ok(_) => assert_eq!(rest, b"", "nothing more is said"),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }

    /// The connection ends, whatever was said before.
    pub async fn expect_end_of_stream(&mut self) {
        let mut rest = Vec::new();
        drop(self.stream.read_to_end(&mut rest).await);
    }

    pub async fn close(&mut self) {
        self.stream.shutdown().await.expect("closed");
        self.expect_end_of_stream().await;
    }
}

/// A StartupMessage of protocol 3.
pub fn startup(minor: u16, parameters: &[(&str, &str)]) -> Vec<u8> {
    let mut body = [3_u16.to_be_bytes(), minor.to_be_bytes()].concat();
    for (name, value) in parameters {
        body.extend([name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }
    body.push(0);
    let length = u32::try_from(body.len() + 4).expect("short");
    [&length.to_be_bytes()[..], &body].concat()
}
