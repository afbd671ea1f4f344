//! The loop that learns, on request, a position of the primary which covers all that was acknowledged before.
//!
//! `running` starts it once; every caller of `Cluster::request_probe` shares its results. At most one probe runs; a request made
//! while one runs is served by the next. Invariant: `covers` is read before the probe is sent, and a position is published only
//! under the era in which its connection was made, while that era lasts. The loop stops at the token and may be dropped then.

use super::{
    connect::{Control, ControlError},
    node_id::NodeId,
    poll::ask,
    running::Shared,
    view::Position,
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

/// Pause before a failed probe is tried again, unless the view changes first.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// From one probe to the next. Who comes meanwhile shares that one: many readers that must know the position cost hundreds of
/// probes a second, not thousands.
const PROBE_INTERVAL: Duration = Duration::from_millis(2);

/// A transactional message: its commit record flushes all WAL before it, and replicas replay past it.
const EMIT: &str = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgladder', '')";

/// The prober's connection, and the era that it belongs to.
struct Known {
    node: NodeId,
    era: u64,
    control: Control,
}

pub(super) async fn run(shared: Arc<Shared>, stop: CancellationToken) {
    let mut known = None;
    let mut due = Instant::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = wanted(&shared, due) => {}
        }
        due = Instant::now() + PROBE_INTERVAL;
        let served = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            served = serve(&shared, &mut known) => served,
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

/// Waits for a request, and for the time of the next probe.
async fn wanted(shared: &Shared, due: Instant) {
    shared.wanted.notified().await;
    sleep_until(due).await;
}

/// Whether a position was published.
async fn serve(shared: &Shared, known: &mut Option<Known>) -> bool {
    let view = shared.view.load_full();
    let Some(primary) = view.primary else {
        return false;
    };
    if known
        .as_ref()
        .is_some_and(|known| (known.node, known.era) != (primary, view.era))
    {
        *known = None;
    }
    match probe(shared, primary, view.era, known).await {
        Ok(position) => {
            shared.offer(position);
            true
        }
        Err(error) => {
            tracing::debug!(node = %primary, %error, "a probe of the primary failed");
            *known = None;
            // What broke this connection may have been a restart: the poller shall look at once.
            shared.nodes[primary.index()].poke.notify_one();
            false
        }
    }
}

async fn probe(
    shared: &Shared,
    primary: NodeId,
    era: u64,
    known: &mut Option<Known>,
) -> Result<Position, ControlError> {
    let Known { control, .. } = match known {
        Some(known) => known,
        None => known.insert(connect_in(shared, primary, era).await?),
    };
    shared.probes.fetch_add(1, Ordering::Relaxed);
    let covers = shared.ticks.now();
    let answer = ask(shared, primary, control).await?;
    if answer.observation.sample.lsn < answer.insert {
        let limit = shared.settings.poll_timeout;
        match timeout(limit, control.client.batch_execute(EMIT)).await {
            // A server that refuses to write (a full disk, say) leaves the insert position: right, but perhaps not reached soon.
            Ok(Err(error)) if error.as_db_error().is_none() => return Err(error.into()),
            Ok(_) => {}
            Err(_) => return Err(ControlError::TimedOut(limit)),
        }
    }
    if shared.era_of(primary, &answer.observation) != Some(era) {
        return Err(ControlError::Changed);
    }
    Ok(Position {
        era,
        timeline: answer.observation.timeline,
        covers,
        lsn: answer.insert,
    })
}

/// Opens a connection that belongs to the era for sure. A primary that crashed and came back keeps its start time, and the poller
/// may not have noticed yet that its own connection is gone: only an answer on that one, asked for after this one was open, tells
/// that no crash came between.
async fn connect_in(shared: &Shared, primary: NodeId, era: u64) -> Result<Known, ControlError> {
    let control = shared.connect(primary).await?;
    let node = &shared.nodes[primary.index()];
    let opened_at = node.samples.load(Ordering::SeqCst);
    let mut versions = shared.versions.subscribe();
    node.poke.notify_one();
    let confirmed = async {
        loop {
            versions.borrow_and_update();
            let view = shared.view.load_full();
            if view.era != era || view.primary != Some(primary) {
                return Err(ControlError::Changed);
            }
            if view.nodes[primary.index()].sample.number > opened_at {
                return Ok(());
            }
            if versions.changed().await.is_err() {
                return Err(ControlError::Changed);
            }
        }
    };
    // The poller gives a question up after the same time, and asks again after its pause.
    let limit = shared.settings.poll_timeout + shared.settings.poll_interval;
    timeout(limit, confirmed)
        .await
        .map_err(|_| ControlError::TimedOut(limit))??;
    Ok(Known {
        node: primary,
        era,
        control,
    })
}
