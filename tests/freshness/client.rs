//! A client of bare messages: it sends exactly what a test says, in one piece or in several, and shows every answer.
//!
//! Used by all tests here, because drivers choose formats and Syncs themselves. It reads no faster than it is told to, so that a
//! test can leave an answer unread. Each future fails with `Failed` when the server goes; none is cancel safe.

use std::fmt;
use std::path::PathBuf;
use std::pin::Pin;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use pgladder::listener::Bound;
use postgres_protocol::IsNull;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

/// Why there is no answer.
#[derive(Debug)]
pub enum Failed {
    /// The server said so.
    Refused { code: String, message: String },
    /// The connection is gone.
    Gone(String),
}

impl Failed {
    /// Its SQLSTATE; empty where the connection is gone.
    pub fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            Self::Gone(_) => "",
        }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "{code}: {message}"),
            Self::Gone(why) => write!(f, "gone: {why}"),
        }
    }
}

impl From<std::io::Error> for Failed {
    fn from(error: std::io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

/// Columns of a row, as they came.
pub type Row = Vec<Option<Bytes>>;

/// All that came up to a ReadyForQuery.
#[derive(Debug, Default)]
pub struct Answer {
    pub rows: Vec<Row>,
    pub tags: Vec<String>,
}

impl Answer {
    /// The first column of the first row, which must be there and not NULL.
    pub fn value(&self) -> &[u8] {
        let column = self.rows.first().and_then(|row| row.first());
        column.and_then(Option::as_ref).expect("a row with a value")
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.value().to_vec()).expect("text")
    }
}

/// One message of an answer, as far as a test looks at it.
#[derive(Debug)]
pub enum Heard {
    Row(Row),
    Complete(String),
    CopyIn,
    Notified,
    Refused { code: String, message: String },
    Ready,
    Other,
}

trait Stream: AsyncRead + AsyncWrite + Send {}
impl<S: AsyncRead + AsyncWrite + Send> Stream for S {}

/// One connection.
pub struct Client {
    stream: Pin<Box<dyn Stream>>,
    input: BytesMut,
    output: BytesMut,
    /// What the latest ReadyForQuery said.
    pub status: u8,
}

impl Client {
    /// Logs in, without a password.
    pub async fn connect(to: &Bound, user: &str, database: &str) -> Result<Self, Failed> {
        let stream: Pin<Box<dyn Stream>> = match to {
            Bound::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Box::pin(stream)
            }
            Bound::Unix(path) => Box::pin(UnixStream::connect(PathBuf::from(path)).await?),
        };
        let mut client = Self {
            stream,
            input: BytesMut::new(),
            output: BytesMut::new(),
            status: 0,
        };
        let parameters = [
            ("user", user),
            ("database", database),
            ("client_encoding", "UTF8"),
        ];
        frontend::startup_message(parameters, &mut client.output).expect("no NUL in it");
        client.ready().await?;
        Ok(client)
    }

    pub fn put_query(&mut self, sql: &str) {
        frontend::query(sql, &mut self.output).expect("no NUL in it");
    }

    pub fn put_parse(&mut self, name: &str, sql: &str) {
        frontend::parse(name, sql, [], &mut self.output).expect("no NUL in it");
    }

    /// Parameters as text; results in text or all binary.
    pub fn put_bind(&mut self, portal: &str, name: &str, values: &[&str], binary: bool) {
        let put = |value: &&str, out: &mut BytesMut| {
            out.extend_from_slice(value.as_bytes());
            Ok(IsNull::No)
        };
        let formats = [i16::from(binary)];
        let bound = frontend::bind(portal, name, [0], values.iter(), put, formats, &mut self.output);
        assert!(bound.is_ok(), "values without NUL");
    }

    pub fn put_describe(&mut self, portal: &str) {
        frontend::describe(b'P', portal, &mut self.output).expect("no NUL in it");
    }

    pub fn put_execute(&mut self, portal: &str) {
        frontend::execute(portal, 0, &mut self.output).expect("no NUL in it");
    }

    pub fn put_flush(&mut self) {
        frontend::flush(&mut self.output);
    }

    pub fn put_sync(&mut self) {
        frontend::sync(&mut self.output);
    }

