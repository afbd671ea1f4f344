//! The console: a session with the proxy itself, for an admin who connects to the database that stands for it.
//!
//! `serve` hands it a client instead of starting a session. It speaks the simple and the extended protocol, answers in columns of
//! text, and lends no server connection. Invariant: nobody but an admin gets further than the refusal. A dropped `run` leaves
//! nothing behind but what a statement had already done.

use std::sync::Arc;
use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::extended::Prepared;
use super::show::{self, PROGRAM};
use super::statement::{self, Fact, REPORTED, SETTINGS, Statement, Value};
use super::table::{Row, Table, text};
use super::{Reload, ReloadError, flush};
use crate::protocol::backend::{self, Status};
use crate::protocol::error::Report;
use crate::protocol::frame::Frame;
use crate::protocol::{frontend, sqlstate};
use crate::session::last::ServedBy;
use crate::session::registry::{self, Who};
use crate::session::unit::{self, Unit};
use crate::session::wire::Wire;
use crate::session::{Client, Proxy};

/// An admin's messages are short.
const LIMITS: unit::Limits = unit::Limits {
    message_bytes_max: 64 * 1024,
    batch_bytes_max: 256 * 1024,
};
const RELOAD: &[&str] = &["setting", "outcome"];

/// What all consoles work with.
pub struct Console {
    pub(super) proxy: Arc<Proxy>,
    reload: Arc<dyn Reload>,
    database: Arc<str>,
}

/// The session ends.
pub(super) struct Goodbye;

/// One admin's session.
pub(super) struct Dialogue<'a> {
    console: &'a Console,
    user: Arc<str>,
    pub wire: Wire,
    presence: registry::Place,
    pub in_block: bool,
    pub prepared: Prepared,
}

impl Console {
    /// A console in the database of this name.
    pub fn new(proxy: Arc<Proxy>, reload: Arc<dyn Reload>, database: Arc<str>) -> Self {
        Self {
            proxy,
            reload,
            database,
        }
    }

    /// Does the client want the console?
    pub fn is_meant_by(&self, client: &Client) -> bool {
        *client.database == *self.database
    }

    /// Serves a client until it leaves or `stop` is cancelled; one who is no admin is told so.
    pub async fn run(&self, client: Client, stop: CancellationToken) {
        let slot = self.proxy.cancels.slot(client.protocol_minor);
        let who = Who {
            process: slot.process(),
            user: Arc::clone(&client.user),
            database: Arc::clone(&client.database),
            peer: client.peer,
        };
        let mut dialogue = Dialogue {
            console: self,
            user: client.user,
            wire: Wire::new(client.stream, client.input),
            presence: self.proxy.registry.enter(who),
            in_block: false,
            prepared: Prepared::default(),
        };
        if client.identity.admin {
            dialogue.greet();
            backend::backend_key_data(slot.process(), slot.secret(), &mut dialogue.wire.out);
            dialogue.ready();
            dialogue.serve(&stop).await;
        } else {
            tracing::info!(peer = %client.peer, user = %dialogue.user, "the console was refused: not an admin");
            dialogue.refuse();
        }
        dialogue.wire.flush().await;
        dialogue.wire.close().await;
    }
}

