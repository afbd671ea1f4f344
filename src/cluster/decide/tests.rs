//! The rules of `decide`, each as a short history of answers and the judgement after them.
//!
//! Nothing here connects: observations go in by hand, as the pollers would report them, and the decision is compared.

use super::*;
use crate::protocol::lsn::Lsn;
use std::time::Instant;

const SYSTEM: u64 = 7;

fn answer(in_recovery: bool, timeline: u32, lsn: u64) -> Observation {
    Observation {
        in_recovery,
        system_identifier: SYSTEM,
        timeline,
        started_at: 1,
        connection: 1,
        sample: Sample {
            lsn: Lsn(lsn),
            written: Lsn(lsn),
            number: 1,
            sent_at: Instant::now(),
        },
        replay_age: None,
        reads_all_stats: true,
    }
}

fn primary(timeline: u32) -> Observation {
    answer(false, timeline, 100)
}

fn replica(timeline: u32) -> Observation {
    answer(true, timeline, 100)
}

/// A board that got these answers in turn, the node's index first; the last decision.
fn after(nodes: usize, answers: &[(u16, Observation)]) -> (Board, Decision) {
    let limit = LagLimit {
        lag_bytes_max: Some(1000),
        return_samples: 1,
        ..LagLimit::default()
    };
    let mut board = Board::new(nodes, limit);
    let mut decision = board.judge(None);
    for (id, observation) in answers {
        decision = board.answered(NodeId(*id), observation.clone());
    }
    (board, decision)
}

#[test]
fn roles_and_reasons_follow_from_the_answers() {
    let foreign = |o: Observation| Observation {
        system_identifier: 8,
        ..o
    };
    let system = NotUsable::OtherSystem {
        found: 8,
        expected: SYSTEM,
    };
    let timeline = |found, expected| NotUsable::OtherTimeline { found, expected };
    // (answers of nodes 0, 1, 2; the primary; why each is not usable)
    let table = [
        ([primary(1), replica(1), replica(1)], Some(0), [None, None, None]),
        ([replica(1), primary(1), replica(1)], Some(1), [None, None, None]),
        (
            [primary(1), foreign(replica(1)), replica(1)],
            Some(0),
            [None, Some(system.clone()), None],
        ),
        (
            [primary(1), foreign(primary(9)), replica(1)],
            Some(0),
            [None, Some(system.clone()), None],
        ),
        (
            [foreign(primary(9)), primary(1), replica(1)],
            Some(1),
            [Some(system), None, None],
        ),
        (
            [primary(1), primary(2), replica(2)],
            Some(1),
            [Some(timeline(1, 2)), None, None],
        ),
        (
            [primary(2), replica(1), replica(3)],
            Some(0),
            [None, Some(timeline(1, 2)), Some(timeline(3, 2))],
        ),
        (
            [primary(2), primary(2), replica(2)],
            None,
            [
                Some(NotUsable::Conflict),
                Some(NotUsable::Conflict),
                Some(NotUsable::NoPrimary),
            ],
        ),
    ];
    for (answers, expected, reasons) in table {
        let answers: Vec<_> = (0..).zip(answers).collect();
        let (_, decision) = after(3, &answers);
        assert_eq!(decision.primary, expected.map(NodeId), "{answers:?}");
        let found: Vec<_> = decision.nodes.iter().map(|node| node.why_not.clone()).collect();
        assert_eq!(found, reasons, "{answers:?}");
    }
}

#[test]
fn no_primary_before_every_node_was_asked() {
    let (mut board, decision) = after(2, &[(0, primary(1))]);
    assert_eq!((decision.primary, decision.era), (None, 1));
    assert_eq!(decision.nodes[1].why_not, Some(NotUsable::NotAsked));
    let decision = board.failed(NodeId(1), "refused".into());
    assert_eq!((decision.primary, decision.era), (Some(NodeId(0)), 2));
    assert_eq!(
        decision.nodes[1].why_not,
        Some(NotUsable::Unreachable("refused".into()))
    );
}

#[test]
fn replicas_are_not_used_without_a_primary() {
    let (mut board, _) = after(2, &[(0, primary(1)), (1, replica(1))]);
    let decision = board.failed(NodeId(0), "gone".into());
    assert_eq!((decision.primary, decision.era), (None, 2));
    assert_eq!(decision.nodes[1].why_not, Some(NotUsable::NoPrimary));
}

