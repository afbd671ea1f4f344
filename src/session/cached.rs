//! The cache in a session: looking an answer up, sharing another's execution, and filling.
//!
//! Called by `perform` for units whose answer may be cached. Invariants: an entry is served only while the clocks call its note
//! current, or its level lets it be as old as it is; one execution serves all who ask while it runs, but nobody to whom a write
//! was acknowledged after it began; what is stored was read under a note that still holds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::costs::{Bypass, NotKept, Wait};
use super::held::sqlstate;
use super::last::{Last, Reason, ServedBy};
use super::perform::{Cacheable, Work};
use super::proxy::{Counters, Proxy};
use super::run::{Block, Goodbye, Session};
use crate::cache::entry::{Entry, Renewal};
use crate::cache::flight::{Outcome, Permit, Seat};
use crate::cache::key::Key;
use crate::cache::store::Inserted;
use crate::catalog::verdict::Oid;
use crate::freshness::database::{Begun, Currency, Database};
use crate::freshness::level::Level;
use crate::protocol::backend;

/// After so many flights that ended without an answer to share, a reader runs alone.
const FLIGHTS_MAX: usize = 4;

/// What became of looking an answer up.
pub enum Found {
    /// The client has it, ReadyForQuery included.
    Served,
    /// It is not there: the reader runs it for all who wait.
    Fill(Filling),
    /// The reader runs it for itself.
    Bypass(Bypass),
}

/// A fill under way.
pub struct Filling {
    pub(super) key: Key,
    pub(super) ttl: Duration,
    pub(super) min_cost: Duration,
    pub(super) permit: Permit,
    pub(super) database: Arc<Database>,
    /// What was noted before it was sent.
    pub begun: Begun,
}

impl Session {
    /// Looks an answer up; waits for another's execution where that may be shared.
    pub(super) async fn look_up(
        &mut self,
        work: &Work<'_>,
        wanted: &Cacheable,
        tables: &[Oid],
    ) -> Result<Found, Goodbye> {
        // A hit waits for nothing, and takes no room for it.
        let found = match self.find(work, wanted) {
            Some(found) => found,
            None => Box::pin(self.take_seat(work, wanted, tables)).await?,
        };
        if let Found::Bypass(why) = found {
            self.proxy.costs.bypasses.count(why);
        }
        Ok(found)
    }

    /// Serves an entry that is there; `None` where there is none that may be served.
    fn find(&mut self, work: &Work<'_>, wanted: &Cacheable) -> Option<Found> {
        let now = Instant::now();
        Some(match self.entry(wanted, work.level, now)? {
            Ok((entry, stale)) => {
                Counters::count(&self.proxy.counters.hits);
                self.proxy.costs.staleness.add(self.id, stale.unwrap_or_default());
                let reason = stale.map_or(Reason::Hit, |_| Reason::StaleHit);
                self.refresh((&entry, now), work, wanted, &reason);
                if stale.is_none() {
                    self.sample(&entry, wanted);
                }
                self.serve_entry((&entry, now), work, wanted, reason);
                Found::Served
            }
            Err(why) => Found::Bypass(why),
        })
    }

