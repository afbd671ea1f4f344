//! A place beside a verdict, or a prepared statement, for which of a list of rules was found to match it.
//!
//! Written and read by whoever applies rules: matching again for each execution would cost more than all else that is decided for
//! it. Invariant: what was found under one version of the rules is not found under another. A copy begins empty. It knows no
//! rule, only its place in the list.

use std::sync::atomic::{AtomicU64, Ordering};

/// Bits of a place; the version has the others.
const PLACE_BITS: u32 = 16;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;

/// Nothing, or under a version of the rules: the place of the first one that matches, or that none does.
#[derive(Debug, Default)]
pub struct Remembered(AtomicU64);

impl Remembered {
    /// What was found under this version, which is not 0; `None`: nobody has looked.
    pub fn under(&self, version: u64) -> Option<Option<usize>> {
        let packed = self.0.load(Ordering::Relaxed);
        if packed >> PLACE_BITS != version {
            return None;
        }
        let place = usize::try_from(packed & PLACE_MASK).expect("sixteen bits");
        Some(place.checked_sub(1))
    }

    /// Keeps what was found. A place that has no room here is looked for each time.
    pub fn keep(&self, version: u64, found: Option<usize>) {
        let place = found.map_or(0, |at| at.saturating_add(1));
        if let Ok(place) = u16::try_from(place) {
            self.0
                .store((version << PLACE_BITS) | u64::from(place), Ordering::Relaxed);
        }
    }
}

impl Clone for Remembered {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_knows_nothing() {
        let remembered = Remembered::default();
        assert_eq!(remembered.under(1), None);
        remembered.keep(1, Some(0));
        assert_eq!(remembered.under(1), Some(Some(0)));
        assert_eq!(remembered.under(2), None);
        remembered.keep(2, None);
        assert_eq!(remembered.under(2), Some(None));
        assert_eq!(remembered.under(1), None);
        assert_eq!(remembered.clone().under(2), None);
    }

    #[test]
    fn a_place_without_room_is_not_mixed_up_with_another() {
        let remembered = Remembered::default();
        remembered.keep(1, Some(65_534));
        assert_eq!(remembered.under(1), Some(Some(65_534)));
        remembered.keep(1, Some(65_535));
        assert_eq!(remembered.under(1), Some(Some(65_534)), "as it was");
        remembered.keep(2, Some(usize::MAX));
        assert_eq!(remembered.under(2), None);
    }
}
