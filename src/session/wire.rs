//! The client's side of a session: its socket, what has been read from it, and what is to be written to it.
//!
//! Owned by one session. Invariants: bytes are written in the order in which they were appended; the head of `input` is the
//! unit in work, and is dropped only when that is done, so that a read may be run again elsewhere. Buffers are given up while
//! the client idles. Reading is cancel safe; a dropped `flush` keeps what was not yet written.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::io::poll_read_buf;

use super::stream::ClientStream;

/// Bytes read at once, at least.
const READ_BYTES: usize = 8 * 1024;
/// Bytes that a buffer keeps while the client idles.
const IDLE_BYTES_MAX: usize = 1024;
/// A buffer that has grown beyond this is given up when it is empty.
const KEPT_BYTES_MAX: usize = 64 * 1024;

/// Drops the first `bytes` of a buffer. One that is empty then begins at its beginning again, which spares the next who
/// appends from moving it there.
pub(super) fn drop_front(buffer: &mut BytesMut, bytes: usize) {
    if bytes == buffer.len() {
        buffer.clear();
    } else {
        buffer.advance(bytes);
    }
}

/// A client's socket and buffers.
#[derive(Debug)]
pub struct Wire {
    stream: ClientStream,
    /// Read and not yet consumed.
    pub input: BytesMut,
    /// To be written.
    pub out: BytesMut,
    /// The client closed its side, or the socket failed: nothing that is written arrives any more.
    pub gone: bool,
}

impl Wire {
    /// Takes over a socket and what was read from it.
    pub fn new(stream: ClientStream, input: BytesMut) -> Self {
        Self {
            stream,
            input,
            out: BytesMut::new(),
            gone: false,
        }
    }

    /// Writes all of `out`. A client that is gone swallows it.
    pub async fn flush(&mut self) {
        while !self.out.is_empty() && !self.gone {
            let written = std::future::poll_fn(|cx| self.poll_write(cx)).await;
            self.gone |= written.is_err();
        }
        if self.gone {
            self.out.clear();
        }
        if self.out.capacity() > KEPT_BYTES_MAX {
            self.out = BytesMut::new();
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        drop_front(&mut self.out, written);
        if self.out.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Reads what comes next; at the end of the stream, or at an error, `gone` is set.
    pub async fn read(&mut self) {
        std::future::poll_fn(|cx| self.poll_read(cx)).await;
    }

    /// As `read`.
    pub fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.input.capacity() - self.input.len() >= READ_BYTES {
            let read = ready!(poll_read_buf(Pin::new(&mut self.stream), cx, &mut self.input));
            self.gone |= !matches!(read, Ok(read) if read > 0);
            return Poll::Ready(());
        }
        // Mostly little comes, or nothing: read where no memory is taken for it, and keep as much as came.
        let mut space = [const { MaybeUninit::uninit() }; READ_BYTES];
        let mut space = ReadBuf::uninit(&mut space);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut space));
        self.gone |= read.is_err() || space.filled().is_empty();
        self.input.extend_from_slice(space.filled());
        Poll::Ready(())
    }

    /// Gives up the room that buffers have taken, before a wait that may be long.
    pub fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > IDLE_BYTES_MAX {
            self.input = BytesMut::new();
        }
        if self.out.is_empty() && self.out.capacity() > IDLE_BYTES_MAX {
            self.out = BytesMut::new();
        }
    }

    /// Drops the first `bytes` of what was read.
    pub fn consume(&mut self, bytes: usize) {
        drop_front(&mut self.input, bytes);
    }

    /// Says goodbye to the socket; what it does not take at once is lost.
    pub async fn close(&mut self) {
        let closed = std::future::poll_fn(|cx| Pin::new(&mut self.stream).poll_shutdown(cx)).await;
        if let Err(error) = closed {
            tracing::trace!(%error, "the client's socket was already gone");
        }
    }
}
