//! What a run has seen: who served its reads, which ways it took, and what was wrong.
//!
//! Written by the sessions, printed and judged by `runs`. The first wrong answer ends the run: what follows from it tells nothing.

use std::collections::BTreeMap;
use std::fmt;

use super::disturbance::KINDS;
use super::reads::ReadPath;
use super::writes::WritePath;

/// Counts of reads by who served them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Served {
    pub cache: u64,
    pub replica: u64,
    pub primary: u64,
}

impl Served {
    pub fn count(&mut self, by: &str) {
        match by {
            "cache" => self.cache += 1,
            "replica" => self.replica += 1,
            "primary" => self.primary += 1,
            other => panic!("served by {other}"),
        }
    }

    pub fn all(self) -> u64 {
        self.cache + self.replica + self.primary
    }

    /// Percent that came from the cache.
    pub fn cache_share(self) -> u64 {
        100 * self.cache / self.all().max(1)
    }

    /// Percent of the others that came from a replica.
    pub fn replica_share(self) -> u64 {
        100 * self.replica / (self.replica + self.primary).max(1)
    }
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            cache,
            replica,
            primary,
        } = self;
        write!(f, "cache {cache:>6}, replica {replica:>6}, primary {primary:>6}")
    }
}

/// All that a run has seen.
#[derive(Debug, Default)]
pub struct Report {
    /// What the proxy's own sampler found, by result.
    pub samples: BTreeMap<String, u64>,
    pub reads: BTreeMap<ReadPath, Served>,
    /// All that were to be taken stand here.
    pub writes: BTreeMap<WritePath, u64>,
    /// Why reads were served by the primary.
    pub reasons: BTreeMap<String, u64>,
    pub disturbances: BTreeMap<String, u64>,
    /// Operations that failed while the primary was down or changing.
    pub failures: u64,
    /// Wrong answers, and failures that nothing excuses.
    pub wrong: Vec<String>,
}

impl Report {
    pub fn served(&self) -> Served {
        let mut all = Served::default();
        for one in self.reads.values() {
            all.cache += one.cache;
            all.replica += one.replica;
            all.primary += one.primary;
        }
        all
    }

    /// Ways that were never taken, and disturbances that never came.
    pub fn not_taken(&self) -> Vec<String> {
        let reads = ReadPath::ALL.iter().filter(|path| !self.reads.contains_key(path));
        let writes = self.writes.iter().filter(|(_, count)| **count == 0);
        let reads = reads.map(|path| format!("read {path:?}"));
        let disturbances = KINDS.iter().map(|disturbance| format!("{disturbance:?}"));
        reads
            .chain(writes.map(|(path, _)| format!("write {path:?}")))
            .chain(disturbances.filter(|name| !self.disturbances.contains_key(name)))
            .collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let served = self.served();
        let writes: u64 = self.writes.values().sum();
        writeln!(
            f,
            "{} reads: {served} ({} % from the cache, {} % of the others from replicas); {writes} writes; {} failed meanwhile",
            served.all(),
            served.cache_share(),
            served.replica_share(),
            self.failures
        )?;
        for (path, served) in &self.reads {
            writeln!(f, "  read  {path:<18?} {served}")?;
        }
        for (path, count) in &self.writes {
            writeln!(f, "  write {path:<18?} {count:>6}")?;
        }
        for (reason, count) in &self.reasons {
            writeln!(f, "  primary because: {reason:<60} {count:>6}")?;
        }
        for (what, count) in &self.disturbances {
            writeln!(f, "  {what:<18} {count:>3}")?;
        }
        for (result, count) in &self.samples {
            writeln!(f, "  sample {result:<11} {count:>6}")?;
        }
        for wrong in &self.wrong {
            writeln!(f, "  WRONG {wrong}")?;
        }
        Ok(())
    }
}
