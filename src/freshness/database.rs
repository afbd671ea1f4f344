//! One database as the sessions see it: its clocks behind one lock, its catalog, and the verdicts made under that.
//!
//! Called by every session of the database around each statement. Invariants: a verdict is made under the current generation
//! or without a catalog at all; after a commit that may have changed the catalog, none is used until the catalog has been read
//! or its fingerprint compared anew. It opens no connection: `catalogs` does.

mod bounded;
mod streamed;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::clocks::{Clocks, Mark, Note, Scope, Shown};
use super::coverage::{Coverage, Required};
use super::fence::Fence;
use super::guards::Guards;
use super::invalidations::{Invalidations, Source};
use super::raises::Raises;
use super::withheld::Withholding;
use crate::catalog::verdict::{Oid, ReadSet, Verdict, WriteSet};
use crate::catalog::{Allowed, Catalog, QualifiedName, Subject, Verdicts, judge_without_catalog};
use crate::cluster::Ticks;
use crate::protocol::lsn::Lsn;
use crate::sql::analyze;
use crate::sql::statement::{Hints, Kind, Script, Statement};

pub use super::clocks::{Begun, Currency};
pub use streamed::Streamed;

/// Bytes that the verdicts of one database may take.
const VERDICT_BYTES_MAX: usize = 32 << 20;

/// The shared state of one database.
#[derive(Debug)]
pub struct Database {
    /// Its name.
    pub name: Arc<str>,
    clocks: Mutex<Clocks>,
    /// Locked only under the clocks' lock.
    raises: Mutex<Raises>,
    invalidations: Mutex<Invalidations>,
    made_at: Instant,
    coverage: Coverage,
    withholding: Withholding,
    ticks: Arc<Ticks>,
    allowed: ArcSwap<Allowed>,
    guards: Guards,
    /// The generation that a catalog must have to be used.
    generation: AtomicU64,
    /// The latest event after which the catalog may have changed ...
    doubted: AtomicU64,
    /// ... and the latest one that a load or a fingerprint taken afterwards has covered.
    verified: AtomicU64,
    /// Catalog changes that were sent and not yet acknowledged.
    changing: AtomicU64,
    /// Writes on their way whose tables were not known for lack of a catalog.
    nameless: AtomicU64,
    catalog: ArcSwapOption<Catalog>,
    verdicts: Verdicts,
    pub(super) reload: Notify,
    /// A load or a comparison has ended, well or not.
    loaded: Notify,
    problem: Mutex<Option<String>>,
    checked_at: Mutex<Option<Instant>>,
}

impl Database {
    pub(super) fn new(
        name: Arc<str>,
        era: u64,
        ticks: Arc<Ticks>,
        allowed: Arc<Allowed>,
        guards: Guards,
    ) -> Self {
        let now = ticks.raise();
        Self {
            name,
            clocks: Mutex::new(Clocks::new(era, now).under(guards)),
            raises: Mutex::default(),
            invalidations: Mutex::default(),
            made_at: Instant::now(),
            coverage: Coverage::default(),
            withholding: Withholding::default(),
            ticks,
            allowed: ArcSwap::new(allowed),
            guards,
            generation: AtomicU64::new(1),
            doubted: AtomicU64::new(0),
            verified: AtomicU64::new(0),
            changing: AtomicU64::new(0),
            nameless: AtomicU64::new(0),
            catalog: ArcSwapOption::empty(),
            verdicts: Verdicts::new(VERDICT_BYTES_MAX),
            reload: Notify::new(),
            loaded: Notify::new(),
            problem: Mutex::new(None),
            checked_at: Mutex::new(None),
        }
    }

