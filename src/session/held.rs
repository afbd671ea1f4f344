//! The server's side of a session: a borrowed connection, and what is under way on it.
//!
//! Made by `acquire`, driven by `exchange`, given back when no transaction and no pin keeps it. Invariant: the connection is
//! dirty from before the first byte is written until ReadyForQuery says idle, so that dropping this at any point closes it
//! instead of lending it again. `turn` is cancel safe; `ask` is not, and a dropped one closes the connection.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut, Bytes};
use tokio::io::AsyncWrite;
use tokio_util::io::poll_read_buf;

use super::alarm::Alarm;
use super::answers::Answers;
use super::exchange::Until;
use super::statements::{ClientStatement, Serial};
use super::wire::{Wire, drop_front};
use crate::cluster::{NodeId, Outstanding};
use crate::pool::{Lease, PreparedStatement, ServerConnection, ServerName};
use crate::protocol::backend::Status;
use crate::protocol::error;
use crate::protocol::frame;
use crate::protocol::scanner::{Scanner, Step};

/// Bytes read at once.
const READ_BYTES: usize = 32 * 1024;
/// Most bytes that an answer to the proxy's own question may have.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A borrowed connection.
#[derive(Debug)]
pub struct Held {
    /// The connection.
    pub lease: Lease,
    /// The node it leads to.
    pub node: NodeId,
    /// Its address, for `SHOW pgladder.last`.
    pub address: Arc<str>,
    /// It was borrowed for a read that a replica may serve.
    pub is_replica: bool,
    /// What is expected from the server.
    pub answers: Answers,
    /// The transaction's state, as ReadyForQuery said last.
    pub status: Status,
    /// What the server's unnamed statement is.
    pub unnamed: Unnamed,
    /// Names of the client's statements that this unit uses, by the server's.
    pub names: Vec<(ServerName, Bytes)>,
    /// Named statements whose Parse is under way; `None` for the unnamed one.
    pub parsing: VecDeque<Option<PreparedStatement>>,
    /// Statements whose description the client awaits, with the generation of the catalog when it was asked for.
    pub describing: VecDeque<Option<(Arc<ClientStatement>, u64)>>,
    /// Settings that were RESET in the open transaction; `None` for all of them.
    pub resets: Vec<Option<Box<str>>>,
    /// So many of these were followed by the session's own startup values.
    pub settled: usize,
    pub(super) scanner: Scanner,
    /// While a batch is written: at this message the server's block has failed.
    pub refuses: bool,
    /// A ParameterStatus came that the client was not told of.
    pub news: bool,
    unflushed: bool,
    _outstanding: Outstanding,
}

/// A server's unnamed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unnamed {
    /// One of the client's.
    Is(Serial),
    /// There is none: it was closed, or a simple query has dropped it.
    Absent,
    /// Anybody's, or none.
    Unknown,
}

/// What a turn brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Bytes from the server.
    Server,
    /// Bytes from the client, or its end.
    Client,
    /// Bytes were written to the server.
    Sent,
}

