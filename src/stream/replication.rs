//! The messages of a replication connection: what a walsender puts into CopyData, and the position that is reported back.
//!
//! Called by `wire` with the bytes that have arrived. Pure. Invariant: no more than `BUFFERED_BYTES_MAX` bytes of one message are ever
//! waited for; of a longer one, which can only be a row, the head says all that invalidation needs and the rest is passed over.
//! Manual: "Streaming Replication Protocol".

use bytes::{BufMut, BytesMut};

use crate::protocol::frame::{self, FrameError, HEADER_BYTES};
use crate::protocol::lsn::Lsn;

/// A message up to this long is read as a whole. A relation of 1,600 columns with the longest names takes 130,000 bytes.
pub const BUFFERED_BYTES_MAX: usize = 256 * 1024;
/// So much of a longer message is read: XLogData's own fields, and the relation that the row belongs to.
const HEAD_BYTES: usize = HEADER_BYTES + XLOG_DATA_BYTES + 6;
/// The tag, two positions and a time.
const XLOG_DATA_BYTES: usize = 25;

/// The next thing in the bytes that have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step<'a> {
    /// More bytes are needed.
    Incomplete,
    /// A message: its tag, and its body, or the body's beginning where it is long. `len` bytes are to be passed over, some of
    /// which may not have arrived.
    Message {
        /// Type byte.
        tag: u8,
        /// The body, as far as it is read.
        body: &'a [u8],
        /// Bytes of the whole message.
        len: usize,
    },
}

/// What the server sent cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// No message has this length.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Only rows may be so long.
    #[error("a message of type {tag:#04x} declares {declared} bytes")]
    TooLong {
        /// Type byte.
        tag: u8,
        /// Length as declared.
        declared: usize,
    },
    /// A message ends before its fields do.
    #[error("a message of replication is cut off")]
    CutOff,
    /// A type that was not asked for.
    #[error("an unexpected message of type {0:#04x}")]
    Unexpected(u8),
}

/// The first message of `input`.
pub fn next(input: &[u8]) -> Result<Step<'_>, Broken> {
    let Some((tag, declared)) = frame::header(input, 0)? else {
        return Ok(Step::Incomplete);
    };
    let len = declared + 1;
    if len <= BUFFERED_BYTES_MAX {
        let body = input.get(HEADER_BYTES..len);
        return Ok(body.map_or(Step::Incomplete, |body| Step::Message { tag, body, len }));
    }
    let Some(head) = input.get(HEADER_BYTES..HEAD_BYTES) else {
        return Ok(Step::Incomplete);
    };
    let is_row = tag == b'd' && head[0] == b'w' && matches!(head[XLOG_DATA_BYTES], b'I' | b'U' | b'D');
    if !is_row {
        return Err(Broken::TooLong { tag, declared });
    }
    Ok(Step::Message { tag, body: head, len })
}

/// What a CopyData of a walsender holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent<'a> {
    /// A piece of the stream.
    Data(&'a [u8]),
    /// All of the log up to this position has been looked at, and sent as far as it concerns us.
    Keepalive {
        /// That position.
        end: Lsn,
        /// The server wants an answer at once, or it ends the connection.
        reply: bool,
    },
}

/// Reads the body of a CopyData.
pub fn sent(body: &[u8]) -> Result<Sent<'_>, Broken> {
    match body.split_first() {
        Some((b'w', rest)) => rest
            .get(XLOG_DATA_BYTES - 1..)
            .map(Sent::Data)
            .ok_or(Broken::CutOff),
        Some((b'k', rest)) => {
            let end = rest.first_chunk::<8>().ok_or(Broken::CutOff)?;
            Ok(Sent::Keepalive {
                end: Lsn(u64::from_be_bytes(*end)),
                reply: *rest.get(16).ok_or(Broken::CutOff)? == 1,
            })
        }
        Some((other, _)) => Err(Broken::Unexpected(*other)),
        None => Err(Broken::CutOff),
    }
}

/// Appends a standby status update: all up to `position` is written, flushed and applied. `reply`: the server shall answer with
/// its own position.
pub fn status(position: Lsn, reply: bool, out: &mut BytesMut) {
    out.put_u8(b'd');
    out.put_i32(4 + 34);
    out.put_u8(b'r');
    for _ in 0..3 {
        out.put_u64(position.0);
    }
    // The clock of the sender, which nobody needs.
    out.put_i64(0);
    out.put_u8(u8::from(reply));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let declared = u32::try_from(body.len() + 4).expect("short");
        [&[tag][..], &declared.to_be_bytes(), body].concat()
    }

    fn data(payload: &[u8]) -> Vec<u8> {
        [b"w", &[0; 24][..], payload].concat()
    }

    #[test]
    fn a_message_is_waited_for_until_it_is_whole() {
        let bytes = message(b'd', &data(b"C1"));
        for cut in 0..bytes.len() {
            assert_eq!(next(&bytes[..cut]), Ok(Step::Incomplete), "{cut}");
        }
        let Ok(Step::Message { tag: b'd', body, len }) = next(&bytes) else {
            panic!("a message: {:?}", next(&bytes));
        };
        assert_eq!((sent(body), len), (Ok(Sent::Data(b"C1")), bytes.len()));
    }

    #[test]
    fn of_a_long_row_only_the_head_is_read() {
        let row = [b"I\0\0\x40\x01N", &vec![7; BUFFERED_BYTES_MAX][..]].concat();
        let bytes = message(b'd', &data(&row));
        assert_eq!(next(&bytes[..HEAD_BYTES - 1]), Ok(Step::Incomplete));
        let Ok(Step::Message { body, len, .. }) = next(&bytes[..HEAD_BYTES]) else {
            panic!("its head: {:?}", next(&bytes[..HEAD_BYTES]));
        };
        assert_eq!(len, bytes.len());
        assert_eq!(sent(body), Ok(Sent::Data(b"I\0\0\x40\x01N")));
    }

    #[test]
    fn what_is_long_and_no_row_is_refused() {
        let relation = message(b'd', &data(&vec![b'R'; BUFFERED_BYTES_MAX]));
        let error = message(b'E', &vec![b'S'; BUFFERED_BYTES_MAX]);
        for bytes in [relation, error] {
            assert!(matches!(next(&bytes), Err(Broken::TooLong { .. })));
        }
        assert!(matches!(next(b"d\0\0\0\x03"), Err(Broken::Frame(_))));
    }

    #[test]
    fn a_keepalive_tells_position_and_haste() {
        let keepalive = |reply: u8| [b"k", &[0, 0, 0, 1, 0, 0, 0, 2][..], &[0; 8], &[reply]].concat();
        for (byte, reply) in [(0, false), (1, true)] {
            let end = Lsn(0x1_0000_0002);
            assert_eq!(sent(&keepalive(byte)), Ok(Sent::Keepalive { end, reply }));
        }
        assert_eq!(sent(&keepalive(0)[..17]), Err(Broken::CutOff));
        assert_eq!(sent(b""), Err(Broken::CutOff));
        assert_eq!(sent(b"w1"), Err(Broken::CutOff));
        assert_eq!(sent(b"z"), Err(Broken::Unexpected(b'z')));
    }

    #[test]
    fn a_status_says_the_position_three_times() {
        let mut out = BytesMut::new();
        status(Lsn(0x0102_0304_0506_0708), true, &mut out);
        let position = [1, 2, 3, 4, 5, 6, 7, 8];
        let wanted = [b"r", &position[..], &position, &position, &[0; 8], &[1]].concat();
        assert_eq!(out[..], message(b'd', &wanted)[..]);
    }
}