    /// Leads an execution, or waits for another's, after which the store is looked at again.
    async fn take_seat(
        &mut self,
        work: &Work<'_>,
        wanted: &Cacheable,
        tables: &[Oid],
    ) -> Result<Found, Goodbye> {
        if !matches!(work.level, Level::Ttl(_)) && self.database.stream_is_late(tables) {
            // What was written past the proxy may not be known.
            return Ok(Found::Bypass(Bypass::StreamLate));
        }
        self.database.stream_want(tables);
        let key = &wanted.key;
        let arrived = self.database.begin(tables).note;
        for _ in 0..FLIGHTS_MAX {
            let begun = self.database.begin(tables);
            if begun.known_in_flight && self.saw_primary {
                return Ok(Found::Bypass(Bypass::WriteInFlight));
            }
            let (waiter, shares) = match self.proxy.flights.seat(key, &begun.note, &arrived) {
                Seat::Lead(permit) => {
                    // Another may have stored it between the look and the seat.
                    if let Some(found) = self.find(work, wanted) {
                        return Ok(found);
                    }
                    Counters::count(&self.proxy.counters.misses);
                    return Ok(Found::Fill(Filling {
                        key: key.clone(),
                        ttl: wanted.ttl,
                        min_cost: self.policy.cache.min_cost,
                        permit,
                        database: Arc::clone(&self.database),
                        begun,
                    }));
                }
                Seat::Share(waiter) => (waiter, true),
                Seat::Queue(waiter) => (waiter, !self.database.guards_flights()),
            };
            let until = self.statement_until();
            let outcome = async {
                match until {
                    Some(until) => tokio::time::timeout_at(until.into(), waiter.outcome()).await.ok(),
                    None => Some(waiter.outcome().await),
                }
            };
            let Some(outcome) = self.waiting(Wait::Answer, outcome).await?.flatten() else {
                let refusal = self.cancelled();
                self.refuse_shared(|out| refusal.encode(out));
                return Ok(Found::Served);
            };
            match outcome {
                Outcome::Answered(entry) if shares => {
                    Counters::count(&self.proxy.counters.shared);
                    self.serve_entry((&entry, Instant::now()), work, wanted, Reason::Shared);
                    return Ok(Found::Served);
                }
                Outcome::Failed(frame) if shares => {
                    self.refuse_shared(|out| out.extend_from_slice(&frame));
                    return Ok(Found::Served);
                }
                // All who wait run it at once, rather than one after the other.
                Outcome::Unshareable => return Ok(Found::Bypass(Bypass::TooLarge)),
                _ => {}
            }
            if let Some(found) = self.find(work, wanted) {
                return Ok(found);
            }
        }
        Ok(Found::Bypass(Bypass::Crowded))
    }

    /// The entry of a key if it may be served, and for how long it has missed a write, if it does; `Err` when it is there, but
    /// cannot be served now.
    #[expect(clippy::type_complexity, reason = "used once")]
    fn entry(
        &self,
        wanted: &Cacheable,
        level: Level,
        now: Instant,
    ) -> Option<Result<(Arc<Entry>, Option<Duration>), Bypass>> {
        let entry = self.proxy.store.find(&wanted.key)?;
        if !matches!(level, Level::Ttl(_)) && self.database.stream_is_late_for(&entry.note) {
            // It may be as good as new: that is known once the stream has caught up.
            return Some(Err(Bypass::StreamLate));
        }
        let currency = self.database.is_current(&entry.note);
        // The TTL is the one of now, where that is shorter than at the fill.
        let in_time = match level {
            Level::Ttl(age) => entry.age(now) < age,
            _ => entry.in_time(now) && entry.age(now) < wanted.ttl,
        };
        if in_time {
            match currency {
                Currency::Current => return Some(Ok((entry, None))),
                // Who may miss a write that was acknowledged may miss one that was not.
                Currency::InFlight if !self.saw_primary || level.may_miss(Duration::ZERO) => {
                    return Some(Ok((entry, None)));
                }
                Currency::InFlight => {}
                Currency::Outdated => {
                    let missed_since = self.database.missed_since(&entry.note);
                    let stale = missed_since.map(|since| now.saturating_duration_since(since));
                    if stale.is_some_and(|stale| level.may_miss(stale)) {
                        return Some(Ok((entry, stale)));
                    }
                }
            }
        }
        if entry.in_time(now) && currency == Currency::InFlight {
            return Some(Err(Bypass::WriteInFlight));
        }
        self.proxy.store.remove(&wanted.key, &entry);
        None
    }

