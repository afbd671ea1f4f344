//! Extended query messages: what a batch of them is, and whether it can be answered without a server.
//!
//! Called by the main loop with the messages up to a Sync or Flush. Invariants: a batch is served from the cache only when it asks
//! for one whole answer and nothing else; what the proxy answers itself, it answers in the order of the messages. Reading them is
//! `message`'s, writing them to a server `deliver`'s.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::effects::pins_for_lack_of_catalog;
use super::exchange::Until;
use super::message::{Binding, Message, Parsing, Reader};
use super::own::Own;
use super::perform::{Around, Cacheable, Messages, Work};
use super::query::{Asking, Turned};
use super::run::{Block, Goodbye, Session};
use super::shape::{concerns, is_local};
use super::statements::ClientStatement;
use super::unit::End;
use crate::cache::key::Form;
use crate::cache::rules::Rule;
use crate::catalog::verdict::Verdict;
use crate::freshness::level::Level;
use crate::pool::ServerName;
use crate::protocol::backend;
use crate::protocol::frame::{self, Frame};
use crate::protocol::frontend::Malformed;
use crate::protocol::sqlstate;

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
        let mut messages = self.read_batch(&unit, frames)?;
        let mut until = None;
        while in_doubt(&messages) && self.await_known(&mut until).await? {
            messages = self.read_batch(&unit, frames)?;
        }
        if end == End::Open {
            messages.push(Message::Flush);
        }
        if self.held.is_none() && self.answer_locally(&messages) {
            return Ok(());
        }
        let (mut verdicts, mut level, mut rule) = (Vec::new(), None, None);
        for (verdict, statement) in judged(&messages) {
            rule = self.rule(verdict, &statement.parsed.sql, Some(&statement.ruled));
            let own = self.level_of(verdict, rule.as_deref());
            level = Some(level.map_or(own, |level: Level| level.stricter(own)));
            verdicts.push(Arc::clone(verdict));
        }
        let level = level.unwrap_or_else(|| self.policy.level);
        let mut work = self.work(&messages, level);
        work.verdicts = verdicts;
        work.cached = self.cached(&messages, level, rule.as_deref());
        work.rule = rule;
        self.perform(&work).await
    }

    /// Resolves all names, and judges all texts, with what is known now.
    fn read_batch(&mut self, unit: &Bytes, frames: &[Frame]) -> Result<Vec<Message>, Goodbye> {
        let mut reader = Reader::new(self);
        let mut messages = Vec::with_capacity(frames.len() + 1);
        for frame in frames {
            match reader.message(unit, *frame) {
                Ok(message) => messages.push(message),
                Err(Malformed) => {
                    return Err(self.fatal(sqlstate::PROTOCOL_VIOLATION, "invalid message format"));
                }
            }
        }
        Ok(messages)
    }

    #[expect(clippy::unused_self, reason = "reads as what it makes")]
    fn work<'a>(&self, messages: &'a [Message], level: Level) -> Work<'a> {
        let synced = matches!(messages.last(), Some(Message::Sync));
        Work {
            verdicts: Vec::new(),
            level,
            rule: None,
            cached: None,
            until: if synced { Until::Ready } else { Until::Answered },
            extended: true,
            messages: Messages::Batch(messages),
        }
    }

    /// Where the cache would have the batch's answer: `[Parse] Bind [Describe] Execute Sync`, all of one statement.
    fn cached(&self, messages: &[Message], level: Level, rule: Option<&Rule>) -> Option<Cacheable> {
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
            rule,
            form,
            sql: &bound.statement.parsed.sql,
            types: &bound.statement.types,
            bind: suffix,
        };
        self.cacheable(&asking, Around { parse, bind: true })
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

/// What the batch parses, binds and executes; what one message after the other does with the same statement counts once.
fn judged(messages: &[Message]) -> impl Iterator<Item = (&Arc<Verdict>, &Arc<ClientStatement>)> {
    let mut latest: Option<(&Arc<Verdict>, &Arc<ClientStatement>)> = None;
    messages.iter().filter_map(move |message| {
        let judged = match message {
            Message::Parse(Parsing {
                verdict, statement, ..
            }) => (verdict, statement),
            Message::Bind(Binding {
                bound: Some(bound), ..
            })
            | Message::Execute {
                bound: Some(bound), ..
            } => (&bound.verdict, &bound.statement),
            _ => return None,
        };
        let is_another = latest.is_none_or(|(verdict, statement)| {
            !Arc::ptr_eq(verdict, judged.0) || !Arc::ptr_eq(statement, judged.1)
        });
        latest = Some(judged);
        is_another.then_some(judged)
    })
}

/// Would a text pin the session for lack of a catalog? One that is bound already stays as it was judged.
fn in_doubt(messages: &[Message]) -> bool {
    messages.iter().any(|message| match message {
        Message::Parse(Parsing { verdict, .. }) => pins_for_lack_of_catalog(verdict),
        Message::Bind(Binding {
            bound: Some(bound), ..
        }) => pins_for_lack_of_catalog(&bound.verdict),
        _ => false,
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
    let body = frame.get(frame::HEADER_BYTES..)?;
    let quoted: Vec<_> = names
        .iter()
        .map(|(server, client)| (format!("\"{server}\"").into_bytes(), client))
        .collect();
    // One pass: what has been put in is not looked at again, whatever the client calls its statements.
    let (mut put, mut at, mut found) = (Vec::with_capacity(body.len()), 0, false);
    while let Some(&byte) = body.get(at) {
        let told = quoted
            .iter()
            .find(|(server, _)| byte == b'"' && body[at..].starts_with(server));
        if let Some((server, client)) = told {
            put.extend([b"\"", &client[..], b"\""].concat());
            at += server.len();
            found = true;
        } else {
            put.push(byte);
            at += 1;
        }
    }
    found.then(|| {
        let mut renamed = BytesMut::with_capacity(put.len() + frame::HEADER_BYTES);
        crate::protocol::error::relay(&put, &mut renamed);
        renamed
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn a_client_may_call_its_statement_what_the_server_calls_it() {
        let mut frame = BytesMut::new();
        crate::protocol::error::relay(b"Mno \"pgladder_1\", no \"pgladder_0\"\0\0", &mut frame);
        for (client, told) in [
            ("pgladder_0", "Mno \"pgladder_1\", no \"pgladder_0\"\0\0"),
            (
                "a\"pgladder_0\"b",
                "Mno \"pgladder_1\", no \"a\"pgladder_0\"b\"\0\0",
            ),
            ("pgladder_1", "Mno \"pgladder_1\", no \"pgladder_1\"\0\0"),
        ] {
            let names = [(ServerName(0), Bytes::from_static(client.as_bytes()))];
            let renamed = with_client_names(&frame, &names).expect("renamed");
            assert_eq!(&renamed[frame::HEADER_BYTES..], told.as_bytes());
        }
    }
}
