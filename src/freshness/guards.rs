//! Switches with which a test takes one guard of freshness away, to see that the checker, or the model, finds what it guards against.
//!
//! Handed down by `serve::serve_with_guards` alone; every other way to serve has all of them on. Consulted where the decision is:
//! by `clocks`, by the stream's state, and by the session when a unit ends and before it shares a flight. Invariant: nothing in a
//! configuration reaches them.

/// The guards that are on.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(clippy::struct_excessive_bools, reason = "each is switched alone")]
pub struct Guards {
    /// Off: an entry counts as current whatever was written, and may be stored.
    pub epochs: bool,
    /// Off: a commit on its way is not announced.
    pub in_flight: bool,
    /// Off: every replica may serve every table.
    pub fences: bool,
    /// Off: a flight is shared whatever was written since it began.
    pub join: bool,
    /// Off: clocks that were raised when a statement completed are not raised again when its unit has ended.
    pub ready: bool,
    /// Off: what was acknowledged before the primary changed requires nothing of replicas.
    pub eras: bool,
    /// Off: a read on the primary is held to show whatever its log holds.
    pub visibility: bool,
    /// Off: a table counts as carried as soon as it is published.
    pub barrier: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            epochs: true,
            in_flight: true,
            fences: true,
            join: true,
            ready: true,
            eras: true,
            visibility: true,
            barrier: true,
        }
    }
}
