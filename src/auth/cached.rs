//! Verifiers that a server is asked for, kept for a short time.
//!
//! Called by `users`. Logins of one role that come together ask once. Roles that the server does not know are kept like those that
//! it knows, and `even_out` makes an answer from memory take as long as one from the server: whether a role exists, or was here
//! lately, cannot be measured. Invariant: at most `ENTRIES_MAX` roles are kept. Cancel safe: a dropped look-up is taken over.

use std::fmt;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until};
use zeroize::Zeroizing;

use crate::auth::error::AuthError;
use crate::auth::verifier::Verifier;

/// Roles that are remembered, also those that do not exist.
const ENTRIES_MAX: NonZeroUsize = NonZeroUsize::new(10_000).expect("not zero");
/// Every answer takes at least this long, and at least twice what the server lately took, up to the greatest.
const ANSWER_TIME_MIN: Duration = Duration::from_millis(2);
const ANSWER_TIME_MAX: Duration = Duration::from_millis(100);

/// A source of verifiers.
pub trait Verifiers: fmt::Debug + Send + Sync {
    /// What `pg_authid.rolpassword` holds for a role: `None` when there is no such role, an empty text when it has no password.
    fn verifier<'a>(&'a self, user: &'a str) -> Answer<'a>;
}

/// The future of [`Verifiers::verifier`].
pub type Answer<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Zeroizing<String>>, Unavailable>> + Send + 'a>>;

/// Why a source gave no answer; for the log.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Unavailable(#[from] pub Box<dyn std::error::Error + Send + Sync>);

/// What a source knows of a role.
#[derive(Clone, Debug)]
pub(crate) enum Known {
    Verifier(Arc<Verifier>),
    NoVerifier,
    Nothing,
}

#[derive(Clone)]
struct Entry {
    born: Instant,
    known: Arc<OnceCell<Known>>,
}

/// A source with its memory.
pub(crate) struct Cached {
    source: Arc<dyn Verifiers>,
    ttl: Duration,
    entries: Mutex<LruCache<Box<str>, Entry>>,
    answer_time_us: AtomicU64,
}

impl Cached {
    pub fn new(source: Arc<dyn Verifiers>, ttl: Duration) -> Self {
        Self {
            source,
            ttl,
            entries: Mutex::new(LruCache::new(ENTRIES_MAX)),
            answer_time_us: AtomicU64::new(0),
        }
    }

    /// What the source says of a role, or said within the time to live.
    pub async fn look_up(&self, user: &str) -> Result<Known, AuthError> {
        let entry = self.entry(user);
        let asked = entry.known.get_or_try_init(|| self.ask(user)).await;
        asked
            .cloned()
            .map_err(|error| AuthError::Unavailable(error.to_string()))
    }

    /// Waits until the time is over that every answer takes that was begun at `begun`.
    pub async fn even_out(&self, begun: Instant) {
        let usual = Duration::from_micros(self.answer_time_us.load(Ordering::Relaxed));
        sleep_until(begun + usual.clamp(ANSWER_TIME_MIN, ANSWER_TIME_MAX)).await;
    }

    pub fn forget(&self, user: &str) {
        self.entries.lock().pop(user);
    }

    fn entry(&self, user: &str) -> Entry {
        let mut entries = self.entries.lock();
        let now = Instant::now();
        match entries.get(user) {
            Some(entry) if now.duration_since(entry.born) < self.ttl => entry.clone(),
            _ => {
                let entry = Entry {
                    born: now,
                    known: Arc::default(),
                };
                entries.put(user.into(), entry.clone());
                entry
            }
        }
    }

    async fn ask(&self, user: &str) -> Result<Known, Unavailable> {
        let begun = Instant::now();
        let answer = self.source.verifier(user).await;
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        // Falls slowly, so that one quick answer does not uncover the next slow one.
        let slower = |usual: u64| Some((usual / 8 * 7).max(took.saturating_mul(2)));
        let _previous = self
            .answer_time_us
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, slower);
        Ok(match answer?.map(|text| text.parse()) {
            Some(Ok(verifier)) => Known::Verifier(Arc::new(verifier)),
            Some(Err(_)) => Known::NoVerifier,
            None => Known::Nothing,
        })
    }
}