    /// The verdict on a text under a search path, for who came when `as_of` was the latest doubt. It is kept under the subject,
    /// which is the text itself, or what it shares with others of the same facts.
    pub fn verdict(&self, subject: &Subject, sql: &[u8], as_of: u64) -> Arc<Verdict> {
        let known = self.verdicts.find(subject);
        let catalog = self.catalog(as_of);
        if let (Some(verdict), Some(catalog)) = (&known, &catalog)
            && verdict.generation == catalog.generation
        {
            return Arc::clone(verdict);
        }
        let script = known.map_or_else(|| read(sql), |verdict| Arc::clone(&verdict.script));
        let Some(catalog) = catalog else {
            return Arc::new(judge_without_catalog(script));
        };
        let path = crate::catalog::Path {
            schemas: subject.path.split('\0').map(Into::into).collect(),
        };
        let verdict = Arc::new(catalog.judge(script, &path, &self.allowed.load()));
        self.verdicts.insert(subject.clone(), Arc::clone(&verdict));
        verdict
    }

    /// Is the verdict still the one that `verdict` would give, for who came when `as_of` was the latest doubt?
    pub fn holds(&self, verdict: &Verdict, as_of: u64) -> bool {
        let of_this_catalog = |catalog: &Catalog| catalog.generation == verdict.generation;
        verdict.generation == self.generation()
            && self.is_verified(as_of)
            && self.catalog.load().as_deref().is_some_and(of_this_catalog)
    }

    /// The verdict on a text that cannot be read: it may do anything.
    pub fn unread() -> Arc<Verdict> {
        Arc::new(judge_without_catalog(unread()))
    }

    /// The catalog, if it is known to have held when `as_of` was the latest doubt, or later. Whoever came then needs to know of
    /// nothing that was acknowledged since.
    pub fn catalog(&self, as_of: u64) -> Option<Arc<Catalog>> {
        let catalog = self.catalog.load_full()?;
        let holds = catalog.generation == self.generation() && self.is_verified(as_of);
        holds.then_some(catalog)
    }

    /// The names of the tables that a verdict reads, and whether they are of its own generation, so that they hold as long as it.
    pub fn names_of(&self, verdict: &Verdict) -> (Vec<QualifiedName>, bool) {
        let ReadSet::Tables(tables) = &verdict.reads else {
            return (Vec::new(), true);
        };
        let Some(catalog) = self.latest_catalog() else {
            return (Vec::new(), tables.is_empty());
        };
        let names = tables.iter().filter_map(|oid| catalog.table_name(*oid));
        (names.cloned().collect(), catalog.generation == verdict.generation)
    }

    /// The latest event after which the catalog may have changed.
    pub fn doubts(&self) -> u64 {
        self.doubted.load(Ordering::SeqCst)
    }

    /// Has the catalog been read, or its fingerprint compared, since this doubt arose?
    pub fn is_verified(&self, doubts: u64) -> bool {
        self.verified.load(Ordering::SeqCst) >= doubts
    }

    /// Waits until it has been. Cancel safe.
    pub async fn verified(&self, doubts: u64) {
        loop {
            let loaded = self.loaded.notified();
            if self.is_verified(doubts) {
                return;
            }
            loaded.await;
        }
    }

    /// Waits for a catalog that may be used for who came when `as_of` was the latest doubt; false when reading it failed. Cancel
    /// safe.
    pub async fn known(&self, as_of: u64) -> bool {
        loop {
            let loaded = self.loaded.notified();
            if self.catalog(as_of).is_some() {
                return true;
            }
            if self.problem.lock().is_some() {
                return false;
            }
            loaded.await;
        }
    }

    /// Waits for the first load of the catalog to end, well or not. Cancel safe.
    pub async fn first_load(&self) {
        let loaded = self.loaded.notified();
        if self.catalog.load().is_none() && self.problem.lock().is_none() {
            loaded.await;
        }
    }

    /// The current generation of the catalog.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Why there is no catalog, where loading it failed.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// When the catalog was last read, or found unchanged; `None`: never.
    pub fn checked_at(&self) -> Option<Instant> {
        *self.checked_at.lock()
    }

