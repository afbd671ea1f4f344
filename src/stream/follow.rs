//! The loop that keeps one database's stream: makes it as soon as somebody reads, and anew when it has ended.
//!
//! Started by `streams`. Everything happens in the background, under limits; until it succeeds, and whenever it ends, the database is
//! under observed writes and says why. Invariants: a connection that is given up is closed at once, so that no slot outlives its use;
//! the publication is dropped when a stream ends, as far as the server can be reached. The loop stops at the token.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::publication;
use super::running::{Begun, Running};
use super::status::{Mode, Status};
use super::steward::{Publication, Steward};
use super::streams::StreamSettings;
use super::why_not::WhyNot;
use super::wire::Wire;
use crate::cluster::{Cluster, NodeId};
use crate::freshness::coverage::Opened;
use crate::freshness::database::Database;

/// Pause after a stream that failed, doubled up to the second.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
/// Other proxies' leftovers are looked for so long at the start; later beside a stream, so often.
const SWEEP_FOR: Duration = Duration::from_secs(60);
pub(super) const SWEEP_INTERVAL: Duration = Duration::from_secs(10);
/// How long the publication's end may take; the next start drops what is left.
const DROP_LIMIT: Duration = Duration::from_secs(5);

/// What bounds a stream.
#[derive(Debug, Clone, Copy)]
pub struct StreamLimits {
    /// Further behind than this, what it carries is not read from the cache.
    pub delay_max: Duration,
    /// For the slot to become ready.
    pub slot_timeout: Duration,
    /// Bytes of WAL that the slot may keep.
    pub retained_max: u64,
    /// Silence after which the server ends the connection.
    pub sender_timeout: Duration,
}

/// Where a stream shows what it does.
#[derive(Debug)]
pub(super) struct Board(Mutex<Status>);

impl Board {
    pub fn status(&self) -> Status {
        self.0.lock().clone()
    }

    pub fn show(&self, status: Status) {
        *self.0.lock() = status;
    }

    /// There is no stream: what has been counted stays.
    fn observed(&self, mode: Mode, why_not: &WhyNot) {
        let mut status = self.0.lock();
        let (bytes, transactions, begun) = (status.bytes, status.transactions, status.begun);
        *status = Status {
            mode,
            bytes,
            transactions,
            begun,
            ..Status::observed(why_not.to_string())
        };
    }
}

impl Default for Board {
    fn default() -> Self {
        Self(Mutex::new(Status::observed(WhyNot::NothingRead.to_string())))
    }
}

/// Who follows a database.
pub(super) struct Follower {
    pub database: Arc<Database>,
    pub cluster: Cluster,
    pub settings: Arc<StreamSettings>,
    pub board: Arc<Board>,
    /// When the database was opened.
    pub started: Instant,
}

/// What has been left on the servers.
#[derive(Default)]
struct Traces {
    /// Other proxies' leftovers have been looked for.
    is_swept: bool,
    /// Publications of this proxy that could not be dropped.
    left: Vec<String>,
}

/// What a stream is begun with.
struct Start {
    /// What slot and publication are called after.
    name: String,
    steward: Arc<Steward>,
    publication: Arc<Publication>,
    primary: (NodeId, u64),
}

impl Follower {
    /// Keeps a stream, until the token stops it.
    pub async fn follow(self, stop: CancellationToken) {
        let cluster = self.cluster.clone();
        self.database.stream_open(Opened {
            bound: self.settings.limits.delay_max,
            written_as_of: Box::new(move |at| cluster.written_as_of(at)),
        });
        let (mut traces, mut pause, mut told) = (Traces::default(), RETRY_PAUSE, String::new());
        while !stop.is_cancelled() {
            let begun = self.board.status().begun;
            let why = self.attempt(&mut traces, &stop).await;
            self.board.observed(Mode::Observed, &why);
            let reason = why.to_string();
            if reason != told && !stop.is_cancelled() {
                tracing::info!(database = %self.database.name, reason, "no stream: freshness rests on observed writes and TTL");
            }
            told = reason;
            let news = async {
                match why {
                    WhyNot::NothingRead | WhyNot::Withheld => self.database.stream_news().await,
                    _ => std::future::pending().await,
                }
            };
            if self.board.status().begun > begun {
                pause = RETRY_PAUSE;
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = news => pause = RETRY_PAUSE,
                () = sleep(pause) => pause = (pause * 2).min(RETRY_PAUSE_MAX),
            }
        }
    }