impl Dialogue<'_> {
    fn refuse(&mut self) {
        let message = format!("permission denied for database \"{}\"", self.console.database);
        Report::fatal(sqlstate::INSUFFICIENT_PRIVILEGE, message)
            .detail("It stands for the proxy's console, which is for the roles in auth.admins.")
            .encode(&mut self.wire.out);
    }

    fn greet(&mut self) {
        for fact in SETTINGS.iter().filter(|fact| REPORTED.contains(&fact.asked)) {
            let value = self.value(fact).unwrap_or_default();
            backend::parameter_status(fact.column[0], &value, &mut self.wire.out);
        }
    }

    async fn serve(&mut self, stop: &CancellationToken) {
        loop {
            let served = self.serve_input().await;
            self.wire.flush().await;
            if served.is_err() || self.wire.gone {
                return;
            }
            tokio::select! {
                () = self.wire.read() => {}
                () = stop.cancelled() => {
                    let message = "terminating connection due to administrator command";
                    Report::fatal(sqlstate::ADMIN_SHUTDOWN, message).encode(&mut self.wire.out);
                    return;
                }
            }
        }
    }

    async fn serve_input(&mut self) -> Result<(), Goodbye> {
        loop {
            let unit = match unit::next(&self.wire.input, LIMITS) {
                Ok(Some(unit)) => unit,
                Ok(None) => return Ok(()),
                Err(error) => {
                    Report::fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string()).encode(&mut self.wire.out);
                    return Err(Goodbye);
                }
            };
            self.presence.begin_unit(Instant::now());
            match &unit {
                Unit::Terminate => return Err(Goodbye),
                Unit::Batch(frames, end) => self.batch(frames, *end).await,
                // After an error in a batch all is dropped up to its Sync.
                _ if self.prepared.skipping => {}
                Unit::Query(frame) => self.query(*frame).await,
                Unit::Function(_) => {
                    let message = "the console has no functions to call";
                    Report::error(sqlstate::FEATURE_NOT_SUPPORTED, message).encode(&mut self.wire.out);
                    self.ready();
                }
                Unit::Stray(_) => {}
            }
            self.presence.answered_by(ServedBy::Proxy);
            self.presence.end_unit(self.status(), None);
            self.wire.consume(unit.bytes());
            self.wire.flush().await;
        }
    }

    async fn query(&mut self, frame: Frame) {
        if let Err(report) = self.try_query(frame).await {
            report.encode(&mut self.wire.out);
        }
        self.ready();
    }

    async fn try_query(&mut self, frame: Frame) -> Result<(), Report> {
        let statements = statement::parse(understood(frontend::query(frame.body(&self.wire.input)))?)?;
        if statements.is_empty() {
            self.wire.out.extend_from_slice(backend::EMPTY_QUERY);
        }
        for statement in &statements {
            let answer = self.execute(statement).await?;
            let out = &mut self.wire.out;
            if let Some(table) = &answer {
                backend::text_columns(table.columns, 0, out);
                table.rows.iter().for_each(|row| put_row(row, out));
            }
            let tag = tag(statement, answer.map_or(0, |table| table.rows.len()));
            backend::command_complete(&tag, out);
        }
        Ok(())
    }

    /// Carries a statement out; its table, if it has one.
    pub async fn execute(&mut self, statement: &Statement) -> Result<Option<Table>, Report> {
        Ok(match statement {
            Statement::Show(topic) => Some(show::table(*topic, &self.console.proxy)),
            Statement::Help => Some(show::help()),
            Statement::Flush(target) => {
                let flushed = flush::flush(&self.console.proxy, target.as_ref())?;
                tracing::info!(user = %self.user, ?target, "flushed from the console");
                Some(flushed)
            }
            Statement::Reload => Some(self.reload().await?),
            Statement::Nothing(_) => None,
            Statement::Block { open, .. } => {
                self.in_block = *open;
                None
            }
            Statement::Ask(fact) => Some(Table::new(&fact.column, [vec![self.value(fact)]])),
        })
    }

    async fn reload(&self) -> Result<Table, Report> {
        let reload = Arc::clone(&self.console.reload);
        let reloaded = tokio::task::spawn_blocking(move || reload.reload()).await;
        let reloaded = reloaded.map_err(|error| {
            tracing::error!(%error, "the reload ended by a panic");
            Report::error(sqlstate::INTERNAL_ERROR, "the reload failed; the log says more")
        })?;
        let reloaded = reloaded.map_err(|error| match error {
            ReloadError::NoSources => Report::error(sqlstate::NOT_IN_PREREQUISITE_STATE, error.to_string()),
            ReloadError::Refused(lines) => Report::error(
                sqlstate::CONFIG_FILE_ERROR,
                "the configuration is not good, and nothing of it was applied",
            )
            .detail(lines.join("\n")),
        })?;
        tracing::info!(user = %self.user, changes = ?reloaded, "reloaded from the console");
        let rows = reloaded.into_iter().map(|reloaded| {
            let (what, outcome) = reloaded.words();
            vec![text(what), text(outcome)]
        });
        Ok(Table::new(RELOAD, rows))
    }

    fn value(&self, fact: &Fact) -> Option<String> {
        match fact.value {
            Value::Is(value) => text(value),
            Value::Null => None,
            Value::User => text(&self.user),
            Value::Database => text(&self.console.database),
            Value::Version => text(PROGRAM),
        }
    }

    fn status(&self) -> Status {
        if self.in_block {
            Status::InTransaction
        } else {
            Status::Idle
        }
    }

    pub fn ready(&mut self) {
        backend::ready_for_query(self.status(), &mut self.wire.out);
    }
}

/// The text of a query, or of a Parse.
pub(super) fn understood(text: Result<&[u8], frontend::Malformed>) -> Result<&str, Report> {
    let malformed = |_| Report::error(sqlstate::PROTOCOL_VIOLATION, "invalid message format");
    let not_utf8 = |_| Report::error(sqlstate::SYNTAX_ERROR, "the console understands UTF-8 only");
    std::str::from_utf8(text.map_err(malformed)?).map_err(not_utf8)
}

/// The columns of a statement's table, if it has one.
pub(super) fn columns(statement: &Statement) -> Option<&'static [&'static str]> {
    match statement {
        Statement::Show(topic) => Some(show::columns(*topic)),
        Statement::Help => Some(show::HELP),
        Statement::Flush(_) => Some(flush::COLUMNS),
        Statement::Reload => Some(RELOAD),
        Statement::Ask(fact) => Some(&fact.column),
        Statement::Nothing(_) | Statement::Block { .. } => None,
    }
}

pub(super) fn tag(statement: &Statement, rows: usize) -> String {
    match statement {
        Statement::Show(_) => "SHOW".to_owned(),
        Statement::Help => "HELP".to_owned(),
        Statement::Flush(_) => "FLUSH".to_owned(),
        Statement::Reload => "RELOAD".to_owned(),
        Statement::Nothing(tag) | Statement::Block { tag, .. } => (*tag).to_owned(),
        Statement::Ask(fact) if SETTINGS.contains(fact) => "SHOW".to_owned(),
        Statement::Ask(_) => format!("SELECT {rows}"),
    }
}

pub(super) fn put_row(row: &Row, out: &mut bytes::BytesMut) {
    let values: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
    backend::text_row(&values, out);
}
