//! The messages of a batch, as the session knows them: every name resolved as the server would at that message.
//!
//! Read by `batch`, written to servers by `deliver`. Invariants: a name means what the messages before it in the same batch made
//! of it; a message keeps the bytes as they came, for a server that can take them unchanged. Reading changes nothing in the
//! session but the serial of the next statement.

use std::sync::Arc;

use bytes::Bytes;
use smallvec::SmallVec;

use super::own::Own;
use super::run::Session;
use super::statements::{Bound, ClientStatement, Portal, mentions_clock};
use crate::catalog::remembered::Remembered;
use crate::catalog::verdict::Verdict;
use crate::pool::PreparedStatement;
use crate::protocol::frame::{self, Frame};
use crate::protocol::frontend::{Bind, Execute, Malformed, Parse, Target};
use crate::sql::statement::Kind;

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
pub(super) struct Reader<'a> {
    session: &'a mut Session,
    parsed: SmallVec<[(Bytes, Option<Arc<ClientStatement>>); 1]>,
    bound: SmallVec<[(Bytes, Portal); 1]>,
}

impl<'a> Reader<'a> {
    /// For one batch, of which nothing is read yet.
    pub(super) fn new(session: &'a mut Session) -> Self {
        Self {
            session,
            parsed: SmallVec::new(),
            bound: SmallVec::new(),
        }
    }

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

    /// The message in a frame of the unit.
    pub(super) fn message(&mut self, unit: &Bytes, frame: Frame) -> Result<Message, Malformed> {
        let raw = unit.slice(frame.start..frame.end());
        let body = &unit[frame.start + frame::HEADER_BYTES..frame.end()];
        Ok(match frame.tag {
            b'P' => self.parse(body, raw)?,
            b'B' => self.bind(body, raw)?,
            b'D' => match Target::read(body)? {
                Target::Statement(name) => Message::DescribeStatement {
                    statement: self.statement(name),
                    name: raw.slice_ref(name),
                    raw,
                },
                Target::Portal(name) => Message::DescribePortal {
                    bound: self.portal(name),
                    raw,
                },
            },
            b'C' => match Target::read(body)? {
                Target::Statement(name) => {
                    let name = raw.slice_ref(name);
                    self.parsed.push((name.clone(), None));
                    Message::CloseStatement { name }
                }
                Target::Portal(name) => Message::ClosePortal {
                    portal: raw.slice_ref(name),
                    raw,
                },
            },
            b'E' => {
                let execute = Execute::read(body)?;
                Message::Execute {
                    portal: raw.slice_ref(execute.portal),
                    bound: self.portal(execute.portal),
                    rows_max: execute.rows_max,
                    raw,
                }
            }
            b'S' => Message::Sync,
            _ => Message::Flush,
        })
    }

    fn parse(&mut self, body: &[u8], raw: Bytes) -> Result<Message, Malformed> {
        let parse = Parse::read(body)?;
        if let Some((statement, verdict)) = self.made_before(&parse) {
            self.parsed.push((Bytes::new(), Some(Arc::clone(&statement))));
            return Ok(Message::Parse(Parsing {
                name: Bytes::new(),
                statement,
                verdict,
                duplicate: false,
                raw,
            }));
        }
        let duplicate = !parse.name.is_empty() && self.statement(parse.name).is_some();
        // Kept for longer than the unit: its own bytes, not a part of all that came with it.
        let sql = Bytes::copy_from_slice(parse.sql);
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
            judged: parking_lot::Mutex::new(Some((
                Arc::clone(&self.session.derived.path),
                Arc::clone(&verdict),
            ))),
            told: parking_lot::Mutex::default(),
            parsed: PreparedStatement {
                sql,
                types: oids.collect(),
            },
            types,
            ruled: Remembered::default(),
        });
        let name = Bytes::copy_from_slice(parse.name);
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

    /// The unnamed statement, where this Parse makes the very same one: a driver that parses before each execution mostly does.
    /// Not where it says how it is to be understood anew, by what it names or by what the client was told of it before.
    fn made_before(&self, parse: &Parse<'_>) -> Option<(Arc<ClientStatement>, Arc<Verdict>)> {
        if !parse.name.is_empty() {
            return None;
        }
        let known = self.statement(b"")?;
        let same = known.parsed.sql == parse.sql && known.types == parse.types && known.own.is_none();
        if !same || !known.is_as_told(self.session.database.generation()) {
            return None;
        }
        let verdict = self.session.verdict_of(&known);
        let kind = verdict.single().map(|statement| &statement.kind);
        let is_plain = matches!(
            kind,
            Some(Kind::Select | Kind::Insert | Kind::Update | Kind::Delete)
        );
        is_plain.then_some((known, verdict))
    }

    fn bind(&mut self, body: &[u8], raw: Bytes) -> Result<Message, Malformed> {
        let bind = Bind::read(body)?;
        let portal = Bytes::copy_from_slice(bind.portal);
        let bound = self.statement(bind.statement).map(|statement| {
            Arc::new(Bound {
                verdict: self.session.verdict_of(&statement),
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
            name: raw.slice_ref(bind.statement),
            bound,
            suffix: raw.slice_ref(bind.suffix),
            raw,
        }))
    }
}
