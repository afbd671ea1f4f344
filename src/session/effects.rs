//! What a completed statement leaves behind in the session: settings, pins, transaction layers.
//!
//! Called when a unit has ended, with what was completed in it, in order. Invariant: the session's settings are what one
//! PostgreSQL session would have, with the values that the server accepted; whatever cannot be moved to another connection pins
//! the one that has it. It sends nothing but SHOW, of what was SET.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::acquire::bring_to;
use super::held::{AskError, Held};
use super::run::Session;
use super::statements::Serial;
use crate::catalog::NO_CATALOG;
use crate::catalog::verdict::Verdict;
use crate::protocol::backend::Status;
use crate::route::Pin;
use crate::sql::ident::{quote_ident, quote_literal};
use crate::sql::purity;
use crate::sql::statement::{Call, Discard, Kind, Script, Statement};

/// What one CommandComplete completes: a statement of a text.
#[derive(Debug, Clone)]
pub struct Completion {
    /// The text's facts.
    pub script: Arc<Script>,
    /// Which of its statements.
    pub at: usize,
    /// It may leave a trace in the session that its text does not tell.
    pub leaves_state: bool,
    /// The newest of the client's prepared statements when it was sent.
    pub newest: Serial,
}

impl Completion {
    /// One for each statement of a text.
    pub fn each(verdict: &Verdict, newest: Serial) -> impl Iterator<Item = Self> {
        let (script, leaves_state) = (&verdict.script, verdict.leaves_state);
        (0..script.statements.len()).map(move |at| Self {
            script: Arc::clone(script),
            at,
            leaves_state,
            newest,
        })
    }

    /// Can it change anything in the session, or on the connection, that outlives it?
    pub fn leaves_trace(&self) -> bool {
        self.leaves_state
            || self
                .statement()
                .is_some_and(|statement| matters(&statement.kind) || self.pins(statement).is_some())
    }

    fn statement(&self) -> Option<&Statement> {
        self.script.statements.get(self.at)
    }

    /// Why its session needs this very connection from now on, if it does.
    fn pins(&self, statement: &Statement) -> Option<Pin> {
        let locks = || {
            statement
                .calls
                .iter()
                .any(|call| SESSION_LOCKS.contains(&&*call.name.name))
        };
        match &statement.kind {
            Kind::Listen => Some(Pin::Listens),
            Kind::CreateTemp => Some(Pin::Temporary),
            Kind::Declare { hold: true } => Some(Pin::HeldCursor),
            Kind::Prepare(_) => Some(Pin::SqlPrepare),
            _ if locks() => Some(Pin::AdvisoryLock),
            _ if !self.leaves_state => None,
            Kind::Call | Kind::Do | Kind::Execute(_) => Some(Pin::UnknownState),
            _ if calls_unknown(statement) => Some(Pin::UnknownState),
            _ => None,
        }
    }
}

/// Values that SET left, by name, as the server shows them.
type Shown = BTreeMap<Box<str>, Box<str>>;

/// Functions that take a lock which outlives its transaction.
const SESSION_LOCKS: [&str; 4] = [
    "pg_advisory_lock",
    "pg_advisory_lock_shared",
    "pg_try_advisory_lock",
    "pg_try_advisory_lock_shared",
];

/// What the names of `pg_catalog`'s functions begin with that change the session, or run a text or a function that may.
const STATEFUL: [&str; 13] = [
    "set_config",
    "setseed",
    "nextval",
    "setval",
    "lo_",
    "pg_advisory",
    "pg_try_advisory",
    "pg_replication_origin",
    "query_to_xml",
    "cursor_to_xml",
    "database_to_xml",
    "ts_stat",
    "ts_rewrite",
];

impl Session {
    /// Takes over what the unit's completed statements left behind, where none of them changes a setting, and no transaction is
    /// open in which one may have been changed; else false, and nothing is done.
    pub(super) fn take_plain_effects(&mut self, held: &mut Held) -> bool {
        let mut statements = self
            .completed
            .iter()
            .filter_map(|(completion, _)| completion.statement());
        if self.settings.in_transaction()
            || held.status != Status::Idle
            || statements.any(|statement| matters(&statement.kind))
        {
            return false;
        }
        let mut completed = std::mem::take(&mut self.completed);
        for (completion, _) in completed.drain(..) {
            self.pin_for(&completion, held);
        }
        self.completed = completed;
        true
    }

