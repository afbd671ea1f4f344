//! The extended protocol of the console: prepared statements and portals over the same few statements.
//!
//! Part of the console's dialogue, called with one batch of messages. Invariants: a statement is executed at its portal's first
//! Execute and never again; after an error all is dropped up to Sync, as a server drops it. Parameters there are none, and a
//! column's bytes are the same in both formats.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::{BufMut, Bytes};

use super::console::{Dialogue, columns, put_row, tag, understood};
use super::statement::{self, Statement};
use super::table::Row;
use crate::protocol::backend;
use crate::protocol::error::Report;
use crate::protocol::frame::Frame;
use crate::protocol::frontend::{Bind, Execute, Malformed, Parse, Target};
use crate::protocol::sqlstate;
use crate::session::unit::End;

/// Statements, and portals, of one session.
const NAMES_MAX: usize = 1_000;
/// ParameterDescription of a statement without parameters.
const NO_PARAMETERS: &[u8] = b"t\0\0\0\x06\0\0";
const PORTAL_SUSPENDED: &[u8] = b"s\0\0\0\x04";

/// What a session has prepared. An empty text is a statement too: `None`.
#[derive(Default)]
pub(super) struct Prepared {
    statements: HashMap<Bytes, Option<Arc<Statement>>>,
    portals: HashMap<Bytes, Portal>,
    /// An error came: all is dropped up to Sync.
    pub skipping: bool,
}

struct Portal {
    statement: Option<Arc<Statement>>,
    format: i16,
    /// What is still to be sent; `None` before the first Execute.
    rows: Option<std::vec::IntoIter<Row>>,
}