    /// One stream from its making to its end; returns why it ended. Its names are its own: the server may hold on to what a lost
    /// connection had.
    async fn attempt(&self, traces: &mut Traces, stop: &CancellationToken) -> WhyNot {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return WhyNot::Stopping,
            connected = self.connect(traces) => connected,
        };
        let (steward, primary) = match connected {
            Ok(connected) => connected,
            Err(why) => return why,
        };
        self.board.observed(Mode::Starting, &WhyNot::Starting);
        let name = publication::new_name();
        let publication = match &self.settings.publication {
            Some(theirs) => Publication::Named(theirs.clone()),
            None => Publication::Own(name.clone()),
        };
        if let Publication::Own(name) = &publication {
            traces.left.push(name.clone());
        }
        let mut running = None;
        let start = Start {
            name,
            steward: Arc::clone(&steward),
            publication: Arc::new(publication),
            primary,
        };
        let why = tokio::select! {
            biased;
            () = stop.cancelled() => WhyNot::Stopping,
            ended = self.run(&start, &mut running) => match ended {
                Ok(never) => match never {},
                Err(why) => why,
            },
        };
        // What follows may take a while.
        self.board.observed(Mode::Observed, &why);
        // Closes the replication connection, with which the slot goes.
        if let Some(running) = running {
            running.end();
        }
        let leave = async {
            steward.end_slots(&start.name).await?;
            self.drop_left(&steward, traces).await
        };
        match timeout(DROP_LIMIT, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the publication could not be dropped"),
            Err(_) => tracing::debug!("the publication was not dropped in time"),
        }
        why
    }

    /// Drops this proxy's publications; then nothing is published.
    async fn drop_left(&self, steward: &Steward, traces: &mut Traces) -> Result<(), WhyNot> {
        while let Some(name) = traces.left.last() {
            steward.drop_publication(name).await?;
            traces.left.pop();
        }
        self.database.stream_publish(false);
        Ok(())
    }

    /// The control connection, if anybody needs a stream.
    async fn connect(&self, traces: &mut Traces) -> Result<(Arc<Steward>, (NodeId, u64)), WhyNot> {
        let view = self.cluster.view();
        let primary = (view.primary.ok_or(WhyNot::NoPrimary)?, view.era);
        let idle = || self.database.stream_wanted().is_empty();
        if traces.is_swept && traces.left.is_empty() && idle() {
            return Err(WhyNot::NothingRead);
        }
        let database = &*self.database.name;
        let steward = Steward::connect(&self.settings.source, primary.0, database).await?;
        self.drop_left(&steward, traces).await?;
        if !traces.is_swept {
            // Of a proxy that was just killed the server may still hold the lock.
            let locked = steward.sweep(database, "").await?;
            traces.is_swept = locked == 0 || self.started.elapsed() > SWEEP_FOR;
        }
        if idle() {
            return Err(WhyNot::NothingRead);
        }
        if self.database.stream_is_withheld() {
            return Err(WhyNot::Withheld);
        }
        Ok((Arc::new(steward), primary))
    }

    async fn run(&self, start: &Start, running: &mut Option<Running>) -> Result<Infallible, WhyNot> {
        let Start {
            name,
            steward,
            publication,
            primary,
        } = start;
        let (settings, database) = (&self.settings, &*self.database.name);
        let replicas = i64::try_from(settings.nodes.len().saturating_sub(1)).unwrap_or(i64::MAX);
        let number = steward.permit(publication, replicas).await?;
        let version = steward.prepare(publication).await?;
        let is_own = matches!(**publication, Publication::Own(_));
        let address = settings.nodes.get(&primary.0).ok_or(WhyNot::NoPrimary)?;
        let (mut wire, facts) = Wire::open(&settings.walsenders, address, database).await?;
        let is_of = |known: Option<u64>| known.is_none_or(|known| facts.system_identifier == Some(known));
        let known = self.cluster.view().system_identifier;
        if facts.in_recovery || facts.system_identifier.is_some() && !is_of(known) {
            return Err(WhyNot::Changed);
        }
        let slot = format!("{name}_{number}");
        let limit = settings.limits.slot_timeout;
        let point = timeout(limit, wire.create_slot(&slot))
            .await
            .map_err(|_| WhyNot::SlotTimedOut(limit))??;
        wire.start(&slot, publication.name()).await?;
        let latest = steward.snapshot().await?;
        tracing::info!(database, publication = publication.name(), %point, "the stream has begun");
        let begun = Begun {
            database: Arc::clone(&self.database),
            cluster: self.cluster.clone(),
            limits: settings.limits,
            board: Arc::clone(&self.board),
            steward: Arc::clone(steward),
            publication: Arc::clone(publication),
            slot,
            primary: *primary,
            wire,
            version: (!is_own).then_some(version),
            renews: is_own && forgets_late(facts.server_version_num),
        };
        running.insert(Running::new(begun, point, latest)).drive().await
    }
}

/// Until May 2025 a walsender that decodes a transaction which was open while its table was published looks the table up as that
/// transaction saw it, and goes by that for all later ones: they are lost until the table's place in a publication changes again.
fn forgets_late(version: u32) -> bool {
    const MENDED: [u32; 5] = [130_021, 140_018, 150_013, 160_009, 170_005];
    let mended = MENDED
        .into_iter()
        .find(|mended| mended / 10_000 == version / 10_000);
    mended.map_or(version < MENDED[0], |mended| version < mended)
}

#[cfg(test)]
mod tests {
    use super::forgets_late;

    #[test]
    fn releases_before_may_2025_have_tables_published_anew() {
        for version in [120_022, 130_020, 150_012, 170_000, 170_004] {
            assert!(forgets_late(version), "{version}");
        }
        for version in [130_021, 150_018, 170_005, 180_000, 190_000] {
            assert!(!forgets_late(version), "{version}");
        }
    }
}
