//! All databases that are served, and the loops that keep their clocks in step with the cluster.
//!
//! Started by `serve`, called by the session at login. One loop carries the primary's positions to the fences, one begins a new
//! era in all clocks when the cluster does. Invariant: a change of era reaches the clocks before the listener that is given here
//! may empty caches and pools, so that nothing made under the old era is stored after. The loops stop at the token.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catalogs::{self, CatalogSource};
use super::database::{Database, Writes};
use super::guards::Guards;
use crate::catalog::Allowed;
use crate::cluster::{Cluster, Ticks};

/// What the databases need to be told.
#[derive(Debug, Clone)]
pub struct DatabaseSettings {
    /// Functions declared safe.
    pub allowed: Arc<Allowed>,
    /// Where catalogs are read from.
    pub source: CatalogSource,
    /// All on, but in a test of the tests.
    pub guards: Guards,
}

/// Databases by name, made when a client first logs in to one.
#[derive(Debug)]
pub struct Databases {
    by_name: Mutex<HashMap<Arc<str>, Arc<Database>>>,
    cluster: Cluster,
    ticks: Arc<Ticks>,
    allowed: ArcSwap<Allowed>,
    source: CatalogSource,
    guards: Guards,
    tasks: TaskTracker,
    stop: CancellationToken,
    opened: watch::Sender<usize>,
}

impl Databases {
    /// None yet.
    pub fn start(
        settings: DatabaseSettings,
        cluster: Cluster,
        ticks: Arc<Ticks>,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let databases = Arc::new(Self {
            by_name: Mutex::new(HashMap::new()),
            cluster,
            ticks,
            allowed: ArcSwap::new(settings.allowed),
            source: settings.source,
            guards: settings.guards,
            tasks: tasks.clone(),
            stop: stop.clone(),
            opened: watch::Sender::new(0),
        });
        tasks.spawn(Arc::clone(&databases).settle_fences());
        databases
    }

    /// The database of this name. Called after a server has let somebody in to it, so that names cannot be made up.
    pub fn open(&self, name: &str) -> Arc<Database> {
        let mut by_name = self.by_name.lock();
        if let Some(database) = by_name.get(name) {
            return Arc::clone(database);
        }
        let name: Arc<str> = name.into();
        let database = Arc::new(Database::new(
            Arc::clone(&name),
            self.cluster.view().era,
            Arc::clone(&self.ticks),
            self.allowed.load_full(),
            self.guards,
        ));
        by_name.insert(name, Arc::clone(&database));
        self.cluster.request_probe();
        let (source, cluster) = (self.source.clone(), self.cluster.clone());
        self.tasks.spawn(catalogs::follow(
            Arc::clone(&database),
            source,
            cluster,
            self.stop.clone(),
        ));
        self.opened.send_modify(|count| *count += 1);
        database
    }

    /// How many have been opened.
    pub fn opened(&self) -> watch::Receiver<usize> {
        self.opened.subscribe()
    }

    /// Other functions are declared safe from now on, in all databases.
    pub fn allow(&self, allowed: Allowed) {
        let allowed = Arc::new(allowed);
        // Under the lock, so that a database that is opened meanwhile has them too.
        let by_name = self.by_name.lock();
        self.allowed.store(Arc::clone(&allowed));
        for database in by_name.values() {
            database.allow(Arc::clone(&allowed));
        }
    }

    /// All of them, in no order.
    pub fn all(&self) -> Vec<Arc<Database>> {
        self.by_name.lock().values().cloned().collect()
    }

    /// These writes, made in `database`, may have been committed. To be called before it is acknowledged to anybody.
    pub fn acknowledge(&self, database: &Database, writes: &Writes) {
        if writes.is_global() {
            for other in self.all() {
                other.acknowledge(writes);
            }
        } else {
            database.acknowledge(writes);
        }
    }

    /// Begins this era in all clocks.
    pub fn begin_era(&self, era: u64) {
        for database in self.all() {
            database.begin_era(era);
        }
        self.cluster.request_probe();
    }

    async fn settle_fences(self: Arc<Self>) {
        let mut positions = self.cluster.positions();
        loop {
            let position = *positions.borrow_and_update();
            if position.era > 0 {
                for database in self.all() {
                    database.settle(position.era, position.covers, position.lsn);
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                changed = positions.changed() => if changed.is_err() { return },
            }
        }
    }
}
