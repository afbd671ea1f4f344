//! A connection before it is a client: its first packets, in the clear and over TLS.
//!
//! Owned by the door for the length of a login. Invariant: nothing that arrived in the clear is ever read as if it had come over
//! TLS (CVE-2021-23214), and a packet is waited for only up to PostgreSQL's own limit. Dropping a future of it in the middle
//! leaves the connection good for one last message, except during a TLS handshake, when it is closed.

use std::time::Duration;

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::auth::{Channel, Wire};
use crate::listener::error::DoorError;
use crate::listener::request::Request;
use crate::listener::tls::ClientTls;
use crate::protocol::backend;
use crate::protocol::error::Report;
use crate::protocol::startup::{self, First, StartupError};
use crate::session::stream::ClientStream;

/// Room for a usual startup packet, so that it takes one read.
const READ_BYTES: usize = 1024;
/// How long a refused client may take to read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes of a refused client that are read and thrown away, because closing a socket with unread bytes resets the connection,
/// and a reset may overtake the message.
const FAREWELL_BYTES_MAX: usize = 64 * 1024;

/// What a connection is for.
#[derive(Debug)]
pub(crate) enum Purpose {
    /// To cancel another client's request.
    Cancel { process: i32, secret: Vec<u8> },
    /// To log in.
    Login(Request),
}

/// A connection at the door.
#[derive(Debug)]
pub(crate) struct Entrance {
    /// `None` only during a TLS handshake.
    stream: Option<ClientStream>,
    input: BytesMut,
    output: BytesMut,
    asked: bool,
    channel: Channel,
}

impl Entrance {
    pub fn new(stream: ClientStream) -> Self {
        Self {
            stream: Some(stream),
            input: BytesMut::new(),
            output: BytesMut::new(),
            asked: false,
            channel: Channel::Plain,
        }
    }

    /// True once the startup packet has arrived: from then on errors are told.
    pub fn asked(&self) -> bool {
        self.asked
    }

    /// Reads until it is known what the connection is for.
    pub async fn greet(&mut self, tls: Option<&ClientTls>) -> Result<Purpose, DoorError> {
        let direct = match tls {
            Some(tls) => self.accept_direct_tls(tls).await?,
            None => false,
        };
        // Inside TLS neither kind of encryption can be asked for.
        let (mut ssl_asked, mut gss_asked) = (direct, direct);
        loop {
            match self.first_packet().await? {
                First::Ssl if !ssl_asked => {
                    ssl_asked = true;
                    match tls.filter(|_| self.is_plain_tcp()) {
                        Some(tls) => {
                            gss_asked = true;
                            self.answer(b'S').await?;
                            self.encrypt(tls, false).await?;
                        }
                        None => self.answer(b'N').await?,
                    }
                }
                First::GssEnc if !gss_asked => {
                    gss_asked = true;
                    self.answer(b'N').await?;
                }
                // Asked for twice, PostgreSQL takes the request's code for a protocol version.
                First::Ssl => return Err(StartupError::Version(1234, 5679).into()),
                First::GssEnc => return Err(StartupError::Version(1234, 5680).into()),
                First::Cancel { process, secret } => return Ok(Purpose::Cancel { process, secret }),
                First::Startup(startup) => {
                    self.asked = true;
                    let request = Request::read(startup).map_err(DoorError::Request)?;
                    if let Some(told) = &request.negotiation {
                        backend::negotiate_version(told.version, told.unsupported.clone(), &mut self.output);
                    }
                    return Ok(Purpose::Login(request));
                }
            }
        }
    }

    /// What the connection itself proves.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// True for bytes that cross a network in the clear.
    pub fn is_plain_tcp(&self) -> bool {
        matches!(self.stream, Some(ClientStream::Tcp(_)))
    }

    /// The parts that an authentication works on.
    pub fn wire(&mut self) -> Result<Wire<'_, ClientStream>, DoorError> {
        Ok(Wire {
            stream: self.stream.as_mut().ok_or(DoorError::Gone(None))?,
            input: &mut self.input,
            output: &mut self.output,
        })
    }

    /// Ends a successful login: sends what is left to say, and gives the stream away with the bytes behind the login.
    pub async fn admit(&mut self) -> Result<(ClientStream, BytesMut), DoorError> {
        backend::authentication_ok(&mut self.output);
        let Wire { stream, output, .. } = self.wire()?;
        stream.write_all_buf(output).await?;
        stream.flush().await?;
        let stream = self.stream.take().ok_or(DoorError::Gone(None))?;
        Ok((stream, std::mem::take(&mut self.input)))
    }

    /// Ends a failed login: says why, if there is something to say, and closes. Takes a second at most.
    pub async fn refuse(mut self, report: Option<Report>) {
        let (Some(mut stream), Some(report)) = (self.stream.take(), report) else {
            return;
        };
        report.encode(&mut self.output);
        let farewell = async {
            stream.write_all_buf(&mut self.output).await?;
            stream.shutdown().await?;
            let mut rest = stream.take(FAREWELL_BYTES_MAX as u64);
            tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
        };
        if !matches!(timeout(FAREWELL_TIMEOUT, farewell).await, Ok(Ok(_))) {
            tracing::trace!("a refused client was gone, or did not close in time");
        }
    }

    /// Looks at the first byte without taking it: 0x16 begins a TLS handshake, and no startup packet has so great a length.
    async fn accept_direct_tls(&mut self, tls: &ClientTls) -> Result<bool, DoorError> {
        const HANDSHAKE: u8 = 0x16;
        let Some(ClientStream::Tcp(tcp)) = &self.stream else {
            return Ok(false);
        };
        let mut first = [0];
        if tcp.peek(&mut first).await? == 0 {
            return Err(DoorError::Gone(None));
        }
        if first != [HANDSHAKE] {
            return Ok(false);
        }
        self.encrypt(tls, true).await?;
        Ok(true)
    }

    async fn encrypt(&mut self, tls: &ClientTls, is_direct: bool) -> Result<(), DoorError> {
        let Some(ClientStream::Tcp(tcp)) = self.stream.take() else {
            return Err(DoorError::Gone(None));
        };
        let (stream, channel) = tls.handshake(tcp, is_direct).await?;
        self.stream = Some(ClientStream::Tls(Box::new(stream)));
        self.channel = channel;
        Ok(())
    }

    async fn first_packet(&mut self) -> Result<First, DoorError> {
        loop {
            if let Some((first, length)) = startup::first(&self.input)? {
                drop(self.input.split_to(length));
                return Ok(first);
            }
            self.input.reserve(READ_BYTES);
            let stream = self.stream.as_mut().ok_or(DoorError::Gone(None))?;
            if stream.read_buf(&mut self.input).await? == 0 {
                return Err(DoorError::Gone(None));
            }
        }
    }

    /// Answers a request for encryption, unless bytes already followed it.
    async fn answer(&mut self, answer: u8) -> Result<(), DoorError> {
        if !self.input.is_empty() {
            return Err(DoorError::Injected);
        }
        let stream = self.stream.as_mut().ok_or(DoorError::Gone(None))?;
        stream.write_all(&[answer]).await?;
        Ok(stream.flush().await?)
    }
}
