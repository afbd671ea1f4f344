//! Extended query messages: what a batch of them is, and whether it can be answered without a server.
//!
//! Called by the main loop with the messages up to a Sync or Flush. Invariants: every name is resolved as the server would at
//! that message, those of the same batch included; a batch is served from the cache only when it asks for one whole answer and
//! nothing else. Writing to a server is `deliver`'s.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::exchange::Until;
use super::own::Own;
use super::perform::{Around, Messages, Work};
use super::query::{Asking, Turned};
use super::run::{Block, Goodbye, Session};
use super::shape::{concerns, is_local};
use super::statements::{Bound, ClientStatement, Portal};
use super::unit::End;
use crate::cache::key::{Form, Key};
use crate::catalog::verdict::Verdict;
use crate::freshness::level::Level;
use crate::pool::{PreparedStatement, ServerName};
use crate::protocol::backend;
use crate::protocol::frame::{self, Frame};
use crate::protocol::frontend::{Bind, Execute, Malformed, Parse, Target};
use crate::protocol::sqlstate;

/// An extended query message, its names resolved.
#[derive(Debug, Clone)]
pub enum Message {
    /// Parse.
    Parse(Parsing),
    /// Bind.
    Bind(Binding),
    /// Describe of a statement.
    DescribeStatement {
        /// The statement's name.
        name: Bytes,
        /// The statement, if there is one.
        statement: Option<Arc<ClientStatement>>,
        /// As it came.
        raw: Bytes,
    },
    /// Describe of a portal.
    DescribePortal {
        /// The statement that is bound to it, if it is known.
        bound: Option<Portal>,
        /// As it came.
        raw: Bytes,
    },
    /// Execute.
    Execute {
        /// The portal's name.
        portal: Bytes,
        /// The statement that is bound to the portal, if it is known.
        bound: Option<Portal>,
        /// Most rows; 0 for all.
        rows_max: i32,
        /// As it came.
        raw: Bytes,
    },
    /// Close of a statement.
    CloseStatement {
        /// The statement's name.
        name: Bytes,
    },
    /// Close of a portal.
    ClosePortal {
        /// The portal's name.
        portal: Bytes,
        /// As it came.
        raw: Bytes,
    },
    /// Sync.
    Sync,
    /// Flush, also one of the proxy's own where a batch has grown to its limit.
    Flush,
}

/// A Parse.
#[derive(Debug, Clone)]
pub struct Parsing {
    /// The client's name.
    pub name: Bytes,
    /// What it makes.
    pub statement: Arc<ClientStatement>,
    /// What is known of its text.
    pub verdict: Arc<Verdict>,
    /// The name is in use.
    pub duplicate: bool,
    /// As it came.
    pub raw: Bytes,
}

/// A Bind.
#[derive(Debug, Clone)]
pub struct Binding {
    /// The portal's name.
    pub portal: Bytes,
    /// The statement's name.
    pub name: Bytes,
    /// The statement; `None` where the client has none of that name.
    pub bound: Option<Portal>,
    /// All after the two names.
    pub suffix: Bytes,
    /// As it came.
    pub raw: Bytes,
}

/// Resolves names against the session and the batch itself.
struct Reader<'a> {
    session: &'a mut Session,
    parsed: Vec<(Bytes, Option<Arc<ClientStatement>>)>,
    bound: Vec<(Bytes, Portal)>,
}

