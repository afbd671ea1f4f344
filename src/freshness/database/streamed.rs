//! What the stream tells a database, and what readers ask about it.
//!
//! Called by `stream` with each commit and each change of what it carries, and by the session before it looks into the cache. A
//! commit in the stream is to the clocks as a write of another session: entries end, fills wait, replicas have to replay it.
//! Invariant: what is called carried was read after the clocks were raised for it, as `coverage` says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Database;
use crate::catalog::verdict::Oid;
use crate::freshness::clocks::{Mark, Note, Scope};
use crate::freshness::coverage::Opened;
use crate::freshness::invalidations::Source;
use crate::freshness::withheld::{Withheld, Withholding};
use crate::protocol::lsn::Lsn;

/// A commit that was streamed and need not be visible yet; given back to `Database::stream_landed`, once.
#[derive(Debug)]
#[must_use = "a commit that never lands forbids its tables to the cache for ever"]
pub struct Streamed(Mark);

impl Database {
    /// A reader is about to fill the cache from these tables: a stream, where there is one, shall carry them.
    pub fn stream_want(&self, tables: &[Oid]) {
        self.coverage.want(tables);
    }

    /// Must an answer over these tables be bypassed, because the stream that carries them is too far behind?
    pub fn stream_is_late(&self, tables: &[Oid]) -> bool {
        self.coverage.is_late(tables.iter().copied(), Instant::now)
    }

    /// The same of the tables of a note.
    pub fn stream_is_late_for(&self, note: &Note) -> bool {
        self.coverage.is_late(note.tables(), Instant::now)
    }

    /// Does the stream tell of every write of the note's tables, also of those made past the proxy?
    pub fn stream_carries(&self, note: &Note) -> bool {
        self.coverage.carries(note.tables())
    }

    /// A stream is going to be tried: from now on readers may say what they want.
    pub fn stream_open(&self, opened: Opened) {
        self.coverage.open(opened);
    }

    /// All tables that readers wanted since the start.
    pub fn stream_wanted(&self) -> Vec<Oid> {
        self.coverage.wanted()
    }

    /// These tables are gone, and nobody can want them.
    pub fn stream_forget(&self, tables: &[Oid]) {
        self.coverage.forget(tables);
    }

    /// Waits until readers want more, or the catalog changed. Cancel safe.
    pub async fn stream_news(&self) {
        self.coverage.news().await;
    }

    /// Wakes who waits for news.
    pub(in crate::freshness) fn stream_tell(&self) {
        self.coverage.tell();
    }

    /// Is a stream tried at all?
    pub fn stream_is_open(&self) -> bool {
        self.coverage.is_open()
    }

    /// Nothing shall be published while the guard lives, once it is granted.
    pub fn stream_withhold(self: &Arc<Self>) -> Withheld {
        Withheld::new(Arc::clone(self))
    }

    /// Must nothing be published now?
    pub fn stream_is_withheld(&self) -> bool {
        self.withholding.is_asked()
    }

    /// Tables are about to be published (`true`), or none is any more. False is returned when they must not be.
    pub fn stream_publish(&self, published: bool) -> bool {
        self.withholding.publish(published)
    }

    pub(in crate::freshness) fn withholding(&self) -> &Withholding {
        &self.withholding
    }

    /// The stream of this era has shown a commit of these tables, which ends at `end` and may not be visible yet.
    pub fn stream_commit(&self, era: u64, tables: &[Oid], end: Lsn) -> Streamed {
        let now = self.ticks.raise();
        let mut clocks = self.clocks.lock();
        let mark = clocks.witness_unseen(era, tables, end, now);
        self.note_raise(&clocks, &Scope::Tables(tables.into()), Source::Stream);
        Streamed(mark)
    }

    /// Every read on the primary that begins now shows that commit.
    pub fn stream_landed(&self, streamed: Streamed) {
        self.clocks.lock().land(streamed.0);
    }

    /// The stream has come to carry these tables, besides those in `all`: what was read of them before does not count.
    pub fn stream_carry(&self, new: &[Oid], all: BTreeSet<Oid>) {
        self.stream_raise(new);
        self.coverage.carry(all);
    }

    /// The stream does not carry these tables any more, only those in `rest`.
    pub fn stream_withdraw(&self, gone: &[Oid], rest: BTreeSet<Oid>) {
        self.stream_raise(gone);
        self.coverage.carry(rest);
    }

    /// The stream is current as of this moment, which is good for so long.
    pub fn stream_current(&self, as_of: Instant, bound: Duration) {
        self.coverage.current(as_of, bound);
    }

    /// The stream has ended: what was carried has been written by nobody knows whom since.
    pub fn stream_end(&self, carried: &[Oid], unseen: Vec<Streamed>) {
        self.stream_raise(carried);
        self.coverage.end();
        let mut clocks = self.clocks.lock();
        for streamed in unseen {
            clocks.land(streamed.0);
        }
    }

    fn stream_raise(&self, tables: &[Oid]) {
        let now = self.ticks.raise();
        let scope = Scope::Tables(tables.into());
        let mut clocks = self.clocks.lock();
        clocks.acknowledge(&scope, now);
        self.note_raise(&clocks, &scope, Source::Restart);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::freshness::database::Currency;
    use crate::freshness::guards::Guards;

    fn database() -> Database {
        let names = (std::sync::Arc::default(), std::sync::Arc::default());
        Database::new("shop".into(), 1, names.0, names.1, Guards::default())
    }

    #[test]
    fn a_streamed_commit_ends_entries_and_forbids_fills_until_it_is_visible() {
        let database = database();
        let before = database.begin(&[7]);
        let streamed = database.stream_commit(1, &[7], Lsn(5));
        assert_eq!(database.is_current(&before.note), Currency::Outdated);
        assert!(database.begin(&[7]).in_flight);
        database.stream_landed(streamed);
        assert!(!database.begin(&[7]).in_flight);
    }

    #[test]
    fn what_was_read_before_a_table_was_carried_or_after_it_ceased_to_be_is_outdated() {
        let database = database();
        let before = database.begin(&[7]).note;
        database.stream_carry(&[7], BTreeSet::from([7]));
        assert_eq!(database.is_current(&before), Currency::Outdated);
        let carried = database.begin(&[7]).note;
        assert!(database.stream_carries(&carried) && database.stream_is_late_for(&carried));
        database.stream_current(Instant::now(), Duration::from_secs(60));
        assert!(!database.stream_is_late_for(&carried));
        let streamed = database.stream_commit(1, &[7], Lsn(5));
        let last = database.begin(&[7]).note;
        database.stream_end(&[7], vec![streamed]);
        assert_eq!(database.is_current(&last), Currency::Outdated);
        assert!(!database.begin(&[7]).in_flight && !database.stream_is_late(&[7]));
        let withdrawn = database.begin(&[7]).note;
        database.stream_withdraw(&[7], BTreeSet::new());
        assert_eq!(database.is_current(&withdrawn), Currency::Outdated);
    }
}
