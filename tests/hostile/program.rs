//! `pgladder serve` as a child process: where it listens, and how much memory it has used.
//!
//! It ends with the value. A port that somebody else took meanwhile is tried again with another.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Stdio;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::{Child, Command};

/// A bound on waiting, not a measure.
pub const PATIENCE: Duration = Duration::from_secs(60);
const PORTS_TRIED: usize = 5;

pub struct Program {
    child: Child,
    pub address: SocketAddr,
}

/// What a wait came to, within `PATIENCE`.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| panic!("{what}: not within {PATIENCE:?}"))
}

impl Program {
    /// Serves with these arguments besides the address.
    pub async fn serve(arguments: &[&str]) -> Self {
        for _ in 0..PORTS_TRIED {
            let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
            let address = free.local_addr().expect("it is bound");
            drop(free);
            let child = Command::new(env!("CARGO_BIN_EXE_pgladder"))
                .args(["serve", "--log-level", "error", "--listen", &address.to_string()])
                .args(arguments)
                .env_clear()
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .expect("the program runs");
            let mut program = Self { child, address };
            if program.listens().await {
                return program;
            }
        }
        panic!("it does not serve: {arguments:?}");
    }

    /// Waits until it does, or has ended.
    async fn listens(&mut self) -> bool {
        let end = Instant::now() + PATIENCE;
        let mut again = tokio::time::interval(Duration::from_millis(20));
        loop {
            again.tick().await;
            if self.child.try_wait().expect("a child").is_some() {
                return false;
            }
            if TcpStream::connect(self.address).await.is_ok() {
                return true;
            }
            assert!(Instant::now() < end, "it neither listens nor ends");
        }
    }

    /// A connection with a small window, so that what is not read here is soon not written there.
    pub async fn connect(&self) -> TcpStream {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small buffer");
        in_time("a connection", socket.connect(self.address))
            .await
            .expect("a connection")
    }

    /// Is somebody new let in to speak?
    pub async fn answers_newcomers(&self) -> bool {
        let mut stream = self.connect().await;
        stream.write_all(SSL_REQUEST).await.expect("sent");
        let mut answer = [0];
        in_time("the answer to a newcomer", stream.read_exact(&mut answer))
            .await
            .expect("an answer");
        answer == *b"N"
    }

    /// By how many bytes that has grown since it was `before`. The kernel reads its own counters without adding them all up, so
    /// that a later peak may come out a few pages lower.
    pub fn growth_since(&self, before: usize) -> usize {
        self.peak_memory().saturating_sub(before)
    }

    /// Bytes of memory that it has used at most, up to now.
    pub fn peak_memory(&self) -> usize {
        let process = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("its status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix("kB"));
        let kilobytes: usize = kilobytes
            .and_then(|number| number.trim().parse().ok())
            .unwrap_or_else(|| panic!("a peak: {status}"));
        kilobytes * 1024
    }
}

pub const SSL_REQUEST: &[u8] = b"\0\0\0\x08\x04\xd2\x16\x2f";

/// A StartupMessage.
pub fn startup(user: &str, database: &str) -> Vec<u8> {
    let body = format!("user\0{user}\0database\0{database}\0\0");
    let length = u32::try_from(body.len() + 8).expect("short");
    let mut packet = length.to_be_bytes().to_vec();
    packet.extend((3_u32 << 16).to_be_bytes());
    packet.extend(body.as_bytes());
    packet
}

/// A simple query.
pub fn query(sql: &str) -> Vec<u8> {
    let length = u32::try_from(sql.len() + 5).expect("short");
    [b"Q", &length.to_be_bytes()[..], sql.as_bytes(), b"\0"].concat()
}
