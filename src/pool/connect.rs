//! Opens the stream to a server: name, TCP or Unix socket, TLS; and sends cancel requests over a stream of their own.
//!
//! Called by the pools. Everything here is under the caller's timeout. The answer to the TLS request is read as a single byte and
//! nothing more, so that no plaintext can be smuggled into the encrypted stream. Not cancel safe: a dropped connect closes what
//! it opened, which is what is wanted.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use postgres_protocol::message::frontend;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream, lookup_host};

use crate::pool::address::Address;
use crate::pool::connection::CancelTarget;
use crate::pool::error::ConnectError;
use crate::pool::scram::Binding;
use crate::pool::stream::ServerStream;
use crate::pool::tls::{self, ServerTls, TlsError, TlsMode};

/// Silence after which the kernel asks whether the server is still there.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
const CANCEL_REQUEST: i32 = 80_877_102;

/// Connects, and wraps the stream in TLS as the mode says.
pub(crate) async fn open(address: &Address, tls: &ServerTls) -> Result<ServerStream, ConnectError> {
    let unreachable = |source| ConnectError::Unreachable {
        address: address.to_string(),
        source,
    };
    match address {
        Address::Unix { .. } => {
            let path = address.socket_path().unwrap_or_default();
            UnixStream::connect(path)
                .await
                .map(ServerStream::Unix)
                .map_err(unreachable)
        }
        Address::Tcp { host, port } => {
            let tcp = tcp(host, *port).await.map_err(unreachable)?;
            if tls.mode() == TlsMode::Disable {
                Ok(ServerStream::Tcp(tcp))
            } else {
                negotiate(host, tcp, tls).await
            }
        }
    }
}

/// How SCRAM can be bound to this stream.
pub(crate) fn binding(stream: &ServerStream) -> Binding {
    match stream {
        ServerStream::Tls(stream) => tls::end_point(stream),
        _ => Binding::Unsupported,
    }
}

/// Tries every address of the name in turn; the last error is the one reported.
async fn tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in lookup_host((host, port)).await? {
        match TcpStream::connect(address).await {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                let keepalive = TcpKeepalive::new()
                    .with_time(KEEPALIVE_IDLE)
                    .with_interval(KEEPALIVE_INTERVAL);
                SockRef::from(&socket).set_tcp_keepalive(&keepalive.with_retries(KEEPALIVE_RETRIES))?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn negotiate(host: &str, mut tcp: TcpStream, tls: &ServerTls) -> Result<ServerStream, ConnectError> {
    let mut request = BytesMut::with_capacity(8);
    frontend::ssl_request(&mut request);
    tcp.write_all(&request).await?;
    match tcp.read_u8().await? {
        b'S' => {
            let stream = tls.handshake(host, tcp).await?;
            Ok(ServerStream::Tls(Box::new(stream)))
        }
        b'N' if tls.mode() == TlsMode::Prefer => Ok(ServerStream::Tcp(tcp)),
        b'N' => Err(TlsError::NotOffered.into()),
        // An ErrorResponse at this point is unauthenticated text: it is not relayed (CVE-2024-10977).
        other => Err(TlsError::Answer(other).into()),
    }
}

/// Sends a cancel request and waits until the server has closed the stream: only then has the signal been sent.
pub(crate) async fn cancel(
    address: &Address,
    tls: &ServerTls,
    to: &CancelTarget,
) -> Result<(), ConnectError> {
    let mut stream = open(address, tls).await?;
    let mut request = BytesMut::with_capacity(12 + to.secret.len());
    let length = i32::try_from(12 + to.secret.len())
        .map_err(|_| ConnectError::Protocol("the cancel key is too long"))?;
    request.put_i32(length);
    request.put_i32(CANCEL_REQUEST);
    request.put_i32(to.process);
    request.put_slice(&to.secret);
    stream.write_all(&request).await?;
    stream.flush().await?;
    let mut byte = [0u8; 1];
    match stream.read(&mut byte).await {
        Ok(0) => Ok(()),
        Ok(_) => Err(ConnectError::Protocol("the server answered a cancel request")),
        // PostgreSQL closes without a TLS close_notify, and a closed socket may also show as a reset.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset
            ) =>
        {
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}