impl Reader<'_> {
    fn statement(&self, name: &[u8]) -> Option<Arc<ClientStatement>> {
        let here = self.parsed.iter().rev().find(|(known, _)| known == name);
        match here {
            Some((_, statement)) => statement.clone(),
            None => self.session.statements.find(name).cloned(),
        }
    }

    fn portal(&self, name: &[u8]) -> Option<Portal> {
        let here = self.bound.iter().rev().find(|(known, _)| known == name);
        here.map(|(_, portal)| Arc::clone(portal))
            .or_else(|| self.session.statements.portal(name).cloned())
    }

    fn message(&mut self, unit: &Bytes, frame: Frame) -> Result<Message, Malformed> {
        let raw = unit.slice(frame.start..frame.end());
        let body = raw.slice(frame::HEADER_BYTES..);
        Ok(match frame.tag {
            b'P' => self.parse(&body, raw.clone())?,
            b'B' => self.bind(&body, raw.clone())?,
            b'D' => match Target::read(&body)? {
                Target::Statement(name) => Message::DescribeStatement {
                    statement: self.statement(name),
                    name: body.slice_ref(name),
                    raw,
                },
                Target::Portal(name) => Message::DescribePortal {
                    bound: self.portal(name),
                    raw,
                },
            },
            b'C' => match Target::read(&body)? {
                Target::Statement(name) => {
                    let name = body.slice_ref(name);
                    self.parsed.push((name.clone(), None));
                    Message::CloseStatement { name }
                }
                Target::Portal(name) => Message::ClosePortal {
                    portal: body.slice_ref(name),
                    raw,
                },
            },
            b'E' => {
                let execute = Execute::read(&body)?;
                Message::Execute {
                    portal: body.slice_ref(execute.portal),
                    bound: self.portal(execute.portal),
                    rows_max: execute.rows_max,
                    raw,
                }
            }
            b'S' => Message::Sync,
            _ => Message::Flush,
        })
    }

    fn parse(&mut self, body: &Bytes, raw: Bytes) -> Result<Message, Malformed> {
        let parse = Parse::read(body)?;
        let (name, sql) = (body.slice_ref(parse.name), body.slice_ref(parse.sql));
        let duplicate = !name.is_empty() && self.statement(&name).is_some();
        // Kept for longer than the unit: its own bytes, not a part of all that came with it.
        let sql = Bytes::copy_from_slice(&sql);
        let verdict = self.session.verdict(&sql);
        let types = Bytes::copy_from_slice(parse.types);
        let oids = types
            .chunks_exact(4)
            .map(|four| u32::from_be_bytes(four.try_into().expect("chunks of four bytes")));
        let is_parsed = |name: &[u8]| self.statement(name).is_some();
        let own = Own::recognise(&verdict.script).or_else(|| Own::deallocation(&verdict.script, is_parsed));
        let statement = Arc::new(ClientStatement {
            serial: self.session.statements.next_serial(),
            own,
            told: parking_lot::Mutex::default(),
            parsed: PreparedStatement {
                sql,
                types: oids.collect(),
            },
            types,
        });
        let name = Bytes::copy_from_slice(&name);
        if !duplicate {
            self.parsed.push((name.clone(), Some(Arc::clone(&statement))));
        }
        Ok(Message::Parse(Parsing {
            name,
            statement,
            verdict,
            duplicate,
            raw,
        }))
    }

    fn bind(&mut self, body: &Bytes, raw: Bytes) -> Result<Message, Malformed> {
        let bind = Bind::read(body)?;
        let portal = Bytes::copy_from_slice(bind.portal);
        let bound = self.statement(bind.statement).map(|statement| {
            Arc::new(Bound {
                verdict: self.session.verdict(&statement.parsed.sql),
                statement,
                result_formats: Bytes::copy_from_slice(bind.result_formats),
                clock_words: mentions_clock(bind.values),
            })
        });
        if let Some(bound) = &bound {
            self.bound.push((portal.clone(), Arc::clone(bound)));
        }
        Ok(Message::Bind(Binding {
            portal,
            name: body.slice_ref(bind.statement),
            bound,
            suffix: body.slice_ref(bind.suffix),
            raw,
        }))
    }
}