#[test]
fn the_era_grows_with_every_other_incarnation_and_only_then() {
    let start = [(0, primary(1)), (1, replica(1))];
    let (mut board, first) = after(2, &start);
    assert_eq!(first.era, 2);
    let moved = Observation {
        sample: Sample {
            lsn: Lsn(900),
            ..primary(1).sample
        },
        ..primary(1)
    };
    for (same, what) in [(moved, "position"), (primary(1), "nothing")] {
        assert_eq!(board.answered(NodeId(0), same).era, 2, "{what}");
    }
    assert_eq!(
        board
            .answered(
                NodeId(1),
                Observation {
                    connection: 9,
                    ..replica(1)
                }
            )
            .era,
        2,
        "replica"
    );
    let changes = [
        (
            "crash restart",
            (
                0,
                Observation {
                    connection: 2,
                    ..primary(1)
                },
            ),
        ),
        (
            "restart",
            (
                0,
                Observation {
                    started_at: 2,
                    ..primary(1)
                },
            ),
        ),
        ("timeline", (0, primary(2))),
        ("promotion", (1, primary(2))),
    ];
    for (what, change) in changes {
        let (mut board, _) = after(2, &start);
        let decision = board.answered(NodeId(change.0), change.1);
        assert_eq!(
            (decision.era, decision.primary),
            (3, Some(NodeId(change.0))),
            "{what}"
        );
    }
    let (mut board, _) = after(2, &start);
    board.failed(NodeId(0), "gone".into());
    assert_eq!(board.answered(NodeId(0), primary(1)).era, 3, "lost and found");
}

#[test]
fn a_probe_counts_only_from_the_primary_that_the_era_is_about() {
    let (mut board, _) = after(2, &[(0, primary(1)), (1, replica(1))]);
    let other = |change: fn(&mut Observation)| {
        let mut answer = primary(1);
        change(&mut answer);
        answer
    };
    for (what, node, answer, expected) in [
        ("the same", 0, primary(1), Some(2)),
        // The prober's connection is not the poller's.
        ("another connection", 0, other(|o| o.connection = 9), Some(2)),
        ("another node", 1, primary(1), None),
        ("restarted", 0, other(|o| o.started_at = 2), None),
        ("in recovery", 0, replica(1), None),
        ("another timeline", 0, primary(2), None),
        ("another system", 0, other(|o| o.system_identifier = 8), None),
    ] {
        assert_eq!(board.era_of(NodeId(node), &answer), expected, "{what}");
    }
    board.failed(NodeId(0), "gone".into());
    assert_eq!(board.era_of(NodeId(0), &primary(1)), None, "no primary");
}

#[test]
fn a_deposed_primary_is_fenced_off_even_when_it_is_alone() {
    let (mut board, decision) = after(2, &[(0, primary(1)), (1, replica(1)), (1, primary(2))]);
    assert_eq!(decision.primary, Some(NodeId(1)));
    let decision = board.failed(NodeId(1), "gone".into());
    assert_eq!(decision.primary, None);
    assert_eq!(
        decision.nodes[0].why_not,
        Some(NotUsable::OtherTimeline {
            found: 1,
            expected: 2
        })
    );
}

#[test]
fn a_conflict_ends_when_one_yields_or_is_long_gone() {
    let both = [(0, primary(2)), (1, primary(2))];
    let (mut board, decision) = after(2, &both);
    assert_eq!(decision.conflict, [NodeId(0), NodeId(1)]);
    assert_eq!(board.answered(NodeId(1), replica(2)).primary, Some(NodeId(0)));

    let (mut board, _) = after(2, &both);
    assert_eq!(board.answered(NodeId(1), primary(3)).primary, Some(NodeId(1)));

    let (mut board, _) = after(2, &both);
    for times in 1..CLAIM_FAILURES_MAX {
        let decision = board.failed(NodeId(1), "gone".into());
        assert_eq!(decision.primary, None, "after {times} failures");
        assert_eq!(decision.conflict.len(), 2);
    }
    assert_eq!(board.failed(NodeId(1), "gone".into()).primary, Some(NodeId(0)));
}

#[test]
fn a_lagging_replica_leaves_and_returns() {
    let (mut board, _) = after(
        2,
        &[(0, primary(1)), (1, replica(1)), (0, answer(false, 1, 2000))],
    );
    for (lsn, bytes, usable) in [
        (1000, 1000, true),
        (999, 1001, false),
        (1499, 501, false),
        (1500, 500, true),
    ] {
        let decision = board.answered(NodeId(1), answer(true, 1, lsn));
        assert_eq!(decision.nodes[1].lag.map(|lag| lag.0), Some(bytes));
        assert_eq!(decision.nodes[1].why_not.is_none(), usable, "{lsn}");
    }
}
