//! Having one unit answered: from the cache, by a replica, by the primary, or on the connection that is in hand.
//!
//! Called by `query` and `batch` with the unit as a `Work`. Invariants: each decision leaves its reason in `last`; a read that
//! a replica refused or lost is run once more, on the primary, and nothing else ever is; after a unit the connection goes back
//! unless a transaction, a pin or an unfinished batch keeps it.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::acquire::Refusal;
use super::cached::{Filling, Found};
use super::choose::Chosen;
use super::effects::Completion;
use super::exchange::{Broken, Capture, Ended, Run, Until};
use super::held::{AskError, Held, ServerLost, Unnamed};
use super::last::{Last, Reason, ServedBy};
use super::proxy::Counters;
use super::run::{Block, Goodbye, Session};
use super::sequences;
use super::statements::ClientStatement;
use super::told;
use crate::cache::key::Key;
use crate::cache::rules::Rule;
use crate::catalog::verdict::{Oid, ReadSet, Verdict, Why};
use crate::freshness::database::Begun;
use crate::freshness::level::Level;
use crate::protocol::backend::Status;
use crate::protocol::sqlstate;
use crate::route::{Because, Route, SessionFacts, route};
use crate::sql::statement::Kind;

/// A unit that a server, or the cache, is to answer.
pub struct Work<'a> {
    /// What is known of each text in it.
    pub verdicts: Vec<Arc<Verdict>>,
    /// The level that it runs under.
    pub level: Level,
    /// The cache rule about it.
    pub rule: Option<Arc<Rule>>,
    /// Where the cache would have its answer.
    pub cached: Option<Cacheable>,
    /// When the exchange is over.
    pub until: Until,
    /// It consists of extended query messages.
    pub extended: bool,
    /// What it consists of.
    pub messages: Messages<'a>,
}

/// A read whose answer may be cached.
pub struct Cacheable {
    /// Under which key.
    pub key: Key,
    /// What the cached answer is part of.
    pub around: Around,
    /// For how long.
    pub ttl: Duration,
}

/// What stands around a cached answer in the reply to a unit.
#[derive(Debug, Clone, Default)]
pub struct Around {
    /// ParseComplete comes first: this name now means this statement.
    pub parse: Option<(bytes::Bytes, Arc<ClientStatement>)>,
    /// BindComplete comes before the answer.
    pub bind: bool,
}

/// The messages of a unit, to be written to whichever server answers it.
pub enum Messages<'a> {
    /// A simple query's text.
    Query(bytes::Bytes),
    /// A function call, as it came.
    Function(bytes::Bytes),
    /// Extended query messages.
    Batch(&'a [super::message::Message]),
}

impl Work<'_> {
    fn tables(&self) -> Cow<'_, [Oid]> {
        if let [verdict] = self.verdicts.as_slice() {
            return Cow::Borrowed(read_tables(verdict));
        }
        let mut tables: Vec<Oid> = self
            .verdicts
            .iter()
            .flat_map(|verdict| read_tables(verdict))
            .copied()
            .collect();
        tables.sort_unstable();
        tables.dedup();
        Cow::Owned(tables)
    }

    /// Does it leave a portal behind that a later unit of the transaction may use?
    pub(super) fn leaves_portals(&self) -> bool {
        matches!(self.messages, Messages::Batch(messages) if super::shape::leaves_portals(messages))
    }

    fn holds_a_query(&self) -> bool {
        let mut statements = self
            .verdicts
            .iter()
            .flat_map(|verdict| &verdict.script.statements);
        statements.any(|statement| statement.kind != Kind::Empty)
    }

    /// May it run before a deferred BEGIN is sent? Only what reads, and reads neither clock nor session.
    pub(super) fn is_early_read(&self) -> bool {
        self.until == Until::Ready
            && !self.leaves_portals()
            && self
                .verdicts
                .iter()
                .all(|verdict| verdict.replica.is_ok() && matches!(verdict.cache, Ok(()) | Err(Why::Trivial)))
    }
}

/// The tables that a text reads, as far as they are known: sorted.
fn read_tables(verdict: &Verdict) -> &[Oid] {
    match &verdict.reads {
        ReadSet::Tables(read) => read,
        ReadSet::Unknown(_) => &[],
    }
}