    /// Notes all that a read of these tables must know, before it is sent.
    pub fn begin(&self, tables: &[Oid]) -> Begun {
        let clocks = self.clocks.lock();
        let past_the_proxy = match self.coverage.required(tables, clocks.era(), Instant::now) {
            Required::Nothing => Fence::OPEN,
            Required::At(lsn) => Fence::At(lsn),
            Required::Unknown => Fence::Pending(self.ticks.now()),
        };
        let mut begun = clocks.begin(tables, past_the_proxy);
        begun.known_in_flight |= self.nameless.load(Ordering::SeqCst) > 0;
        begun
    }

    /// No write of the note's tables was acknowledged since it was taken, and none that is known is on its way.
    pub fn is_current(&self, note: &Note) -> Currency {
        let currency = self.clocks.lock().currency(note);
        if currency == Currency::Current && self.nameless.load(Ordering::SeqCst) > 0 {
            Currency::InFlight
        } else {
            currency
        }
    }

    /// May an answer that was read under the note be stored, or shared with one who comes now?
    pub fn may_share(&self, note: &Note) -> bool {
        self.clocks.lock().may_share(note)
    }

    /// Is a flight shared only by readers who miss nothing by that?
    pub fn guards_flights(&self) -> bool {
        self.guards.join
    }

    /// The guards that are on.
    #[doc(hidden)]
    pub fn guards(&self) -> Guards {
        self.guards
    }

    /// A statement that can commit these writes is about to be sent.
    pub fn announce(&self, writes: &Writes) -> Announced {
        let catalog = self.guards.in_flight && writes.catalog.is_some();
        if catalog {
            self.changing.fetch_add(1, Ordering::SeqCst);
        }
        let nameless = self.guards.in_flight && writes.nameless;
        if nameless {
            self.nameless.fetch_add(1, Ordering::SeqCst);
        }
        Announced {
            mark: self.clocks.lock().announce(writes.scope.clone()),
            catalog,
            nameless,
        }
    }

    /// These writes may have been committed. To be called before anything that acknowledges them is forwarded.
    pub fn acknowledge(&self, writes: &Writes) {
        if writes.catalog.is_some() {
            self.change_catalog();
        } else if writes.hides_code {
            self.doubt_catalog();
        } else if writes.scope == Scope::Everything {
            self.reload.notify_one();
        }
        let now = self.ticks.raise();
        let mut clocks = self.clocks.lock();
        clocks.acknowledge(&writes.scope, now);
        let source = writes.catalog.map_or(Source::Write, |_| Source::Schema);
        self.note_raise(&clocks, &writes.scope, source);
    }

    /// The clocks as they stand: the floor, and so many of the tables.
    pub fn clocks(&self, most: usize) -> Vec<Shown> {
        self.clocks.lock().shown(most)
    }

    /// What was announced is over: its unit ended, or its server process is gone.
    pub fn land(&self, announced: Announced) {
        if announced.catalog {
            self.changing.fetch_sub(1, Ordering::SeqCst);
        }
        if announced.nameless {
            self.nameless.fetch_sub(1, Ordering::SeqCst);
        }
        self.clocks.lock().land(announced.mark);
    }

    /// A change of the catalog is on its way: a replica may show names in a new meaning, whose tables are not known here.
    pub fn catalog_is_changing(&self) -> bool {
        self.changing.load(Ordering::SeqCst) > 0
    }

    /// The catalog changed: whatever was made under its generation is void.
    pub fn change_catalog(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.reload.notify_one();
        self.coverage.tell();
    }

    /// The catalog may have changed, by what nobody who is served can have seen yet: it is compared soon, and used meanwhile.
    pub fn compare_catalog(&self) {
        self.reload.notify_one();
    }

    /// The catalog may have changed: it is not used until its fingerprint has been compared.
    pub fn doubt_catalog(&self) {
        self.doubted.fetch_add(1, Ordering::SeqCst);
        self.reload.notify_one();
    }

    /// Other functions are declared safe: verdicts under the present generation are void, those of the next one know them.
    pub(super) fn allow(&self, allowed: Arc<Allowed>) {
        self.allowed.store(allowed);
        self.change_catalog();
    }

