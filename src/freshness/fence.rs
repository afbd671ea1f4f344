//! Fences: how far a replica must have replayed before it may serve a table again.
//!
//! Made by `clocks` when a write is acknowledged, settled by a probe of the primary that was sent afterwards. Invariant: a
//! fence is never lower than the end of the newest acknowledged write that it stands for; while that position is not
//! known, no replica passes it.

use crate::protocol::lsn::Lsn;

/// A point in the proxy's own order of events, from one process-wide counter. A probe that was sent after tick `t`
/// covers every event whose tick is at most `t`.
pub type Tick = u64;

/// What a replica must have replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fence {
    /// At least this position, on the primary's timeline.
    At(Lsn),
    /// A position not known yet, at or after the event of this tick. Greater than every known one.
    Pending(Tick),
}

impl Fence {
    /// The fence that any replica on the primary's timeline passes.
    pub const OPEN: Self = Self::At(Lsn(0));

    /// May a server connection whose node is known to have replayed up to `replayed` serve behind this fence?
    pub fn admits(self, replayed: Lsn) -> bool {
        match self {
            Self::At(lsn) => replayed >= lsn,
            Self::Pending(_) => false,
        }
    }

    /// This fence after a probe that was sent when the counter stood at `covers` returned `lsn`.
    #[must_use]
    pub fn settled(self, covers: Tick, lsn: Lsn) -> Self {
        match self {
            Self::Pending(raised) if raised <= covers => Self::At(lsn),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_passes_a_position_that_is_not_known() {
        assert!(!Fence::Pending(1).admits(Lsn(u64::MAX)));
        assert!(Fence::At(Lsn(5)).admits(Lsn(5)));
        assert!(!Fence::At(Lsn(5)).admits(Lsn(4)));
        assert!(Fence::OPEN.admits(Lsn(0)));
    }

    #[test]
    fn only_a_probe_sent_afterwards_settles_it() {
        assert_eq!(Fence::Pending(7).settled(6, Lsn(9)), Fence::Pending(7));
        assert_eq!(Fence::Pending(7).settled(7, Lsn(9)), Fence::At(Lsn(9)));
        assert_eq!(Fence::At(Lsn(3)).settled(7, Lsn(9)), Fence::At(Lsn(3)));
    }

    #[test]
    fn the_stricter_of_two_is_the_greater() {
        assert!(Fence::Pending(0) > Fence::At(Lsn(u64::MAX)));
        assert!(Fence::At(Lsn(2)) > Fence::At(Lsn(1)));
        assert!(Fence::Pending(2) > Fence::Pending(1));
    }
}
