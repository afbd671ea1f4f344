//! Tables that could not be published, and when each is tried again.
//!
//! Kept by `running`. Publishing waits for a lock that VACUUM or CREATE INDEX CONCURRENTLY may hold for hours, and the control
//! connection can do nothing else meanwhile. Invariant: a table that failed is left alone for a pause, which doubles while it goes
//! on failing. Pure: time is the caller's. What must leave the publication is never set aside.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// By name.
#[derive(Debug, Default)]
pub(super) struct Aside(BTreeMap<String, Failed>);

#[derive(Debug)]
struct Failed {
    why: String,
    until: Instant,
    pause: Duration,
}

impl Aside {
    /// Is this table to be left alone at `now`?
    pub fn holds(&self, name: &str, now: Instant) -> bool {
        self.0.get(name).is_some_and(|failed| failed.until > now)
    }

    /// It has failed at `now`.
    pub fn failed(&mut self, name: String, why: String, now: Instant) {
        let before = self.0.get(&name).map(|failed| failed.pause);
        let pause = before.map_or(PAUSE, |pause| (pause * 2).min(PAUSE_MAX));
        let until = now + pause;
        self.0.insert(name, Failed { why, until, pause });
    }

    /// Forgets all others than these: they have succeeded, or nobody wants them any more.
    pub fn keep(&mut self, is_left: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| is_left(name));
    }

    /// Their names, and what went wrong.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, failed)| (&**name, &*failed.why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_is_left_alone_for_ever_longer_until_it_succeeds() {
        let (mut aside, start) = (Aside::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let fail =
            |aside: &mut Aside, seconds| aside.failed("t".to_owned(), "locked".to_owned(), at(seconds));
        assert!(!aside.holds("t", at(0)));
        fail(&mut aside, 0);
        assert!(aside.holds("t", at(0)) && !aside.holds("t", at(1)) && !aside.holds("other", at(0)));
        fail(&mut aside, 1);
        assert!(aside.holds("t", at(2)) && !aside.holds("t", at(3)));
        for _ in 0..9 {
            fail(&mut aside, 3);
        }
        assert!(aside.holds("t", at(62)) && !aside.holds("t", at(63)));
        assert!(aside.iter().eq([("t", "locked")]));
        aside.keep(|name| name != "t");
        fail(&mut aside, 70);
        assert!(!aside.holds("t", at(71)), "it begins anew");
    }
}
