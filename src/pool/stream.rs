//! The byte stream to a server: TCP, TLS over TCP, or a Unix socket.
//!
//! Called by `connect` (which makes one) and by the session (which reads and writes it). It adds no buffer of its own, so a
//! dropped read or write loses nothing that the socket's own future would not lose: reading is cancel safe.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;

/// A socket to a server.
#[derive(Debug)]
pub enum ServerStream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ServerStream {
    /// True when the socket is open and has nothing to say: an idle server is silent, so any byte (or the end of the stream)
    /// means that the connection is not to be used. Costs no system call while the socket is not ready.
    pub fn is_silent(&self) -> bool {
        let mut byte = [0u8; 1];
        let read = match self {
            Self::Tcp(socket) => socket.try_read(&mut byte),
            Self::Unix(socket) => socket.try_read(&mut byte),
            Self::Tls(stream) => stream.get_ref().0.try_read(&mut byte),
        };
        matches!(read, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// True when the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Tries to say goodbye without waiting, so that the server logs no broken connection. TLS needs a flush that cannot be
    /// waited for in a drop; there the closed socket says it.
    pub(crate) fn say_terminate(&self) {
        const TERMINATE: &[u8] = b"X\0\0\0\x04";
        let sent = match self {
            Self::Tcp(socket) => socket.try_write(TERMINATE),
            Self::Unix(socket) => socket.try_write(TERMINATE),
            Self::Tls(_) => return,
        };
        if let Err(error) = sent {
            tracing::trace!(%error, "the server connection was already gone");
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            ServerStream::Tcp(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            ServerStream::Unix(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            ServerStream::Tls(inner) => {
                let $stream = Pin::new(inner.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for ServerStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for ServerStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        each!(self, stream => stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(inner) => inner.is_write_vectored(),
            Self::Unix(inner) => inner.is_write_vectored(),
            Self::Tls(inner) => inner.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_shutdown(cx))
    }
}
