//! Who may share a flight, who waits for the next, and what happens when a leader vanishes.
//!
//! The clocks are the real ones; only the server is left out. Run by `cargo test`, on a single-threaded runtime.

use std::time::{Duration, Instant};

use bytes::BytesMut;

use super::*;
use crate::cache::answer::Room;
use crate::cache::entry::Renewal;
use crate::cache::key::{Form, Request};
use crate::freshness::clocks::{Clocks, Scope};

fn key() -> Key {
    Key::of(&Request {
        identity: b"",
        generation: 1,
        form: Form::Simple,
        sql: b"q",
        types: b"",
        bind: b"",
    })
}

fn answer(clocks: &Clocks) -> Outcome {
    Outcome::Answered(Arc::new(Entry {
        answer: Room::new(0).answer(b"rows"),
        note: clocks.note(&[1]),
        node: "db1:5432".into(),
        asked_at: Instant::now(),
        ttl: Duration::from_secs(1),
        cost: Duration::ZERO,
        renewal: Renewal::default(),
    }))
}

fn seat(flights: &Flights, clocks: &Clocks) -> Seat {
    let now = clocks.note(&[1]);
    flights.seat(&key(), &now, &now)
}

#[tokio::test]
async fn one_leads_and_all_others_get_its_answer() {
    let (flights, clocks) = (Flights::default(), Clocks::new(1, 0));
    let Seat::Lead(permit) = seat(&flights, &clocks) else {
        panic!("the first leads")
    };
    assert_eq!(flights.running(9)[0].waiting, 0);
    let Seat::Share(waiter) = seat(&flights, &clocks) else {
        panic!("the second shares")
    };
    let listed = flights.running(9);
    assert_eq!((listed.len(), listed[0].waiting), (1, 1));
    assert_eq!(listed[0].key, key());
    permit.finish(answer(&clocks));
    let Outcome::Answered(entry) = waiter.outcome().await else {
        panic!("an answer")
    };
    let mut out = BytesMut::new();
    entry.answer.append_to(&mut out);
    assert_eq!(out, &b"rows"[..]);
    assert!(flights.is_empty());
    assert!(
        matches!(seat(&flights, &clocks), Seat::Lead(_)),
        "the next miss begins another flight"
    );
}

#[tokio::test]
async fn nobody_joins_across_a_write() {
    let (flights, mut clocks) = (Flights::default(), Clocks::new(1, 0));
    let Seat::Lead(permit) = seat(&flights, &clocks) else {
        panic!("the first leads")
    };
    clocks.acknowledge(&Scope::Tables([1].into()), 1);
    let Seat::Queue(waiter) = seat(&flights, &clocks) else {
        panic!("it began before the write")
    };
    permit.finish(answer(&clocks));
    assert!(matches!(waiter.outcome().await, Outcome::Answered(_)));
    let Seat::Lead(_permit) = seat(&flights, &clocks) else {
        panic!("one of those who queued leads")
    };
    assert!(
        matches!(seat(&flights, &clocks), Seat::Share(_)),
        "the others share its flight"
    );
}

#[tokio::test]
async fn who_arrived_before_a_write_shares_a_flight_that_began_before_it() {
    let (flights, mut clocks) = (Flights::default(), Clocks::new(1, 0));
    let arrived = clocks.note(&[1]);
    let Seat::Lead(_permit) = seat(&flights, &clocks) else {
        panic!("the first leads")
    };
    clocks.acknowledge(&Scope::Tables([1].into()), 1);
    let now = clocks.note(&[1]);
    assert!(matches!(flights.seat(&key(), &now, &arrived), Seat::Share(_)));
    assert!(matches!(flights.seat(&key(), &now, &now), Seat::Queue(_)));
}

#[tokio::test]
async fn a_leader_that_vanishes_leaves_its_place() {
    let (flights, clocks) = (Flights::default(), Clocks::new(1, 0));
    let Seat::Lead(permit) = seat(&flights, &clocks) else {
        panic!("the first leads")
    };
    let Seat::Share(waiter) = seat(&flights, &clocks) else {
        panic!("the second shares")
    };
    drop(permit);
    assert!(matches!(waiter.outcome().await, Outcome::Abandoned));
    assert!(matches!(seat(&flights, &clocks), Seat::Lead(_)));
}
