//! A snapshot of the primary, as `pg_current_snapshot()` shows it, and 32-bit transaction numbers made whole by it.
//!
//! Made by `steward`, read by `state`. Pure. Invariant: what is visible in a snapshot is visible in every later one of the same server.
//! Not to be used on a standby, whose snapshots call running transactions visible.

use std::str::FromStr;

/// Which transactions a statement sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// All below have ended.
    pub xmin: u64,
    /// None from here on has ended.
    pub xmax: u64,
    /// Between them, those that had not, sorted.
    running: Vec<u64>,
}

impl Snapshot {
    /// Is what this transaction committed visible?
    pub fn shows(&self, xid: u64) -> bool {
        xid < self.xmin || xid < self.xmax && self.running.binary_search(&xid).is_err()
    }

    /// The whole number of a transaction of which the stream tells the lower 32 bits: the one nearest to this snapshot. Two
    /// transactions 2^31 apart cannot both be of today.
    pub fn widen(&self, xid: u32) -> u64 {
        let low = self.xmax & u64::from(u32::MAX);
        let behind = low.wrapping_sub(u64::from(xid)) & u64::from(u32::MAX);
        if behind < 1 << 31 {
            self.xmax.saturating_sub(behind)
        } else {
            self.xmax + ((1 << 32) - behind)
        }
    }
}

/// The text is no snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a snapshot of the form 746:750:746,748")]
pub struct NotASnapshot;

impl FromStr for Snapshot {
    type Err = NotASnapshot;

    fn from_str(text: &str) -> Result<Self, NotASnapshot> {
        let number = |part: &str| part.parse::<u64>().map_err(|_| NotASnapshot);
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(NotASnapshot);
        let (xmin, xmax, list) = (number(part()?)?, number(part()?)?, part()?);
        let listed = list.split(',').filter(|xid| !xid.is_empty());
        let mut running = listed.map(number).collect::<Result<Vec<_>, _>>()?;
        running.sort_unstable();
        Ok(Self { xmin, xmax, running })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().expect("a snapshot")
    }

    #[test]
    fn what_ended_before_it_is_visible() {
        let snapshot = snapshot("742:746:742,745");
        let shown: Vec<u64> = (740..748).filter(|xid| snapshot.shows(*xid)).collect();
        assert_eq!(shown, [740, 741, 743, 744]);
    }

    #[test]
    fn a_snapshot_without_running_transactions_has_an_empty_list() {
        assert!(!snapshot("746:746:").shows(746));
        for text in ["", "1:2", "1:2:x", "a:2:", "1::"] {
            assert_eq!(text.parse::<Snapshot>(), Err(NotASnapshot), "{text}");
        }
    }

    #[test]
    fn a_number_is_widened_to_the_nearest() {
        let epoch = 3 << 32;
        let check = |xmax: u64, xid: u32, wanted: u64| {
            let snapshot = snapshot(&format!("{xmax}:{xmax}:"));
            assert_eq!(snapshot.widen(xid), wanted, "{xid} near {xmax}");
        };
        check(746, 745, 745);
        check(746, 800, 800);
        check(epoch + 5, 3, epoch + 3);
        check(epoch + 5, u32::MAX, epoch - 1);
        check(epoch - 2, 7, epoch + 7);
        check(epoch - 2, u32::MAX, epoch - 1);
    }
}
