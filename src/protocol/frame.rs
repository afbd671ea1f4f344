//! Splitting a byte stream into messages: a tag byte, a length, a body.
//!
//! Called for every message read from a client or a server. Invariant: a frame's bounds come from its own declared
//! length, checked against a limit before anything waits for, or allocates, that many bytes. It decodes no body.

/// Bytes of a message's header: the tag and the length, which counts itself but not the tag.
pub const HEADER_BYTES: usize = 5;

/// One whole message inside a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// The message's type byte.
    pub tag: u8,
    /// Offset of the tag in the buffer.
    pub start: usize,
    /// Bytes of the whole message, with tag and length.
    pub len: usize,
}

impl Frame {
    /// Offset of the first byte after the message.
    pub fn end(&self) -> usize {
        self.start + self.len
    }

    /// The message without tag and length.
    pub fn body<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.start + HEADER_BYTES..self.end()]
    }

    /// The whole message.
    pub fn bytes<'a>(&self, buffer: &'a [u8]) -> &'a [u8] {
        &buffer[self.start..self.end()]
    }
}

/// A header that cannot be honoured. The stream has no known next message: the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length is less than the four bytes that it counts itself.
    #[error("invalid message length {declared} for message type {tag:#04x}")]
    TooShort {
        /// Type byte.
        tag: u8,
        /// Length as declared.
        declared: i32,
    },
    /// The length is over the limit of this phase.
    #[error("message type {tag:#04x} declares {declared} bytes, over the limit of {limit}")]
    TooLong {
        /// Type byte.
        tag: u8,
        /// Length as declared.
        declared: i32,
        /// Most that is accepted.
        limit: usize,
    },
}

/// The message that begins at `start`, or `None` until all of it has arrived. `limit` bounds the declared length.
pub fn next(buffer: &[u8], start: usize, limit: usize) -> Result<Option<Frame>, FrameError> {
    let Some((tag, declared)) = header(buffer, start)? else {
        return Ok(None);
    };
    if declared > limit {
        let declared = i32::try_from(declared).unwrap_or(i32::MAX);
        return Err(FrameError::TooLong { tag, declared, limit });
    }
    let len = declared + 1;
    Ok((buffer.len() - start >= len).then_some(Frame { tag, start, len }))
}

/// Tag and declared length of the message that begins at `start`, or `None` until its header has arrived.
pub fn header(buffer: &[u8], start: usize) -> Result<Option<(u8, usize)>, FrameError> {
    let Some(&[tag, a, b, c, d]) = buffer.get(start..).and_then(|rest| rest.first_chunk()) else {
        return Ok(None);
    };
    let declared = i32::from_be_bytes([a, b, c, d]);
    match usize::try_from(declared) {
        Ok(length) if length >= 4 => Ok(Some((tag, length))),
        _ => Err(FrameError::TooShort { tag, declared }),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("test bodies are small");
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    #[test]
    fn a_frame_ends_where_its_length_says() {
        let mut bytes = message(b'Q', b"select 1\0");
        let first = bytes.len();
        bytes.extend(message(b'Q', b"delete from t\0"));
        let frame = next(&bytes, 0, 1024).expect("valid").expect("whole");
        assert_eq!(frame.body(&bytes), b"select 1\0");
        assert_eq!(frame.end(), first);
        let frame = next(&bytes, first, 1024).expect("valid").expect("whole");
        assert_eq!(frame.body(&bytes), b"delete from t\0");
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for declared in [i32::MIN, -1, 0, 3] {
            let bytes = [&b"Q"[..], &declared.to_be_bytes()].concat();
            assert_eq!(
                next(&bytes, 0, 1024),
                Err(FrameError::TooShort { tag: b'Q', declared })
            );
        }
        let bytes = [&b"Q"[..], &1025_i32.to_be_bytes()].concat();
        let too_long = FrameError::TooLong {
            tag: b'Q',
            declared: 1025,
            limit: 1024,
        };
        assert_eq!(next(&bytes, 0, 1024), Err(too_long));
    }

    proptest! {
        #[test]
        fn any_cut_waits_and_then_yields_the_same(body in proptest::collection::vec(any::<u8>(), 0..64), cut in 0_usize..64) {
            let bytes = message(b'd', &body);
            let cut = cut.min(bytes.len() - 1);
            prop_assert_eq!(next(&bytes[..cut], 0, 1024), Ok(None));
            let frame = next(&bytes, 0, 1024).expect("valid").expect("whole");
            prop_assert_eq!(frame.body(&bytes), &body[..]);
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64), start in 0_usize..80) {
            if let Ok(Some(frame)) = next(&bytes, start, 1 << 20) {
                prop_assert!(frame.end() <= bytes.len());
                prop_assert_eq!(frame.body(&bytes).len() + HEADER_BYTES, frame.len);
            }
        }
    }
}