impl fmt::Debug for Cached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cached")
            .field("source", &self.source)
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Knows `ann`, takes its time, and counts.
    #[derive(Debug, Default)]
    struct Slow {
        asked: AtomicUsize,
        down: std::sync::atomic::AtomicBool,
    }

    impl Verifiers for Slow {
        fn verifier<'a>(&'a self, user: &'a str) -> Answer<'a> {
            Box::pin(async move {
                self.asked.fetch_add(1, Ordering::SeqCst);
                sleep_until(Instant::now() + Duration::from_millis(10)).await;
                if self.down.load(Ordering::SeqCst) {
                    return Err(Unavailable("the server is down".into()));
                }
                let verifier = "SCRAM-SHA-256$1:AAAA$nWmjXxlcLmAyq5DZLd1QRoRuVkF5xYCTxKE0nPT0NqI=:cpYsmBDMVTmgJXr5JZXRwMPGwgd3wQyvVvDlXWvOjIk=";
                let known = [("ann", verifier), ("old", "md5x"), ("none", "")];
                let found = known.iter().find(|(name, _)| *name == user);
                Ok(found.map(|(_, text)| Zeroizing::new((*text).to_owned())))
            })
        }
    }

    fn cached() -> (Arc<Slow>, Cached) {
        let source = Arc::new(Slow::default());
        let cached = Cached::new(Arc::clone(&source) as Arc<dyn Verifiers>, Duration::from_secs(5));
        (source, cached)
    }

    #[tokio::test(start_paused = true)]
    async fn logins_that_come_together_ask_once() {
        let (source, cached) = cached();
        let (one, two) = tokio::join!(cached.look_up("ann"), cached.look_up("ann"));
        assert!(matches!(
            (one, two),
            (Ok(Known::Verifier(_)), Ok(Known::Verifier(_)))
        ));
        assert!(matches!(cached.look_up("eve").await, Ok(Known::Nothing)));
        assert!(matches!(cached.look_up("eve").await, Ok(Known::Nothing)));
        assert!(matches!(cached.look_up("old").await, Ok(Known::NoVerifier)));
        assert!(matches!(cached.look_up("none").await, Ok(Known::NoVerifier)));
        assert_eq!(source.asked.load(Ordering::SeqCst), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_for_its_time_or_until_it_is_forgotten() {
        let (source, cached) = cached();
        for (advance, asked) in [(0, 1), (4, 1), (2, 2)] {
            tokio::time::advance(Duration::from_secs(advance)).await;
            cached.look_up("ann").await.expect("known");
            assert_eq!(source.asked.load(Ordering::SeqCst), asked);
        }
        cached.forget("ann");
        cached.look_up("ann").await.expect("known");
        assert_eq!(source.asked.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_not_kept() {
        let (source, cached) = cached();
        source.down.store(true, Ordering::SeqCst);
        assert!(matches!(
            cached.look_up("ann").await,
            Err(AuthError::Unavailable(_))
        ));
        source.down.store(false, Ordering::SeqCst);
        assert!(matches!(cached.look_up("ann").await, Ok(Known::Verifier(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_from_memory_takes_as_long_as_one_from_the_server() {
        let (_source, cached) = cached();
        cached.look_up("first").await.expect("asked");
        let mut times = Vec::new();
        for user in ["ann", "ann", "eve", "eve"] {
            let begun = Instant::now();
            cached.look_up(user).await.expect("answered");
            cached.even_out(begun).await;
            times.push(begun.elapsed());
        }
        assert!(times[0] >= Duration::from_millis(20), "{times:?}");
        assert!(times.iter().all(|time| *time == times[0]), "{times:?}");
    }
}
