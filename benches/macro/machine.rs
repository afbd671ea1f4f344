//! Facts of the machine and of the run, for the head of the report.
//!
//! Called once, before anything is started: what others do on the machine is only seen then. What cannot be told is left out.
//! It looks for two seconds.

use std::fs;
use std::time::Duration;

use super::options::Plan;
use super::programs::{Program, Programs};
use super::reading;

/// Figures are not to be trusted where others take more of the processors than this, in percent.
const OTHERS_PERCENT_MAX: f64 = 5.0;
const LOOK: Duration = Duration::from_secs(2);

/// Names and values.
pub async fn facts(plan: &Plan, programs: &Programs) -> Vec<(String, String)> {
    let first_line = |path: &str| Some(fs::read_to_string(path).ok()?.lines().next()?.to_owned());
    let field = |path: &str, name: &str| {
        let text = fs::read_to_string(path).ok()?;
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let or_absent = |program: &Option<Program>| {
        program
            .as_ref()
            .map_or("not installed", |p| &p.version)
            .to_owned()
    };
    let mut facts = vec![("Processor".to_owned(), format!("{processor}, {cores} cores"))];
    let mut fact = |name: &str, value: Option<String>| {
        facts.extend(value.map(|value| (name.to_owned(), value)));
    };
    fact("Memory", field("/proc/meminfo", "MemTotal"));
    fact("Kernel", first_line("/proc/sys/kernel/osrelease"));
    fact("Busy before the run", others_percent().await.map(busy));
    fact("PostgreSQL, pgbench", Some(programs.pgbench.version.clone()));
    fact("pgladder", Some(programs.pgladder.version.clone()));
    fact("PgBouncer", Some(or_absent(&programs.pgbouncer)));
    fact("Pgpool-II", Some(or_absent(&programs.pgpool)));
    let rounds = format!(
        "medians of {} rounds of {} s, interleaved; {} rows",
        plan.rounds, plan.seconds, plan.deals
    );
    fact("Run", Some(rounds));
    let quick = "--quick: it shows that the benchmark works, and nothing else";
    fact("Beware", plan.quick.then(|| quick.to_owned()));
    fact(
        "Server connections",
        Some("16 to each node; direct and Pgpool-II: one for each client".to_owned()),
    );
    facts
}

fn busy(percent: f64) -> String {
    let warning = if percent > OTHERS_PERCENT_MAX {
        ": NOT QUIET, do not trust the figures"
    } else {
        ""
    };
    format!("{percent:.0} %{warning}")
}

/// The share of the processors that is in use before this benchmark does anything. The load average would also tell of the
/// compiler that came before it.
async fn others_percent() -> Option<f64> {
    let look = || reading::machine_ticks(&fs::read_to_string("/proc/stat").ok()?);
    let (busy_before, all_before) = look()?;
    tokio::time::sleep(LOOK).await;
    let (busy, all) = look()?;
    let count = |ticks: u64| u32::try_from(ticks).ok().map(f64::from);
    Some(count(busy - busy_before)? / count(all - all_before)?.max(1.0) * 100.0)
}
