//! A stream that runs: what it hears, what it asks the primary, and what it tells the database's clocks.
//!
//! Made and driven by `follow` once the slot is ready; it decides nothing that `state` can decide. One question at a time is under way on
//! the control connection, beside the stream. Invariants: a commit reaches the clocks before its position is confirmed; it ends
//! when the primary changes. `drive` may be dropped at any point, after which only `end` is to be called.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::sleep_until;

use super::aside::Aside;
use super::follow::{Board, SWEEP_INTERVAL, StreamLimits};
use super::pgoutput::Committed;
use super::plan::Plan;
use super::snapshot::Snapshot;
use super::state::State;
use super::status::{Mode, Status};
use super::steward::{Altered, Publication, Steward};
use super::why_not::WhyNot;
use super::wire::{Heard, Wire};
use crate::catalog::verdict::Oid;
use crate::cluster::{Cluster, NodeId};
use crate::freshness::database::{Database, Streamed};
use crate::protocol::lsn::Lsn;

/// From one look at the publication, and at what the slot retains, to the next, when nothing happens. For so long a table whose
/// identity was taken past the proxy refuses UPDATE and DELETE.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two snapshots, at least; a barrier that takes long is asked about ever less often.
const SNAPSHOT_PAUSE: Duration = Duration::from_millis(5);
const SNAPSHOT_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Positions are confirmed at most so often, unless the server asks.
const REPORT_INTERVAL: Duration = Duration::from_millis(10);
/// Streamed tables that nobody wants are remembered up to so many.
const STRANGE_MAX: usize = 10_000;
/// Tables that cannot be carried are listed up to so many.
const LISTED_MAX: usize = 20;

/// What the primary has answered.
enum Done {
    Planned(Result<Plan, WhyNot>),
    Altered(Plan, Altered),
    Shown(u64, Result<Snapshot, WhyNot>),
    Retained(Result<Option<u64>, WhyNot>),
    Swept(Result<usize, WhyNot>),
}

type Work = Pin<Box<dyn Future<Output = Done> + Send>>;

/// What may be asked of the primary next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Question {
    Plan,
    Snapshot,
    Retained,
    Sweep,
}

/// A commit that was streamed and need not be visible yet: what its being visible is waited for.
#[derive(Debug)]
enum Landing {
    /// Its tables may be cached again.
    Known(Streamed),
    /// It wrote a table that nobody has asked for: the catalog shows what that is.
    Strange,
}

/// What a stream begins with.
pub(super) struct Begun {
    pub database: Arc<Database>,
    pub cluster: Cluster,
    pub limits: StreamLimits,
    pub board: Arc<Board>,
    pub steward: Arc<Steward>,
    pub publication: Arc<Publication>,
    pub slot: String,
    pub primary: (NodeId, u64),
    pub wire: Wire,
    /// The publication of the configuration as it was when the slot was made; `None`: it is the proxy's own to alter.
    pub version: Option<i64>,
    /// What is published has to be published anew once it has passed its barrier.
    pub renews: bool,
}

/// A stream that runs.
pub(super) struct Running {
    begun: Begun,
    state: State<Landing>,
    work: Option<Work>,
    plan_due: Instant,
    planned: u64,
    snapshot_due: Instant,
    snapshot_pause: Duration,
    look_due: Instant,
    sweep_due: Instant,
    heard_at: Instant,
    reported_at: Instant,
    reported: Lsn,
    aside: Aside,
    not_carried: Vec<String>,
    sample: u64,
    /// What the primary had written at the last poll.
    written: Lsn,
    /// Streamed tables that nobody wants, as far as is known.
    strange: BTreeSet<Oid>,
    transactions: u64,
    before: Status,
}

impl Running {
    /// From the slot's consistent point on; `latest`: a snapshot taken since.
    pub fn new(begun: Begun, point: Lsn, latest: Snapshot) -> Self {
        let (now, before) = (Instant::now(), begun.board.status());
        let guards = begun.database.guards();
        Self {
            state: State::new(point, latest, begun.renews).under(guards),
            begun,
            work: None,
            plan_due: now,
            planned: 0,
            snapshot_due: now,
            snapshot_pause: SNAPSHOT_PAUSE,
            look_due: now + LOOK_INTERVAL,
            sweep_due: now + SWEEP_INTERVAL,
            heard_at: now,
            reported_at: now,
            reported: Lsn(0),
            aside: Aside::default(),
            not_carried: Vec::new(),
            sample: 0,
            written: Lsn(0),
            strange: BTreeSet::new(),
            transactions: 0,
            before,
        }
    }