impl Dialogue<'_> {
    /// Answers a batch of messages.
    pub async fn batch(&mut self, frames: &[Frame], end: End) {
        for frame in frames {
            if self.prepared.skipping {
                break;
            }
            if let Err(report) = self.message(*frame).await {
                report.encode(&mut self.wire.out);
                self.prepared.skipping = true;
            }
        }
        if end == End::Sync {
            self.prepared.skipping = false;
            if !self.in_block {
                self.prepared.portals.clear();
            }
            self.ready();
        }
    }

    async fn message(&mut self, frame: Frame) -> Result<(), Report> {
        let body = Bytes::copy_from_slice(frame.body(&self.wire.input));
        match frame.tag {
            b'P' => self.parse(&Parse::read(&body).map_err(malformed)?),
            b'B' => self.bind(&Bind::read(&body).map_err(malformed)?),
            b'D' => self.describe(Target::read(&body).map_err(malformed)?),
            b'E' => self.run(Execute::read(&body).map_err(malformed)?).await,
            b'C' => {
                match Target::read(&body).map_err(malformed)? {
                    Target::Statement(name) => drop(self.prepared.statements.remove(name)),
                    Target::Portal(name) => drop(self.prepared.portals.remove(name)),
                }
                self.wire.out.put_slice(backend::CLOSE_COMPLETE);
                Ok(())
            }
            // Sync and Flush have no body, and no answer of their own here.
            _ => Ok(()),
        }
    }

    fn parse(&mut self, parse: &Parse<'_>) -> Result<(), Report> {
        let known = &mut self.prepared.statements;
        if !parse.name.is_empty() && known.contains_key(parse.name) {
            let name = String::from_utf8_lossy(parse.name);
            return Err(Report::error(
                sqlstate::DUPLICATE_PREPARED_STATEMENT,
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        let mut statements = statement::parse(understood(Ok(parse.sql))?)?;
        if statements.len() > 1 {
            return Err(Report::error(
                sqlstate::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        let statement = statements.pop().map(Arc::new);
        keep(known, parse.name, statement)?;
        self.wire.out.put_slice(backend::PARSE_COMPLETE);
        Ok(())
    }

    fn bind(&mut self, bind: &Bind<'_>) -> Result<(), Report> {
        let statement = self.statement(bind.statement)?;
        if !bind.values.is_empty() {
            return Err(Report::error(
                sqlstate::PROTOCOL_VIOLATION,
                "bind message supplies parameters, but the console's statements have none",
            ));
        }
        let portal = Portal {
            statement,
            format: i16::from(bind.result_formats.ends_with(&[1])),
            rows: None,
        };
        keep(&mut self.prepared.portals, bind.portal, portal)?;
        self.wire.out.put_slice(backend::BIND_COMPLETE);
        Ok(())
    }

    fn describe(&mut self, target: Target<'_>) -> Result<(), Report> {
        let (statement, format) = match target {
            Target::Statement(name) => {
                let statement = self.statement(name)?;
                self.wire.out.put_slice(NO_PARAMETERS);
                (statement, 0)
            }
            Target::Portal(name) => {
                let portal = self.prepared.portals.get(name).ok_or_else(|| no_portal(name))?;
                (portal.statement.clone(), portal.format)
            }
        };
        match statement.as_deref().and_then(columns) {
            Some(columns) => backend::text_columns(columns, format, &mut self.wire.out),
            None => self.wire.out.put_slice(backend::NO_DATA),
        }
        Ok(())
    }

    async fn run(&mut self, execute: Execute<'_>) -> Result<(), Report> {
        let name = execute.portal;
        let portal = self.prepared.portals.get(name).ok_or_else(|| no_portal(name))?;
        let Some(statement) = portal.statement.clone() else {
            self.wire.out.put_slice(backend::EMPTY_QUERY);
            return Ok(());
        };
        if portal.rows.is_none() {
            let table = self.execute(&statement).await?;
            let rows = table.map(|table| table.rows).unwrap_or_default();
            if let Some(portal) = self.prepared.portals.get_mut(name) {
                portal.rows = Some(rows.into_iter());
            }
        }
        let portal = self
            .prepared
            .portals
            .get_mut(name)
            .ok_or_else(|| no_portal(name))?;
        let rows = portal.rows.get_or_insert_with(|| Vec::new().into_iter());
        let most = usize::try_from(execute.rows_max).ok().filter(|most| *most > 0);
        let mut sent = 0;
        while most.is_none_or(|most| sent < most)
            && let Some(row) = rows.next()
        {
            put_row(&row, &mut self.wire.out);
            sent += 1;
        }
        // Like a server's, a portal that has sent what was asked for does not look whether that was the last.
        if most == Some(sent) {
            self.wire.out.put_slice(PORTAL_SUSPENDED);
        } else {
            backend::command_complete(&tag(&statement, sent), &mut self.wire.out);
        }
        Ok(())
    }

    fn statement(&self, name: &[u8]) -> Result<Option<Arc<Statement>>, Report> {
        self.prepared.statements.get(name).cloned().ok_or_else(|| {
            let name = String::from_utf8_lossy(name);
            Report::error(
                sqlstate::INVALID_STATEMENT_NAME,
                format!("prepared statement \"{name}\" does not exist"),
            )
        })
    }
}

fn keep<T>(all: &mut HashMap<Bytes, T>, name: &[u8], value: T) -> Result<(), Report> {
    if all.len() >= NAMES_MAX && !all.contains_key(name) {
        return Err(Report::error(
            sqlstate::PROGRAM_LIMIT_EXCEEDED,
            format!("the console keeps {NAMES_MAX} prepared statements and as many portals"),
        ));
    }
    all.insert(Bytes::copy_from_slice(name), value);
    Ok(())
}

fn malformed(_: Malformed) -> Report {
    Report::error(sqlstate::PROTOCOL_VIOLATION, "invalid message format")
}

fn no_portal(name: &[u8]) -> Report {
    let name = String::from_utf8_lossy(name);
    Report::error(
        sqlstate::UNDEFINED_CURSOR,
        format!("portal \"{name}\" does not exist"),
    )
}
