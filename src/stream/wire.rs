//! The replication connection: a temporary slot, the stream of a publication, and the positions that are reported back.
//!
//! Opened by `follow`, owned by `running`, one at a time. The slot is temporary: it ends with the connection, however that ends.
//! Invariant: a position is told only once everything before it has been handed out. `read` is cancel safe; everything else is
//! not, and whoever drops it drops the connection too.

use std::io;

use bytes::{Buf, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::pgoutput::{Committed, Transactions};
use super::replication::{self, Broken, Sent, Step};
use crate::pool::replication::Walsenders;
use crate::pool::{Address, ConnectError, LoginFacts, ServerStream};
use crate::protocol::error::fields;
use crate::protocol::lsn::Lsn;
use crate::sql::ident::quote_ident;

/// Room for what one system call may read; a buffer left to itself grows by 64 bytes.
const READ_BYTES: usize = 64 * 1024;

/// Why there is no stream any more.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The walsender cannot be reached, or does not let us in.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the replication connection broke: {0}")]
    Io(#[from] io::Error),
    /// What came cannot be read.
    #[error("the stream cannot be read: {0}")]
    Broken(#[from] Broken),
    /// The server said no.
    #[error("{message} ({sqlstate})")]
    Refused {
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its words.
        message: String,
    },
    /// The server ended the stream.
    #[error("the server ended the stream")]
    Ended,
}

/// What the stream says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A transaction that changed published tables was committed.
    Committed(Committed),
    /// All before this position has been looked at; the server may want to hear ours at once.
    Position { end: Lsn, reply: bool },
}

/// The connection.
pub(super) struct Wire {
    stream: ServerStream,
    input: BytesMut,
    output: BytesMut,
    /// Bytes of a long message that are passed over.
    skip: usize,
    transactions: Transactions,
    received: u64,
}

impl Wire {
    /// Logs in; also says what the login showed of the server.
    pub async fn open(
        walsenders: &Walsenders,
        address: &Address,
        database: &str,
    ) -> Result<(Self, LoginFacts), WireError> {
        let (stream, facts) = walsenders.open(address, database).await?;
        let mut wire = Self::new(stream);
        if facts.server_version_num >= 140_000 {
            // While it waits to make the slot, the server would not notice that the proxy was killed. A replication command does
            // not begin to look after the client; a statement does, and what it began goes on.
            wire.command("SET client_connection_check_interval = '2s'; SELECT")
                .await?;
        }
        Ok((wire, facts))
    }

    fn new(stream: ServerStream) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            skip: 0,
            transactions: Transactions::default(),
            received: 0,
        }
    }

    /// Makes the slot; returns its consistent point. Waits for every transaction that has a number, so give it a limit.
    pub async fn create_slot(&mut self, slot: &str) -> Result<Lsn, WireError> {
        let slot = quote_ident(slot);
        let command = format!("CREATE_REPLICATION_SLOT {slot} TEMPORARY LOGICAL pgoutput NOEXPORT_SNAPSHOT");
        let row = self.command(&command).await?;
        let point = column(&row, 1).and_then(|text| text.parse().ok());
        point.ok_or(WireError::Broken(Broken::CutOff))
    }

    /// Runs a command to its end; returns the body of its last row, if it has any.
    async fn command(&mut self, command: &str) -> Result<Vec<u8>, WireError> {
        self.send(command).await?;
        let mut row = Vec::new();
        loop {
            match self.message().await? {
                (b'D', body) => row = body,
                (b'Z', _) => return Ok(row),
                (b'T' | b'C' | b'S' | b'N', _) => {}
                (tag, _) => return Err(Broken::Unexpected(tag).into()),
            }
        }
    }

    /// Begins to stream.
    pub async fn start(&mut self, slot: &str, publication: &str) -> Result<(), WireError> {
        // The option holds a list of identifiers; a walsender's literals know no escapes but the doubled quote.
        let names = quote_ident(publication).replace('\'', "''");
        let slot = quote_ident(slot);
        let command = format!(
            "START_REPLICATION SLOT {slot} LOGICAL 0/0 (proto_version '1', publication_names '{names}')"
        );
        self.send(&command).await?;
        loop {
            match self.message().await? {
                (b'W', _) => return Ok(()),
                (b'S' | b'N', _) => {}
                (tag, _) => return Err(Broken::Unexpected(tag).into()),
            }
        }
    }

    /// Waits for more bytes. Cancel safe.
    pub async fn read(&mut self) -> Result<(), WireError> {
        self.input.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.input).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => {
                self.received += count as u64;
                Ok(())
            }
        }
    }

    /// Bytes received since the login.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// The next thing that what has arrived says.
    pub fn take(&mut self) -> Result<Option<Heard>, WireError> {
        loop {
            self.pass_over();
            if self.skip > 0 {
                return Ok(None);
            }
            let Step::Message { tag, body, len } = replication::next(&self.input)? else {
                return Ok(None);
            };
            let heard = match tag {
                b'd' => match replication::sent(body)? {
                    Sent::Data(piece) => self.transactions.take(piece)?.map(Heard::Committed),
                    Sent::Keepalive { end, reply } => Some(Heard::Position { end, reply }),
                },
                b'E' => return Err(refused(body)),
                b'N' | b'S' => None,
                b'c' | b'C' | b'Z' => return Err(WireError::Ended),
                other => return Err(Broken::Unexpected(other).into()),
            };
            self.skip = len;
            if heard.is_some() {
                return Ok(heard);
            }
        }
    }

    /// Tells the server that all before this position has been taken in; `reply`: it shall say how far it has come.
    pub async fn report(&mut self, position: Lsn, reply: bool) -> Result<(), WireError> {
        replication::status(position, reply, &mut self.output);
        self.flush().await
    }

    fn pass_over(&mut self) {
        let count = self.skip.min(self.input.len());
        self.input.advance(count);
        self.skip -= count;
    }

    async fn send(&mut self, command: &str) -> Result<(), WireError> {
        frontend::query(command, &mut self.output)?;
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), WireError> {
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next message before the stream has begun; an ErrorResponse is the result.
    async fn message(&mut self) -> Result<(u8, Vec<u8>), WireError> {
        loop {
            self.pass_over();
            if let Step::Message { tag, body, len } = replication::next(&self.input)? {
                let body = body.to_vec();
                self.skip = len;
                if tag == b'E' {
                    return Err(refused(&body));
                }
                return Ok((tag, body));
            }
            self.read().await?;
        }
    }
}