impl Session {
    /// Has the unit answered, ReadyForQuery included.
    pub(super) async fn perform(&mut self, work: &Work<'_>) -> Result<(), Goodbye> {
        if matches!(self.block, Block::Deferred(_)) && work.is_early_read() {
            self.read_early |= work.holds_a_query();
        }
        if self.has_unsent_block() && !Box::pin(self.open_block(work)).await? {
            return Ok(());
        }
        if let Some(held) = self.held.take() {
            let reason = self.reason_of_held(work);
            return self.run_on(held, work, reason, None).await;
        }
        let tables = work.tables();
        let mut filling = None;
        if let Some(wanted) = &work.cached {
            match self.look_up(work, wanted, &tables).await? {
                Found::Served => return Ok(()),
                Found::Fill(fill) => filling = Some(fill),
                Found::Bypass(_) => {}
            }
        }
        let begun = match &filling {
            Some(filling) => filling.begun.clone(),
            None => self.begin(work.level, &tables),
        };
        match self.choose(work, &begun).await? {
            Chosen::Held(held, reason) => self.run_on(held, work, reason, filling).await,
            Chosen::Refused(refusal) => {
                drop(filling);
                self.refuse_unit(work, &refusal);
                Ok(())
            }
        }
    }

    /// What a read that fills nothing must know: a fill is for readers at every level.
    fn begin(&self, level: Level, tables: &[Oid]) -> Begun {
        let (Level::Bounded(age) | Level::Ttl(age)) = level else {
            return self.database.begin(tables);
        };
        let as_of = Instant::now().checked_sub(age);
        match as_of.and_then(|as_of| self.proxy.cluster.written_as_of(as_of)) {
            Some((era, written)) => self.database.begin_as_of(tables, era, written),
            None => self.database.begin(tables),
        }
    }

    fn reason_of_held(&self, work: &Work<'_>) -> Reason {
        let facts = SessionFacts {
            in_transaction: self.block == Block::Open || self.pin.is_none(),
            pinned: self.pin,
            ..SessionFacts::default()
        };
        let decided = work.verdicts.first().map(|verdict| route(verdict, &facts));
        match decided {
            Some(Route::Primary(because) | Route::Replica(because)) => Reason::Route(because),
            None => Reason::Route(Because::InTransaction),
        }
    }

    /// Tells the client of parameters that differ from what it was told.
    fn report_parameters(&mut self, held: &mut Held) {
        if !std::mem::take(&mut held.news) {
            return;
        }
        // In a failed block the startup values cannot be put in the place of what RESET brought back in the unit that failed;
        // that goes with the block.
        let is_unsettled = |name: &str| {
            let covers = |reset: &Option<Box<str>>| {
                reset
                    .as_deref()
                    .is_none_or(|reset| reset.eq_ignore_ascii_case(name))
            };
            held.status == Status::Failed && held.resets[held.settled..].iter().any(covers)
        };
        let mut differing: Vec<(Box<str>, Box<str>)> = held
            .lease
            .parameters
            .iter()
            .filter(|(name, value)| {
                &***name != "in_hot_standby"
                    && self.reported.get(*name).is_some_and(|known| known != *value)
                    && !is_unsettled(name)
            })
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        // The server's own order.
        differing.sort_by_cached_key(|(name, _)| name.to_ascii_lowercase());
        for (name, value) in differing {
            crate::protocol::backend::parameter_status(&name, &value, &mut self.wire.out);
            self.reported.insert(name, value);
        }
    }