    /// Takes over what the unit's completed statements left behind. `failed`: the unit ended with an error.
    pub(super) async fn take_effects(&mut self, held: &mut Held, failed: bool) -> Result<(), AskError> {
        let completed = std::mem::take(&mut self.completed);
        let kinds = || {
            completed
                .iter()
                .filter_map(|(completion, _)| completion.statement())
        };
        let shown = self
            .read_back(held, kinds().map(|statement| &statement.kind))
            .await?;
        let before = self.settings.clone();
        let unknown_state = self.pin == Some(Pin::UnknownState);
        let mut rolled_back = failed;
        for (completion, tag) in &completed {
            self.pin_for(completion, held);
            if let Some(statement) = completion.statement() {
                self.take_effect(held, &statement.kind, tag, &shown);
                if forgets_statements(&statement.kind) {
                    held.lease.prepared.clear();
                    self.statements.forget_up_to(completion.newest);
                }
                rolled_back |= undoes(&statement.kind, tag);
            }
        }
        match held.status {
            Status::Idle if failed => self.settings.rollback(),
            Status::Idle => self.settings.commit(),
            Status::InTransaction | Status::Failed => self.settings.begin(),
        }
        let resets: Vec<Option<Box<str>>> = held.resets.clone();
        if held.status == Status::Idle {
            self.note_applied(held, rolled_back);
        }
        if self.settings != before {
            self.settings_changed();
        }
        let discards = kinds().any(|statement| matches!(statement.kind, Kind::Discard(Discard::All)));
        match held.status {
            Status::Idle if discards || !resets.is_empty() => {
                held.lease.brought_to = None;
                bring_to(held, self.id, &self.wanted, &self.base.facts).await?;
                // DISCARD leaves a setting that was made up behind, with an empty value in the place of none: nobody else gets
                // this connection.
                held.lease.dirty |= discards && unknown_state && self.pin.is_none();
            }
            Status::InTransaction
                if kinds()
                    .any(|statement| matches!(statement.kind, Kind::Reset(_) | Kind::RollbackTo(_))) =>
            {
                self.restore_startup(held, &resets).await?;
                held.settled = resets.len();
            }
            _ => {}
        }
        Ok(())
    }

    /// In a transaction, RESET has brought back what the server connection logged in with: the session's own startup values,
    /// where it has any, are what RESET means to the client.
    async fn restore_startup(&self, held: &mut Held, resets: &[Option<Box<str>>]) -> Result<(), AskError> {
        let is_reset = |name: &str| {
            resets
                .iter()
                .any(|reset| reset.as_deref().is_none_or(|reset| reset == name))
        };
        let values = self
            .settings
            .startup_in_force()
            .filter(|(name, _)| is_reset(name));
        let calls: Vec<String> = values
            .map(|(name, value)| {
                let (name, value) = (quote_literal(name), quote_literal(value));
                format!("SELECT pg_catalog.set_config({name}, {value}, false)")
            })
            .collect();
        if !calls.is_empty() {
            held.ask(&calls.join("; ")).await?;
        }
        Ok(())
    }

    /// Notes what the connection is set to, now that no transaction can take it back.
    fn note_applied(&self, held: &mut Held, rolled_back: bool) {
        let resets = std::mem::take(&mut held.resets);
        held.settled = 0;
        held.lease.brought_to = None;
        if rolled_back && !resets.is_empty() {
            // Which of them hold cannot be told for sure.
            held.lease.tainted_by = Some(self.id);
        }
        for reset in resets {
            match reset {
                Some(name) => drop(held.lease.settings.remove(&name)),
                None => held.lease.settings.retain(|name, _| is_identity(name)),
            }
        }
        let set = self.settings.set_by_session();
        held.lease
            .settings
            .extend(set.map(|(name, value)| (name.clone(), value.clone())));
    }

