//! A client that speaks the protocol message by message, as no driver would, and keeps every message that comes back.
//!
//! Used by the wire test and by the rivals. It knows how many answers each message has, so that it never waits for one that
//! cannot come, nor needs a pause to tell that there are no more. What differs from one connection to the next without
//! meaning anything (process ids, where in PostgreSQL's source an error was raised) is left out of what it keeps.

use std::collections::VecDeque;
use std::time::Duration;
use std::{fmt, io};

use bytes::{BufMut, BytesMut};
use pgladder::demo::cluster::SUPERUSER;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::support::within;

/// No answer takes longer, unless something hangs.
const PATIENCE: Duration = Duration::from_secs(30);

/// What ends the answer to a Sync.
const SYNC: &[u8] = b"Z";
/// What ends the answer to a simple query, or a function call: the same, and `q`, which no server sends, tells them apart.
const QUERY: &[u8] = b"Zq";

/// A message to the server.
#[derive(Debug, Clone, PartialEq)]
pub enum Say {
    Query(String),
    /// A function by its number, and its arguments as text.
    Function(u32, &'static [&'static str]),
    Parse(&'static str, String),
    /// Portal, statement, parameters as text, and whether results are wanted in binary.
    Bind(&'static str, &'static str, Vec<Option<String>>, bool),
    DescribeStatement(&'static str),
    DescribePortal(&'static str),
    /// Portal and most rows.
    Execute(&'static str, i32),
    CloseStatement(&'static str),
    ClosePortal(&'static str),
    Flush,
    Sync,
}

/// What is sent when the server asks for data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Feed {
    Done,
    Nothing,
    Malformed,
    Fail,
}

/// A message of the server.
#[derive(Clone, PartialEq, Eq)]
pub struct Heard {
    pub tag: u8,
    pub body: Vec<u8>,
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.body[..self.body.len().min(300)];
        write!(f, "{} \"{}\"", char::from(self.tag), shown.escape_ascii())
    }
}

/// A connection.
pub struct Speaker {
    stream: TcpStream,
    input: BytesMut,
    /// The server ignores everything up to the next Sync.
    skipping: bool,
    pub process: [u8; 8],
}

impl Speaker {
    /// Logs in on trust. Returns what was heard up to ReadyForQuery as well.
    pub async fn start(port: u16, database: &str, parameters: &[(&str, &str)]) -> (Self, Vec<Heard>) {
        let connecting = TcpStream::connect(("127.0.0.1", port));
        let mut stream = within("a client that connects", connecting)
            .await
            .expect("it listens");
        stream.set_nodelay(true).expect("a socket");
        let mut body = BytesMut::new();
        body.put_u32(196_608);
        let given = [("user", SUPERUSER), ("database", database)];
        for (name, value) in given.iter().chain(parameters) {
            put_text(&mut body, name);
            put_text(&mut body, value);
        }
        body.put_u8(0);
        let mut packet = BytesMut::new();
        packet.put_u32(u32::try_from(body.len() + 4).expect("short"));
        packet.put_slice(&body);
        within("a client that logs in", stream.write_all(&packet))
            .await
            .expect("sent");
        let mut speaker = Self {
            stream,
            input: BytesMut::new(),
            skipping: false,
            process: [0; 8],
        };
        let mut heard = Vec::new();
        speaker.hear(VecDeque::from([SYNC]), Feed::Done, &mut heard).await;
        heard.retain(|message| message.tag != b'K');
        (speaker, heard)
    }

    /// Sends the messages in one piece, and returns all that answers them.
    pub async fn say(&mut self, messages: &[Say], feed: Feed) -> Vec<Heard> {
        let mut out = BytesMut::new();
        let mut ends: VecDeque<&'static [u8]> = VecDeque::new();
        let mut open: VecDeque<&'static [u8]> = VecDeque::new();
        for message in messages {
            put(&mut out, message);
            let end: &[u8] = match message {
                Say::Query(_) | Say::Function(..) => QUERY,
                Say::Sync => SYNC,
                Say::Parse(..) => b"1",
                Say::Bind(..) => b"2",
                Say::DescribeStatement(_) | Say::DescribePortal(_) => b"Tn",
                Say::Execute(..) => b"CIs",
                Say::CloseStatement(_) | Say::ClosePortal(_) => b"3",
                Say::Flush => b"",
            };
            if !end.is_empty() {
                open.push_back(end);
            }
            if matches!(
                message,
                Say::Flush | Say::Sync | Say::Query(_) | Say::Function(..)
            ) {
                ends.append(&mut open);
            }
        }
        let mut heard = Vec::new();
        let sent = timeout(PATIENCE, self.stream.write_all(&out)).await;
        if let Err(why) = ended(sent) {
            heard.push(why);
            return heard;
        }
        self.hear(ends, feed, &mut heard).await;
        heard
    }

    /// A simple query; the first column of its rows.
    pub async fn query(&mut self, sql: &str) -> Vec<Heard> {
        self.say(&[Say::Query(sql.to_owned())], Feed::Done).await
    }

    async fn hear(&mut self, mut ends: VecDeque<&'static [u8]>, feed: Feed, heard: &mut Vec<Heard>) {
        if self.skipping {
            skip_to_sync(&mut ends);
        }
        while let Some(end) = ends.front() {
            let message = match self.message().await {
                Ok(message) => message,
                Err(why) => return heard.push(why),
            };
            let tag = message.tag;
            heard.push(message);
            match tag {
                b'G' => self.feed(feed, &mut ends).await,
                b'E' if *end != SYNC && *end != QUERY => {
                    self.skipping = true;
                    skip_to_sync(&mut ends);
                }
                tag if end.contains(&tag) => {
                    self.skipping &= tag != b'Z';
                    ends.pop_front();
                }
                _ => {}
            }
        }
    }

    async fn feed(&mut self, feed: Feed, ends: &mut VecDeque<&'static [u8]>) {
        let mut out = BytesMut::new();
        let rows: &[&[u8]] = match feed {
            Feed::Done | Feed::Fail => &[b"901\tfed\n9", b"02\tfed too\n"],
            Feed::Malformed => &[b"901\tfed\n", b"not a number\tx\n", b"902\tlate\n"],
            Feed::Nothing => &[],
        };
        for row in rows {
            put_body(&mut out, b'd', row);
        }
        if feed == Feed::Fail {
            put_body(&mut out, b'f', b"the client gave up\0");
        } else {
            put_body(&mut out, b'c', b"");
        }
        if ends.front().is_some_and(|end| *end != QUERY) {
            // In the extended protocol the Syncs sent before the data are ignored: another one must follow.
            put_body(&mut out, b'S', b"");
            ends.retain(|end| *end != SYNC);
            ends.push_back(SYNC);
        }
        let sent = timeout(PATIENCE, self.stream.write_all(&out)).await;
        // Whether it was closed is heard next.
        ended(sent).ok();
    }

    /// The next message; in its place, where there is none, why.
    async fn message(&mut self) -> Result<Heard, Heard> {
        loop {
            if let Some((tag, length)) = self.header()
                && self.input.len() > length
            {
                let frame = self.input.split_to(length + 1);
                if tag == b'K' {
                    self.process.copy_from_slice(&frame[5..13]);
                }
                return Ok(Heard {
                    tag,
                    body: plain(tag, &frame[5..]),
                });
            }
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await;
            if ended(read)? == 0 {
                return Err(no_more("closed"));
            }
        }
    }

    fn header(&self) -> Option<(u8, usize)> {
        let length = self.input.get(1..5)?.try_into().ok()?;
        Some((self.input[0], usize::try_from(u32::from_be_bytes(length)).ok()?))
    }
}

/// What is kept in the place of a message that cannot come.
fn no_more(why: &str) -> Heard {
    Heard {
        tag: b'!',
        body: why.as_bytes().to_vec(),
    }
}

fn ended<T>(waited: Result<io::Result<T>, Elapsed>) -> Result<T, Heard> {
    match waited {
        Ok(done) => done.map_err(|_| no_more("closed")),
        Err(Elapsed { .. }) => Err(no_more("silent")),
    }
}

fn skip_to_sync(ends: &mut VecDeque<&'static [u8]>) {
    while ends.front().is_some_and(|end| *end != SYNC) {
        ends.pop_front();
    }
}

/// A message without what means nothing.
fn plain(tag: u8, body: &[u8]) -> Vec<u8> {
    match tag {
        b'E' | b'N' => {
            let fields = body.split(|byte| *byte == 0);
            let kept = fields.filter(|field| !matches!(field.first(), None | Some(b'F' | b'L' | b'R')));
            kept.collect::<Vec<_>>().join(&b'\n')
        }
        // The process that notified.
        b'A' => body[4..].to_vec(),
        _ => body.to_vec(),
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_slice(text.as_bytes());
    out.put_u8(0);
}

fn put_body(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).expect("short"));
    out.put_slice(body);
}

fn put(out: &mut BytesMut, message: &Say) {
    let mut body = BytesMut::new();
    let tag = match message {
        Say::Query(sql) => {
            put_text(&mut body, sql);
            b'Q'
        }
        Say::Function(function, arguments) => {
            body.put_u32(*function);
            body.put_u16(0);
            body.put_u16(u16::try_from(arguments.len()).expect("few"));
            for argument in *arguments {
                body.put_u32(u32::try_from(argument.len()).expect("short"));
                body.put_slice(argument.as_bytes());
            }
            body.put_u16(0);
            b'F'
        }
        Say::Parse(name, sql) => {
            put_text(&mut body, name);
            put_text(&mut body, sql);
            body.put_u16(0);
            b'P'
        }
        Say::Bind(portal, statement, values, binary) => {
            put_text(&mut body, portal);
            put_text(&mut body, statement);
            body.put_u16(0);
            body.put_u16(u16::try_from(values.len()).expect("few"));
            for value in values {
                match value {
                    Some(value) => {
                        body.put_u32(u32::try_from(value.len()).expect("short"));
                        body.put_slice(value.as_bytes());
                    }
                    None => body.put_i32(-1),
                }
            }
            body.put_u16(1);
            body.put_u16(u16::from(*binary));
            b'B'
        }
        Say::DescribeStatement(name) | Say::CloseStatement(name) => {
            body.put_u8(b'S');
            put_text(&mut body, name);
            if matches!(message, Say::DescribeStatement(_)) {
                b'D'
            } else {
                b'C'
            }
        }
        Say::DescribePortal(name) | Say::ClosePortal(name) => {
            body.put_u8(b'P');
            put_text(&mut body, name);
            if matches!(message, Say::DescribePortal(_)) {
                b'D'
            } else {
                b'C'
            }
        }
        Say::Execute(portal, rows) => {
            put_text(&mut body, portal);
            body.put_i32(*rows);
            b'E'
        }
        Say::Flush => b'H',
        Say::Sync => b'S',
    };
    put_body(out, tag, &body);
}
