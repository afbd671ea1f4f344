//! Simple queries and function calls, and the turns of a transaction that no server needs to see.
//!
//! Called by the main loop with one message. Invariants: a text that is the proxy's own is answered here and never sent; BEGIN is
//! answered at once and sent only when something needs a transaction, and only where the isolation level makes that
//! indistinguishable. Everything else becomes a `Work`.

use std::sync::Arc;

use bytes::Bytes;

use super::effects::pins_for_lack_of_catalog;
use super::exchange::Until;
use super::last::Last;
use super::own::{Knob, Own};
use super::perform::{Around, Cacheable, Messages, Work};
use super::run::{Block, Goodbye, Session};
use crate::cache::key::{Form, Key, Request};
use crate::cache::rules::{Rule, Text};
use crate::catalog::remembered::Remembered;
use crate::catalog::verdict::Verdict;
use crate::freshness::database::Database;
use crate::freshness::level::Level;
use crate::protocol::backend;
use crate::protocol::error::Report;
use crate::protocol::frame::Frame;
use crate::protocol::{frontend, sqlstate};
use crate::route::Pin;
use crate::sql::statement::{Isolation, Kind, TransactionModes};

/// The answer to a turn of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turned {
    /// Its command tag.
    Done(&'static str),
    /// The block has failed: refused.
    Refused,
}

/// What is asked of the cache.
pub struct Asking<'a> {
    /// The statement's verdict.
    pub verdict: &'a Verdict,
    /// The level of the read.
    pub level: Level,
    /// The rule about it.
    pub rule: Option<&'a Rule>,
    /// The protocol.
    pub form: Form,
    /// The exact text.
    pub sql: &'a [u8],
    /// Parameter types.
    pub types: &'a [u8],
    /// Bind's suffix.
    pub bind: &'a [u8],
}

impl Session {
    /// Answers one simple query.
    pub(super) async fn query(&mut self, frame: Frame) -> Result<(), Goodbye> {
        let Ok(text) = frontend::query(frame.body(&self.wire.input)) else {
            return Err(self.fatal(sqlstate::PROTOCOL_VIOLATION, "invalid message format"));
        };
        let sql = Bytes::copy_from_slice(text);
        self.statements.drop_unnamed();
        let mut verdict = self.verdict(&sql);
        let mut until = None;
        while pins_for_lack_of_catalog(&verdict) && self.await_known(&mut until).await? {
            verdict = self.verdict(&sql);
        }
        let rule = self.rule(&verdict, &sql, None);
        let level = self.level_of(&verdict, rule.as_deref());
        let is_parsed = |name: &[u8]| self.statements.find(name).is_some();
        let own = Own::recognise(&verdict.script);
        if let Some(own) = own.or_else(|| Own::deallocation(&verdict.script, is_parsed)) {
            self.answer_own(&own);
            return Ok(());
        }
        if let Some(turned) = self.turn_block(&verdict, &sql) {
            match turned {
                Turned::Done(tag) => backend::command_complete(tag, &mut self.wire.out),
                Turned::Refused => self.refuse_in_failed_block(),
            }
            self.ready_for_query();
            return Ok(());
        }
        let asking = Asking {
            verdict: &verdict,
            level,
            rule: rule.as_deref(),
            form: Form::Simple,
            sql: &sql,
            types: b"",
            bind: b"",
        };
        let work = Work {
            cached: self.cacheable(&asking, Around::default()),
            verdicts: vec![verdict],
            level,
            rule,
            until: Until::Ready,
            extended: false,
            messages: Messages::Query(sql),
        };
        self.perform(&work).await
    }

    /// Has a function call answered: what it does is not known.
    pub(super) async fn function(&mut self, frame: Frame) -> Result<(), Goodbye> {
        let message = Bytes::copy_from_slice(frame.bytes(&self.wire.input));
        let work = Work {
            verdicts: vec![Database::unread()],
            level: self.policy.level,
            rule: None,
            cached: None,
            until: Until::Ready,
            extended: false,
            messages: Messages::Function(message),
        };
        // Nor is what it leaves in the session, which a pin taken afterwards would come too late for.
        let before = self.pin;
        self.pin = before.or(Some(Pin::UnknownState));
        self.perform(&work).await?;
        if self.held.is_none() {
            // It has reached no server.
            self.pin = before;
        }
        Ok(())
    }

    /// The first cache rule about a text. `statement`: where a prepared one remembers it.
    pub(super) fn rule(
        &self,
        verdict: &Verdict,
        sql: &[u8],
        statement: Option<&Remembered>,
    ) -> Option<Arc<Rule>> {
        let text = Text {
            sql,
            verdict: &verdict.ruled,
            statement,
        };
        let tables = || self.database.names_of(verdict);
        self.policy.rules.find(&text, tables).cloned()
    }

    /// The level of a read, with a notice for every hint that is not understood.
    pub(super) fn level_of(&mut self, verdict: &Verdict, rule: Option<&Rule>) -> Level {
        let hints = &verdict.script.hints;
        let mut unknown: Vec<&str> = hints.unknown.iter().map(|word| &**word).collect();
        let hinted = hints.freshness.as_deref().and_then(|text| {
            let level = text.parse().ok();
            if level.is_none() {
                unknown.push(text);
            }
            level
        });
        for word in unknown {
            Report::notice(
                sqlstate::INVALID_PARAMETER_VALUE,
                format!("pgladder: unknown hint \"{word}\""),
            )
            .hint("Hints are route=primary|replica, cache=on|off and freshness=<level>.")
            .encode(&mut self.wire.out);
        }
        let ruled = || rule.and_then(|rule| rule.decision.level);
        let asked = hinted.or(self.asked.level).or_else(ruled);
        asked.unwrap_or_else(|| self.policy.level)
    }