    /// Runs until something ends it.
    pub async fn drive(&mut self) -> Result<Infallible, WhyNot> {
        let mut versions = self.begun.cluster.watch();
        self.poll().await?;
        loop {
            self.begin_work();
            let wake = self.wake_at().into();
            tokio::select! {
                heard = self.begun.wire.read() => {
                    heard?;
                    self.hear().await?;
                }
                done = answer(&mut self.work) => {
                    self.work = None;
                    self.take(done)?;
                }
                changed = versions.changed() => {
                    changed.map_err(|_| WhyNot::Stopping)?;
                    self.poll().await?;
                }
                () = self.begun.database.stream_news() => self.plan_due = Instant::now(),
                () = sleep_until(wake) => {}
            }
        }
    }

    /// It is over: nothing is carried any more.
    pub fn end(self) {
        let published: Vec<Oid> = self.state.published().collect();
        let unseen = self.state.end().into_iter();
        let unseen = unseen.filter_map(|landing| match landing {
            Landing::Known(streamed) => Some(streamed),
            Landing::Strange => None,
        });
        self.begun.database.stream_end(&published, unseen.collect());
    }

    /// Takes in all that has arrived.
    async fn hear(&mut self) -> Result<(), WhyNot> {
        self.heard_at = Instant::now();
        let mut is_asked = false;
        while let Some(heard) = self.begun.wire.take()? {
            match heard {
                Heard::Committed(committed) => self.commit(&committed)?,
                Heard::Position { end, reply } => {
                    self.state.advance(end);
                    is_asked |= reply;
                }
            }
        }
        self.tell_currency();
        let has_moved = self.state.position() > self.reported;
        if is_asked || has_moved && self.reported_at.elapsed() >= REPORT_INTERVAL {
            self.report(false).await?;
        }
        Ok(())
    }

    fn commit(&mut self, committed: &Committed) -> Result<(), WhyNot> {
        self.transactions += 1;
        let (tables, strange): (Vec<Oid>, Vec<Oid>) = committed
            .tables
            .iter()
            .partition(|table| self.state.knows(**table));
        if !tables.is_empty() {
            let era = self.begun.primary.1;
            let streamed = self.begun.database.stream_commit(era, &tables, committed.end);
            self.await_landing(committed, Landing::Known(streamed))?;
        }
        if self.are_new(&strange) {
            self.await_landing(committed, Landing::Strange)?;
        }
        self.state.advance(committed.end);
        Ok(())
    }

    fn await_landing(&mut self, committed: &Committed, landing: Landing) -> Result<(), WhyNot> {
        if let Err((_, landing)) = self.state.commit(committed, landing) {
            self.land(landing);
            return Err(WhyNot::LedgerFull);
        }
        self.snapshot_pause = SNAPSHOT_PAUSE;
        self.snapshot_due = self.snapshot_due.min(Instant::now() + SNAPSHOT_PAUSE);
        Ok(())
    }

    fn land(&self, landing: Landing) {
        match landing {
            Landing::Known(streamed) => self.begun.database.stream_landed(streamed),
            Landing::Strange => self.begun.database.compare_catalog(),
        }
    }

    /// A table that nobody has asked for may be a new partition of one that somebody has: the catalog is compared as soon as it
    /// shows that. Others are on their way out of the publication, or in one that somebody else keeps.
    fn are_new(&mut self, strange: &[Oid]) -> bool {
        if self.strange.len() > STRANGE_MAX {
            self.strange.clear();
        }
        let known = self.strange.len();
        self.strange.extend(strange);
        self.strange.len() > known
    }

    async fn report(&mut self, reply: bool) -> Result<(), WhyNot> {
        self.reported_at = Instant::now();
        self.reported = self.state.position();
        Ok(self.begun.wire.report(self.reported, reply).await?)
    }

    fn tell_currency(&self) {
        if let Some(as_of) = self.state.as_of() {
            let bound = self.begun.limits.delay_max;
            self.begun.database.stream_current(as_of, bound);
        }
    }

