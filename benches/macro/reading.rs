//! Reads what other programs and the system print: pgbench's summary and log, `/proc`, versions.
//!
//! Used by the parts of the benchmark that run those programs, and by a test of its own. Pure: texts in, numbers out. Invariant:
//! a run in which a transaction failed is an error and never a figure, and a text that is not understood is no zero.

use std::str::FromStr;

/// Clock ticks in a second, as `/proc` counts time: the same on every Linux that PostgreSQL runs on, see times(2).
const TICKS_PER_SECOND: f64 = 100.0;

/// Why a summary gives no figure.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unread {
    /// The line is not there, or holds no number.
    #[error("pgbench printed no \"{0}\"")]
    Missing(&'static str),
    /// Clients met errors: what was measured is not the workload.
    #[error("{0} transactions failed")]
    Failed(u64),
}

/// What pgbench counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Run {
    /// Transactions of the whole run.
    pub transactions: u64,
    /// Transactions per second, without the time for the first connections.
    pub tps: f64,
}

/// Reads pgbench's summary, of PostgreSQL 10 and newer.
pub fn summary(text: &str) -> Result<Run, Unread> {
    const PROCESSED: &str = "number of transactions actually processed";
    if let Some(failed) = number(text, "number of failed transactions", ':').filter(|failed| *failed > 0) {
        return Err(Unread::Failed(failed));
    }
    Ok(Run {
        transactions: number(text, PROCESSED, ':').ok_or(Unread::Missing(PROCESSED))?,
        // Older versions print it twice; the last leaves the connections out.
        tps: number(text, "tps", '=').ok_or(Unread::Missing("tps"))?,
    })
}

/// The number after a name and its sign, as in "name: 1000/1000", "name: 0 (0.000%)" and "name = 1.5 (about)".
fn number<N: FromStr>(text: &str, name: &str, sign: char) -> Option<N> {
    let line = text.lines().rfind(|line| line.starts_with(name))?;
    let (_, value) = line.split_once(sign)?;
    value.trim_start().split([' ', '/']).next()?.parse().ok()
}

/// The durations of a log of `pgbench -l`, in microseconds; lines of skipped or failed transactions hold none.
pub fn durations(log: &str) -> impl Iterator<Item = u32> + '_ {
    log.lines()
        .filter_map(|line| line.split(' ').nth(2)?.parse().ok())
}

/// Seconds of processor time in `/proc/<pid>/stat`, proc(5): the process's own, and of its children that have ended.
pub fn processor_seconds(stat: &str) -> Option<f64> {
    // The name in parentheses may itself hold blanks and parentheses.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace().skip(11);
    let mut ticks = 0;
    for _ in ["utime", "stime", "cutime", "cstime"] {
        ticks += fields.next()?.parse::<u32>().ok()?;
    }
    Some(f64::from(ticks) / TICKS_PER_SECOND)
}

/// Time that all processors have spent in `/proc/stat`, in ticks: working, and altogether.
pub fn machine_ticks(stat: &str) -> Option<(u64, u64)> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    // What guests take is part of the first two already.
    let all = ticks.get(..8)?.iter().sum();
    // The fourth is idle, the fifth waits for a disk.
    Some((all - ticks[3] - ticks[4], all))
}

/// Bytes of proportional set size in `/proc/<pid>/smaps_rollup`.
pub fn pss_bytes(rollup: &str) -> Option<u64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}

/// The first word of the form `1.18` or `4.3.5`, and its two leading numbers.
pub fn version(text: &str) -> Option<(&str, (u32, u32))> {
    text.split_whitespace().find_map(|word| {
        let mut parts = word.split('.');
        let major = parts.next()?.parse().ok()?;
        let minor = parts.next()?.parse().ok()?;
        Some((word, (major, minor)))
    })
}