    fn serve_entry(
        &mut self,
        (entry, now): (&Entry, Instant),
        work: &Work<'_>,
        wanted: &Cacheable,
        reason: Reason,
    ) {
        let around = &wanted.around;
        let out = &mut self.wire.out;
        if let Some((name, statement)) = &around.parse {
            out.extend_from_slice(backend::PARSE_COMPLETE);
            self.statements.parse(name.clone(), Arc::clone(statement));
            self.statements.answered();
        }
        if around.bind {
            out.extend_from_slice(backend::BIND_COMPLETE);
        }
        entry.answer.append_to(out);
        self.presence.answered_by(ServedBy::Cache);
        self.proxy.reasons.count(ServedBy::Cache, &reason);
        self.last = Last {
            served_by: ServedBy::Cache,
            node: Some(Arc::clone(&entry.node)),
            reason,
            age: Some(entry.age(now)),
            level: work.level,
            ttl: Some(wanted.ttl),
            rule: work.rule.clone(),
        };
        self.statements.end_transaction();
        self.ready_for_query();
    }

    fn refuse_shared(&mut self, write: impl FnOnce(&mut bytes::BytesMut)) {
        write(&mut self.wire.out);
        self.statements.undo();
        if self.block != Block::None {
            self.block = Block::Failed;
        }
        self.ready_for_query();
    }
}

impl Filling {
    /// The execution ended with an answer, or with an ErrorResponse or nothing that can be shared: tells those who wait, and
    /// stores the answer if it may be. True when it holds still.
    pub(super) fn finish(
        self,
        proxy: &Proxy,
        node: &Arc<str>,
        answered: Result<BytesMut, Option<Bytes>>,
        asked_at: Instant,
    ) -> bool {
        let messages = match answered {
            Ok(messages) => messages,
            Err(error) => {
                let why = error.as_ref().map_or(NotKept::TooLarge, |_| NotKept::Failed);
                proxy.costs.not_kept.count(why);
                self.permit.finish(match error {
                    None => Outcome::Unshareable,
                    Some(frame) if is_the_statements(sqlstate(&frame)) => Outcome::Failed(frame),
                    Some(_) => Outcome::Abandoned,
                });
                return false;
            }
        };
        let entry = Arc::new(Entry {
            answer: proxy.store.answer(&messages),
            note: self.begun.note.clone(),
            node: Arc::clone(node),
            asked_at,
            ttl: self.ttl,
            cost: asked_at.elapsed().max(Duration::from_nanos(1)),
            renewal: Renewal::default(),
        });
        let holds = !self.begun.in_flight && self.database.may_share(&self.begun.note);
        let kept = if !holds {
            Err(NotKept::Write)
        } else if entry.cost < self.min_cost {
            Err(NotKept::Cheap)
        } else {
            keep(proxy, self.key, Arc::clone(&entry))
        };
        match kept {
            Ok(()) => Counters::count(&proxy.counters.stored),
            Err(why) => proxy.costs.not_kept.count(why),
        }
        // Those who joined did so while the note was current: for them the answer is fresh enough.
        self.permit.finish(Outcome::Answered(entry));
        holds
    }
}

fn keep(proxy: &Proxy, key: Key, entry: Arc<Entry>) -> Result<(), NotKept> {
    if let Some(doorkeeper) = &proxy.doorkeeper
        && !doorkeeper.admits(key.fingerprint())
    {
        return Err(NotKept::First);
    }
    match proxy.store.insert(key, entry) {
        Inserted::Stored { .. } => Ok(()),
        Inserted::TooLarge => Err(NotKept::TooLarge),
    }
}

/// Is the error the statement's own, the same for all who run it? A cancel, a timeout or a lost server is its leader's alone.
fn is_the_statements(code: &[u8]) -> bool {
    code.starts_with(b"22") || code.starts_with(b"42")
}

#[cfg(test)]
mod tests {
    use super::is_the_statements;

    #[test]
    fn only_the_statements_own_errors_are_shared() {
        assert!(is_the_statements(b"22012"), "division by zero");
        assert!(is_the_statements(b"42P01"), "no such table");
        for code in [&b"57014"[..], b"57P01", b"53300", b"08006", b"40001", b""] {
            assert!(!is_the_statements(code), "{code:?}");
        }
    }
}