    /// The nodes have been polled.
    async fn poll(&mut self) -> Result<(), WhyNot> {
        let (node, era) = self.begun.primary;
        let view = self.begun.cluster.view();
        let primary = view
            .primary_node()
            .filter(|known| known.id == node && view.era == era);
        let sample = primary.ok_or(WhyNot::Changed)?.sample;
        let silence = 3 * self.begun.limits.sender_timeout;
        if self.heard_at.elapsed() > silence {
            return Err(WhyNot::Silent(silence));
        }
        if sample.number > self.sample {
            self.sample = sample.number;
            // Not only what was flushed: a commit that does not wait for that is acknowledged, too.
            self.state.polled(sample.sent_at, sample.written);
            if sample.lsn < self.written {
                // From one poll to the next nobody has flushed it, as happens where nobody commits: a probe sees to it.
                self.begun.cluster.request_probe();
            }
            self.written = sample.written;
            self.tell_currency();
            if self.state.is_behind() {
                self.report(true).await?;
            }
        }
        if self.planned != self.begun.database.generation() {
            self.plan_due = Instant::now();
        }
        self.show();
        Ok(())
    }

    /// The question that has been due for longest, or will be due first, so that none keeps the others waiting for ever.
    fn next(&self) -> (Instant, Question) {
        let mut next = (self.plan_due, Question::Plan);
        let snapshot = (self.snapshot_due, Question::Snapshot);
        let others = [
            self.state.wants_snapshot().then_some(snapshot),
            Some((self.look_due, Question::Retained)),
            Some((self.sweep_due, Question::Sweep)),
        ];
        for other in others.into_iter().flatten() {
            if other.0 < next.0 {
                next = other;
            }
        }
        next
    }

    fn wake_at(&self) -> Instant {
        // Whoever is busy is heard of without an alarm.
        if self.work.is_some() {
            Instant::now() + LOOK_INTERVAL
        } else {
            self.next().0
        }
    }

    /// Asks the primary what is due, if it is not busy.
    fn begin_work(&mut self) {
        let (now, (due, question)) = (Instant::now(), self.next());
        if self.work.is_some() || due > now {
            return;
        }
        let (steward, publication) = (
            Arc::clone(&self.begun.steward),
            Arc::clone(&self.begun.publication),
        );
        self.work = Some(match question {
            Question::Plan => {
                self.plan_due = now + LOOK_INTERVAL;
                self.planned = self.begun.database.generation();
                let wanted = if self.begun.database.stream_is_withheld() {
                    Vec::new()
                } else {
                    self.begun.database.stream_wanted()
                };
                Box::pin(async move { Done::Planned(steward.plan(&publication, &wanted).await) })
            }
            Question::Snapshot => {
                self.snapshot_due = now + self.snapshot_pause;
                self.snapshot_pause = (self.snapshot_pause * 2).min(SNAPSHOT_PAUSE_MAX);
                let number = self.state.ask();
                Box::pin(async move { Done::Shown(number, steward.snapshot().await) })
            }
            Question::Retained => {
                self.look_due = now + LOOK_INTERVAL;
                let slot = self.begun.slot.clone();
                Box::pin(async move { Done::Retained(steward.retained(&slot).await) })
            }
            Question::Sweep => {
                self.sweep_due = now + SWEEP_INTERVAL;
                let name = Arc::clone(&self.begun.database.name);
                Box::pin(async move { Done::Swept(steward.sweep(&name, publication.name()).await) })
            }
        });
    }

    fn take(&mut self, done: Done) -> Result<(), WhyNot> {
        match done {
            Done::Planned(plan) => self.follow_plan(plan?)?,
            Done::Altered(plan, altered) => {
                self.state.publish(&altered.added);
                self.state.renewed(&altered.renewed);
                self.soon();
                let now = Instant::now();
                for (name, why) in altered.failed {
                    self.aside.failed(name, why, now);
                }
                self.list(&plan, &altered.kept);
                self.grant(&plan, altered.kept.is_empty())?;
            }
            Done::Shown(number, snapshot) => {
                let stale = self.state.stale().count();
                let shown = self.state.show(number, snapshot?);
                for landing in shown.landed {
                    self.land(landing);
                }
                if self.state.stale().count() > stale {
                    self.plan_due = self.plan_due.min(Instant::now());
                }
                if !shown.carried.is_empty() {
                    let all: BTreeSet<Oid> = self.state.carried().collect();
                    self.begun.database.stream_carry(&shown.carried, all);
                    // Replicas have to replay what the stream could not tell: how far, a probe says.
                    self.begun.cluster.request_probe();
                }
            }
            // It is somebody else's, and the next sweep may succeed.
            Done::Swept(Err(error)) => tracing::debug!(%error, "a sweep failed"),
            Done::Swept(Ok(_)) => {}
            Done::Retained(bytes) => {
                let bytes = bytes?.unwrap_or_default();
                if bytes > self.begun.limits.retained_max {
                    return Err(WhyNot::Retained(bytes));
                }
            }
        }
        self.show();
        Ok(())
    }

