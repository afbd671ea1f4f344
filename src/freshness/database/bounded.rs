//! How far an answer may lag behind the writes that it misses.
//!
//! Called by `database` whenever clocks are raised, and by the session for reads whose level lets them miss what is young.
//! Invariant: clocks and the moments of their raises change under one lock, so that nobody finds an answer outdated since no time.

use std::time::Instant;

use super::{Begun, Database};
use crate::catalog::verdict::Oid;
use crate::freshness::clocks::{Clocks, Note, Scope};
use crate::freshness::fence::Fence;
use crate::freshness::invalidations::{Invalidated, Source};
use crate::protocol::lsn::Lsn;

impl Database {
    /// Since when the answer that was read under the note has missed a write, or since an earlier moment; `None`: it misses none
    /// that was acknowledged.
    pub fn missed_since(&self, note: &Note) -> Option<Instant> {
        let clocks = self.clocks.lock();
        if clocks.is_current(note) {
            return None;
        }
        Some(self.raises.lock().first_after(note).unwrap_or(self.made_at))
    }

    /// As `begin`, for a read that may miss what was written after a moment: in this era, everything before it lies below this
    /// position. What a change of the catalog, or a write that may be one, requires of replicas is not loosened.
    pub fn begin_as_of(&self, tables: &[Oid], era: u64, written: Lsn) -> Begun {
        let mut begun = self.begin(tables);
        if begun.era == era {
            let clocks = self.clocks.lock();
            if clocks.era() == era {
                begun.fence = begun.fence.min(Fence::At(written).max(clocks.fence(&[])));
                begun.known_in_flight = false;
            }
        }
        begun
    }

    /// Notes that clocks were raised, and by what; their lock is held.
    pub(super) fn note_raise(&self, clocks: &Clocks, scope: &Scope, source: Source) {
        self.raises.lock().raised(scope, clocks.latest(), Instant::now());
        self.invalidations.lock().count(scope, source);
    }

    /// How often entries were made untrue, by table and source.
    pub fn invalidations(&self) -> Vec<(Invalidated, Source, u64)> {
        self.invalidations.lock().all()
    }
}