impl Session {
    /// Has a batch answered.
    pub(super) async fn batch(&mut self, frames: &[Frame], end: End) -> Result<(), Goodbye> {
        if self.skipping {
            if end != End::Sync {
                return Ok(());
            }
            self.skipping = false;
            if self.held.as_ref().is_none_or(|held| !held.lease.dirty) {
                self.ready_for_query();
                return Ok(());
            }
            return self.perform(&self.work(&[Message::Sync], Level::Fresh)).await;
        }
        let unit = Bytes::copy_from_slice(&self.wire.input[..self.unit_bytes]);
        let mut reader = Reader {
            session: self,
            parsed: Vec::new(),
            bound: Vec::new(),
        };
        let read: Result<Vec<Message>, Malformed> =
            frames.iter().map(|frame| reader.message(&unit, *frame)).collect();
        let Ok(mut messages) = read else {
            return Err(self.fatal(sqlstate::PROTOCOL_VIOLATION, "invalid message format"));
        };
        if end == End::Open {
            messages.push(Message::Flush);
        }
        if self.held.is_none() && self.answer_locally(&messages) {
            return Ok(());
        }
        let verdicts: Vec<Arc<Verdict>> = verdicts(&messages).cloned().collect();
        let mut level = self.proxy.settings().level;
        for verdict in &verdicts {
            level = self.level_of(verdict);
        }
        let mut work = self.work(&messages, level);
        work.verdicts = verdicts;
        work.cached = self.cached(&messages, level);
        self.perform(&work).await
    }