    /// Before the server forgets a table, so do we.
    fn follow_plan(&mut self, mut plan: Plan) -> Result<(), WhyNot> {
        if self.begun.version.is_some_and(|version| version != plan.version) {
            // A table may have been out of it for a moment, or be one that the walsender goes on to pass over.
            return Err(WhyNot::Altered);
        }
        let mut gone: Vec<Oid> = self.state.published().collect();
        gone.retain(|table| !plan.carried.contains_key(table));
        if !gone.is_empty() {
            let gone = self.state.withdraw(&gone);
            let rest: BTreeSet<Oid> = self.state.carried().collect();
            self.begun.database.stream_withdraw(&gone, rest);
        }
        self.begun.database.stream_forget(&plan.gone);
        self.state
            .publish(&plan.carried.keys().copied().collect::<Vec<_>>());
        self.soon();
        self.renew(&mut plan);
        self.leave_aside(&mut plan);
        if !plan.alters() {
            self.list(&plan, &[]);
            return self.grant(&plan, true);
        }
        if !plan.add.is_empty() && !self.begun.database.stream_publish(true) {
            // Somebody withholds since it was made.
            self.plan_due = Instant::now();
            return Ok(());
        }
        let (steward, publication) = (
            Arc::clone(&self.begun.steward),
            Arc::clone(&self.begun.publication),
        );
        self.work = Some(Box::pin(async move {
            let altered = steward.alter(&publication, &plan).await;
            Done::Altered(plan, altered)
        }));
        Ok(())
    }

    /// Plans to publish anew what has passed its first barrier; what need not be published need not be renewed.
    fn renew(&mut self, plan: &mut Plan) {
        let (renew, done): (Vec<Oid>, Vec<Oid>) = self
            .state
            .stale()
            .partition(|table| plan.carried.get(table).is_some_and(Option::is_some));
        plan.renew(renew.into_iter());
        self.state.renewed(&done);
    }

    /// Takes out what has failed lately.
    fn leave_aside(&mut self, plan: &mut Plan) {
        let is_planned = |name: &str| {
            plan.add
                .iter()
                .chain(&plan.renew)
                .any(|(member, _)| member.name() == name)
        };
        self.aside.keep(is_planned);
        let now = Instant::now();
        for planned in [&mut plan.add, &mut plan.renew] {
            planned.retain(|(member, _)| !self.aside.holds(&member.name(), now));
        }
    }

    /// Whoever withholds goes on once a plan has emptied the publication. A table that cannot leave it, because somebody holds a lock
    /// on it, leaves with the publication as a whole, which takes no lock.
    fn grant(&mut self, plan: &Plan, succeeded: bool) -> Result<(), WhyNot> {
        if !self.begun.database.stream_is_withheld() || plan.has_wanted {
            return Ok(());
        }
        if !succeeded {
            return Err(WhyNot::Withheld);
        }
        self.begun.database.stream_publish(false);
        Ok(())
    }

    fn soon(&mut self) {
        self.snapshot_pause = SNAPSHOT_PAUSE;
        self.snapshot_due = Instant::now();
    }

    fn list(&mut self, plan: &Plan, kept: &[(String, String)]) {
        let refused = plan.refused.iter().map(|(name, why)| format!("{name} ({why})"));
        let failed = kept.iter().map(|(name, error)| (&**name, &**error));
        let failed = failed.chain(self.aside.iter());
        let failed = failed.map(|(name, error)| format!("{name} ({error})"));
        let listed: Vec<String> = refused.chain(failed).take(LISTED_MAX).collect();
        if self.not_carried != listed {
            tracing::info!(database = %self.begun.database.name, tables = ?listed, "not carried by the stream");
            self.not_carried = listed;
        }
    }

    fn show(&self) {
        let carried = self.state.carried().count();
        self.begun.board.show(Status {
            mode: Mode::Streaming,
            why_not: None,
            publication: Some(self.begun.publication.name().to_owned()),
            position: Some(self.state.position()),
            as_of: self.state.as_of(),
            carried,
            waiting: self.state.published().count() - carried,
            not_carried: self.not_carried.clone(),
            unseen: self.state.unseen(),
            bytes: self.before.bytes + self.begun.wire.received(),
            transactions: self.before.transactions + self.transactions,
            begun: self.before.begun + 1,
        });
    }
}

async fn answer(work: &mut Option<Work>) -> Done {
    match work {
        Some(work) => work.await,
        None => std::future::pending().await,
    }
}