    /// Runs the unit on a connection, and what follows from how that ends.
    pub(super) async fn run_on(
        &mut self,
        mut held: Box<Held>,
        work: &Work<'_>,
        reason: Reason,
        mut filling: Option<Filling>,
    ) -> Result<(), Goodbye> {
        let in_block = held.status != Status::Idle;
        if held.is_replica {
            self.presence.answered_by(ServedBy::Replica);
        } else {
            self.presence.answered_by(ServedBy::Primary);
            self.saw_primary = true;
        }
        let cancelled = self.cancel.aim(held.lease.cancel_target());
        if cancelled && (held.status == Status::InTransaction || !held.lease.dirty) {
            drop(filling);
            let refusal = Refusal::cancelled();
            return Box::pin(self.refuse_on(held, work, |out| refusal.encode(out))).await;
        }
        if sequences::concerns(work)
            && let Err(error) = Box::pin(self.forget_others_numbers(&mut held, work)).await
        {
            return Box::pin(self.refused_before(held, work, error)).await;
        }
        self.note_hidden_code();
        if self.must_verify(&held, work) {
            match Box::pin(self.verify_told(&mut held, work)).await {
                Ok(true) => {}
                Ok(false) => {
                    let changed = told::changed();
                    return Box::pin(self.refuse_on(held, work, |out| changed.encode(out))).await;
                }
                Err(error) => return Box::pin(self.refused_before(held, work, error)).await,
            }
        }
        if self.must_withhold(work) {
            Box::pin(self.withhold()).await;
        }
        self.announce(&work.verdicts, in_block);
        if self.pending.changed().is_some() {
            held.lease.prepared.doubt();
        }
        let mut run = self.write_unit(&mut held, work, filling.as_ref());
        let ended = match self.exchange(&mut held, &mut run).await {
            Ok(ended) => ended,
            Err(broken) => return Box::pin(self.lost(held, work, broken, filling)).await,
        };
        match ended {
            Ended::Refused(code) => {
                let reason = Reason::Retried(Some(code));
                return Box::pin(self.run_elsewhere(held, work, reason, filling)).await;
            }
            Ended::Done { error } => {
                if let Some(filling) = filling.take() {
                    let answer = run.capture.and_then(Capture::answer);
                    let answered = answer.ok_or_else(|| error.clone());
                    filling.finish(&self.proxy, &held.address, answered, run.asked_at);
                }
                self.skipping |= error.is_some() && work.until == Until::Answered;
                if error.is_some()
                    && let Some(Some(failed)) = run.completes.front()
                {
                    self.note_failed(failed, &mut held);
                }
                self.note_last(&held, reason, work);
                self.finish(held, work, error.is_some()).await
            }
        }
    }

    fn note_last(&mut self, held: &Held, reason: Reason, work: &Work<'_>) {
        let served_by = if held.is_replica {
            ServedBy::Replica
        } else {
            ServedBy::Primary
        };
        self.proxy.reasons.count(served_by, &reason);
        self.last = Last {
            served_by,
            node: Some(Arc::clone(&held.address)),
            reason,
            age: None,
            level: work.level,
            ttl: work.cached.as_ref().map(|wanted| wanted.ttl),
            rule: work.rule.clone(),
        };
    }

    fn write_unit(&mut self, held: &mut Held, work: &Work<'_>, filling: Option<&Filling>) -> Run {
        let (completes, replans) = match &work.messages {
            Messages::Query(sql) => {
                held.put_query(sql);
                held.unnamed = Unnamed::Absent;
                held.answers
                    .sent(super::answers::Sent::Query, super::answers::For::Client);
                let newest = self.statements.newest();
                let each = || {
                    let verdicts = work.verdicts.iter();
                    verdicts.flat_map(|verdict| Completion::each(verdict, newest))
                };
                let completes = if each().any(|completion| completion.leaves_trace()) {
                    each().map(Some).collect()
                } else {
                    VecDeque::new()
                };
                (completes, true)
            }
            Messages::Function(message) => {
                held.lease.output.extend_from_slice(message);
                held.lease.tainted_by = Some(self.id);
                held.answers
                    .sent(super::answers::Sent::Query, super::answers::For::Client);
                (VecDeque::new(), true)
            }
            Messages::Batch(messages) => {
                let told = told::undescribed(messages).any(|statement| statement.told.lock().is_some());
                (self.write_batch(held, messages), !told)
            }
        };
        let mut until = work.until;
        if held.is_replica && until == Until::Answered {
            // What comes after may be a write, or read what this replica has not replayed: it is chosen anew.
            held.lease.output.extend_from_slice(b"S\0\0\0\x04");
            held.answers
                .sent(super::answers::Sent::Sync, super::answers::For::Proxy);
            until = Until::Ready;
        }
        Run {
            asked_at: Instant::now(),
            until,
            completes,
            capture: filling.map(|_| Capture::new(self.policy.cache.entry_bytes_max)),
            audience: filling.map(|filling| filling.permit.audience()),
            // What came before in a batch without a Sync would be lost.
            may_retry: held.status == Status::Idle
                && !held.lease.dirty
                && (held.is_replica || replans && work.extended),
            replans,
            extended: work.extended,
        }
    }