    #[expect(clippy::unused_self, reason = "reads as what it makes")]
    fn work<'a>(&self, messages: &'a [Message], level: Level) -> Work<'a> {
        let synced = matches!(messages.last(), Some(Message::Sync));
        Work {
            verdicts: Vec::new(),
            level,
            cached: None,
            until: if synced { Until::Ready } else { Until::Answered },
            extended: true,
            messages: Messages::Batch(messages),
        }
    }

    /// Where the cache would have the batch's answer: `[Parse] Bind [Describe] Execute Sync`, all of one statement.
    fn cached(&self, messages: &[Message], level: Level) -> Option<(Key, Around)> {
        let (parse, rest) = match messages {
            [
                Message::Parse(Parsing {
                    name,
                    statement,
                    duplicate: false,
                    ..
                }),
                rest @ ..,
            ] => (Some((name.clone(), Arc::clone(statement))), rest),
            all => (None, all),
        };
        let (bound, suffix, form) = match rest {
            [
                Message::Bind(Binding {
                    portal,
                    bound: Some(bound),
                    suffix,
                    ..
                }),
                middle @ ..,
                Message::Execute {
                    rows_max: 0,
                    bound: Some(executed),
                    ..
                },
                Message::Sync,
            ] if portal.is_empty() && Arc::ptr_eq(bound, executed) => match middle {
                [] if !bound.statement.is_as_told(self.database.generation()) => return None,
                [] => (bound, suffix, Form::Extended),
                [
                    Message::DescribePortal {
                        bound: Some(described),
                        ..
                    },
                ] if Arc::ptr_eq(bound, described) => (bound, suffix, Form::Described),
                _ => return None,
            },
            _ => return None,
        };
        let same = parse
            .as_ref()
            .is_none_or(|(_, statement)| Arc::ptr_eq(statement, &bound.statement));
        if !same || bound.clock_words {
            return None;
        }
        let asking = Asking {
            verdict: &bound.verdict,
            level,
            form,
            sql: &bound.statement.parsed.sql,
            types: &bound.statement.types,
            bind: suffix,
        };
        self.key(&asking).map(|key| (key, Around { parse, bind: true }))
    }

    /// Answers a batch that no server needs to see; false where one has to.
    fn answer_locally(&mut self, messages: &[Message]) -> bool {
        let synced = matches!(messages.last(), Some(Message::Sync));
        if synced && let Some(turned) = self.turn_by(messages) {
            for message in messages {
                self.answer_turn(message, turned);
            }
            self.ready_for_query();
            return true;
        }
        if !messages.iter().all(is_local) {
            return false;
        }
        for message in messages {
            if !self.answer_message(message) {
                self.statements.undo();
                if self.block != Block::None {
                    self.block = Block::Failed;
                }
                self.skipping = !synced;
                break;
            }
            self.statements.all_answered();
        }
        if synced {
            if self.block == Block::None {
                self.statements.end_transaction();
            }
            self.ready_for_query();
        }
        true
    }

    /// The turn of the transaction that a batch is, if it is one and no server has to see it.
    fn turn_by(&mut self, messages: &[Message]) -> Option<&'static str> {
        let mut executed = messages.iter().filter_map(|message| match message {
            Message::Execute { bound, .. } => Some(bound.as_ref()),
            _ => None,
        });
        let bound = executed.next()??;
        let alone = executed.next().is_none() && messages.iter().all(|message| concerns(message, bound));
        if !alone || bound.statement.own.is_some() || bound.verdict.single().is_none() {
            return None;
        }
        let sql = bound.statement.parsed.sql.clone();
        match self.turn_block(&bound.verdict, &sql)? {
            Turned::Done(tag) => Some(tag),
            // Which of the messages are refused is the server's to say.
            Turned::Refused => None,
        }
    }

    fn answer_turn(&mut self, message: &Message, tag: &str) {
        let out = &mut self.wire.out;
        match message {
            Message::Execute { .. } => backend::command_complete(tag, out),
            Message::DescribeStatement { .. } => {
                out.put_slice(NO_PARAMETERS);
                out.put_slice(backend::NO_DATA);
            }
            Message::DescribePortal { .. } => out.put_slice(backend::NO_DATA),
            Message::Bind(Binding { portal, bound, .. }) => {
                out.put_slice(backend::BIND_COMPLETE);
                if let Some(bound) = bound {
                    self.statements.bind(portal.clone(), Arc::clone(bound));
                }
            }
            Message::Parse(Parsing { name, statement, .. }) => {
                out.put_slice(backend::PARSE_COMPLETE);
                self.statements.parse(name.clone(), Arc::clone(statement));
                self.statements.answered();
            }
            Message::CloseStatement { name } => {
                out.put_slice(backend::CLOSE_COMPLETE);
                self.statements.close(name.clone());
                self.statements.answered();
            }
            Message::ClosePortal { .. } => out.put_slice(backend::CLOSE_COMPLETE),
            Message::Sync | Message::Flush => {}
        }
    }

    /// Answers one message that no server needs to see; false when the answer was an error.
    pub(super) fn answer_message(&mut self, message: &Message) -> bool {
        let out = &mut self.wire.out;
        match message {
            Message::Parse(Parsing { name, statement, .. }) => {
                out.put_slice(backend::PARSE_COMPLETE);
                self.statements.parse(name.clone(), Arc::clone(statement));
                self.statements.answered();
            }
            Message::Bind(Binding { portal, bound, .. }) => {
                out.put_slice(backend::BIND_COMPLETE);
                if let Some(bound) = bound {
                    self.statements.bind(portal.clone(), Arc::clone(bound));
                }
            }
            Message::DescribeStatement { statement, .. } => {
                out.put_slice(NO_PARAMETERS);
                if let Some(own) = statement.as_ref().and_then(|statement| statement.own.clone()) {
                    self.describe_own(&own, &[]);
                }
            }
            Message::DescribePortal { bound, .. } => {
                if let Some(bound) = bound.clone()
                    && let Some(own) = &bound.statement.own
                {
                    self.describe_own(own, &bound.result_formats);
                }
            }
            Message::Execute { bound, .. } => {
                if let Some(own) = bound.as_ref().and_then(|bound| bound.statement.own.clone()) {
                    if let Own::Refused(report) = &own {
                        report.encode(&mut self.wire.out);
                        return false;
                    }
                    let (_, row) = self.own_rows(&own);
                    self.write_own(&own, &row);
                }
            }
            Message::CloseStatement { name } => {
                out.put_slice(backend::CLOSE_COMPLETE);
                self.statements.close(name.clone());
                self.statements.answered();
            }
            Message::ClosePortal { .. } => out.put_slice(backend::CLOSE_COMPLETE),
            Message::Sync | Message::Flush => {}
        }
        true
    }

    fn describe_own(&mut self, own: &Own, formats: &[u8]) {
        let (columns, _) = self.own_rows(own);
        if columns.is_empty() {
            self.wire.out.put_slice(backend::NO_DATA);
        } else {
            // Text is the same in both formats; the description must name the one that was asked for.
            let format = i16::from(formats.ends_with(&[1]));
            backend::text_columns(&columns, format, &mut self.wire.out);
        }
    }
}

