//! Single-flight: one execution for any number of readers who ask for the same at once.
//!
//! Called by the session on a miss. Invariants: at most one flight per key runs; a reader shares a flight only if
//! that misses nothing acknowledged before the reader came; a flight whose leader vanishes ends as abandoned, so that a waiter
//! takes its place. Waiting is cancel safe: a waiter that is dropped leaves nothing behind.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use super::entry::Entry;
use super::key::Key;
use crate::freshness::clocks::Note;

/// How a flight ended.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// Still running.
    Running,
    /// The answer, for all who shared the flight; whether the store kept it is another matter.
    Answered(Arc<Entry>),
    /// The server refused the statement: its ErrorResponse, as it came.
    Failed(bytes::Bytes),
    /// No answer that can be shared, nor will the next be: too large, or not cacheable after all.
    Unshareable,
    /// The leader is gone, or had an error of its own.
    Abandoned,
}

/// A reader's place.
#[derive(Debug)]
pub enum Seat {
    /// Nobody runs this: the reader executes, and tells the others through the permit.
    Lead(Permit),
    /// A flight runs whose answer the reader may share.
    Share(Waiter),
    /// A flight runs that began too early for this reader: it waits for its end, then asks for a seat again.
    Queue(Waiter),
}

#[derive(Debug)]
struct Flight {
    note: Note,
    began: Instant,
    /// Each reader who waits is a receiver.
    outcome: watch::Sender<Outcome>,
}

/// A flight, as the console shows it.
#[derive(Debug)]
pub struct Listed {
    /// What it runs.
    pub key: Key,
    /// Readers who wait for it, its leader left out.
    pub waiting: usize,
    /// When it began.
    pub began: Instant,
}

/// The flights that run now.
#[derive(Debug, Default)]
pub struct Flights {
    running: Arc<Mutex<HashMap<Key, Flight>>>,
}

impl Flight {
    fn listed((key, flight): (&Key, &Self)) -> Listed {
        Listed {
            key: key.clone(),
            waiting: flight.outcome.receiver_count(),
            began: flight.began,
        }
    }
}

impl Flights {
    /// A seat for a reader of `key`, who leads under `note`, taken now, or shares a flight that misses nothing which was
    /// acknowledged before `arrived` was taken.
    pub fn seat(&self, key: &Key, note: &Note, arrived: &Note) -> Seat {
        let mut running = self.running.lock();
        if let Some(flight) = running.get(key) {
            let waiter = Waiter(flight.outcome.subscribe());
            return if flight.note.covers(arrived) {
                Seat::Share(waiter)
            } else {
                Seat::Queue(waiter)
            };
        }
        let outcome = watch::Sender::new(Outcome::Running);
        running.insert(
            key.clone(),
            Flight {
                note: note.clone(),
                began: Instant::now(),
                outcome: outcome.clone(),
            },
        );
        Seat::Lead(Permit {
            key: key.clone(),
            outcome,
            running: Arc::clone(&self.running),
        })
    }

    /// So many of those that run now, the oldest first.
    pub fn running(&self, most: usize) -> Vec<Listed> {
        let mut listed: Vec<Listed> = self.running.lock().iter().map(Flight::listed).collect();
        listed.sort_by_key(|flight| flight.began);
        listed.truncate(most);
        listed
    }

    /// Number of flights that run now.
    pub fn len(&self) -> usize {
        self.running.lock().len()
    }

    /// Does none run?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The leader's right to end its flight. Dropped without a word, the flight ends as abandoned.
#[derive(Debug)]
pub struct Permit {
    key: Key,
    outcome: watch::Sender<Outcome>,
    running: Arc<Mutex<HashMap<Key, Flight>>>,
}

impl Permit {
    /// Ends the flight: whoever comes later begins another.
    pub fn finish(self, outcome: Outcome) {
        self.outcome.send_replace(outcome);
    }

    /// Who waits for this flight besides its leader.
    pub fn audience(&self) -> Audience {
        Audience(self.outcome.clone())
    }
}

/// Those who wait for a flight that another leads.
#[derive(Debug)]
pub struct Audience(watch::Sender<Outcome>);

impl Audience {
    /// Does anybody wait now?
    pub fn waits(&self) -> bool {
        self.0.receiver_count() > 0
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.running.lock().remove(&self.key);
        self.outcome.send_if_modified(|outcome| {
            let running = matches!(outcome, Outcome::Running);
            if running {
                *outcome = Outcome::Abandoned;
            }
            running
        });
    }
}

/// A place in a flight that another leads.
#[derive(Debug)]
pub struct Waiter(watch::Receiver<Outcome>);

impl Waiter {
    /// Waits until the flight ends. Cancel safe.
    pub async fn outcome(mut self) -> Outcome {
        let ended = self.0.wait_for(|outcome| !matches!(outcome, Outcome::Running));
        match ended.await {
            Ok(outcome) => outcome.clone(),
            Err(_) => Outcome::Abandoned,
        }
    }
}

#[cfg(test)]
mod tests;
