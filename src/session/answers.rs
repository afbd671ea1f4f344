//! Which of a server's messages answers which of the client's, where the proxy has added, dropped or answered some itself.
//!
//! Called by the exchange for every message on its way to a server and for every one that comes back. Invariants: the
//! client gets one answer for each of its messages, in its order; what was injected is swallowed; after an error, all up
//! to the next Sync is skipped, as the server skips it.
//! It forwards nothing: it says what to do with the message at hand, and what the proxy is to say next. Rows are not
//! shown to it one by one.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// What was sent to the server and awaits its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Parse.
    Parse,
    /// Bind.
    Bind,
    /// Describe of a statement: two messages answer it.
    DescribeStatement,
    /// Describe of a portal.
    DescribePortal,
    /// Execute.
    Execute,
    /// Close of a statement.
    CloseStatement,
    /// Close of a portal.
    ClosePortal,
    /// Sync.
    Sync,
    /// Query or FunctionCall: answered by everything up to ReadyForQuery.
    Query,
}

/// Whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum For {
    /// The client's.
    Client,
    /// The proxy's own: swallowed.
    Proxy,
}

/// What to do with the server's message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Forward it.
    Forward,
    /// Swallow it.
    Swallow,
}

/// The server said something that answers nothing: the connection is out of step and must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the server sent message type {tag:#04x}, which answers nothing that was sent")]
pub struct OutOfStep {
    /// The message's type byte.
    pub tag: u8,
}

#[derive(Debug)]
enum Expected {
    Server(Sent, For),
    Say(Bytes),
}

/// The answers that are still to come, in order.
#[derive(Debug, Default)]
pub struct Answers {
    queue: VecDeque<Expected>,
}

impl Answers {
    /// Makes room for the answers of so many messages.
    pub fn reserve(&mut self, messages: usize) {
        self.queue.reserve(messages);
    }

    /// A message was sent to the server.
    pub fn sent(&mut self, message: Sent, whose: For) {
        self.queue.push_back(Expected::Server(message, whose));
    }

    /// The client's next message is answered by the proxy: `bytes`, once all before it are answered.
    pub fn say(&mut self, bytes: Bytes) {
        self.queue.push_back(Expected::Say(bytes));
    }

    /// Appends what the proxy is to say before the server's next answer.
    pub fn spoken(&mut self, out: &mut BytesMut) {
        while let Some(Expected::Say(bytes)) = self.queue.front() {
            out.extend_from_slice(bytes);
            self.queue.pop_front();
        }
    }

    /// Is the proxy to say something before the server's next answer?
    pub fn has_words(&self) -> bool {
        matches!(self.queue.front(), Some(Expected::Say(_)))
    }

    /// A COPY has begun: the server ignores the Syncs that were sent behind it.
    pub fn forget_syncs(&mut self) {
        self.queue
            .retain(|expected| !matches!(expected, Expected::Server(Sent::Sync, _)));
    }

    /// A message of type `tag` arrived. `spoken` was called since the last one.
    pub fn arrived(&mut self, tag: u8) -> Result<Verdict, OutOfStep> {
        // Notices, notifications and parameter changes come at any moment and answer nothing.
        if matches!(tag, b'N' | b'A' | b'S') {
            return Ok(Verdict::Forward);
        }
        let Some(Expected::Server(sent, whose)) = self.queue.front() else {
            return Err(OutOfStep { tag });
        };
        let (sent, whose) = (*sent, *whose);
        if tag == b'E' && !matches!(sent, Sent::Query | Sent::Sync) {
            self.skip_to_sync();
            // An injected message failed in the place of the client's: the error is the client's.
            return Ok(Verdict::Forward);
        }
        match (sent, tag) {
            (Sent::Parse, b'1')
            | (Sent::Bind, b'2')
            | (Sent::CloseStatement | Sent::ClosePortal, b'3')
            | (Sent::DescribeStatement | Sent::DescribePortal, b'T' | b'n')
            | (Sent::Execute, b'C' | b'I' | b's')
            | (Sent::Sync | Sent::Query, b'Z') => drop(self.queue.pop_front()),
            (Sent::DescribeStatement, b't')
            | (Sent::Execute, b'D' | b'G' | b'H' | b'W' | b'd' | b'c')
            | (Sent::Query, b'T' | b'D' | b'C' | b'I' | b'G' | b'H' | b'W' | b'd' | b'c' | b'V')
            | (Sent::Query | Sent::Sync, b'E') => {}
            _ => return Err(OutOfStep { tag }),
        }
        Ok(match whose {
            For::Client => Verdict::Forward,
            For::Proxy => Verdict::Swallow,
        })
    }

    /// The message of the client's that the server answers next.
    pub fn next(&self) -> Option<Sent> {
        match self.queue.front() {
            Some(Expected::Server(sent, For::Client)) => Some(*sent),
            _ => None,
        }
    }

    /// Nothing is awaited, from the server or from the proxy itself.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many ReadyForQuery are still to come.
    pub fn units(&self) -> usize {
        let ends = |expected: &&Expected| matches!(expected, Expected::Server(Sent::Sync | Sent::Query, _));
        self.queue.iter().filter(ends).count()
    }

    fn skip_to_sync(&mut self) {
        while let Some(next) = self.queue.front() {
            if matches!(next, Expected::Server(Sent::Sync, _)) {
                break;
            }
            self.queue.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