/// The server connection is lost.
#[derive(Debug, thiserror::Error)]
pub enum ServerLost {
    /// The socket failed.
    #[error("the server connection failed: {0}")]
    Io(#[from] io::Error),
    /// The server closed it.
    #[error("the server closed the connection unexpectedly")]
    Closed,
    /// The replica says nothing, and is not usable any more.
    #[error("the replica is not usable any more")]
    Unusable,
    /// It waits for a lock, on a replica: given up.
    #[error("the statement waited for a lock on a replica")]
    Blocked,
    /// The server sent what the protocol does not allow here.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

/// Why a question of the proxy's own has no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The server refused it: its ErrorResponse, whole.
    #[error("the server refused")]
    Refused(Bytes),
    /// The connection is lost.
    #[error(transparent)]
    Lost(#[from] ServerLost),
}

impl Held {
    /// A connection that was just borrowed.
    pub fn new(lease: Lease, address: Arc<str>, is_replica: bool, outstanding: Outstanding) -> Self {
        Self {
            node: lease.key.node,
            lease,
            address,
            is_replica,
            answers: Answers::default(),
            status: Status::Idle,
            unnamed: Unnamed::Unknown,
            names: Vec::new(),
            parsing: VecDeque::new(),
            describing: VecDeque::new(),
            resets: Vec::new(),
            settled: 0,
            scanner: Scanner::default(),
            refuses: false,
            news: false,
            unflushed: false,
            _outstanding: outstanding,
        }
    }

    /// Appends a simple query to what is to be written.
    pub fn put_query(&mut self, sql: &[u8]) {
        let length = u32::try_from(sql.len() + 5).expect("the proxy's own texts, and bounded messages");
        self.lease.output.put_u8(b'Q');
        self.lease.output.put_u32(length);
        self.lease.output.put_slice(sql);
        self.lease.output.put_u8(0);
    }

    /// Asks the server something of the proxy's own, in a unit of its own; returns the first column of each row.
    pub async fn ask(&mut self, sql: &str) -> Result<Vec<Option<Bytes>>, AskError> {
        self.lease.dirty = true;
        self.put_query(sql.as_bytes());
        self.unnamed = Unnamed::Absent;
        self.answer().await.map(|(rows, _)| rows)
    }

    /// Asks for the columns of a statement, which is parsed anew under no name; returns the body of their description.
    pub(super) async fn describe(&mut self, statement: &ClientStatement) -> Result<Bytes, AskError> {
        self.lease.dirty = true;
        self.unnamed = Unnamed::Unknown;
        super::deliver::put_description(self, statement);
        self.answer().await.map(|(_, description)| description)
    }

    /// Begins a block as the client did, in the portal without a name, which is left behind.
    pub(super) async fn begin_in_portal(&mut self, begin: &[u8]) -> Result<(), AskError> {
        self.lease.dirty = true;
        self.unnamed = Unnamed::Unknown;
        super::deliver::put_begin(self, begin);
        self.answer().await.map(drop)
    }

    /// Makes the open block fail, so that the server itself refuses what it refuses in such a block.
    pub(super) async fn fail_block(&mut self) -> Result<(), AskError> {
        match self.ask("ROLLBACK TO SAVEPOINT pgladder_failed").await {
            Ok(_) | Err(AskError::Refused(_)) => Ok(()),
            Err(lost) => Err(lost),
        }
    }

    /// Ends a batch that was refused, so that it may be sent again: the server ignores everything up to its Sync, which may not be part
    /// of it.
    pub(super) async fn end_failed(&mut self, until: Until) -> Result<(), AskError> {
        if until == Until::Answered {
            self.lease.output.put_slice(b"S\0\0\0\x04");
            self.answer().await?;
        }
        Ok(())
    }

    /// Reads the answer to a question of the proxy's own: the first column of each row, and the last description.
    async fn answer(&mut self) -> Result<(Vec<Option<Bytes>>, Bytes), AskError> {
        let mut rows = Vec::new();
        let mut description = Bytes::new();
        let mut refused = None;
        let mut total = 0;
        loop {
            // Whole messages only: the scanner would hand out a long row in parts.
            while let Some(frame) = frame::next(&self.lease.input, 0, ANSWER_BYTES_MAX)
                .map_err(|error| protocol(&error.to_string()))?
            {
                let message = self.lease.input.split_to(frame.len).freeze();
                let body = message.slice(5..);
                match frame.tag {
                    b'D' => rows.push(first_column(&body)?),
                    b'T' => description = body,
                    b'E' => refused = Some(message),
                    b'S' => self.note_parameter(&body),
                    b'Z' => {
                        self.note_status(&body)?;
                        return refused
                            .map_or(Ok((rows, description)), |frame| Err(AskError::Refused(frame)));
                    }
                    _ => {}
                }
                total += frame.len;
                if total > ANSWER_BYTES_MAX {
                    return Err(protocol("an answer to the proxy's own question is too long").into());
                }
            }
            while self.turn(None).await? == Turn::Sent {}
        }
    }

    /// The next step at `at` in the server's input.
    pub fn step(&mut self, at: usize) -> Result<Step, ServerLost> {
        self.scanner
            .step(&self.lease.input, at)
            .map_err(|error| protocol(&error.to_string()))
    }

    /// Keeps a ParameterStatus.
    pub fn note_parameter(&mut self, body: &[u8]) {
        self.news = true;
        if let Some((name, value)) = parameter(body) {
            self.lease.parameters.insert(name.into(), value.into());
        }
    }

    /// Keeps ReadyForQuery's status. Idle means that nothing is under way.
    pub fn note_status(&mut self, body: &[u8]) -> Result<(), ServerLost> {
        self.status = Status::read(body).ok_or_else(|| protocol("an unknown transaction status"))?;
        self.lease.dirty = self.status != Status::Idle;
        Ok(())
    }

    /// Waits for whatever comes first: bytes to or from the server, or, where a client is given, bytes from it.
    pub async fn turn(&mut self, mut client: Option<&mut Wire>) -> Result<Turn, ServerLost> {
        std::future::poll_fn(|cx| self.poll_turn(cx, client.as_deref_mut())).await
    }

    /// As `turn`; `None` when the alarm, where one is given, goes off first.
    pub(super) async fn turn_or(
        &mut self,
        mut client: Option<&mut Wire>,
        mut alarm: Option<&mut Alarm>,
    ) -> Option<Result<Turn, ServerLost>> {
        std::future::poll_fn(|cx| {
            if let Poll::Ready(turn) = self.poll_turn(cx, client.as_deref_mut()) {
                return Poll::Ready(Some(turn));
            }
            match &mut alarm {
                Some(alarm) => alarm.poll(cx).map(|()| None),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// As `turn`.
    pub fn poll_turn(
        &mut self,
        cx: &mut Context<'_>,
        client: Option<&mut Wire>,
    ) -> Poll<Result<Turn, ServerLost>> {
        if let Poll::Ready(done) = self.poll_server(cx) {
            return Poll::Ready(done);
        }
        let Some(wire) = client else {
            return Poll::Pending;
        };
        ready!(wire.poll_read(cx));
        Poll::Ready(Ok(Turn::Client))
    }

    fn poll_server(&mut self, cx: &mut Context<'_>) -> Poll<Result<Turn, ServerLost>> {
        let ServerConnection {
            stream,
            input,
            output,
            ..
        } = &mut *self.lease;
        let mut stream = Pin::new(stream);
        if !output.is_empty()
            && let Poll::Ready(written) = stream.as_mut().poll_write(cx, output)
        {
            self.unflushed = true;
            return Poll::Ready(match written {
                Ok(0) => Err(ServerLost::Closed),
                Ok(written) => {
                    drop_front(output, written);
                    Ok(Turn::Sent)
                }
                Err(error) => Err(error.into()),
            });
        }
        if self.unflushed && output.is_empty() {
            match stream.as_mut().poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending => {}
            }
        }
        if input.capacity() - input.len() < READ_BYTES / 4 {
            input.reserve(READ_BYTES);
        }
        match ready!(poll_read_buf(stream, cx, input)) {
            Ok(0) => Poll::Ready(Err(ServerLost::Closed)),
            Ok(_) => Poll::Ready(Ok(Turn::Server)),
            Err(error) => Poll::Ready(Err(error.into())),
        }
    }

    /// Drops the first `bytes` of what the server sent.
    pub fn consume(&mut self, bytes: usize) {
        drop_front(&mut self.lease.input, bytes);
    }
}

pub(super) fn protocol(what: &str) -> ServerLost {
    ServerLost::Protocol(what.to_owned())
}

/// Name and value of a ParameterStatus that is UTF-8, as all of PostgreSQL's are.
pub(super) fn parameter(body: &[u8]) -> Option<(&str, &str)> {
    let text = std::str::from_utf8(body).ok()?;
    let mut parts = text.split('\0');
    Some((parts.next()?, parts.next()?))
}

/// SQLSTATE of a whole ErrorResponse.
pub(super) fn sqlstate(frame: &[u8]) -> &[u8] {
    error::fields(frame.get(5..).unwrap_or_default()).code
}

/// The value of a row's first column; `None` is NULL.
fn first_column(body: &Bytes) -> Result<Option<Bytes>, ServerLost> {
    let length = body.get(2..).and_then(|rest| rest.first_chunk());
    let length = i32::from_be_bytes(*length.ok_or_else(|| protocol("a row is cut short"))?);
    match usize::try_from(length) {
        Ok(length) if body.len() >= 6 + length => Ok(Some(body.slice(6..6 + length))),
        Ok(_) => Err(protocol("a row is cut short")),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_column_is_read_within_its_row() {
        let row = |bytes: &'static [u8]| first_column(&Bytes::from_static(bytes)).ok();
        assert_eq!(row(b"\0\x01\0\0\0\x02ab"), Some(Some(Bytes::from_static(b"ab"))));
        assert_eq!(row(b"\0\x01\xff\xff\xff\xff"), Some(None));
        assert_eq!(row(b"\0\x01\0\0\0\x09ab"), None);
        assert_eq!(row(b"\0\x00"), None);
    }

    #[test]
    fn a_parameter_has_a_name_and_a_value() {
        assert_eq!(parameter(b"TimeZone\0UTC\0"), Some(("TimeZone", "UTC")));
        assert_eq!(parameter(b"TimeZone"), None);
    }
}