    /// The unit was answered: takes its effects, gives the connection back or keeps it, and says ReadyForQuery.
    async fn finish(&mut self, mut held: Box<Held>, work: &Work<'_>, failed: bool) -> Result<(), Goodbye> {
        let open = work.until == Until::Answered && held.answers.is_empty() && held.lease.dirty;
        // An error in a batch without a Sync takes the whole implicit transaction with it, which ends at the Sync.
        let failed = std::mem::take(&mut self.failed_before) || failed;
        self.failed_before = open && failed;
        if !open {
            if !self.take_plain_effects(&mut held)
                && let Err(error) = Box::pin(self.take_effects(&mut held, failed)).await
            {
                return Err(self.lost_in_effects(&error));
            }
            self.settle_block(&held, failed);
            self.report_parameters(&mut held);
        }
        if held.status == Status::Idle && !open {
            self.statements.end_transaction();
            if self.pin.is_none() {
                self.give_back(held).await;
            } else {
                self.held = Some(held);
            }
        } else {
            self.held = Some(held);
        }
        if work.until == Until::Ready {
            self.ready_for_query();
        }
        Ok(())
    }

    /// Gives the connection back when no cancel request can reach it any more, or closes it.
    pub(super) async fn give_back(&mut self, held: Box<Held>) {
        if self.cancel.clear().await {
            drop(held);
        } else {
            held.lease.close();
        }
    }

    fn lost_in_effects(&mut self, error: &AskError) -> Goodbye {
        self.fatal(sqlstate::CONNECTION_FAILURE, error.to_string())
    }

    /// A replica refused or lost the read, or a plan was out of date: once more, where that reason does not hold.
    async fn run_elsewhere(
        &mut self,
        mut held: Box<Held>,
        work: &Work<'_>,
        reason: Reason,
        filling: Option<Filling>,
    ) -> Result<(), Goodbye> {
        Counters::count(&self.proxy.counters.retried);
        self.statements.undo();
        self.completed.clear();
        let chosen = if held.is_replica {
            self.give_back(held).await;
            self.choose_primary(reason, work).await?
        } else {
            // The plans of this connection are out of date: none of them is used again.
            match held.end_failed(work.until).await {
                Ok(()) => Chosen::Held(held, reason),
                Err(error) => {
                    self.lose_writes(&held);
                    Chosen::Refused(error.into())
                }
            }
        };
        match chosen {
            Chosen::Held(held, reason) => Box::pin(self.run_on(held, work, reason, filling)).await,
            Chosen::Refused(refusal) => {
                drop(filling);
                self.refuse_unit(work, &refusal);
                Ok(())
            }
        }
    }

    /// The server connection was lost in the middle of a unit.
    pub(super) async fn lost(
        &mut self,
        held: Box<Held>,
        work: &Work<'_>,
        broken: Broken,
        filling: Option<Filling>,
    ) -> Result<(), Goodbye> {
        // Lost, it goes to nobody else.
        let (true | false) = self.cancel.clear().await;
        self.lose_writes(&held);
        if held.is_replica && !broken.shown && !self.wire.gone {
            let reason = match broken.lost {
                ServerLost::Blocked => Reason::ReplicaBlocked,
                _ => Reason::Retried(None),
            };
            return self.run_elsewhere(held, work, reason, filling).await;
        }
        if broken.farewell {
            return Err(Goodbye);
        }
        let lost = broken.lost;
        tracing::warn!(node = %held.address, error = %lost, "a server connection was lost in the middle of a statement");
        let refusal = Refusal::lost(&lost);
        drop(filling);
        let in_block = held.status != Status::Idle || self.block != Block::None;
        let cut = !held.scanner.between_messages();
        drop(held);
        if cut {
            // Half a row has gone out: nothing that could be said now would be understood.
            return Err(Goodbye);
        }
        if self.pin.is_some() {
            // What only this connection had is lost, and the client must know.
            return Err(self.fatal(sqlstate::CONNECTION_FAILURE, lost.to_string()));
        }
        if in_block {
            self.block = Block::Failed;
        }
        self.refuse_unit(work, &refusal);
        Ok(())
    }

    /// Gives a connection back if it is clean, or closes it.
    pub(super) fn abandon(&mut self, held: Box<Held>) {
        self.lose_writes(&held);
        if held.status == Status::Idle && self.pin.is_none() && !held.lease.dirty {
            drop(held);
        } else {
            held.lease.close();
        }
    }
}
