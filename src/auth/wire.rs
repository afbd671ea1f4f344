//! A client's stream during its login, with what was read and what is to be written.
//!
//! Lent by the listener to `Auth::authenticate` for one exchange. Invariant: no message of a client that has not logged in makes
//! the buffer grow beyond `MESSAGE_BYTES_MAX`, whatever length it declares. Bytes behind the exchange stay in `input`.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::auth::error::AuthError;
use crate::protocol::frame;

/// Longest message of a login. A SCRAM message has some 200 bytes; libpq itself never sends more than a kilobyte.
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024;
/// Room for a usual one, so that it takes one read.
const READ_BYTES: usize = 512;

/// The three parts of a connection in its login.
#[derive(Debug)]
pub struct Wire<'a, S> {
    /// The socket.
    pub stream: &'a mut S,
    /// Read and not yet consumed.
    pub input: &'a mut BytesMut,
    /// Composed and not yet sent.
    pub output: &'a mut BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<'_, S> {
    /// Sends the output.
    pub async fn send(&mut self) -> Result<(), AuthError> {
        self.stream.write_all_buf(self.output).await?;
        self.stream.flush().await?;
        Ok(())
    }

    /// The body of the client's next message, which must be a password message (tag `p`).
    pub async fn password_message(&mut self) -> Result<Bytes, AuthError> {
        loop {
            if let Some(&tag) = self.input.first()
                && tag != b'p'
            {
                return Err(AuthError::Protocol("expected a password or SASL response"));
            }
            let whole = frame::next(self.input, 0, MESSAGE_BYTES_MAX);
            if let Some(found) = whole.map_err(|_| AuthError::Protocol("invalid password packet size"))? {
                let mut message = self.input.split_to(found.len);
                return Ok(message.split_off(frame::HEADER_BYTES).freeze());
            }
            self.input.reserve(READ_BYTES);
            if self.stream.read_buf(self.input).await? == 0 {
                return Err(AuthError::Gone);
            }
        }
    }
}