    pub(super) fn begin_era(&self, era: u64) {
        let now = self.ticks.raise();
        {
            let mut clocks = self.clocks.lock();
            clocks.begin_era(era, now);
            self.note_raise(&clocks, &Scope::Everything, Source::Restart);
        }
        self.change_catalog();
    }

    pub(super) fn settle(&self, era: u64, covers: u64, lsn: Lsn) {
        self.clocks.lock().settle(era, covers, lsn);
    }

    /// A load or a fingerprint that began when `doubts` was read has shown the catalog to hold.
    pub(super) fn verify(&self, doubts: u64) {
        *self.problem.lock() = None;
        self.verified.fetch_max(doubts, Ordering::SeqCst);
        *self.checked_at.lock() = Some(Instant::now());
        self.loaded.notify_waiters();
    }

    pub(super) fn install(&self, catalog: Catalog) {
        self.catalog.store(Some(Arc::new(catalog)));
        self.loaded.notify_waiters();
    }

    /// The catalog as it was last read, whether it still holds or not.
    pub fn latest_catalog(&self) -> Option<Arc<Catalog>> {
        self.catalog.load_full()
    }

    pub(super) fn complain(&self, problem: String) {
        *self.problem.lock() = Some(problem);
        self.loaded.notify_waiters();
    }
}

/// What a statement or a transaction may change when it commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Writes {
    scope: Scope,
    /// The catalog changes; `true` where it does in all databases.
    catalog: Option<bool>,
    /// It runs code that nobody can see, which may also change the catalog.
    hides_code: bool,
    /// It writes rows of tables that were not known, because there was no catalog.
    nameless: bool,
}

impl Writes {
    /// Of a write set; `None` where nothing can change.
    pub fn of(set: &WriteSet) -> Option<Self> {
        let catalog = match set {
            WriteSet::Catalog { global } => Some(*global),
            _ => None,
        };
        Scope::of(set).map(|scope| Self {
            scope,
            catalog,
            hides_code: matches!(set, WriteSet::Unknown(_)),
            nameless: false,
        })
    }

    /// The same of a text that calls nothing unknown, and only names what the catalog, as far as it is there, does not hold. A
    /// trigger might still change the catalog: it is compared soon, but used meanwhile. If every such text forbade its use, the
    /// texts that come without a catalog for that very reason would keep it away for ever.
    #[must_use]
    pub fn of_unknown_names(self) -> Self {
        Self {
            hides_code: false,
            ..self
        }
    }

    /// The same of a text that came without a catalog: while it is on its way, it counts as a known write of every table.
    #[must_use]
    pub fn without_names(self) -> Self {
        Self {
            nameless: true,
            ..self.of_unknown_names()
        }
    }

    /// Is the catalog among it for certain?
    pub fn change_catalog(&self) -> bool {
        self.catalog.is_some()
    }

    /// Does it run code that nobody can see?
    pub fn hide_code(&self) -> bool {
        self.hides_code
    }

    /// The same over all tables.
    #[must_use]
    pub fn widened(self) -> Self {
        Self {
            scope: Scope::Everything,
            ..self
        }
    }

    /// Anything at all.
    pub fn everything() -> Self {
        Self {
            scope: Scope::Everything,
            catalog: None,
            hides_code: true,
            nameless: false,
        }
    }

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            scope: self.scope.union(other.scope),
            catalog: self.catalog.max(other.catalog),
            hides_code: self.hides_code || other.hides_code,
            nameless: self.nameless || other.nameless,
        }
    }

    /// The tables, or `None` for anything.
    pub fn tables(&self) -> Option<&[Oid]> {
        match &self.scope {
            Scope::Tables(tables) => Some(tables),
            Scope::Everything => None,
        }
    }

    /// Anything may change, and it cannot be told what.
    pub fn is_unknown(&self) -> bool {
        self.scope == Scope::Everything && self.catalog.is_none()
    }

    /// Do objects of all databases change?
    pub fn is_global(&self) -> bool {
        self.catalog == Some(true)
    }
}

/// Proof of an announcement; given back to `Database::land`, once.
#[derive(Debug)]
#[must_use = "a commit that never lands forbids its tables to the cache for ever"]
pub struct Announced {
    mark: Mark,
    catalog: bool,
    nameless: bool,
}

