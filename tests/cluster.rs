//! The cluster's view of real servers: roles, timelines, lag, positions, and what is said when something is missing.
//!
//! Each test starts PostgreSQL itself, does to it what happens to servers, and waits on the cluster's own versions until the view
//! says what it must; a view that never does fails at a deadline and is printed. It needs the PostgreSQL server's binaries.

#[path = "support/server_tls.rs"]
mod server_tls;

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use parking_lot::Mutex;
use pgladder::cluster::{
    Cluster, ClusterSettings, ClusterView, LagLimit, MissingRight, NodeId, NotUsable, Position, Role, Ticks,
};
use pgladder::demo::cluster::{Options, SUPERUSER, ThrowAwayCluster};
use pgladder::pool::{ServerTls, TlsMode};
use pgladder::protocol::lsn::Lsn;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A bound on waiting, not a measure: servers start, recover and replay on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running cluster and what ends it.
struct Watched {
    cluster: Cluster,
    ticks: Arc<Ticks>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Watched {
    fn start(settings: ClusterSettings) -> Self {
        let (ticks, tasks, stop) = (
            Arc::<Ticks>::default(),
            TaskTracker::new(),
            CancellationToken::new(),
        );
        let cluster = Cluster::start(settings, Arc::clone(&ticks), &tasks, &stop);
        Self {
            cluster,
            ticks,
            tasks,
            stop,
        }
    }

    /// The first view from now on of which `good` is true.
    async fn until(&self, what: &str, good: impl Fn(&ClusterView) -> bool) -> Arc<ClusterView> {
        let mut versions = self.cluster.watch();
        let found = async {
            loop {
                versions.borrow_and_update();
                let view = self.cluster.view();
                if good(&view) {
                    return view;
                }
                versions.changed().await.expect("the cluster runs");
            }
        };
        let found = timeout(PATIENCE, found).await;
        found.unwrap_or_else(|_| panic!("{what}: {:#?}", self.cluster.view()))
    }

    /// Waits until every node is usable and node `primary` is the primary.
    async fn whole(&self, primary: u16) -> Arc<ClusterView> {
        self.until("all nodes usable", |view| {
            view.primary == Some(NodeId(primary)) && view.nodes.iter().all(|node| node.usable)
        })
        .await
    }

    /// Raises a tick, asks for a probe, and returns the first position of the present era that covers the tick.
    async fn position(&self) -> Position {
        let tick = self.ticks.raise();
        let mut positions = self.cluster.positions();
        self.cluster.request_probe();
        let found =
            positions.wait_for(|position| position.covers >= tick && position.era == self.cluster.view().era);
        *timeout(PATIENCE, found)
            .await
            .expect("a position")
            .expect("the cluster runs")
    }

    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        timeout(PATIENCE, self.tasks.wait())
            .await
            .expect("every loop hears the token");
    }
}

async fn start(replicas: usize, settings: &[(&str, &str)]) -> ThrowAwayCluster {
    start_with(replicas, settings, None).await
}

async fn start_with(replicas: usize, settings: &[(&str, &str)], hba: Option<&str>) -> ThrowAwayCluster {
    let owned = settings
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let options = Options {
        replicas,
        settings: owned.collect(),
        hba: hba.map(str::to_owned),
        label: "test-".to_owned(),
    };
    ThrowAwayCluster::start(options).await.expect("a cluster")
}

/// Settings for all nodes of the servers, in their order.
fn nodes_of(servers: &ThrowAwayCluster) -> ClusterSettings {
    let nodes = (0..servers.node_count()).map(|node| ("127.0.0.1".to_owned(), servers.port(node), 1));
    let mut settings = ClusterSettings::new(nodes, SUPERUSER.to_owned());
    settings.poll_interval = Duration::from_millis(20);
    settings.backoff_max = Duration::from_millis(100);
    settings
}

