//! Grouping a client's messages into units: what the session plans and executes as one.
//!
//! Called by the session with all that has been read. Invariants: a unit holds whole messages only, and no more bytes than
//! the limits allow; a message type that PostgreSQL does not know ends the connection. It reads no body.

use crate::protocol::frame::{self, Frame, FrameError};

/// Most batches have no more messages: Parse, Bind, Describe, Execute, Sync.
const BATCH_MESSAGES: usize = 5;

/// Limits of what a logged-in client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Longest declared length of a message, in bytes.
    pub message_bytes_max: usize,
    /// Bytes of extended-query messages after which a batch is executed without waiting for its Sync. A client may send
    /// for ever without one, and reads answers meanwhile.
    pub batch_bytes_max: usize,
}

/// How a batch of extended-query messages ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With Sync: the implicit transaction ends.
    Sync,
    /// With Flush: the client wants its answers now.
    Flush,
    /// Not yet: it has grown to the limit.
    Open,
}

/// What the session handles as one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unit {
    /// A simple query.
    Query(Frame),
    /// A function call.
    Function(Frame),
    /// Extended-query messages, with the Sync or Flush that ends them.
    Batch(Vec<Frame>, End),
    /// CopyData, CopyDone or CopyFail outside of COPY: the rest of a COPY that failed. Ignored.
    Stray(Frame),
    /// The client says goodbye.
    Terminate,
}

impl Unit {
    /// Bytes that it occupies at the head of the buffer.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Query(frame) | Self::Function(frame) | Self::Stray(frame) => frame.end(),
            Self::Batch(frames, _) => frames.last().map_or(0, Frame::end),
            Self::Terminate => 0,
        }
    }
}

/// The client's stream has no meaning from here on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// A header that cannot be honoured.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// No message type of the protocol, or one that has no place after the login.
    #[error("invalid frontend message type {0}")]
    UnknownType(u8),
}

/// The unit at the head of `buffer`, or `None` until it is whole.
pub fn next(buffer: &[u8], limits: Limits) -> Result<Option<Unit>, UnitError> {
    let (mut batch, mut at) = (Vec::new(), 0);
    loop {
        let Some(&tag) = buffer.get(at) else {
            return Ok(None);
        };
        let extended = matches!(tag, b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H');
        if !extended && !batch.is_empty() {
            // Another kind of message, even a wrong one, interrupts a batch: what came before it is executed first.
            return Ok(Some(Unit::Batch(batch, End::Open)));
        }
        known(tag)?;
        let Some(frame) = frame::next(buffer, at, limits.message_bytes_max)? else {
            return Ok(None);
        };
        at = frame.end();
        match frame.tag {
            b'Q' => return Ok(Some(Unit::Query(frame))),
            b'F' => return Ok(Some(Unit::Function(frame))),
            b'X' => return Ok(Some(Unit::Terminate)),
            b'd' | b'c' | b'f' => return Ok(Some(Unit::Stray(frame))),
            _ => {
                if batch.is_empty() {
                    batch.reserve(BATCH_MESSAGES);
                }
                batch.push(frame);
            }
        }
        match frame.tag {
            b'S' => return Ok(Some(Unit::Batch(batch, End::Sync))),
            b'H' => return Ok(Some(Unit::Batch(batch, End::Flush))),
            _ if at >= limits.batch_bytes_max => return Ok(Some(Unit::Batch(batch, End::Open))),
            _ => {}
        }
    }
}

fn known(tag: u8) -> Result<(), UnitError> {
    match tag {
        b'Q' | b'F' | b'X' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'd' | b'c' | b'f' => Ok(()),
        other => Err(UnitError::UnknownType(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        message_bytes_max: 1_000,
        batch_bytes_max: 40,
    };

    /// A stream of messages, each of a type and a body of so many bytes.
    fn stream(messages: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (tag, length) in messages {
            bytes.push(*tag);
            bytes.extend(u32::try_from(length + 4).expect("small").to_be_bytes());
            bytes.extend(std::iter::repeat_n(0, *length));
        }
        bytes
    }

    fn kinds(unit: &Unit) -> (String, Option<End>) {
        match unit {
            Unit::Batch(frames, end) => (
                frames.iter().map(|frame| char::from(frame.tag)).collect(),
                Some(*end),
            ),
            Unit::Query(frame) | Unit::Function(frame) | Unit::Stray(frame) => {
                (char::from(frame.tag).to_string(), None)
            }
            Unit::Terminate => ("X".to_owned(), None),
        }
    }

    fn check(messages: &[(u8, usize)], tags: &str, end: Option<End>) {
        let unit = next(&stream(messages), LIMITS).expect("valid").expect("whole");
        assert_eq!(kinds(&unit), (tags.to_owned(), end));
    }

    #[test]
    fn messages_are_grouped_by_what_ends_them() {
        check(&[(b'Q', 9), (b'Q', 9)], "Q", None);
        check(
            &[(b'P', 3), (b'B', 3), (b'E', 3), (b'S', 0), (b'Q', 1)],
            "PBES",
            Some(End::Sync),
        );
        check(&[(b'P', 3), (b'H', 0), (b'S', 0)], "PH", Some(End::Flush));
        check(&[(b'S', 0)], "S", Some(End::Sync));
        check(&[(b'X', 0)], "X", None);
        check(&[(b'd', 5)], "d", None);
        check(&[(b'P', 3), (b'Q', 3)], "P", Some(End::Open));
        check(&[(b'P', 3), (b'?', 3)], "P", Some(End::Open));
    }

    #[test]
    fn a_batch_without_end_is_cut_at_the_limit() {
        assert_eq!(next(&stream(&[(b'P', 3), (b'B', 3)]), LIMITS), Ok(None));
        check(&[(b'P', 3), (b'B', 40), (b'E', 3)], "PB", Some(End::Open));
    }

    #[test]
    fn what_is_not_the_protocol_is_refused_at_its_first_byte() {
        assert_eq!(next(b"p", LIMITS), Err(UnitError::UnknownType(b'p')));
        assert_eq!(next(b"\0", LIMITS), Err(UnitError::UnknownType(0)));
        let long = next(&stream(&[(b'Q', 1_000)]), LIMITS);
        assert!(matches!(
            long,
            Err(UnitError::Frame(FrameError::TooLong { tag: b'Q', .. }))
        ));
    }

    proptest! {
        #[test]
        fn no_cut_of_the_stream_makes_another_unit(cut in 0_usize..40) {
            let whole = stream(&[(b'P', 3), (b'B', 3), (b'S', 0)]);
            let cut = cut.min(whole.len());
            let unit = next(&whole[..cut], LIMITS).expect("valid");
            prop_assert_eq!(unit.is_some(), cut == whole.len());
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = next(&bytes, LIMITS);
        }
    }
}
