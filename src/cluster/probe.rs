//! The loop that learns, on request, a position of the primary which covers all that was acknowledged before.
//!
//! `running` starts it once; every caller of `Cluster::request_probe` shares its results. At most one probe runs; a request made
//! while one runs is served by the next. Invariant: `covers` is read before the probe is sent, and a position is published only
//! if the node was the known primary, not in recovery, before and after. The loop stops at the token and may be dropped then.

use super::{
    connect::{Control, ControlError},
    node_id::NodeId,
    poll::ask,
    running::Shared,
    view::Position,
};
use std::{sync::Arc, time::Duration};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

/// Pause before a failed probe is tried again, unless the view changes first.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// A transactional message: its commit record flushes all WAL before it, and replicas replay past it.
const EMIT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgladder', '')";

pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut control = None;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wanted.notified() => {}
        }
        let served = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            served = serve(&shared, &mut control) => served,
        };
        if served {
            continue;
        }
        // The request is still owed.
        shared.wanted.notify_one();
        let mut changed = shared.versions.subscribe();
        tokio::select! {
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            () = sleep(RETRY_PAUSE) => {}
        }
    }
}

/// Whether a position was published.
async fn serve(shared: &Shared, control: &mut Option<(NodeId, Control)>) -> bool {
    let Some(primary) = shared.view.load().primary else {
        return false;
    };
    match probe(shared, primary, control).await {
        Ok(position) => {
            shared.offer(position);
            true
        }
        Err(error) => {
            tracing::debug!(node = %primary, %error, "a probe of the primary failed");
            *control = None;
            // What broke this connection may have been a restart: the poller shall look at once.
            shared.nodes[primary.index()].poke.notify_one();
            false
        }
    }
}

async fn probe(
    shared: &Shared,
    primary: NodeId,
    control: &mut Option<(NodeId, Control)>,
) -> Result<Position, ControlError> {
    if control.as_ref().is_none_or(|(node, _)| *node != primary) {
        *control = Some((primary, shared.nodes[primary.index()].connector.open().await?));
    }
    let (_, open) = control.as_ref().expect("opened just above");
    let before = shared.view.load_full();
    let covers = shared.ticks.now();
    let answer = ask(shared, primary, open).await?;
    if answer.observation.sample.lsn < answer.insert {
        let limit = shared.settings.poll_timeout;
        match timeout(limit, open.client.batch_execute(EMIT)).await {
            // A server that refuses to write (a full disk, say) leaves the insert position: right, but perhaps not reached soon.
            Ok(Err(error)) if error.as_db_error().is_none() => return Err(error.into()),
            Ok(_) => {}
            Err(_) => return Err(ControlError::TimedOut(limit)),
        }
    }
    let after = shared.view.load();
    let o = &answer.observation;
    if o.in_recovery
        || after.era != before.era
        || after.primary != Some(primary)
        || o.timeline != after.timeline
        || Some(o.system_identifier) != after.system_identifier
    {
        return Err(ControlError::Changed);
    }
    Ok(Position {
        era: after.era,
        timeline: o.timeline,
        covers,
        lsn: answer.insert,
    })
}