async fn run(servers: &ThrowAwayCluster, node: usize, sql: &str) {
    let client = servers.connect(node, "postgres").await.expect("a connection");
    client.batch_execute(sql).await.expect("it runs");
}

async fn text(servers: &ThrowAwayCluster, node: usize, query: &str) -> String {
    let client = servers.connect(node, "postgres").await.expect("a connection");
    client.query_one(query, &[]).await.expect("a row").get(0)
}

async fn lsn(servers: &ThrowAwayCluster, node: usize, function: &str) -> Lsn {
    let found = text(servers, node, &format!("SELECT {function}()::text")).await;
    found.parse().expect("a position")
}

fn why_not(view: &ClusterView, node: u16) -> String {
    let node = view.node(NodeId(node)).expect("a node");
    node.why_not
        .as_ref()
        .map_or_else(|| "usable".to_owned(), ToString::to_string)
}

fn is_unreachable(view: &ClusterView, node: u16) -> bool {
    matches!(
        view.nodes[usize::from(node)].why_not,
        Some(NotUsable::Unreachable(_))
    )
}

/// Two replicas whose primary is dead, the one with more of its WAL first: the other can follow it, and not always the other way
/// round.
async fn further_first(servers: &ThrowAwayCluster) -> (NodeId, NodeId) {
    let mut received = Vec::new();
    for node in [1, 2] {
        let replica = servers.connect(node, "postgres").await.expect("a connection");
        let row = replica
            .query_one("SELECT pg_last_wal_receive_lsn()::text", &[])
            .await
            .expect("a position");
        let lsn: Lsn = row.get::<_, &str>(0).parse().expect("a position");
        received.push(lsn);
    }
    if received[0] >= received[1] {
        (NodeId(1), NodeId(2))
    } else {
        (NodeId(2), NodeId(1))
    }
}

/// The old primary comes back where there is a new one: it is no primary, not even when it is the only one.
async fn old_primary_stays_out(servers: &ThrowAwayCluster, watched: &Watched, heir: NodeId) {
    let era = watched.cluster.view().era;
    servers.restart(0).await.expect("crash recovery");
    let stale = watched
        .until("the old primary is back", |view| {
            view.nodes[0].role == Role::Primary
        })
        .await;
    assert_eq!(stale.primary, Some(heir));
    assert_eq!(
        stale.nodes[0].why_not,
        Some(NotUsable::OtherTimeline {
            found: 1,
            expected: 2
        })
    );
    assert_eq!((stale.era, &stale.conflict), (era, &None));
    let position = watched.position().await;
    assert_eq!(position.timeline, 2);

    // Even alone it takes no writes again.
    servers.kill_hard(heir.index()).await.expect("it dies");
    let alone = watched.until("no primary", |view| view.primary.is_none()).await;
    assert!(!alone.nodes[0].usable);
}