    /// A call of a function by its number, without arguments, its result as text.
    pub fn put_function(&mut self, function: u32) {
        self.output.put_slice(b"F\0\0\0\x0e");
        self.output.put_u32(function);
        self.output.put_slice(&[0; 6]);
    }

    /// Sends what was put.
    pub async fn send(&mut self) -> Result<(), Failed> {
        self.stream.write_all_buf(&mut self.output).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The next message of the server.
    pub async fn hear(&mut self) -> Result<Heard, Failed> {
        loop {
            if let Some((tag, body)) = self.message() {
                return Ok(self.heard(tag, body));
            }
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(Failed::Gone("the server closed the connection".to_owned()));
            }
        }
    }

    fn message(&mut self) -> Option<(u8, Bytes)> {
        let (&tag, rest) = self.input.split_first()?;
        let length = u32::from_be_bytes(*rest.first_chunk()?) as usize;
        if rest.len() < length {
            return None;
        }
        let mut message = self.input.split_to(length + 1).freeze();
        message.advance(5);
        Some((tag, message))
    }

    fn heard(&mut self, tag: u8, mut body: Bytes) -> Heard {
        match tag {
            b'D' => {
                let columns = body.get_u16();
                Heard::Row((0..columns).map(|_| column(&mut body)).collect())
            }
            b'C' => Heard::Complete(text(&body[..body.len() - 1])),
            b'G' => Heard::CopyIn,
            b'A' => Heard::Notified,
            b'E' => refused(&body),
            b'Z' => {
                self.status = body[0];
                Heard::Ready
            }
            _ => Heard::Other,
        }
    }

    /// Sends what was put, and takes all up to ReadyForQuery. An ErrorResponse makes it fail, after that.
    pub async fn ready(&mut self) -> Result<Answer, Failed> {
        self.send().await?;
        let (mut answer, mut failed) = (Answer::default(), None);
        loop {
            match self.hear().await {
                Ok(Heard::Row(row)) => answer.rows.push(row),
                Ok(Heard::Complete(tag)) => answer.tags.push(tag),
                Ok(Heard::Refused { code, message }) => failed = Some(Failed::Refused { code, message }),
                Ok(Heard::Ready) => return failed.map_or(Ok(answer), Err),
                Ok(Heard::CopyIn | Heard::Notified | Heard::Other) => {}
                // What a server said last tells more than that it closed the connection then.
                Err(gone) => return Err(failed.unwrap_or(gone)),
            }
        }
    }

    /// A simple query.
    pub async fn query(&mut self, sql: &str) -> Result<Answer, Failed> {
        self.put_query(sql);
        self.ready().await
    }

    /// An extended query by the unnamed statement.
    pub async fn extended(&mut self, sql: &str, values: &[&str], binary: bool) -> Result<Answer, Failed> {
        self.put_parse("", sql);
        self.prepared("", values, binary).await
    }

    /// Binds, describes and executes a statement that was parsed before.
    pub async fn prepared(&mut self, name: &str, values: &[&str], binary: bool) -> Result<Answer, Failed> {
        self.put_bind("", name, values, binary);
        self.put_describe("");
        self.put_execute("");
        self.put_sync();
        self.ready().await
    }

    /// COPY FROM STDIN of one piece of data.
    pub async fn copy(&mut self, sql: &str, data: &str) -> Result<Answer, Failed> {
        self.put_query(sql);
        self.send().await?;
        loop {
            match self.hear().await? {
                Heard::CopyIn => break,
                Heard::Refused { code, message } => {
                    self.ready().await?;
                    return Err(Failed::Refused { code, message });
                }
                _ => {}
            }
        }
        let data = frontend::CopyData::new(data.as_bytes()).expect("short");
        data.write(&mut self.output);
        frontend::copy_done(&mut self.output);
        self.ready().await
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn column(body: &mut Bytes) -> Option<Bytes> {
    let length = usize::try_from(body.get_i32()).ok()?;
    Some(body.split_to(length))
}

fn refused(body: &[u8]) -> Heard {
    let (mut code, mut message) = (String::new(), String::new());
    for field in body.split(|byte| *byte == 0) {
        match field.split_first() {
            Some((b'C', value)) => code = text(value),
            Some((b'M', value)) => message = text(value),
            _ => {}
        }
    }
    Heard::Refused { code, message }
}