/// ParameterDescription of a statement without parameters.
const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";

/// What the batch parses, binds and executes; a portal that it binds itself counts once.
fn verdicts(messages: &[Message]) -> impl Iterator<Item = &Arc<Verdict>> {
    let mut latest = None;
    messages.iter().filter_map(move |message| match message {
        Message::Parse(Parsing { verdict, .. }) => Some(verdict),
        Message::Bind(Binding {
            bound: Some(bound), ..
        }) => {
            latest = Some(bound);
            Some(&bound.verdict)
        }
        Message::Execute {
            bound: Some(bound), ..
        } if !latest.is_some_and(|latest| Arc::ptr_eq(latest, bound)) => Some(&bound.verdict),
        _ => None,
    })
}

/// Words that, bound to a date or time, read the clock.
fn mentions_clock(values: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
    WORDS.iter().any(|word| {
        values
            .windows(word.len())
            .any(|window| window.eq_ignore_ascii_case(word))
    })
}

/// The tags of whole messages, one after the other.
pub(super) fn tags(messages: &[u8]) -> impl Iterator<Item = u8> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let frame = frame::next(messages, at, usize::MAX >> 1).ok().flatten()?;
        at = frame.end();
        Some(frame.tag)
    })
}

/// An ErrorResponse with the client's names in the place of the server's; `None` where it speaks of none of them.
pub(super) fn with_client_names(frame: &[u8], names: &[(ServerName, Bytes)]) -> Option<BytesMut> {
    let mut body = frame.get(frame::HEADER_BYTES..)?.to_vec();
    let mut found = false;
    for (server, client) in names {
        let quoted = format!("\"{server}\"").into_bytes();
        while let Some(at) = body.windows(quoted.len()).position(|window| window == quoted) {
            let put = [b"\"", &client[..], b"\""].concat();
            body.splice(at..at + quoted.len(), put);
            found = true;
        }
    }
    found.then(|| {
        let mut renamed = BytesMut::with_capacity(body.len() + frame::HEADER_BYTES);
        crate::protocol::error::relay(&body, &mut renamed);
        renamed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_word_is_found_in_any_case() {
        assert!(mentions_clock(b"\0\0\0\x05ToDay"));
        assert!(mentions_clock(b"..yesterday.."));
        assert!(!mentions_clock(b"toda"));
        assert!(!mentions_clock(b""));
    }

    #[test]
    fn names_in_errors_are_the_clients() {
        let mut frame = BytesMut::new();
        crate::protocol::error::relay(
            b"C42P05\0Mprepared statement \"pgladder_7\" already exists\0\0",
            &mut frame,
        );
        let names = [(ServerName(7), Bytes::from_static(b"s1"))];
        let renamed = with_client_names(&frame, &names).expect("renamed");
        let body = &renamed[frame::HEADER_BYTES..];
        assert_eq!(body, b"C42P05\0Mprepared statement \"s1\" already exists\0\0");
        assert_eq!(tags(&renamed).collect::<Vec<_>>(), [b'E']);
        assert!(with_client_names(&frame, &[(ServerName(70), Bytes::new())]).is_none());
    }
}
