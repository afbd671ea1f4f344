//! Who is connected, and what each one is doing: the source of `SHOW CLIENTS`.
//!
//! A session enters when its login is done and leaves when its place is dropped; in between it only stores to atomics of its own,
//! so that a unit costs no lock. Invariant: a place is listed exactly as long as its session lives. A reader sees each value as it
//! is, and not all of them at one moment.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant, SystemTime};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use super::client::Peer;
use super::last::ServedBy;
use crate::protocol::backend::Status;
use crate::route::Pin;

/// What a client is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activity {
    /// Nothing, outside of a transaction block.
    Idle,
    /// It has sent something that is being answered.
    Active,
    /// As active, but it waits: for a server connection, for a primary, or for another client's execution.
    Waiting,
    /// Nothing, in a transaction block.
    InTransaction,
    /// Nothing, in a transaction block that has failed.
    InFailedTransaction,
}

const ACTIVITIES: [Activity; 5] = [
    Activity::Idle,
    Activity::Active,
    Activity::Waiting,
    Activity::InTransaction,
    Activity::InFailedTransaction,
];
const PINS: [Pin; 6] = [
    Pin::Listens,
    Pin::Temporary,
    Pin::AdvisoryLock,
    Pin::HeldCursor,
    Pin::SqlPrepare,
    Pin::UnknownState,
];
const SERVED: [ServedBy; 4] = [
    ServedBy::Cache,
    ServedBy::Replica,
    ServedBy::Primary,
    ServedBy::Proxy,
];
/// No pin, no unit.
const NONE: u8 = u8::MAX;

/// Who a client is.
#[derive(Debug, Clone)]
pub struct Who {
    /// The process number that its BackendKeyData named.
    pub process: i32,
    /// The role that it logged in as.
    pub user: Arc<str>,
    /// Its database.
    pub database: Arc<str>,
    /// Where it connects from.
    pub peer: Peer,
}

/// One client's line.
#[derive(Debug)]
pub struct Presence {
    /// Who it is.
    pub who: Who,
    /// When its session began.
    pub since: SystemTime,
    began: Instant,
    activity: AtomicU8,
    pin: AtomicU8,
    /// Microseconds from `began` to the beginning of the unit in work.
    unit_at_us: AtomicU64,
    /// Who has answered the unit in work.
    unit_by: AtomicU8,
    served: [AtomicU64; SERVED.len()],
    /// Wakes the session when all are to end.
    waker: AtomicWaker,
}

impl Presence {
    fn new(who: Who) -> Self {
        Self {
            who,
            since: SystemTime::now(),
            began: Instant::now(),
            activity: AtomicU8::new(Activity::Idle as u8),
            pin: AtomicU8::new(NONE),
            unit_at_us: AtomicU64::new(0),
            unit_by: AtomicU8::new(NONE),
            served: Default::default(),
            waker: AtomicWaker::new(),
        }
    }

    /// A unit begins.
    pub fn begin_unit(&self, now: Instant) {
        self.unit_at_us.store(self.age_us(now), Ordering::Relaxed);
        self.unit_by.store(ServedBy::Proxy as u8, Ordering::Relaxed);
        self.activity.store(Activity::Active as u8, Ordering::Relaxed);
    }

    /// The unit in work is being answered by this one.
    pub fn answered_by(&self, by: ServedBy) {
        self.unit_by.store(by as u8, Ordering::Relaxed);
    }

    /// The unit in work waits, or goes on.
    pub fn wait(&self, waits: bool) {
        let activity = if waits {
            Activity::Waiting
        } else {
            Activity::Active
        };
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// The unit in work is answered: who did it, and how long it took.
    pub fn end_unit(&self, status: Status, pin: Option<Pin>) -> (ServedBy, Duration) {
        let activity = match status {
            Status::Idle => Activity::Idle,
            Status::InTransaction => Activity::InTransaction,
            Status::Failed => Activity::InFailedTransaction,
        };
        let took_us = self
            .age_us(Instant::now())
            .saturating_sub(self.unit_at_us.load(Ordering::Relaxed));
        let by = self.unit_by.swap(NONE, Ordering::Relaxed);
        let by = SERVED.get(usize::from(by)).copied().unwrap_or(ServedBy::Proxy);
        self.served[by as usize].fetch_add(1, Ordering::Relaxed);
        self.pin
            .store(pin.map_or(NONE, |pin| pin as u8), Ordering::Relaxed);
        self.activity.store(activity as u8, Ordering::Relaxed);
        (by, Duration::from_micros(took_us))
    }

    /// What it is doing.
    pub fn activity(&self) -> Activity {
        ACTIVITIES[usize::from(self.activity.load(Ordering::Relaxed))]
    }

    /// Why it keeps its server connection.
    pub fn pin(&self) -> Option<Pin> {
        PINS.get(usize::from(self.pin.load(Ordering::Relaxed))).copied()
    }

    /// How long the unit in work has been in work; `None` between units.
    pub fn unit_age(&self) -> Option<Duration> {
        let is_busy = matches!(self.activity(), Activity::Active | Activity::Waiting);
        let began_us = self.unit_at_us.load(Ordering::Relaxed);
        is_busy.then(|| Duration::from_micros(self.age_us(Instant::now()).saturating_sub(began_us)))
    }

    /// Units that this one has answered.
    pub fn served(&self, by: ServedBy) -> u64 {
        self.served[by as usize].load(Ordering::Relaxed)
    }

    fn age_us(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.began).as_micros()).unwrap_or(u64::MAX)
    }
}

