//! Puts load on a door: by pgbench, or, where each query has a connection of its own, by clients of this benchmark.
//!
//! Called by the main loop for each measurement. Every duration is logged, so that quantiles are exact. pgbench measures a
//! transaction without the connection before it; so the connect workload is timed here. Dropping a load ends pgbench; own clients
//! go on to the end of their seconds.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use pgladder::demo::cluster::SUPERUSER;
use pgladder::demo::data::DASHBOARD;
use tokio::process::Command;
use tokio::task::{JoinSet, spawn_blocking};

use super::client::Client;
use super::doors::DATABASE;
use super::place::Place;
use super::programs::Program;
use super::reading;
use super::results::{Part, Workload};

/// How much longer than it should a run may take.
const OVERTIME: Duration = Duration::from_secs(60);
const THREADS_MAX: u16 = 2;
const POINT: &str = "SELECT id, hotel_id, price_per_night, is_available FROM deals WHERE id = ";

/// What one run did.
#[derive(Debug)]
pub struct Done {
    /// Transactions.
    pub transactions: u64,
    /// Transactions per second.
    pub tps: f64,
    /// How long each took, in microseconds.
    pub durations: Vec<u32>,
}

/// The scripts, and what runs them.
pub struct Load {
    pgbench: PathBuf,
    point: PathBuf,
    dashboard: PathBuf,
    deals: u32,
}

impl Load {
    /// Writes the scripts.
    pub fn new(pgbench: &Program, place: &Place, deals: u32) -> io::Result<Self> {
        let point = format!("\\set id random(1, {deals})\n{POINT}:id;\n");
        Ok(Self {
            pgbench: pgbench.path.clone(),
            point: place.write("point.sql", &point)?,
            dashboard: place.write("dashboard.sql", &format!("{DASHBOARD};\n"))?,
            deals,
        })
    }

    /// A query of the kind that the workload asks.
    pub fn example(&self, workload: Workload) -> String {
        match workload.part {
            Part::Dashboard => DASHBOARD.to_owned(),
            Part::Point | Part::Connect | Part::Memory => self.point(),
        }
    }

    /// Runs a workload for so many seconds.
    pub async fn run(&self, workload: Workload, port: u16, seconds: u32) -> anyhow::Result<Done> {
        if workload.part == Part::Connect {
            return self.connect_again_and_again(workload, port, seconds).await;
        }
        let logs = tempfile::tempdir()?;
        let script = match workload.part {
            Part::Dashboard => &self.dashboard,
            _ => &self.point,
        };
        let mut command = Command::new(&self.pgbench);
        command
            .args(["-h", "127.0.0.1", "-U", SUPERUSER, "-n", "-l"])
            .args(["-p", &port.to_string()])
            .args(["-M", workload.protocol.name()])
            .args(["-c", &workload.clients.to_string()])
            .args(["-j", &workload.clients.min(THREADS_MAX).to_string()])
            .args(["-T", &seconds.to_string()])
            .arg("-f")
            .arg(script)
            .arg(DATABASE)
            .env("PGSSLMODE", "disable")
            .env("LC_ALL", "C")
            .current_dir(logs.path())
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let limit = Duration::from_secs(seconds.into()) + OVERTIME;
        let output = tokio::time::timeout(limit, command.output())
            .await
            .context("pgbench does not end")??;
        let said = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("pgbench: {}\n{said}", output.status);
        }
        let run = reading::summary(&String::from_utf8_lossy(&output.stdout))?;
        let mut durations = Vec::new();
        for log in fs::read_dir(logs.path())? {
            durations.extend(reading::durations(&fs::read_to_string(log?.path())?));
        }
        if durations.is_empty() {
            bail!("pgbench logged no transaction\n{said}");
        }
        Ok(Done {
            transactions: run.transactions,
            tps: run.tps,
            durations,
        })
    }

    async fn connect_again_and_again(
        &self,
        workload: Workload,
        port: u16,
        seconds: u32,
    ) -> anyhow::Result<Done> {
        let began = Instant::now();
        let deadline = began + Duration::from_secs(seconds.into());
        let mut clients = JoinSet::new();
        for _ in 0..workload.clients {
            let deals = self.deals;
            clients.spawn(async move {
                spawn_blocking(move || connect_until(deadline, port, deals))
                    .await
                    .expect("a client does not panic")
            });
        }
        let mut durations = Vec::new();
        while let Some(client) = clients.join_next().await {
            durations.extend(client.expect("a client does not panic")?);
        }
        let transactions = u32::try_from(durations.len())?;
        Ok(Done {
            transactions: transactions.into(),
            tps: f64::from(transactions) / began.elapsed().as_secs_f64(),
            durations,
        })
    }

    fn point(&self) -> String {
        format!("{POINT}{}", rand::random_range(1..=self.deals))
    }
}

fn connect_until(deadline: Instant, port: u16, deals: u32) -> anyhow::Result<Vec<u32>> {
    let mut durations = Vec::new();
    loop {
        let began = Instant::now();
        if began >= deadline {
            return Ok(durations);
        }
        let mut client = Client::connect(port)?;
        client.simple(&format!("{POINT}{}", rand::random_range(1..=deals)))?;
        client.close()?;
        durations.push(u32::try_from(began.elapsed().as_micros())?);
    }
}

/// One idle client: it has asked a simple and a prepared query, and stays.
pub fn idle_client(port: u16, deals: u32) -> anyhow::Result<Client> {
    let id = rand::random_range(1..=deals).to_string();
    let mut client = Client::connect(port)?;
    client.simple(&format!("{POINT}{id}"))?;
    client.prepared(&format!("{POINT}$1"), &id)?;
    Ok(client)
}
