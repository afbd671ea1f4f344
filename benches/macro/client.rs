//! A client of the barest kind: it blocks, and does not decode what it reads.
//!
//! Used where pgbench cannot help: for thousands of idle clients, and to time a connection from its first packet to its last. It
//! logs in without a password. Any error of the server ends it. It must not run on a thread of the asynchronous runtime's own.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::bail;
use bytes::BytesMut;
use pgladder::demo::cluster::SUPERUSER;
use pgladder::protocol::{error, frame};
use postgres_protocol::message::frontend;

use super::doors::DATABASE;

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// A logged-in client; dropping it closes the connection without a goodbye.
pub struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: BytesMut,
}

impl Client {
    /// Connects to a port of 127.0.0.1 and logs in.
    pub fn connect(port: u16) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut client = Self {
            stream,
            input: Vec::new(),
            output: BytesMut::new(),
        };
        let parameters = [("user", SUPERUSER), ("database", DATABASE)];
        frontend::startup_message(parameters, &mut client.output)?;
        client.exchange()?;
        Ok(client)
    }

    /// One simple query.
    pub fn simple(&mut self, sql: &str) -> anyhow::Result<()> {
        frontend::query(sql, &mut self.output)?;
        self.exchange()
    }

    /// One prepared query: the statement stays, under a name.
    pub fn prepared(&mut self, sql: &str, argument: &str) -> anyhow::Result<()> {
        const NAME: &str = "point";
        frontend::parse(NAME, sql, [], &mut self.output)?;
        let bound = frontend::bind(
            "",
            NAME,
            [],
            [argument],
            |argument, out| {
                out.extend_from_slice(argument.as_bytes());
                Ok(postgres_protocol::IsNull::No)
            },
            [],
            &mut self.output,
        );
        if bound.is_err() {
            bail!("the argument cannot be bound");
        }
        frontend::describe(b'P', "", &mut self.output)?;
        frontend::execute("", 0, &mut self.output)?;
        frontend::sync(&mut self.output);
        self.exchange()
    }

    /// Says goodbye.
    pub fn close(mut self) -> anyhow::Result<()> {
        frontend::terminate(&mut self.output);
        self.stream.write_all(&self.output)?;
        Ok(())
    }

    /// Sends what is to be sent, and reads up to ReadyForQuery.
    fn exchange(&mut self) -> anyhow::Result<()> {
        self.stream.write_all(&self.output.split())?;
        self.input.clear();
        let (mut chunk, mut at) = ([0; 4_096], 0);
        loop {
            while let Some(frame) = frame::next(&self.input, at, MESSAGE_BYTES_MAX)? {
                at = frame.end();
                match frame.tag {
                    b'Z' => {
                        // Thousands of these are held, and only the proxy's memory is of interest.
                        self.input = Vec::new();
                        return Ok(());
                    }
                    b'E' => {
                        let fields = error::fields(frame.body(&self.input));
                        bail!("{}", String::from_utf8_lossy(fields.message));
                    }
                    _ => {}
                }
            }
            match self.stream.read(&mut chunk)? {
                0 => bail!("the connection was closed"),
                length => self.input.extend_from_slice(&chunk[..length]),
            }
        }
    }
}
