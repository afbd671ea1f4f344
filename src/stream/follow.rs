//! The loop that keeps one database's stream: makes it as soon as somebody reads, and anew when it has ended.
//!
//! Started by `streams`. Everything happens in the background, under limits; until it succeeds, and whenever it ends, the database is
//! under observed writes and says why. Invariants: a connection that is given up is closed at once, so that no slot outlives its use;
//! the publication is dropped when a stream ends, as far as the server can be reached. The loop stops at the token.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

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
use crate::freshness::database::Database;

/// Pause after a stream that failed, doubled up to the second.
const RETRY_PAUSE: Duration = Duration::from_millis(250);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(10);
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
    publication: Arc<Publication>,
    /// What the slot's name begins with: no other proxy's does.
    unique: String,
}

impl Follower {
    pub fn new(
        database: Arc<Database>,
        cluster: Cluster,
        settings: Arc<StreamSettings>,
        board: Arc<Board>,
    ) -> Self {
        let unique = publication::new_name();
        let publication = match &settings.publication {
            Some(name) => Publication::Named(name.clone()),
            None => Publication::Own(unique.clone()),
        };
        Self {
            database,
            cluster,
            settings,
            board,
            publication: Arc::new(publication),
            unique,
        }
    }

    /// Keeps a stream, until the token stops it.
    pub async fn follow(self, stop: CancellationToken) {
        self.database.stream_open();
        let (mut is_swept, mut pause, mut told) = (false, RETRY_PAUSE, String::new());
        while !stop.is_cancelled() {
            let begun = self.board.status().begun;
            let why = self.attempt(&mut is_swept, &stop).await;
            self.board.observed(Mode::Observed, &why);
            let reason = why.to_string();
            if reason != told && !stop.is_cancelled() {
                tracing::info!(database = %self.database.name, reason, "no stream: freshness rests on observed writes and TTL");
            }
            told = reason;
            let news = async {
                match why {
                    WhyNot::NothingRead => self.database.stream_news().await,
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

    /// One stream from its making to its end; returns why it ended.
    async fn attempt(&self, is_swept: &mut bool, stop: &CancellationToken) -> WhyNot {
        let connected = tokio::select! {
            biased;
            () = stop.cancelled() => return WhyNot::Stopping,
            connected = self.connect(is_swept) => connected,
        };
        let (steward, primary) = match connected {
            Ok(connected) => connected,
            Err(why) => return why,
        };
        self.board.observed(Mode::Starting, &WhyNot::Starting);
        let mut running = None;
        let why = tokio::select! {
            biased;
            () = stop.cancelled() => WhyNot::Stopping,
            ended = self.run(&steward, primary, &mut running) => match ended {
                Ok(never) => match never {},
                Err(why) => why,
            },
        };
        // Closes the replication connection, with which the slot goes.
        if let Some(running) = running {
            running.end();
        }
        let leave = async {
            steward.end_slots(&self.unique).await?;
            steward.drop_publication(&self.publication).await
        };
        match timeout(DROP_LIMIT, leave).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "the publication could not be dropped"),
            Err(_) => tracing::debug!("the publication was not dropped in time"),
        }
        why
    }

    /// The control connection, if anybody needs a stream.
    async fn connect(&self, is_swept: &mut bool) -> Result<(Arc<Steward>, (NodeId, u64)), WhyNot> {
        let view = self.cluster.view();
        let primary = (view.primary.ok_or(WhyNot::NoPrimary)?, view.era);
        if *is_swept && self.database.stream_wanted().is_empty() {
            return Err(WhyNot::NothingRead);
        }
        let database = &*self.database.name;
        let steward = Steward::connect(&self.settings.source, primary.0, database).await?;
        if !*is_swept {
            for name in steward.sweep().await? {
                tracing::info!(
                    database,
                    publication = name,
                    "dropped what a proxy that is gone had left"
                );
            }
            *is_swept = true;
        }
        if self.database.stream_wanted().is_empty() {
            return Err(WhyNot::NothingRead);
        }
        Ok((Arc::new(steward), primary))
    }

    async fn run(
        &self,
        steward: &Arc<Steward>,
        primary: (NodeId, u64),
        running: &mut Option<Running>,
    ) -> Result<Infallible, WhyNot> {
        let (settings, database) = (&self.settings, &*self.database.name);
        let replicas = i64::try_from(settings.nodes.len().saturating_sub(1)).unwrap_or(i64::MAX);
        let number = steward.permit(&self.publication, replicas).await?;
        steward.prepare(&self.publication).await?;
        let address = settings.nodes.get(&primary.0).ok_or(WhyNot::NoPrimary)?;
        let (mut wire, facts) = Wire::open(&settings.walsenders, address, database).await?;
        let is_of = |known: Option<u64>| known.is_none_or(|known| facts.system_identifier == Some(known));
        let known = self.cluster.view().system_identifier;
        if facts.in_recovery || facts.system_identifier.is_some() && !is_of(known) {
            return Err(WhyNot::Changed);
        }
        let slot = format!("{}_{number}", self.unique);
        let limit = settings.limits.slot_timeout;
        let point = timeout(limit, wire.create_slot(&slot))
            .await
            .map_err(|_| WhyNot::SlotTimedOut(limit))??;
        wire.start(&slot, self.publication.name()).await?;
        let latest = steward.snapshot().await?;
        tracing::info!(database, publication = self.publication.name(), %point, "the stream has begun");
        let begun = Begun {
            database: Arc::clone(&self.database),
            cluster: self.cluster.clone(),
            limits: settings.limits,
            board: Arc::clone(&self.board),
            steward: Arc::clone(steward),
            publication: Arc::clone(&self.publication),
            slot,
            primary,
            wire,
        };
        running.insert(Running::new(begun, point, latest)).drive().await
    }
}
