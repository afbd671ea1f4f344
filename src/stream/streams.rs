//! The streams of all databases that are served: started as databases are opened, and what they show.
//!
//! Made by `serve`, read by the console and the metrics. Invariant: at most one follower per database. Where streams are switched off
//! nothing runs, and that is what it says. The loop, and the followers, stop at the token.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::follow::{Board, Follower, StreamLimits};
use super::status::Status;
use crate::cluster::{Cluster, NodeId};
use crate::freshness::catalogs::CatalogSource;
use crate::freshness::databases::Databases;
use crate::pool::Address;
use crate::pool::replication::Walsenders;

/// How streams are made.
#[derive(Clone)]
pub struct StreamSettings {
    pub(crate) walsenders: Walsenders,
    /// Where the nodes are.
    pub nodes: HashMap<NodeId, Address>,
    /// How the control user logs in.
    pub source: CatalogSource,
    /// A publication that is there; `None`: each database gets one of the proxy's own.
    pub publication: Option<String>,
    /// What bounds a stream.
    pub limits: StreamLimits,
}

/// The streams by database.
#[derive(Debug, Default)]
pub struct Streams {
    boards: Mutex<BTreeMap<Arc<str>, Arc<Board>>>,
    is_on: bool,
}

impl Streams {
    /// Follows every database that is opened, if there are settings for that.
    pub fn start(
        settings: Option<StreamSettings>,
        databases: &Arc<Databases>,
        cluster: &Cluster,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let streams = Arc::new(Self {
            boards: Mutex::default(),
            is_on: settings.is_some(),
        });
        if let Some(settings) = settings {
            let supervisor = Supervisor {
                streams: Arc::clone(&streams),
                settings: Arc::new(settings),
                databases: Arc::clone(databases),
                cluster: cluster.clone(),
                tasks: tasks.clone(),
            };
            tasks.spawn(supervisor.run(stop.clone()));
        }
        streams
    }

    /// What the stream of a database shows.
    pub fn status(&self, database: &str) -> Status {
        let board = self.boards.lock().get(database).cloned();
        match board {
            Some(board) => board.status(),
            None if self.is_on => Board::default().status(),
            None => Status::observed("stream.enabled is \"off\"".to_owned()),
        }
    }
}

struct Supervisor {
    streams: Arc<Streams>,
    settings: Arc<StreamSettings>,
    databases: Arc<Databases>,
    cluster: Cluster,
    tasks: TaskTracker,
}

impl Supervisor {
    async fn run(self, stop: CancellationToken) {
        let mut opened = self.databases.opened();
        loop {
            opened.mark_unchanged();
            for database in self.databases.all() {
                let board = Arc::new(Board::default());
                {
                    let mut boards = self.streams.boards.lock();
                    if boards.contains_key(&database.name) {
                        continue;
                    }
                    boards.insert(Arc::clone(&database.name), Arc::clone(&board));
                }
                let settings = Arc::clone(&self.settings);
                let follower = Follower {
                    database,
                    cluster: self.cluster.clone(),
                    settings,
                    board,
                    started: Instant::now(),
                };
                self.tasks.spawn(follower.follow(stop.clone()));
            }
            tokio::select! {
                () = stop.cancelled() => return,
                changed = opened.changed() => if changed.is_err() { return },
            }
        }
    }
}
