//! What is done to the servers while the sessions work: replay is paused, nodes are killed, the primary changes.
//!
//! One task of `runs`. Invariants: every disturbance ends with the servers whole again; writers are quiet and replicas caught up
//! before a promotion, because without synchronous replication PostgreSQL itself may lose what it acknowledged. Durations are
//! numbers of operations.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgladder::demo::cluster::{SUPERUSER, ThrowAwayCluster};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

use super::session::Run;
use crate::client::Client;
use crate::setup::eventually;

/// Operations in which a round of disturbances comes.
const ROUND: u64 = 20_000;

/// One disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disturbance {
    PauseReplay,
    KillReplica,
    /// Kills one process of a replica, which makes its server replay again from an earlier point.
    KillBackend,
    CrashPrimary,
    Promote,
}

const ONE_ROUND: [Disturbance; 11] = [
    Disturbance::PauseReplay,
    Disturbance::PauseReplay,
    Disturbance::PauseReplay,
    Disturbance::PauseReplay,
    Disturbance::PauseReplay,
    Disturbance::PauseReplay,
    Disturbance::KillReplica,
    Disturbance::KillReplica,
    Disturbance::KillBackend,
    Disturbance::CrashPrimary,
    Disturbance::Promote,
];

/// Each kind once: what every run begins with.
pub const KINDS: [Disturbance; 5] = [
    Disturbance::PauseReplay,
    Disturbance::KillReplica,
    Disturbance::KillBackend,
    Disturbance::CrashPrimary,
    Disturbance::Promote,
];

/// Whether the primary is down or changing: then operations may fail.
#[derive(Debug, Default)]
pub struct Outage(AtomicU64);

impl Outage {
    /// A number that is odd while it lasts, and grows.
    pub fn phase(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn turn(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    /// May what began in the phase `before` and ends now have failed?
    pub fn excuses(&self, before: u64) -> bool {
        before % 2 == 1 || self.phase() != before
    }
}

/// Disturbs until the run is over.
pub async fn disturb(run: &Run, cluster: &ThrowAwayCluster, seed: u64) {
    let mut random = StdRng::seed_from_u64(!seed);
    let pause = ROUND / (ONE_ROUND.len() as u64 + 1);
    let mut next = pause;
    let mut round = KINDS.to_vec();
    loop {
        round.shuffle(&mut random);
        for disturbance in round {
            run.progress.reach(next).await;
            next += pause;
            if run.progress.is_over() {
                return;
            }
            let replicas = (0..cluster.node_count()).filter(|node| *node != cluster.primary());
            let replicas: Vec<usize> = replicas.collect();
            let chosen = replicas[random.random_range(0..replicas.len())];
            let lasting = random.random_range(pause / 4..pause);
            Disturber {
                run,
                cluster,
                lasting,
            }
            .apply(disturbance, chosen)
            .await;
            let name = format!("{disturbance:?}");
            *run.report.lock().disturbances.entry(name).or_default() += 1;
        }
        round = ONE_ROUND.to_vec();
    }
}

struct Disturber<'a> {
    run: &'a Run,
    cluster: &'a ThrowAwayCluster,
    lasting: u64,
}

impl Disturber<'_> {
    async fn apply(&self, disturbance: Disturbance, replica: usize) {
        let cluster = self.cluster;
        match disturbance {
            Disturbance::PauseReplay => {
                cluster.pause_replay(replica).await.expect("a replica that runs");
                self.run.progress.pass(self.lasting).await;
                cluster.resume_replay(replica).await.expect("it still runs");
            }
            Disturbance::KillReplica => {
                cluster.kill_hard(replica).await.expect("it ends");
                self.run.progress.pass(self.lasting).await;
                cluster.restart(replica).await.expect("it starts");
            }
            Disturbance::KillBackend => self.kill_backend(replica).await,
            Disturbance::CrashPrimary => {
                self.run.outage.turn();
                let primary = cluster.primary();
                cluster.kill_hard(primary).await.expect("it ends");
                cluster.restart(primary).await.expect("it recovers");
                self.roll_back_prepared().await;
                let _quiet = self.run.writing.write().await;
                self.until_served().await;
                self.run.outage.turn();
            }
            Disturbance::Promote => {
                self.run.outage.turn();
                let _quiet = self.run.writing.write().await;
                self.promote(replica).await;
                self.until_served().await;
                self.run.outage.turn();
            }
        }
    }

    async fn kill_backend(&self, replica: usize) {
        let client = self.cluster.connect(replica, "postgres").await.expect("it runs");
        let any = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' \
             AND pid <> pg_backend_pid() LIMIT 1";
        if let Some(row) = client.query_opt(any, &[]).await.expect("a superuser") {
            // It may have ended by itself meanwhile.
            let (Ok(()) | Err(_)) = kill(Pid::from_raw(row.get(0)), Signal::SIGKILL);
        }
        eventually("the replica recovers", async || {
            let connected = self.cluster.connect(replica, "postgres").await;
            connected.map(drop)
        })
        .await;
    }

    /// What a crash left prepared keeps its locks for ever, and writers would never be quiet. Its own writer may come yet and
    /// commit it: the first of both ends it.
    async fn roll_back_prepared(&self) {
        let client = self.cluster.connect(self.cluster.primary(), "postgres").await;
        let client = client.expect("it runs");
        let left = "SELECT gid FROM pg_prepared_xacts WHERE prepared < pg_postmaster_start_time()";
        eventually("nothing that was prepared before the crash is left", async || {
            let left = client.query(left, &[]).await.expect("a superuser");
            for row in &left {
                let roll_back = format!("ROLLBACK PREPARED '{}'", row.get::<_, &str>(0));
                let (Ok(()) | Err(_)) = client.batch_execute(&roll_back).await;
            }
            if left.is_empty() { Ok(()) } else { Err(left.len()) }
        })
        .await;
    }

    /// Nobody writes: the primary stops cleanly, a replica takes its place, and it comes back as a replica of that.
    async fn promote(&self, replica: usize) {
        let (cluster, old) = (self.cluster, self.cluster.primary());
        cluster.wait_caught_up().await.expect("replicas that stream");
        cluster.stop(old).await.expect("it ends");
        cluster.promote(replica).await.expect("it is promoted");
        for other in (0..cluster.node_count()).filter(|node| *node != old && *node != replica) {
            cluster.follow(other, replica).await.expect("it follows");
        }
        let name = if old == 0 {
            "primary".to_owned()
        } else {
            format!("replica_{old}")
        };
        let data = cluster.directory().join(name);
        File::create(data.join("standby.signal")).expect("the node's own directory");
        let settings = OpenOptions::new()
            .append(true)
            .open(data.join("postgresql.auto.conf"));
        let upstream = format!(
            "primary_conninfo = 'host=''{}'' port={} user={SUPERUSER}'\n",
            cluster.directory().display(),
            cluster.port(replica)
        );
        settings
            .and_then(|mut file| file.write_all(upstream.as_bytes()))
            .expect("the node's own file");
        cluster.restart(old).await.expect("it starts as a replica");
    }

    /// Waits until the proxy takes writes again.
    async fn until_served(&self) {
        eventually("the proxy finds the primary", async || {
            let mut client = Client::connect(&self.run.proxy[0], SUPERUSER, "postgres").await?;
            client.query("UPDATE labels SET id = 1 WHERE id = 1").await
        })
        .await;
    }
}
