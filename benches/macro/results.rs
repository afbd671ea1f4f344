//! What is measured through whom, and what came out.
//!
//! Filled by the benchmark's main loop, read by the report and the goals. It holds figures of rounds and derives nothing but
//! medians and ratios. Invariant: what was not measured says why, and is no zero.

use std::collections::BTreeMap;

use clap::ValueEnum;

use super::figures::Figure;

/// A part of the benchmark, that can be run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Part {
    /// Reads of one row by its key, past every cache.
    Point,
    /// The dashboard's aggregation, out of the cache where there is one.
    Dashboard,
    /// Connect, one read, disconnect.
    Connect,
    /// Bytes for an idle client.
    Memory,
}

/// How a client asks, in pgbench's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Simple query.
    Simple,
    /// Parse, Bind, Execute of the unnamed statement each time.
    Extended,
    /// Bind and Execute of a statement prepared once.
    Prepared,
}

impl Protocol {
    /// As `pgbench -M` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
            Self::Prepared => "prepared",
        }
    }
}

/// One thing to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Workload {
    /// What is asked. Never `Memory`, which is no load.
    pub part: Part,
    /// How.
    pub protocol: Protocol,
    /// By how many at once.
    pub clients: u16,
}

impl Workload {
    /// All of them, in the order of the report.
    pub fn all() -> Vec<Self> {
        let of = |part, protocol, clients| Self {
            part,
            protocol,
            clients,
        };
        let mut all = Vec::new();
        for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Prepared] {
            all.extend([1, 16, 64].map(|clients| of(Part::Point, protocol, clients)));
        }
        for protocol in [Protocol::Simple, Protocol::Prepared] {
            all.push(of(Part::Dashboard, protocol, 16));
        }
        all.push(of(Part::Connect, Protocol::Simple, 8));
        all
    }
}

/// Whom the load goes through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Door {
    /// Nobody: the primary itself.
    Direct,
    /// pgladder in front of the primary alone, as PgBouncer is.
    PgladderOneNode,
    /// pgladder in front of the primary and its replicas.
    Pgladder,
    /// PgBouncer in front of the primary.
    PgBouncer,
    /// Pgpool-II in front of the primary and its replicas.
    Pgpool,
}

impl Door {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 5] = [
        Self::Direct,
        Self::PgladderOneNode,
        Self::Pgladder,
        Self::PgBouncer,
        Self::Pgpool,
    ];

    /// Those that a workload is measured through: a hit asks no node, so that one pgladder is enough.
    pub fn of(workload: Workload) -> impl Iterator<Item = Self> {
        let every = workload.part != Part::Dashboard;
        let all = Self::ALL.into_iter();
        all.filter(move |door| every || *door != Self::PgladderOneNode)
    }

    /// What the tables call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct (primary)",
            Self::PgladderOneNode => "pgladder (primary only)",
            Self::Pgladder => "pgladder (primary and replicas)",
            Self::PgBouncer => "PgBouncer (primary only)",
            Self::Pgpool => "Pgpool-II (primary and replicas)",
        }
    }
}

/// What idle clients cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// How many there were.
    pub clients: u32,
    /// PSS of the proxy before they came, in bytes.
    pub before: u64,
    /// PSS with all of them there, in bytes.
    pub after: u64,
}

impl Memory {
    /// KiB for each.
    pub fn kib_per_client(&self) -> f64 {
        let grown = u32::try_from(self.after.saturating_sub(self.before) / 1024).unwrap_or(u32::MAX);
        f64::from(grown) / f64::from(self.clients.max(1))
    }
}

/// All that was measured.
#[derive(Debug, Default)]
pub struct Results {
    rounds: BTreeMap<(Workload, Door), Vec<Figure>>,
    reasons: BTreeMap<(Workload, Door), String>,
    memory: BTreeMap<Door, Memory>,
}

impl Results {
    /// Adds a round.
    pub fn add(&mut self, workload: Workload, door: Door, figure: Figure) {
        self.rounds.entry((workload, door)).or_default().push(figure);
    }

    /// There will be no figure, for this reason.
    pub fn leave_out(&mut self, workload: Workload, door: Door, why: &str) {
        self.reasons.insert((workload, door), why.to_owned());
    }

    /// Adds what idle clients cost.
    pub fn add_memory(&mut self, door: Door, memory: Memory) {
        self.memory.insert(door, memory);
    }

    /// The rounds of a workload through a door.
    pub fn rounds(&self, workload: Workload, door: Door) -> &[Figure] {
        self.rounds.get(&(workload, door)).map_or(&[], Vec::as_slice)
    }

    /// Their medians.
    pub fn median(&self, workload: Workload, door: Door) -> Option<Figure> {
        Figure::median(self.rounds(workload, door))
    }

    /// Why there is no figure.
    pub fn reason(&self, workload: Workload, door: Door) -> Option<&str> {
        self.reasons.get(&(workload, door)).map(String::as_str)
    }

    /// What idle clients cost.
    pub fn memory(&self, door: Door) -> Option<Memory> {
        self.memory.get(&door).copied()
    }

    /// Workloads with a figure or a reason, in order.
    pub fn workloads(&self) -> Vec<Workload> {
        Workload::all()
            .into_iter()
            .filter(|workload| {
                Door::ALL.iter().any(|door| {
                    self.rounds.contains_key(&(*workload, *door))
                        || self.reasons.contains_key(&(*workload, *door))
                })
            })
            .collect()
    }
}
