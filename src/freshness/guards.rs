//! Switches with which a test takes one guard of freshness away, to see that the checker finds what it guards against.
//!
//! Handed down by `serve::serve_with_guards` alone; every other way to serve has all of them on. Consulted where the decision is:
//! by `database`, and by the session before it shares a flight. Invariant: nothing in a configuration reaches them.

/// The guards that are on.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Guards {
    /// Off: an entry counts as current whatever was written, and may be stored.
    pub epochs: bool,
    /// Off: a commit on its way is not announced.
    pub in_flight: bool,
    /// Off: every replica may serve every table.
    pub fences: bool,
    /// Off: a flight is shared whatever was written since it began.
    pub join: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self {
            epochs: true,
            in_flight: true,
            fences: true,
            join: true,
        }
    }
}