    /// The values of what was SET. Inside a failed transaction the server does not answer, and the text's own value counts.
    async fn read_back<'a>(
        &self,
        held: &mut Held,
        kinds: impl Iterator<Item = &'a Kind>,
    ) -> Result<Shown, AskError> {
        let mut shown = Shown::new();
        let mut asked: Vec<Box<str>> = Vec::new();
        for kind in kinds {
            for (name, value) in set_names(kind) {
                let reported = held
                    .lease
                    .parameters
                    .iter()
                    .find(|(known, _)| known.eq_ignore_ascii_case(name))
                    .map(|(_, value)| value.clone());
                if let Some(value) = reported {
                    shown.insert(name.into(), value);
                } else if held.status == Status::Failed {
                    shown.extend(value.map(|value| (Box::from(name), Box::from(value))));
                } else if !asked.iter().any(|known| **known == *name) {
                    asked.push(name.into());
                }
            }
        }
        if !asked.is_empty() {
            let questions = asked.iter().map(|name| {
                let parts: Vec<String> = name.split('.').map(quote_ident).collect();
                format!("SHOW {}", parts.join("."))
            });
            let sql = questions.collect::<Vec<_>>().join("; ");
            let rows = held.ask(&sql).await?;
            for (name, value) in asked.into_iter().zip(rows) {
                let value = value.unwrap_or_default();
                shown.insert(name, String::from_utf8_lossy(&value).into());
            }
        }
        Ok(shown)
    }

    fn take_effect(&mut self, held: &mut Held, kind: &Kind, tag: &[u8], shown: &Shown) {
        if matters(kind) && !ends_transaction(kind) {
            // Outside a block a statement is its own transaction; a text of several is one.
            self.settings.begin();
        }
        match kind {
            Kind::Set { .. } | Kind::SetCharacteristics(_) => {
                let local = matches!(kind, Kind::Set { local: true, .. });
                for (name, _) in set_names(kind) {
                    match shown.get(name) {
                        Some(value) if local => self.settings.set_local(name, value),
                        Some(value) => self.settings.set(name, value),
                        None => {}
                    }
                }
            }
            Kind::Reset(Some(name)) => {
                self.settings.reset(name);
                held.resets.push(Some(name.clone()));
            }
            Kind::Reset(None) => {
                self.settings.reset_all();
                held.resets.push(None);
            }
            Kind::Discard(Discard::All) => {
                self.settings.discard_all();
                held.lease.settings.clear();
                held.lease.brought_to = None;
                self.pin = None;
            }
            Kind::Savepoint(name) => self.settings.savepoint(name),
            Kind::Release(name) => self.settings.release(name),
            Kind::RollbackTo(name) => self.settings.rollback_to(name),
            Kind::Commit { chain } | Kind::Rollback { chain } => {
                if tag.starts_with(b"COMMIT") {
                    self.settings.commit();
                } else {
                    self.settings.rollback();
                }
                if *chain {
                    self.settings.begin();
                }
            }
            Kind::PrepareTransaction => self.settings.commit(),
            _ => {}
        }
    }

    /// A statement failed: what it did to the session before that may stay, as session-level locks do.
    pub(super) fn note_failed(&mut self, failed: &Completion, held: &mut Held) {
        let pin = failed.statement().and_then(|statement| failed.pins(statement));
        if pin == Some(Pin::AdvisoryLock) {
            self.pin = self.pin.or(pin);
        } else if failed.leaves_state {
            held.lease.tainted_by = Some(self.id);
        }
    }

    fn pin_for(&mut self, completion: &Completion, held: &mut Held) {
        let Some(statement) = completion.statement() else {
            return;
        };
        let pin = completion.pins(statement);
        if pin.is_none() && completion.leaves_state {
            // A trigger, a view, or a text that cannot be read may have changed the session; that it did is rare, and the
            // reset before the connection goes to anybody else is enough.
            held.lease.tainted_by = Some(self.id);
        }
        self.pin = self.pin.or(pin);
    }
}

/// Does the text itself call a function that may change the session? PostgreSQL's own mostly do not, listed or not.
pub(super) fn calls_unknown(statement: &Statement) -> bool {
    let harmless = |call: &Call| {
        let name = &*call.name.name;
        match call.name.schema.as_deref() {
            Some("pg_catalog") => !STATEFUL.iter().any(|prefix| name.starts_with(prefix)),
            None => purity(name, call.args).is_some(),
            Some(_) => false,
        }
    };
    !statement.calls.iter().all(harmless)
}

/// Would the text pin the session, and was it judged without a catalog, by which its functions might be known as safe?
pub(super) fn pins_for_lack_of_catalog(verdict: &Verdict) -> bool {
    let hides_its_body = |kind: &Kind| matches!(kind, Kind::Call | Kind::Do | Kind::Execute(_));
    let mut statements = verdict.script.statements.iter();
    verdict.generation == NO_CATALOG
        && verdict.leaves_state
        && statements.any(|statement| !hides_its_body(&statement.kind) && calls_unknown(statement))
}

/// May the statement change settings, or the layers that they stand in?
fn matters(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Set { .. }
            | Kind::SetCharacteristics(_)
            | Kind::Reset(_)
            | Kind::Discard(_)
            | Kind::Deallocate(_)
            | Kind::Savepoint(_)
            | Kind::Release(_)
            | Kind::RollbackTo(_)
            | Kind::Begin(_)
            | Kind::Commit { .. }
            | Kind::Rollback { .. }
            | Kind::PrepareTransaction
    )
}

/// Does it drop all prepared statements?
pub(super) fn forgets_statements(kind: &Kind) -> bool {
    matches!(kind, Kind::Discard(Discard::All) | Kind::Deallocate(None))
}

/// Does it take back what was done before it?
fn undoes(kind: &Kind, tag: &[u8]) -> bool {
    matches!(kind, Kind::RollbackTo(_)) || ends_transaction(kind) && tag.starts_with(b"ROLLBACK")
}

fn is_identity(name: &str) -> bool {
    matches!(name, "role" | "session_authorization")
}

fn ends_transaction(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Commit { .. } | Kind::Rollback { .. } | Kind::PrepareTransaction
    )
}

/// The settings that a statement sets, with the value in its text where it is one plain constant.
fn set_names(kind: &Kind) -> impl Iterator<Item = (&str, Option<&str>)> {
    let names: Vec<(&str, Option<&str>)> = match kind {
        Kind::Set { name, value, .. } => vec![(name, value.as_deref())],
        Kind::SetCharacteristics(_) => vec![
            ("default_transaction_isolation", None),
            ("default_transaction_read_only", None),
            ("default_transaction_deferrable", None),
        ],
        _ => Vec::new(),
    };
    names.into_iter()
}