fn refused(body: &[u8]) -> WireError {
    let fields = fields(body);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    WireError::Refused {
        sqlstate: text(fields.code),
        message: text(fields.message),
    }
}

/// A column of a DataRow's body, as text.
fn column(body: &[u8], at: usize) -> Option<&str> {
    let mut rest = body.get(2..)?;
    for skipped in 0..=at {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(i32::from_be_bytes(*length)).unwrap_or(0);
        let (value, after) = after.split_at_checked(length)?;
        if skipped == at {
            return std::str::from_utf8(value).ok();
        }
        rest = after;
    }
    None
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::net::{TcpListener, TcpStream};
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn what_has_arrived_takes_few_reads() {
        const COUNT: usize = 1_000;
        let keepalive = [&b"d\0\0\0\x16k"[..], &[0; 17]].concat();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a socket");
        let ours = TcpStream::connect(listener.local_addr().expect("bound"))
            .await
            .expect("a connection");
        let (mut theirs, _) = listener.accept().await.expect("a connection");
        theirs.write_all(&keepalive.repeat(COUNT)).await.expect("it fits");
        let mut wire = Wire::new(ServerStream::Tcp(ours));
        let (mut reads, mut heard) = (0, 0);
        while heard < COUNT {
            let read = timeout(Duration::from_secs(60), wire.read()).await;
            read.expect("in time").expect("it is open");
            reads += 1;
            while wire.take().expect("keepalives").is_some() {
                heard += 1;
            }
        }
        assert!(reads < COUNT / 100, "{reads} reads");
    }

    #[test]
    fn columns_are_found_by_their_lengths() {
        let row = b"\0\x04\0\0\0\x01s\0\0\0\x03A/1\xff\xff\xff\xff\0\0\0\x01p";
        assert_eq!(column(row, 1), Some("A/1"));
        assert_eq!(column(row, 2), Some(""));
        assert_eq!(column(row, 3), Some("p"));
        assert_eq!(column(row, 4), None);
        assert_eq!(column(b"\0\x01\0\0\0\x09s", 0), None);
        assert_eq!(column(b"", 0), None);
    }
}