/// All that are connected.
#[derive(Debug, Default)]
pub struct Registry {
    present: Mutex<BTreeMap<i32, Arc<Presence>>>,
    stopping: AtomicBool,
}

impl Registry {
    /// Lists a client until the place is dropped. Its process number must be its own.
    pub fn enter(self: &Arc<Self>, who: Who) -> Place {
        let process = who.process;
        let presence = Arc::new(Presence::new(who));
        self.present.lock().insert(process, Arc::clone(&presence));
        Place {
            registry: Arc::clone(self),
            presence,
        }
    }

    /// Asks all of them to end, and those who enter later.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        for presence in self.all() {
            presence.waker.wake();
        }
    }

    /// All of them, by process number.
    pub fn all(&self) -> Vec<Arc<Presence>> {
        self.present.lock().values().cloned().collect()
    }
}

/// A client's place in the registry.
#[derive(Debug)]
pub struct Place {
    registry: Arc<Registry>,
    presence: Arc<Presence>,
}

impl Place {
    /// Ready once all sessions are to end. Costs no lock, unlike a token's future, which each wait would register anew.
    pub fn poll_stopped(&self, cx: &Context<'_>) -> Poll<()> {
        self.waker.register(cx.waker());
        if self.registry.stopping.load(Ordering::SeqCst) {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

impl std::ops::Deref for Place {
    type Target = Presence;

    fn deref(&self) -> &Presence {
        &self.presence
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.registry.present.lock().remove(&self.presence.who.process);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(process: i32) -> Who {
        Who {
            process,
            user: "ann".into(),
            database: "shop".into(),
            peer: Peer::Unix,
        }
    }

    #[test]
    fn a_place_is_listed_as_long_as_it_lives() {
        let registry = Arc::new(Registry::default());
        let (first, second) = (registry.enter(who(7)), registry.enter(who(3)));
        let listed: Vec<i32> = registry
            .all()
            .iter()
            .map(|presence| presence.who.process)
            .collect();
        assert_eq!(listed, [3, 7]);
        drop(first);
        assert_eq!(registry.all().len(), 1);
        drop(second);
        assert!(registry.all().is_empty());
    }

    #[test]
    fn a_unit_is_counted_for_the_last_that_answered_it() {
        let presence = Presence::new(who(1));
        assert_eq!((presence.activity(), presence.unit_age()), (Activity::Idle, None));
        presence.begin_unit(Instant::now());
        presence.wait(true);
        assert_eq!(presence.activity(), Activity::Waiting);
        presence.wait(false);
        assert!(presence.unit_age().is_some());
        presence.answered_by(ServedBy::Replica);
        presence.answered_by(ServedBy::Primary);
        let (by, _) = presence.end_unit(Status::InTransaction, Some(Pin::HeldCursor));
        assert_eq!(by, ServedBy::Primary);
        assert_eq!(presence.activity(), Activity::InTransaction);
        assert_eq!(presence.pin(), Some(Pin::HeldCursor));
        presence.begin_unit(Instant::now());
        assert_eq!(presence.end_unit(Status::Idle, None).0, ServedBy::Proxy);
        let served = SERVED.map(|by| presence.served(by));
        assert_eq!(served, [0, 0, 1, 1]);
        assert_eq!((presence.pin(), presence.unit_age()), (None, None));
    }

    #[tokio::test]
    async fn all_are_asked_to_end_at_once() {
        let registry = Arc::new(Registry::default());
        let (early, first) = (registry.enter(who(7)), Arc::clone(&registry));
        let mut asked = tokio::task::JoinSet::new();
        asked.spawn(std::future::poll_fn(move |cx| early.poll_stopped(cx)));
        tokio::task::yield_now().await;
        first.stop();
        asked.join_next().await.expect("one").expect("it was woken");
        let late = registry.enter(who(8));
        std::future::poll_fn(|cx| late.poll_stopped(cx)).await;
    }

    #[test]
    fn codes_are_places_in_the_lists() {
        let places = |codes: &[u8]| {
            codes
                .iter()
                .enumerate()
                .all(|(at, code)| at == usize::from(*code))
        };
        assert!(places(&ACTIVITIES.map(|activity| activity as u8)));
        assert!(places(&PINS.map(|pin| pin as u8)));
        assert!(places(&SERVED.map(|by| by as u8)));
    }
}
