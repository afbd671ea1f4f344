//! The searches: all guards on, where nothing may be found and everything must have been met; then each of them off.
//!
//! No search is cut by depth, count or time. Each prints how many states it explored, or how short a way leads to the lie.

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pgladder::freshness::guards::Guards;
use stateright::{Checker, Model};

use crate::observed::{Observed, Write};
use crate::proxy::{A, B, Event, HOLDS};
use crate::streamed::Streamed;

/// Searches all states: the contract holds in each, and nothing that it is about is missing.
fn explore<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let began = Instant::now();
    let checker = model.checker().threads(2).spawn_bfs().join();
    if let Some(path) = checker.discovery(HOLDS) {
        panic!(
            "{name}: {:?}\n{:?}",
            path.last_state().clone(),
            path.into_actions()
        );
    }
    assert!(checker.is_done(), "{name}: the search was cut");
    say(
        name,
        checker.unique_state_count(),
        checker.state_count(),
        began.elapsed(),
    );
}

#[expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]
fn say(name: &str, unique: usize, all: usize, took: Duration) {
    println!("{name}: {unique} states, {all} steps, {took:.1?}");
}

/// Searches until the lie is found.
#[expect(clippy::print_stdout, reason = "figures for whoever runs the tests")]
fn finds<M>(name: &str, model: &M)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync,
    M::Action: Clone + Debug + PartialEq + Send + Sync,
{
    let mut depth = 1;
    let path = loop {
        // Deeper and deeper, so that the way that is found is a shortest one.
        let checker = model.clone().checker().target_max_depth(depth).spawn_bfs().join();
        if let Some(path) = checker.discovery(HOLDS) {
            break path;
        }
        assert_eq!(checker.max_depth(), depth, "{name}: there is no lie");
        depth += 1;
    };
    let steps = path.into_actions();
    println!("{name}: a lie after {} steps: {steps:?}", steps.len());
}

fn known(tables: u8) -> Write {
    Write {
        tables,
        is_known: true,
    }
}

fn unknown(tables: u8) -> Write {
    Write {
        tables,
        is_known: false,
    }
}

fn observed() -> Observed {
    Observed {
        guards: Guards::default(),
        is_late: false,
        scripts: [vec![known(A), unknown(B)], vec![known(B), known(A | B)]],
        keys: vec![A, A | B],
        restarts: 1,
        breaks: 1,
        fails_over: false,
        met: Arc::default(),
    }
}

#[test]
fn no_read_misses_what_was_acknowledged_through_the_proxy() {
    let model = observed();
    explore(
        "writes through the proxy, a new start and a lost connection",
        model.clone(),
    );
    assert_eq!(model.met.missing(), []);
}

#[test]
fn each_guard_of_observed_writes_is_needed() {
    let on = Guards::default();
    let without = |name, guards| finds(name, &Observed { guards, ..observed() });
    without("epochs", Guards { epochs: false, ..on });
    without(
        "in_flight",
        Guards {
            in_flight: false,
            ..on
        },
    );
    without("fences", Guards { fences: false, ..on });
    without("join", Guards { join: false, ..on });
    without("ready", Guards { ready: false, ..on });
    finds(
        "late",
        &Observed {
            is_late: true,
            ..observed()
        },
    );
}

fn failing_over() -> Observed {
    Observed {
        scripts: [vec![known(A), known(A)], vec![known(A | B), known(A | B)]],
        keys: vec![A | B],
        restarts: 0,
        breaks: 0,
        fails_over: true,
        ..observed()
    }
}

#[test]
fn no_read_misses_what_was_acknowledged_before_a_failover() {
    let model = failing_over();
    explore("a failover", model.clone());
    assert_eq!(model.met.missing(), [Event::HeldBack]);
}

#[test]
fn fences_must_outlive_a_failover() {
    let guards = Guards {
        eras: false,
        ..Guards::default()
    };
    finds(
        "eras",
        &Observed {
            guards,
            ..failing_over()
        },
    );
}

fn streamed() -> Streamed {
    Streamed {
        guards: Guards::default(),
        scripts: [vec![A], vec![A, A]],
        keys: vec![A],
        streams: 1,
        restarts: 0,
        origin: Instant::now(),
        met: Arc::default(),
    }
}

#[test]
fn no_read_misses_what_the_stream_has_passed() {
    let model = streamed();
    explore("a stream, and writes through and past the proxy", model.clone());
    assert_eq!(model.met.missing(), [Event::HeldBack, Event::Queued]);
    let again = Streamed {
        scripts: [vec![], vec![A, A]],
        streams: 2,
        restarts: 1,
        ..model
    };
    explore("two streams, a new start, and writes past the proxy", again);
}

#[test]
fn each_guard_of_the_stream_is_needed() {
    let on = Guards::default();
    let without = |name, guards| finds(name, &Streamed { guards, ..streamed() });
    without(
        "visibility",
        Guards {
            visibility: false,
            ..on
        },
    );
    without("barrier", Guards { barrier: false, ..on });
}
