//! The byte stream to a client: TCP, TLS over TCP, or a Unix socket.
//!
//! Made by the listener, read and written by the session. It adds no buffer of its own, so a dropped read or write loses nothing
//! that the socket's own future would not lose: reading is cancel safe. The `try_` calls cost no waker and no boxed future; TLS
//! answers them with `WouldBlock`, and the caller takes the asynchronous way.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::server::TlsStream;

/// A socket to a client.
#[derive(Debug)]
pub enum ClientStream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<TlsStream<TcpStream>>),
}

impl ClientStream {
    /// True when the bytes are encrypted.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Waits until a read is worth trying, so that an idle client needs no buffer. Over TLS it returns at once, because bytes
    /// may be decrypted already: read asynchronously there. Cancel safe.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.readable().await,
            Self::Unix(socket) => socket.readable().await,
            Self::Tls(_) => Ok(()),
        }
    }

    /// Appends what has arrived, without waiting; `WouldBlock` when there is nothing, and always over TLS.
    pub fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_read_buf(buffer),
            Self::Unix(socket) => socket.try_read_buf(buffer),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes what the socket takes now, without waiting; `WouldBlock` when it takes nothing, and always over TLS.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write(bytes),
            Self::Unix(socket) => socket.try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Writes several pieces as [`ClientStream::try_write`] does one.
    pub fn try_write_vectored(&self, pieces: &[io::IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(socket) => socket.try_write_vectored(pieces),
            Self::Unix(socket) => socket.try_write_vectored(pieces),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

macro_rules! each {
    ($self:ident, $stream:ident => $call:expr) => {
        match $self.get_mut() {
            ClientStream::Tcp(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            ClientStream::Unix(inner) => {
                let $stream = Pin::new(inner);
                $call
            }
            ClientStream::Tls(inner) => {
                let $stream = Pin::new(inner.as_mut());
                $call
            }
        }
    };
}

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        each!(self, stream => stream.poll_read(cx, buf))
    }
}

impl AsyncWrite for ClientStream {
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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn trying_never_waits_and_waiting_never_reads() {
        let (mut client, ours) = UnixStream::pair().expect("a pair");
        let ours = ClientStream::Unix(ours);
        let mut buffer = BytesMut::with_capacity(8);
        let nothing = ours.try_read_buf(&mut buffer).expect_err("nothing was sent");
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        client.write_all(b"abc").await.expect("written");
        ours.readable().await.expect("readable");
        assert_eq!(ours.try_read_buf(&mut buffer).expect("read"), 3);
        assert_eq!(&buffer[..], b"abc");
        assert_eq!(ours.try_write(b"xy").expect("written"), 2);
        let mut answer = [0; 2];
        client.read_exact(&mut answer).await.expect("read");
        assert_eq!(&answer, b"xy");
    }
}