/// A standby refuses SERIALIZABLE, which must not make it unreachable where it is the default.
#[tokio::test]
async fn a_view_names_roles_and_timelines_and_its_samples_advance() {
    let servers = start(2, &[("default_transaction_isolation", "serializable")]).await;
    let watched = Watched::start(nodes_of(&servers));
    let found = watched
        .cluster
        .wait_for_primary((Instant::now() + PATIENCE).into())
        .await;
    assert_eq!(found, Some(NodeId(0)));
    let view = watched.whole(0).await;
    let roles: Vec<Role> = view.nodes.iter().map(|node| node.role).collect();
    assert_eq!(roles, [Role::Primary, Role::Replica, Role::Replica]);
    assert!(
        view.nodes
            .iter()
            .all(|node| node.timeline == 1 && node.missing_right.is_none())
    );
    assert_eq!(view.timeline, 1);
    let system = text(
        &servers,
        0,
        "SELECT system_identifier::text FROM pg_control_system()",
    )
    .await;
    assert_eq!(
        view.system_identifier.map(|system| system.to_string()),
        Some(system)
    );
    assert_eq!(
        view.primary_node().map(|node| node.address.port),
        Some(servers.port(0))
    );

    let noted: Vec<u64> = view
        .nodes
        .iter()
        .map(|node| watched.cluster.next_sample_number(node.id))
        .collect();
    run(
        &servers,
        0,
        "CREATE TABLE t AS SELECT generate_series(1, 1000) AS a",
    )
    .await;
    let written = lsn(&servers, 0, "pg_current_wal_flush_lsn").await;
    let later = watched
        .until("all samples past the write", |view| {
            view.nodes.iter().all(|node| node.sample.lsn >= written)
        })
        .await;
    for (node, noted) in later.nodes.iter().zip(noted) {
        assert!(node.sample.number > noted, "{node:?}");
    }
    assert!(later.version > view.version);
    assert_eq!(later.era, view.era, "polling alone opens no era");
    let level = watched
        .until("no lag", |view| view.nodes[1].lag_bytes == Some(0))
        .await;
    assert_eq!(level.nodes[1].lag, Some(Duration::ZERO));
    assert_eq!(level.nodes[0].lag_bytes, None, "a primary lags behind nothing");
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

/// An open transaction leaves WAL that nothing would flush for ten seconds: only the probe's own commit does.
#[tokio::test]
async fn a_position_covers_what_was_written_before_and_replicas_reach_it_on_an_idle_primary() {
    let servers = start(2, &[("wal_writer_delay", "10s")]).await;
    run(&servers, 0, "CREATE TABLE t (a int)").await;
    let watched = Watched::start(nodes_of(&servers));
    watched.whole(0).await;
    let mut unflushed = 0;
    for round in 0..8 {
        let writer = servers.connect(0, "postgres").await.expect("a connection");
        writer
            .batch_execute("BEGIN; INSERT INTO t SELECT 1 FROM generate_series(1, 50)")
            .await
            .expect("a write");
        let (insert, flushed) = (
            lsn(&servers, 0, "pg_current_wal_insert_lsn").await,
            lsn(&servers, 0, "pg_current_wal_flush_lsn").await,
        );
        unflushed += u32::from(flushed < insert);
        let era = watched.cluster.view().era;
        let position = watched.position().await;
        assert_eq!((position.era, position.timeline), (era, 1));
        assert!(position.lsn >= insert, "round {round}: {position:?}, {insert}");
        let flushed = lsn(&servers, 0, "pg_current_wal_flush_lsn").await;
        assert!(
            flushed >= position.lsn,
            "round {round}: {position:?}, flushed {flushed}"
        );
        watched
            .until("replicas reach the position", |view| {
                view.nodes[1..]
                    .iter()
                    .all(|node| node.usable && node.sample.lsn >= position.lsn)
            })
            .await;
    }
    assert!(unflushed > 0, "no round left WAL in memory");
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn callers_share_probes_and_each_is_covered() {
    let servers = start(0, &[]).await;
    let watched = Arc::new(Watched::start(nodes_of(&servers)));
    watched.whole(0).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..64 {
        let watched = Arc::clone(&watched);
        callers.spawn(async move { watched.position().await });
    }
    let covered: Vec<Position> = callers.join_all().await;
    assert_eq!(covered.len(), 64);
    Arc::into_inner(watched).expect("no caller is left").end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_promoted_replica_becomes_the_primary_and_the_old_one_is_fenced_off() {
    let servers = start(2, &[]).await;
    let watched = Watched::start(nodes_of(&servers));
    let before = watched.whole(0).await;
    let old = watched.position().await;

    servers.kill_hard(0).await.expect("it dies");
    let orphaned = watched.until("no primary", |view| view.primary.is_none()).await;
    assert!(is_unreachable(&orphaned, 0), "{orphaned:?}");
    let orphaned = watched
        .until("no history to compare with", |view| why_not(view, 1) != "usable")
        .await;
    assert_eq!(why_not(&orphaned, 1), "no primary to compare it with");
    let owed = watched.ticks.raise();
    let mut positions = watched.cluster.positions();
    watched.cluster.request_probe();

    let (heir, other) = further_first(&servers).await;
    servers.promote(heir.index()).await.expect("a replica");
    let after = watched
        .until("the promoted one", |view| view.primary == Some(heir))
        .await;
    assert!(after.era > before.era);
    assert_eq!(after.timeline, 2);
    assert_ne!(old.era, after.era, "a position of the old era counts no more");
    let paid = positions.wait_for(|position| position.covers >= owed);
    let paid = *timeout(PATIENCE, paid)
        .await
        .expect("a request is owed")
        .expect("the cluster runs");
    assert_eq!((paid.era, paid.timeline), (watched.cluster.view().era, 2));
    let apart = watched
        .until("the other replica is told apart", |view| {
            !view.nodes[other.index()].usable
        })
        .await;
    assert_eq!(
        apart.nodes[other.index()].why_not,
        Some(NotUsable::OtherTimeline {
            found: 1,
            expected: 2
        })
    );

    servers
        .follow(other.index(), heir.index())
        .await
        .expect("a replica");
    let followed = watched
        .until("the other replica follows", |view| {
            view.nodes[other.index()].usable
        })
        .await;
    assert_eq!(
        (followed.nodes[other.index()].timeline, followed.era),
        (2, after.era)
    );

    old_primary_stays_out(&servers, &watched, heir).await;
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn two_primaries_of_one_timeline_take_no_writes_until_one_is_gone() {
    let servers = start(2, &[]).await;
    let watched = Watched::start(nodes_of(&servers));
    let before = watched.whole(0).await;
    servers.kill_hard(0).await.expect("it dies");
    servers.promote(1).await.expect("a replica");
    servers.promote(2).await.expect("a replica");
    let conflict = watched.until("a conflict", |view| view.conflict.is_some()).await;
    assert_eq!(conflict.primary, None);
    let told = conflict.conflict.clone().expect("just seen");
    for node in [1, 2] {
        assert!(told.contains(&servers.port(node).to_string()), "{told}");
        assert_eq!(conflict.nodes[node].why_not, Some(NotUsable::Conflict));
    }
    servers.kill_hard(2).await.expect("it dies");
    let after = watched
        .until("the one that is left", |view| view.primary == Some(NodeId(1)))
        .await;
    assert!(after.era > before.era);
    assert_eq!(after.conflict, None);
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_node_of_another_system_is_named_and_never_used() {
    let (servers, stranger) = (start(1, &[]).await, start(0, &[]).await);
    run(
        &stranger,
        0,
        "CREATE TABLE t AS SELECT generate_series(1, 100000) AS a",
    )
    .await;
    let mut settings = nodes_of(&servers);
    let own = settings
        .nodes
        .iter()
        .map(|node| (node.host.clone(), node.port, 1));
    let first = [("127.0.0.1".to_owned(), stranger.port(0), 1)];
    let listed = ClusterSettings::new(first.into_iter().chain(own), SUPERUSER.to_owned());
    settings.nodes = listed.nodes;
    let watched = Watched::start(settings);
    let view = watched
        .until("the majority's primary", |view| view.nodes[2].usable)
        .await;
    assert_eq!(view.primary, Some(NodeId(1)));
    let query = "SELECT system_identifier::text FROM pg_control_system()";
    let (expected, found) = (text(&servers, 0, query).await, text(&stranger, 0, query).await);
    assert_eq!(
        why_not(&view, 0),
        format!("another cluster: system identifier {found}, expected {expected}")
    );
    servers.kill_hard(0).await.expect("it dies");
    let view = watched.until("no primary", |view| view.primary.is_none()).await;
    assert!(matches!(
        view.nodes[0].why_not,
        Some(NotUsable::OtherSystem { .. })
    ));
    assert_eq!(watched.cluster.pick(&view, |_| true), None);
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
    stranger.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_restart_of_the_primary_opens_an_era_with_or_without_its_postmaster() {
    let servers = start(1, &[]).await;
    let watched = Watched::start(nodes_of(&servers));
    let first = watched.whole(0).await;
    watched.position().await;

    // One backend dies: the server restarts all of its processes, and keeps its start time.
    let started = "SELECT pg_postmaster_start_time()::text";
    let start_time = text(&servers, 0, started).await;
    let victim = servers.connect(0, "postgres").await.expect("a connection");
    let pid: i32 = victim
        .query_one("SELECT pg_backend_pid()", &[])
        .await
        .expect("a row")
        .get(0);
    kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it lives");
    let second = watched
        .until("an era", |view| view.era > first.era && view.nodes[1].usable)
        .await;
    assert_eq!((second.primary, second.timeline), (Some(NodeId(0)), 1));
    assert_eq!(text(&servers, 0, started).await, start_time);
    let position = watched.position().await;
    assert_eq!(position.era, watched.cluster.view().era);

    servers.kill_hard(0).await.expect("it dies");
    servers.restart(0).await.expect("crash recovery");
    let third = watched
        .until("an era", |view| view.era > second.era && view.nodes[1].usable)
        .await;
    assert_eq!((third.primary, third.timeline), (Some(NodeId(0)), 1));
    let position = watched.position().await;
    watched
        .until("the replica streams again", |view| {
            view.nodes[1].sample.lsn >= position.lsn
        })
        .await;
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn lag_shows_and_only_a_replica_past_its_limit_leaves() {
    let servers = start(2, &[]).await;
    run(&servers, 0, "CREATE TABLE t (a text)").await;
    let patient = Watched::start(nodes_of(&servers));
    let strict = Watched::start(ClusterSettings {
        lag: LagLimit {
            lag_bytes_max: Some(64 << 10),
            ..LagLimit::default()
        },
        ..nodes_of(&servers)
    });
    patient.whole(0).await;
    strict.whole(0).await;
    servers.pause_replay(1).await.expect("a replica");
    let replica = servers.connect(1, "postgres").await.expect("a connection");
    let row = replica
        .query_one("SELECT pg_last_wal_replay_lsn()::text", &[])
        .await;
    let paused_at: Lsn = row
        .expect("a position")
        .get::<_, &str>(0)
        .parse()
        .expect("a position");
    run(
        &servers,
        0,
        "INSERT INTO t SELECT repeat('x', 1000) FROM generate_series(1, 200)",
    )
    .await;
    let behind = |view: &ClusterView| view.nodes[1].lag_bytes.is_some_and(|bytes| bytes > 64 << 10);
    let view = patient.until("lag in bytes", behind).await;
    assert!(view.nodes[1].usable, "inside its limit");
    assert!(
        view.nodes[1].sample.lsn <= paused_at,
        "nothing is replayed meanwhile"
    );
    let earlier = view.nodes[1].lag.expect("a time");
    let view = patient
        .until("lag in time", |view| {
            view.nodes[1].lag.is_some_and(|lag| lag > earlier)
        })
        .await;
    assert!(view.nodes[1].usable && view.nodes[2].usable);
    let view = strict.until("it leaves", |view| !view.nodes[1].usable).await;
    assert_eq!(view.nodes[1].why_not, Some(NotUsable::Lagging));
    strict
        .until("the other one stays", |view| {
            view.nodes[2].usable && view.nodes[2].lag_bytes == Some(0)
        })
        .await;

    servers.resume_replay(1).await.expect("a replica");
    strict.whole(0).await;
    patient
        .until("no lag", |view| view.nodes[1].lag_bytes == Some(0))
        .await;
    patient.end().await;
    strict.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_replica_goes_and_comes_back_within_one_era() {
    let servers = start(2, &[]).await;
    let watched = Watched::start(nodes_of(&servers));
    let before = watched.whole(0).await;
    servers.stop(1).await.expect("it stops");
    let gone = watched.until("it is gone", |view| !view.nodes[1].usable).await;
    assert!(is_unreachable(&gone, 1), "{gone:?}");
    assert_eq!(gone.nodes[1].role, Role::Unknown);
    assert!(gone.nodes[2].usable);
    let number = watched.cluster.next_sample_number(NodeId(1));
    servers.restart(1).await.expect("it starts");
    let back = watched.whole(0).await;
    assert!(back.nodes[1].sample.number > number);
    assert_eq!(back.era, before.era, "a replica opens no era");
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn a_start_with_all_nodes_down_returns_and_says_why() {
    let servers = start(1, &[]).await;
    servers.stop(1).await.expect("it stops");
    servers.stop(0).await.expect("it stops");
    let watched = Watched::start(nodes_of(&servers));
    assert_eq!(why_not(&watched.cluster.view(), 0), "not asked yet");
    let view = watched
        .until("both are unreachable", |view| {
            is_unreachable(view, 0) && is_unreachable(view, 1)
        })
        .await;
    assert_eq!((view.primary, view.system_identifier), (None, None));
    assert!(why_not(&view, 0).contains("refused"), "{}", why_not(&view, 0));
    let soon = Instant::now() + Duration::from_millis(50);
    assert_eq!(watched.cluster.wait_for_primary(soon.into()).await, None);

    // A replica alone is not used: nothing tells which history it belongs to.
    servers.restart(1).await.expect("it starts");
    let view = watched
        .until("the replica answers", |view| view.nodes[1].role == Role::Replica)
        .await;
    assert_eq!(why_not(&view, 1), "no primary to compare it with");
    servers.restart(0).await.expect("it starts");
    watched.whole(0).await;
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

/// Settings for a control user `watcher` whose password is what `password` holds when it is asked for.
fn as_watcher(servers: &ThrowAwayCluster, password: Arc<Mutex<String>>) -> ClusterSettings {
    let ports: Vec<u16> = (0..servers.node_count()).map(|node| servers.port(node)).collect();
    ClusterSettings {
        user: "watcher".to_owned(),
        password: Arc::new(move |host, port, database, user| {
            assert_eq!((host, database, user), ("127.0.0.1", "postgres", "watcher"));
            assert!(ports.contains(&port));
            Some(password.lock().clone())
        }),
        ..nodes_of(servers)
    }
}

/// The password is looked up for each connection, and a role that may only log in sees everything but a late timeline.
#[tokio::test]
async fn a_control_user_with_nothing_but_login_works_and_is_told_what_it_misses() {
    let hba = "host all watcher 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust";
    let servers = start_with(2, &[("wal_writer_delay", "10s")], Some(hba)).await;
    run(
        &servers,
        0,
        "CREATE ROLE watcher LOGIN PASSWORD 'first'; CREATE TABLE t (a int)",
    )
    .await;
    servers.wait_caught_up().await.expect("both stream");
    let password = Arc::new(Mutex::new("wrong".to_owned()));
    let watched = Watched::start(as_watcher(&servers, Arc::clone(&password)));
    let view = watched.until("a refusal", |view| is_unreachable(view, 0)).await;
    assert!(
        why_not(&view, 0).contains("password authentication failed"),
        "{}",
        why_not(&view, 0)
    );

    "first".clone_into(&mut password.lock());
    let view = watched.whole(0).await;
    for node in &view.nodes {
        assert_eq!(node.missing_right, Some(MissingRight::ReadAllStats));
        assert_eq!(node.timeline, 1);
    }
    assert!(MissingRight::ReadAllStats.to_string().contains("pg_monitor"));
    let writer = servers.connect(0, "postgres").await.expect("a connection");
    writer
        .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await
        .expect("a write");
    let insert = lsn(&servers, 0, "pg_current_wal_insert_lsn").await;
    let position = watched.position().await;
    assert!(position.lsn >= insert);
    watched
        .until("replicas reach the position", |view| {
            view.nodes[1].sample.lsn >= position.lsn
        })
        .await;

    run(&servers, 0, "ALTER ROLE watcher PASSWORD 'second'").await;
    servers.wait_caught_up().await.expect("both stream");
    "second".clone_into(&mut password.lock());
    servers.stop(0).await.expect("it stops");
    servers.promote(1).await.expect("a replica");
    watched
        .until("the promoted one", |view| view.primary == Some(NodeId(1)))
        .await;
    servers.follow(2, 1).await.expect("a replica");
    run(&servers, 1, "INSERT INTO t VALUES (2); CHECKPOINT").await;
    servers
        .wait_caught_up()
        .await
        .expect("it follows the new timeline");
    // What makes the control file tell is a restartpoint.
    run(&servers, 2, "CHECKPOINT").await;
    let view = watched
        .until("the follower is told from a stray", |view| view.nodes[2].usable)
        .await;
    assert_eq!(view.nodes[2].timeline, 2);
    run(&servers, 1, "GRANT pg_monitor TO watcher").await;
    watched
        .until("the right is there", |view| view.nodes[1].missing_right.is_none())
        .await;
    watched.end().await;
    servers.shut_down().await.expect("nothing stays");
}

#[tokio::test]
async fn control_connections_use_tls_with_the_checks_of_the_pools() {
    let hba = "hostssl all watcher 127.0.0.1/32 scram-sha-256\nhostnossl all all 127.0.0.1/32 reject";
    let servers = start_with(0, &[], Some(hba)).await;
    run(&servers, 0, "CREATE ROLE watcher LOGIN PASSWORD 'right'").await;
    let with = |host: &str, tls: ServerTls| {
        let nodes = [(host.to_owned(), servers.port(0), 1)];
        Watched::start(ClusterSettings {
            tls: tls.for_control(),
            password: Arc::new(|_, _, _, _| Some("right".to_owned())),
            poll_interval: Duration::from_millis(20),
            ..ClusterSettings::new(nodes, "watcher".to_owned())
        })
    };
    let mode = |mode, roots: Option<&std::path::Path>| {
        ServerTls::new(mode, roots.map(Into::into)).expect("a configuration")
    };
    let required = with("127.0.0.1", mode(TlsMode::Require, None));
    let view = required
        .until("no TLS there", |view| is_unreachable(view, 0))
        .await;
    assert!(
        why_not(&view, 0).contains("does not support TLS"),
        "{}",
        why_not(&view, 0)
    );

    let root = server_tls::offer_tls(&servers).await;
    required.whole(0).await;
    required.position().await;
    // A poll may have told the position, but the prober connects all the same: it was asked.
    let encrypted = "SELECT count(*) FILTER (WHERE ssl) || ' of ' || count(*) FROM pg_stat_ssl \
                     JOIN pg_stat_activity USING (pid) WHERE application_name = 'pgladder' AND usename = 'watcher'";
    let both = async {
        while text(&servers, 0, encrypted).await != "2 of 2" {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, both)
        .await
        .expect("the poller's and the prober's");
    required.end().await;

    for (host, tls, refusal) in [
        ("127.0.0.1", mode(TlsMode::Prefer, None), None),
        ("localhost", mode(TlsMode::VerifyFull, Some(&root)), None),
        ("127.0.0.1", mode(TlsMode::VerifyCa, Some(&root)), None),
        (
            "127.0.0.1",
            mode(TlsMode::VerifyFull, Some(&root)),
            Some("not valid for name"),
        ),
        (
            "127.0.0.1",
            mode(TlsMode::Disable, None),
            Some("pg_hba.conf rejects connection"),
        ),
    ] {
        let watched = with(host, tls);
        match refusal {
            None => drop(watched.whole(0).await),
            Some(words) => {
                let view = watched.until("a refusal", |view| is_unreachable(view, 0)).await;
                assert!(why_not(&view, 0).contains(words), "{}", why_not(&view, 0));
            }
        }
        watched.end().await;
    }
    servers.shut_down().await.expect("nothing stays");
}
