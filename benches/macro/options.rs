//! What the benchmark can be told on its command line.
//!
//! Read once by `main`. It turns flags into a plan, where a short run only differs in numbers: it takes every step, so that it
//! shows whether the benchmark works. Its figures mean nothing.

use std::path::PathBuf;

use clap::Parser;

use super::results::Part;

/// Measure pgladder beside PostgreSQL itself, PgBouncer and Pgpool-II, all on one throw-away cluster.
#[derive(Clone, Debug, Parser)]
#[command(name = "make bench ARGS=...")]
pub struct Options {
    /// A smoke run: every step, too short for figures
    #[arg(long)]
    quick: bool,
    /// How often everything is measured; medians are reported [default: 5]
    #[arg(long)]
    rounds: Option<u32>,
    /// Seconds of each measurement [default: 4]
    #[arg(long)]
    seconds: Option<u32>,
    /// Rows of the table that is read [default: 200000]
    #[arg(long)]
    deals: Option<u32>,
    /// Idle clients whose memory is measured [default: 5000]
    #[arg(long)]
    idle_clients: Option<u32>,
    /// Measure this part alone; may be repeated
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// The pgladder to measure [default: the release build beside this one]
    #[arg(long)]
    pgladder: Option<PathBuf>,
    /// The PgBouncer to measure [default: the one on the path]
    #[arg(long)]
    pgbouncer: Option<PathBuf>,
    /// The Pgpool-II to measure [default: the one on the path]
    #[arg(long)]
    pgpool: Option<PathBuf>,
    /// What cargo says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Rounds over all workloads.
    pub rounds: u32,
    /// Seconds of one measurement.
    pub seconds: u32,
    /// Seconds of an unmeasured run before the first of its kind.
    pub warm_up_seconds: u32,
    /// Rows of `deals`.
    pub deals: u32,
    /// Clients of the memory measurement.
    pub idle_clients: u32,
    /// Parts to measure.
    pub parts: Vec<Part>,
    /// Too short for figures?
    pub quick: bool,
    /// Programs named on the command line.
    pub pgladder: Option<PathBuf>,
    /// As `pgladder`.
    pub pgbouncer: Option<PathBuf>,
    /// As `pgladder`.
    pub pgpool: Option<PathBuf>,
}

impl Options {
    /// The plan that these flags make; `None` when this is no benchmark but a test run over all targets.
    pub fn plan(self) -> Option<Plan> {
        let number = |given: Option<u32>, quick: u32, full: u32| {
            given.unwrap_or(if self.quick { quick } else { full }).max(1)
        };
        let parts = vec![Part::Point, Part::Dashboard, Part::Connect, Part::Memory];
        self.bench.then(|| Plan {
            rounds: number(self.rounds, 1, 5),
            seconds: number(self.seconds, 1, 4),
            warm_up_seconds: u32::from(!self.quick),
            deals: number(self.deals, 20_000, 200_000),
            idle_clients: number(self.idle_clients, 500, 5_000),
            parts: if self.only.is_empty() { parts } else { self.only },
            quick: self.quick,
            pgladder: self.pgladder,
            pgbouncer: self.pgbouncer,
            pgpool: self.pgpool,
        })
    }
}