/// The facts of a text; of one that is too long or not UTF-8, that nothing is known of it.
fn read(sql: &[u8]) -> Arc<Script> {
    analyze(sql).map_or_else(|_| unread(), Arc::new)
}

fn unread() -> Arc<Script> {
    let statement = Statement {
        kind: Kind::Other("".into()),
        reads: Vec::new(),
        writes: Vec::new(),
        calls: Vec::new(),
        types: Vec::new(),
        operators: Vec::new(),
        aggregates: false,
        doubts: Vec::new(),
        time_columns: Vec::new(),
    };
    Arc::new(Script {
        statements: vec![statement],
        hints: Hints::default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Database {
        Database::new(
            "shop".into(),
            1,
            Arc::default(),
            Arc::default(),
            Guards::default(),
        )
    }

    #[test]
    fn a_problem_is_over_when_the_catalog_was_found_to_hold() {
        let database = database();
        database.complain("too many clients".to_owned());
        assert_eq!(database.problem().as_deref(), Some("too many clients"));
        database.verify(database.doubts());
        assert_eq!(database.problem(), None);
    }

    #[test]
    fn writes_together_are_as_wide_as_the_widest() {
        let of = |set: WriteSet| Writes::of(&set).expect("writes");
        let rows = of(WriteSet::Tables([3].into()));
        let more = of(WriteSet::Tables([1, 3].into()));
        let ddl = of(WriteSet::Catalog { global: false });
        let roles = of(WriteSet::Catalog { global: true });
        assert_eq!(rows.clone().and(more).tables(), Some(&[1, 3][..]));
        assert_eq!(rows.clone().and(Writes::everything()).tables(), None);
        assert!(ddl.clone().and(roles).is_global());
        assert!(!rows.and(ddl).is_global());
        assert_eq!(Writes::of(&WriteSet::None), None);
    }

    #[test]
    fn a_note_falls_with_the_acknowledgement_and_a_flight_forbids_sharing() {
        let database = database();
        let writes = Writes::of(&WriteSet::Tables([7].into())).expect("writes");
        let begun = database.begin(&[7]);
        assert_eq!(database.is_current(&begun.note), Currency::Current);
        let announced = database.announce(&writes);
        assert_eq!(database.is_current(&begun.note), Currency::InFlight);
        assert!(!database.may_share(&begun.note));
        assert!(database.begin(&[7]).in_flight);
        database.acknowledge(&writes);
        database.land(announced);
        assert_eq!(database.is_current(&begun.note), Currency::Outdated);
        assert!(database.may_share(&database.begin(&[7]).note));
    }

    #[test]
    fn a_catalog_change_is_changing_until_it_lands_and_moves_the_generation_when_acknowledged() {
        let database = database();
        let ddl = Writes::of(&WriteSet::Catalog { global: false }).expect("writes");
        let before = database.generation();
        let announced = database.announce(&ddl);
        assert!(database.catalog_is_changing());
        assert_eq!(database.generation(), before);
        database.acknowledge(&ddl);
        assert!(database.generation() > before);
        database.land(announced);
        assert!(!database.catalog_is_changing());
    }

    #[test]
    fn without_a_catalog_nothing_is_shared_or_sent_to_a_replica_that_reads_a_table() {
        let database = database();
        let subject = Subject {
            path: "public".into(),
            sql: bytes::Bytes::from_static(b"select count(*) from deals"),
        };
        let verdict = database.verdict(&subject, &subject.sql, database.doubts());
        assert!(verdict.replica.is_err());
        assert!(verdict.cache.is_err());
    }

    #[test]
    fn a_text_too_long_to_read_may_write_anything() {
        let database = database();
        let subject = Subject {
            path: "public".into(),
            sql: vec![b' '; 40_000].into(),
        };
        let verdict = database.verdict(&subject, &subject.sql, database.doubts());
        assert!(matches!(verdict.writes, WriteSet::Unknown(_)));
    }
}
