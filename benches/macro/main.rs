//! The macro benchmark: pgladder beside PostgreSQL itself, PgBouncer and Pgpool-II, all in front of one throw-away cluster.
//!
//! Run by `make bench`. All doors stay open for the whole run, and every round measures each workload through one door after the
//! other, so that what else happens on the machine hits them alike; the order turns with the rounds. Progress goes to standard
//! error, the report to standard output. Invariant: whatever ends it, a signal too, nothing that it started stays behind.
//! It judges no figure: its exit status says whether it could measure.

mod client;
mod daemon;
mod doors;
mod figures;
mod goals;
mod idle;
mod load;
mod machine;
mod options;
mod own;
mod pgbouncer;
mod pgpool;
mod place;
mod programs;
mod reading;
mod report;
mod results;

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt::Display;
use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser as _;
use pgladder::demo::cluster::{Options as ClusterOptions, ThrowAwayCluster};
use pgladder::demo::data;
use pgladder::listener::descriptors;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use doors::{DATABASE, Opened, Site};
use figures::Figure;
use load::Load;
use options::{Options, Plan};
use place::Place;
use programs::{NotRun, Programs};
use results::{Door, Part, Protocol, Results, Workload};

/// Clients that a proxy lets in, where idle ones are not what is measured.
const CLIENTS_MAX: u32 = 200;
/// The status of a run that lacks something, as the Makefile has it.
const NOT_RUN: u8 = 3;

fn main() -> ExitCode {
    let Some(plan) = Options::parse().plan() else {
        say("nothing is measured without --bench, which `cargo bench` adds");
        return ExitCode::SUCCESS;
    };
    let runtime = Runtime::new().expect("a runtime starts");
    let ended = runtime.block_on(until_told(&plan));
    // Clients in blocking threads end by themselves, and hold nothing.
    runtime.shutdown_background();
    match ended {
        Ok(report) => match std::io::stdout().write_all(report.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(error) => {
            say(format_args!("{error:#}"));
            ExitCode::from(if error.is::<NotRun>() { NOT_RUN } else { 1 })
        }
    }
}

/// The report, unless a signal comes first; then everything that was started is ended.
async fn until_told(plan: &Plan) -> anyhow::Result<String> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        report = measure(plan) => report,
        _ = interrupt.recv() => anyhow::bail!("interrupted"),
        _ = terminate.recv() => anyhow::bail!("terminated"),
    }
}

async fn measure(plan: &Plan) -> anyhow::Result<String> {
    let programs = Programs::find(plan)?;
    let facts = machine::facts(plan, &programs).await;
    descriptors::raise();
    say(format_args!("a primary, two replicas, {} rows", plan.deals));
    let cluster = start_cluster(plan).await?;
    let place = Place::inside(cluster.directory())?;
    let site = Site {
        cluster: &cluster,
        programs: &programs,
        place: &place,
    };
    let load = Load::new(&programs.pgbench, &place, plan.deals)?;
    let mut results = Results::default();
    measure_load(plan, &site, &load, &mut results).await?;
    if plan.parts.contains(&Part::Memory) {
        measure_memory(plan, &site, &mut results).await?;
    }
    cluster.shut_down().await?;
    Ok(report::report(&facts, &results))
}

async fn start_cluster(plan: &Plan) -> anyhow::Result<ThrowAwayCluster> {
    let settings = [
        ("shared_buffers", "256MB"),
        // What runs by itself would run into somebody's measurement.
        ("autovacuum", "off"),
        ("checkpoint_timeout", "1h"),
        ("max_wal_size", "4GB"),
    ];
    let cluster = ThrowAwayCluster::start(ClusterOptions {
        replicas: 2,
        settings: settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec(),
        label: "bench".to_owned(),
        ..ClusterOptions::default()
    })
    .await?;
    let mut client = cluster.connect(cluster.primary(), DATABASE).await?;
    data::load(&mut client, plan.deals.into(), |_| ()).await?;
    client.batch_execute("CHECKPOINT").await?;
    cluster.wait_caught_up().await?;
    Ok(cluster)
}

