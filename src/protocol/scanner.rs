//! A header-only walk over what a server sends, so that rows reach the client without being decoded or copied one by one.
//!
//! Called by the session's exchange for every chunk read from a server connection. Invariant: every byte of the stream
//! is part of exactly one step, in order; only row data (`DataRow`, `CopyData`) is ever handed out before its message is
//! whole, because nothing in it decides anything. A message of any other type is held until it is complete.

use super::frame::{self, Frame, FrameError, HEADER_BYTES};

/// Longest message other than row data that a server may send, in bytes: errors, descriptions, notifications.
pub const CONTROL_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What lies next in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A whole message.
    Message(Frame),
    /// Bytes `start..end` are (part of) row data whose end is not in the buffer, or the continuation of such.
    Rows {
        /// First byte.
        start: usize,
        /// One past the last byte.
        end: usize,
        /// Type byte of the message that they belong to.
        tag: u8,
    },
    /// Nothing more to say until further bytes arrive.
    Incomplete,
}

/// Position inside the stream of one server connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scanner {
    /// Type and missing bytes of a row message that was handed out in part.
    open: Option<(u8, usize)>,
}

impl Scanner {
    /// The step that begins at `at` in `buffer`. The caller drops what it has consumed.
    pub fn step(&mut self, buffer: &[u8], at: usize) -> Result<Step, FrameError> {
        let available = buffer.len() - at;
        if let Some((tag, missing)) = self.open {
            let taken = missing.min(available);
            if taken == 0 {
                return Ok(Step::Incomplete);
            }
            self.open = (taken < missing).then_some((tag, missing - taken));
            return Ok(Step::Rows {
                start: at,
                end: at + taken,
                tag,
            });
        }
        let Some((tag, declared)) = frame::header(buffer, at)? else {
            return Ok(Step::Incomplete);
        };
        let len = declared + 1;
        if available >= len {
            return Ok(Step::Message(Frame { tag, start: at, len }));
        }
        if matches!(tag, b'D' | b'd') && available >= HEADER_BYTES {
            self.open = Some((tag, len - available));
            return Ok(Step::Rows {
                start: at,
                end: buffer.len(),
                tag,
            });
        }
        // A long control message would make the buffer grow without bound.
        frame::next(buffer, at, CONTROL_BYTES_MAX).map(|_| Step::Incomplete)
    }

    /// No message was handed out in part: a server connection may be given back only then.
    pub fn between_messages(&self) -> bool {
        self.open.is_none()
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

    /// Feeds `stream` in pieces; returns the bytes seen in order and the tags of the whole control messages.
    fn walk(stream: &[u8], pieces: &[usize]) -> (Vec<u8>, Vec<u8>) {
        let (mut scanner, mut buffer) = (Scanner::default(), Vec::new());
        let (mut seen, mut tags) = (Vec::new(), Vec::new());
        let mut rest = stream;
        for piece in pieces.iter().copied().chain([usize::MAX]) {
            let (now, later) = rest.split_at(piece.min(rest.len()));
            rest = later;
            buffer.extend_from_slice(now);
            let mut at = 0;
            loop {
                match scanner.step(&buffer, at).expect("a valid stream") {
                    Step::Message(frame) => {
                        seen.extend_from_slice(frame.bytes(&buffer));
                        if !matches!(frame.tag, b'D' | b'd') {
                            tags.push(frame.tag);
                        }
                        at = frame.end();
                    }
                    Step::Rows { start, end, .. } => {
                        seen.extend_from_slice(&buffer[start..end]);
                        at = end;
                    }
                    Step::Incomplete => break,
                }
            }
            buffer.drain(..at);
        }
        assert!(
            scanner.between_messages() && buffer.is_empty(),
            "the whole stream was walked"
        );
        (seen, tags)
    }

    proptest! {
        #[test]
        fn any_split_yields_the_same_bytes_and_messages(
            rows in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            pieces in proptest::collection::vec(0_usize..50, 0..20),
        ) {
            let mut stream = message(b'T', b"\0\0");
            for row in &rows {
                stream.extend(message(b'D', row));
            }
            stream.extend(message(b'C', b"SELECT 3\0"));
            stream.extend(message(b'Z', b"I"));
            let (seen, tags) = walk(&stream, &pieces);
            prop_assert_eq!(seen, stream);
            prop_assert_eq!(tags, b"TCZ".to_vec());
        }
    }

    #[test]
    fn a_control_message_over_the_limit_is_refused_at_its_header() {
        let length = i32::try_from(CONTROL_BYTES_MAX + 1).expect("fits");
        let bytes = [&b"E"[..], &length.to_be_bytes()].concat();
        let refused = Scanner::default().step(&bytes, 0);
        assert!(matches!(refused, Err(FrameError::TooLong { tag: b'E', .. })));
    }

    #[test]
    fn a_row_of_any_size_is_streamed() {
        let bytes = [&b"D"[..], &i32::MAX.to_be_bytes(), b"abc"].concat();
        let mut scanner = Scanner::default();
        assert_eq!(
            scanner.step(&bytes, 0),
            Ok(Step::Rows {
                start: 0,
                end: 8,
                tag: b'D'
            })
        );
        assert!(!scanner.between_messages());
    }
}