    /// Where the answer of a read may be cached, in the session as it is now, and for how long.
    pub(super) fn cacheable(&self, asking: &Asking<'_>, around: Around) -> Option<Cacheable> {
        let (cache, verdict) = (self.policy.cache, asking.verdict);
        let rule = asking.rule.map(|rule| rule.decision).unwrap_or_default();
        let by_default = || rule.cache.unwrap_or(verdict.aggregates || cache.all_reads);
        let hint = verdict.script.hints.cache;
        let wanted = hint.unwrap_or_else(|| !self.asked.cache_off && by_default());
        let quiet = self.held.is_none()
            && self.pin.is_none()
            && matches!(self.block, Block::None | Block::Deferred(_));
        let may = cache.enabled
            && wanted
            && quiet
            && verdict.cache.is_ok()
            && verdict.generation == self.database.generation()
            && self.derived.cacheable
            && self.derived.read_committed
            && asking.level != Level::Strict;
        may.then(|| Cacheable {
            key: Key::of(&Request {
                identity: &self.derived.identity,
                generation: verdict.generation,
                form: asking.form,
                sql: asking.sql,
                types: asking.types,
                bind: asking.bind,
            }),
            around,
            ttl: rule.ttl.unwrap_or(cache.ttl),
        })
    }

    /// Takes a turn of the transaction block that no server needs to see; `None` where one has to.
    pub(super) fn turn_block(&mut self, verdict: &Verdict, sql: &Bytes) -> Option<Turned> {
        let first = &verdict.script.statements.first()?.kind;
        let only = verdict.script.statements.len() == 1;
        match (&self.block, first) {
            (Block::Failed, Kind::Commit { chain } | Kind::Rollback { chain }) if only => {
                self.leave_block(*chain, false);
                Some(Turned::Done("ROLLBACK"))
            }
            // What the server does not refuse in a failed block.
            (
                Block::Failed,
                Kind::Commit { .. }
                | Kind::Rollback { .. }
                | Kind::RollbackTo(_)
                | Kind::PrepareTransaction
                | Kind::Empty,
            ) => None,
            (Block::Failed, _) => Some(Turned::Refused),
            (Block::Deferred(_), Kind::Commit { chain }) if only => {
                self.leave_block(*chain, true);
                Some(Turned::Done("COMMIT"))
            }
            (Block::Deferred(_), Kind::Rollback { chain }) if only => {
                self.leave_block(*chain, false);
                Some(Turned::Done("ROLLBACK"))
            }
            (Block::None, Kind::Begin(modes)) if only && self.may_defer(*modes) => {
                self.block = Block::Deferred(sql.clone());
                self.read_early = false;
                self.settings.begin();
                let starts = sql
                    .trim_ascii_start()
                    .first()
                    .is_some_and(|c| c.eq_ignore_ascii_case(&b's'));
                Some(Turned::Done(if starts { "START TRANSACTION" } else { "BEGIN" }))
            }
            _ => None,
        }
    }

    fn may_defer(&self, modes: TransactionModes) -> bool {
        let read_committed = match modes.isolation {
            Some(isolation) => isolation == Isolation::ReadCommitted,
            None => self.derived.read_committed,
        };
        read_committed && !modes.snapshot && self.held.is_none() && self.pin.is_none()
    }

    fn leave_block(&mut self, chain: bool, commit: bool) {
        let begin = match &self.block {
            Block::Deferred(begin) => begin.clone(),
            _ => Bytes::from_static(b"BEGIN"),
        };
        self.statements.end_transaction();
        if commit {
            self.settings.commit();
        } else {
            self.settings.rollback();
        }
        self.block = if chain {
            Block::Deferred(begin)
        } else {
            Block::None
        };
        self.read_early = false;
        if chain {
            self.settings.begin();
        }
        self.settings_changed();
        self.last = Last::own(self.policy.level);
    }

    /// Answers one of the proxy's own statements to a simple query.
    fn answer_own(&mut self, own: &Own) {
        if self.status() == backend::Status::Failed {
            self.refuse_in_failed_block();
        } else if let Own::Refused(report) = own {
            report.encode(&mut self.wire.out);
            if self.block != Block::None {
                self.block = Block::Failed;
            }
        } else {
            let (columns, row) = self.own_rows(own);
            if !columns.is_empty() {
                backend::text_columns(&columns, 0, &mut self.wire.out);
            }
            self.write_own(own, &row);
            self.statements.all_answered();
        }
        self.ready_for_query();
    }

    /// The columns and the row that an own statement returns; none for SET and RESET.
    pub(super) fn own_rows(&self, own: &Own) -> (Vec<&'static str>, Vec<Option<String>>) {
        match own {
            Own::ShowLast => (super::last::COLUMNS.to_vec(), self.last.row().to_vec()),
            Own::Show(knob) => (vec![knob.name()], vec![Some(self.shown(*knob))]),
            Own::Set { .. } | Own::Reset(_) | Own::Deallocate(_) | Own::Refused(_) => {
                (Vec::new(), Vec::new())
            }
        }
    }

    /// Carries an own statement out, and appends its row and completion.
    pub(super) fn write_own(&mut self, own: &Own, row: &[Option<String>]) {
        if let Own::Deallocate(name) = own {
            self.statements.close(name.clone());
        } else {
            own.apply(&mut self.settings);
            self.settings_changed();
        }
        if !row.is_empty() {
            let values: Vec<Option<&str>> = row.iter().map(Option::as_deref).collect();
            backend::text_row(&values, &mut self.wire.out);
        }
        backend::command_complete(own.tag(), &mut self.wire.out);
    }

    fn shown(&self, knob: Knob) -> String {
        self.settings
            .in_force(knob.name())
            .unwrap_or(knob.unset())
            .to_owned()
    }
}