/// Is the proxy's cache in use?
fn is_cached(workload: Workload) -> bool {
    workload.part == Part::Dashboard
}

async fn measure_load(
    plan: &Plan,
    site: &Site<'_>,
    load: &Load,
    results: &mut Results,
) -> anyhow::Result<()> {
    let mut workloads = Workload::all();
    workloads.retain(|workload| plan.parts.contains(&workload.part));
    let mut open: BTreeMap<(Door, bool), Opened> = BTreeMap::new();
    for round in 1..=plan.rounds {
        for workload in workloads.iter().copied() {
            for door in doors(workload, round) {
                if let Some(why) = site.obstacle(workload, door) {
                    results.leave_out(workload, door, why);
                    continue;
                }
                let cached = is_cached(workload);
                let opened = match open.entry((door, cached)) {
                    Entry::Occupied(entry) => entry.into_mut(),
                    Entry::Vacant(entry) => entry.insert(site.open(door, cached, CLIENTS_MAX)?),
                };
                let warm_up = if round == 1 { plan.warm_up_seconds } else { 0 };
                let through = format!("{} through {}", name(workload), door.name());
                let figure = load_on(opened, load, workload, warm_up, plan.seconds).await;
                let figure = figure.with_context(|| through.clone())?;
                say(format_args!(
                    "round {round} of {}: {through}: {:.0} TPS",
                    plan.rounds, figure.tps
                ));
                results.add(workload, door, figure);
            }
        }
    }
    Ok(())
}

/// Another one is the first in each round.
fn doors(workload: Workload, round: u32) -> Vec<Door> {
    let mut doors: Vec<Door> = Door::of(workload).collect();
    let turn = usize::try_from(round).expect("few rounds") % doors.len();
    doors.rotate_left(turn);
    doors
}

/// Measures once, after a run that is not measured where it has any seconds.
async fn load_on(
    opened: &mut Opened,
    load: &Load,
    workload: Workload,
    warm_up_seconds: u32,
    seconds: u32,
) -> anyhow::Result<Figure> {
    opened.until_served(&load.example(workload)).await?;
    if warm_up_seconds > 0 {
        load.run(workload, opened.port, warm_up_seconds).await?;
    }
    let used = || opened.daemon.as_ref()?.processor_seconds();
    let before = used();
    let done = load.run(workload, opened.port, seconds).await?;
    let used = before.zip(used()).map(|(before, after)| after - before);
    Ok(Figure::new(done.transactions, done.tps, done.durations, used))
}

fn name(workload: Workload) -> String {
    let protocol = workload.protocol.name();
    format!("{:?}, {protocol}, {} clients", workload.part, workload.clients)
}

/// Proxies with one process for all clients; each is started for this alone.
async fn measure_memory(plan: &Plan, site: &Site<'_>, results: &mut Results) -> anyhow::Result<()> {
    let clients = idle::clients_possible(plan.idle_clients);
    let prepared = Workload {
        part: Part::Memory,
        protocol: Protocol::Prepared,
        clients: 1,
    };
    for door in [Door::PgladderOneNode, Door::Pgladder, Door::PgBouncer] {
        if site.obstacle(prepared, door).is_some() {
            continue;
        }
        let mut opened = site.open(door, false, idle::clients_max(clients))?;
        opened
            .until_served("SELECT id FROM deals WHERE id = 1")
            .await
            .with_context(|| door.name())?;
        let measured = idle::measure(&opened, clients, plan.deals).await;
        if let Some(memory) = measured.with_context(|| door.name())? {
            say(format_args!(
                "memory: {}: {:.1} KiB per idle client",
                door.name(),
                memory.kib_per_client()
            ));
            results.add_memory(door, memory);
        }
    }
    Ok(())
}

/// A line of progress; where standard error is gone, nobody wants it.
fn say(line: impl Display) {
    drop(writeln!(std::io::stderr(), "bench: {line}"));
}
