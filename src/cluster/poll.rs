//! The loop that asks one node for its role and position, for as long as the proxy runs.
//!
//! `running` starts one per node. Each sample gets its number before it is sent, so that a server connection which noted a
//! number when it was open trusts only samples sent later. Invariant: a connection that failed or timed out is not used again.
//! It judges nothing. The loop stops at the token, and may then be dropped at any point.

use super::{
    connect::{Control, ControlError},
    decide::Observation,
    node_id::NodeId,
    running::Shared,
    view::{Position, Sample},
};
use crate::protocol::lsn::Lsn;
use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::time::{sleep, timeout};
use tokio_postgres::types::PgLsn;
use tokio_util::sync::CancellationToken;

/// What a poll read: the observation, and the insert position that was read just before its flush position.
pub(super) struct Answer {
    pub observation: Observation,
    pub insert: Lsn,
}

pub(super) async fn run(shared: Arc<Shared>, id: NodeId, stop: CancellationToken) {
    let mut control = None;
    let mut pause = shared.settings.poll_interval;
    loop {
        let round = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            round = round(&shared, id, &mut control) => round,
        };
        match round {
            Ok(()) => pause = shared.settings.poll_interval,
            Err(error) => {
                control = None;
                shared.publish(|board| board.failed(id, error.to_string()));
                pause = (pause * 2).min(shared.settings.backoff_max.max(shared.settings.poll_interval));
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.nodes[id.index()].poke.notified() => {}
            () = sleep(pause) => {}
        }
    }
}

async fn round(shared: &Shared, id: NodeId, control: &mut Option<Control>) -> Result<(), ControlError> {
    let open = match control {
        Some(open) => open,
        None => control.insert(shared.connect(id).await?),
    };
    let covers = shared.ticks.now();
    let answer = ask(shared, id, open).await?;
    let (timeline, lsn) = (answer.observation.timeline, answer.observation.sample.lsn);
    let reachable = !answer.observation.in_recovery && lsn >= answer.insert;
    let view = shared.publish(|board| board.answered(id, answer.observation));
    // Everything acknowledged before the question lies at or below the insert position, and all of that is flushed: this poll
    // is as good as a probe. Otherwise an idle primary might not flush it for many seconds, and a probe has to see to it.
    if reachable && view.primary == Some(id) {
        shared.offer(Position {
            era: view.era,
            timeline,
            covers,
            lsn: answer.insert,
        });
    }
    Ok(())
}

/// Asks once. The answer's sample has a number of its own.
pub(super) async fn ask(shared: &Shared, id: NodeId, control: &Control) -> Result<Answer, ControlError> {
    let number = shared.nodes[id.index()].samples.fetch_add(1, Ordering::SeqCst) + 1;
    let sent_at = Instant::now();
    let limit = shared.settings.poll_timeout;
    let query = control.client.query_one(&control.poll, &[]);
    let row = timeout(limit, query)
        .await
        .map_err(|_| ControlError::TimedOut(limit))??;
    let lsn = |column: usize| -> Result<Lsn, ControlError> {
        let lsn: Option<PgLsn> = row.try_get(column)?;
        Ok(Lsn(lsn.map_or(0, u64::from)))
    };
    let age: Option<f64> = row.try_get(6)?;
    let (insert, flushed) = (lsn(4)?, lsn(5)?);
    Ok(Answer {
        insert,
        observation: Observation {
            in_recovery: row.try_get(0)?,
            system_identifier: row.try_get::<_, i64>(1)?.cast_unsigned(),
            timeline: row.try_get::<_, i32>(2)?.cast_unsigned(),
            started_at: row.try_get(3)?,
            connection: control.number,
            sample: Sample {
                lsn: flushed,
                written: insert.max(flushed),
                number,
                sent_at,
            },
            replay_age: age.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            reads_all_stats: row.try_get(7)?,
        },
    })
}
