//! Holds what the macro benchmark reads and writes: pgbench's output, `/proc`, medians, goals, Markdown.
//!
//! The benchmark's pure parts are compiled into this test as they are; what it starts and measures is not run here, because a
//! figure says nothing on a busy machine. `make bench ARGS=--quick` runs all of it.

#[path = "../benches/macro/figures.rs"]
mod figures;
#[path = "../benches/macro/goals.rs"]
mod goals;
#[path = "../benches/macro/reading.rs"]
mod reading;
#[path = "../benches/macro/report.rs"]
mod report;
#[path = "../benches/macro/results.rs"]
mod results;

use figures::{Figure, median};
use goals::goals;
use reading::{Run, Unread};
use results::{Door, Memory, Part, Protocol, Results, Workload};

const SUMMARY: &str = "\
pgbench (15.18 (Debian 15.18-0+deb12u1))
transaction type: point.sql
scaling factor: 1
query mode: prepared
number of clients: 16
number of threads: 2
maximum number of tries: 1
duration: 4 s
number of transactions actually processed: 123456
number of failed transactions: 0 (0.000%)
latency average = 0.516 ms
initial connection time = 12.345 ms
tps = 30995.125000 (without initial connection time)
";

#[test]
fn a_summary_is_read_in_the_words_of_every_version() {
    let run = Run {
        transactions: 123_456,
        tps: 30_995.125,
    };
    assert_eq!(reading::summary(SUMMARY), Ok(run));
    let thirteen = "number of transactions actually processed: 50/50\n\
        tps = 100.5 (including connections establishing)\n\
        tps = 200.5 (excluding connections establishing)\n";
    let run = Run {
        transactions: 50,
        tps: 200.5,
    };
    assert_eq!(reading::summary(thirteen), Ok(run));
}

#[test]
fn a_run_with_failures_is_no_figure() {
    let failed = SUMMARY.replace(
        "failed transactions: 0 (0.000%)",
        "failed transactions: 7 (0.006%)",
    );
    assert_eq!(reading::summary(&failed), Err(Unread::Failed(7)));
    let cut = SUMMARY.replace("tps =", "speed =");
    assert_eq!(reading::summary(&cut), Err(Unread::Missing("tps")));
    let missing = Unread::Missing("number of transactions actually processed");
    assert_eq!(reading::summary("tps = 1.0\n"), Err(missing));
}

#[test]
fn a_log_holds_a_duration_in_each_line_of_a_transaction() {
    let log = "0 1 812 0 1700000000 1000\n1 1 95 0 1700000000 1200\n1 2 failed 0 1700000000 1300\n\n";
    assert_eq!(reading::durations(log).collect::<Vec<_>>(), [812, 95]);
}

#[test]
fn processes_are_read_as_proc_shows_them() {
    let stat = "42 (a) b (c)) S 7 1 1 0 -1 0 0 0 0 0 150 50 3 2 20 0 1 0 98765 1 1";
    let seconds = reading::processor_seconds(stat).expect("a whole line");
    assert!((seconds - 2.05).abs() < 1e-9, "{seconds}");
    assert_eq!(reading::processor_seconds("42 (a) S 7"), None);
    let rollup =
        "5581-7ffc ---p 00000000 00:00 0 [rollup]\nRss:   9000 kB\nPss:   1234 kB\nPss_Dirty:  12 kB\n";
    assert_eq!(reading::pss_bytes(rollup), Some(1_234 * 1024));
    assert_eq!(reading::pss_bytes("Rss: 1 kB\n"), None);
    let machine = "cpu  100 5 50 800 40 3 2 10 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
    assert_eq!(reading::machine_ticks(machine), Some((170, 1_010)));
    assert_eq!(reading::machine_ticks("cpu0 1 2 3\n"), None);
}

#[test]
fn versions_are_found_in_what_programs_say() {
    let table = [
        ("PgBouncer 1.24.1\nlibevent 2.1.12-stable\n", "1.24.1", (1, 24)),
        ("pgpool-II version 4.3.5 (tamahomeboshi)\n", "4.3.5", (4, 3)),
        (
            "pgbench (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
            "15.18",
            (15, 18),
        ),
        ("pgladder 0.1.0\n", "0.1.0", (0, 1)),
    ];
    for (text, version, numbers) in table {
        assert_eq!(reading::version(text), Some((version, numbers)), "{text}");
    }
    assert_eq!(reading::version("no version"), None);
}

fn figure(tps: f64, cpu_us: Option<f64>) -> Figure {
    Figure {
        tps,
        p50_ms: 0.5,
        p99_ms: 2.0,
        cpu_us,
    }
}

#[test]
fn quantiles_are_measured_values_and_time_is_shared_among_transactions() {
    let durations: Vec<u32> = (1..=1_000).rev().collect();
    let figure = Figure::new(1_000, 250.0, durations, Some(0.02));
    let wanted = Figure {
        tps: 250.0,
        p50_ms: 0.5,
        p99_ms: 0.99,
        cpu_us: Some(20.0),
    };
    assert_eq!(figure, wanted);
}

#[test]
fn medians_are_taken_column_by_column() {
    assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
    assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
    assert_eq!(median(std::iter::empty()), None);
    let rounds = [
        figure(90.0, Some(30.0)),
        figure(100.0, None),
        figure(120.0, Some(10.0)),
    ];
    let middle = Figure::median(&rounds).expect("three rounds");
    assert_eq!((middle.tps, middle.cpu_us), (100.0, Some(20.0)));
    assert_eq!(Figure::spread_percent(&rounds), Some(30.0));
    assert_eq!(
        Figure::spread_percent(&rounds[..1]),
        None,
        "one round has no spread"
    );
    assert_eq!(Figure::median(&[]), None);
}

fn workload(part: Part, protocol: Protocol, clients: u16) -> Workload {
    Workload {
        part,
        protocol,
        clients,
    }
}

fn measured() -> Results {
    let mut results = Results::default();
    let point = workload(Part::Point, Protocol::Simple, 64);
    results.add(point, Door::Direct, figure(20_000.0, None));
    results.add(point, Door::PgladderOneNode, figure(12_000.0, Some(26.0)));
    results.add(point, Door::PgBouncer, figure(10_000.0, Some(20.0)));
    let prepared = workload(Part::Point, Protocol::Prepared, 64);
    results.add(prepared, Door::PgladderOneNode, figure(15_000.0, Some(27.0)));
    results.leave_out(prepared, Door::PgBouncer, "not comparable");
    for (protocol, tps) in [(Protocol::Simple, 60_000.0), (Protocol::Prepared, 45_000.0)] {
        let hit = workload(Part::Dashboard, protocol, 16);
        results.add(hit, Door::Pgladder, figure(tps, Some(8.0)));
    }
    results.add_memory(
        Door::PgladderOneNode,
        Memory {
            clients: 100,
            before: 10 << 20,
            after: (10 << 20) + (1_500 << 10),
        },
    );
    results
}

#[test]
fn a_goal_is_met_missed_or_not_measured() {
    let met: Vec<(String, Option<bool>)> = goals(&measured())
        .into_iter()
        .map(|goal| (goal.what.clone(), goal.is_met()))
        .collect();
    let of = |start: &str| {
        let found = met.iter().find(|(what, _)| what.starts_with(start));
        found.unwrap_or_else(|| panic!("no goal {start:?}")).1
    };
    // Exactly at the limit is met.
    assert_eq!(of("CPU of a forwarded simple"), Some(true));
    assert_eq!(of("TPS of simple point reads"), Some(true));
    assert_eq!(of("CPU of a forwarded prepared"), None);
    assert_eq!(of("TPS of dashboard hits, simple"), None);
    assert_eq!(of("TPS of dashboard hits, prepared"), Some(false));
    assert_eq!(of("CPU of a dashboard hit, simple"), Some(true));
    assert_eq!(of("memory"), Some(true));
}

#[test]
fn the_report_shows_ratios_and_says_what_is_missing() {
    let facts = [("Processor".to_owned(), "two cores".to_owned())];
    let report = report::report(&facts, &measured());
    let line = |start: &str| {
        let found = report.lines().find(|line| line.starts_with(start));
        let cells = found.unwrap_or_else(|| panic!("no line {start:?} in\n{report}"));
        cells.split('|').map(str::trim).collect::<Vec<_>>().join("|")
    };
    assert_eq!(
        line("| pgladder (primary only)  |      64 | 12,000"),
        "|pgladder (primary only)|64|12,000|–|0.60|1.20|0.500|2.000|26.0|1.30|"
    );
    assert_eq!(
        line("| PgBouncer (primary only) |      64 | not"),
        "|PgBouncer (primary only)|64|not comparable|–|–|–|–|–|–|–|"
    );
    assert_eq!(
        line("| pgladder (primary only) |     100"),
        "|pgladder (primary only)|100|10.0|11.5|15.0|–|"
    );
    assert_eq!(
        line("| TPS of dashboard hits, prepared"),
        "|TPS of dashboard hits, prepared ÷ simple|≥ 0.9|0.75|no|"
    );
    assert!(
        !report.contains("Connect"),
        "what was not measured has no table:\n{report}"
    );
}

#[test]
fn every_row_of_a_table_is_as_wide_as_its_head() {
    let report = report::report(&[("Run".to_owned(), "—".to_owned())], &measured());
    let mut widths = Vec::new();
    for table in report.split("\n\n").filter(|part| part.starts_with('|')) {
        let lines: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
        assert!(
            lines.len() > 2 && lines.iter().all(|width| *width == lines[0]),
            "{table}"
        );
        widths.push(lines[0]);
    }
    assert_eq!(widths.len(), 7, "{report}");
}

#[test]
fn workloads_are_distinct_and_each_has_its_doors() {
    let all = Workload::all();
    assert!(
        all.windows(2).all(|pair| pair[0] != pair[1])
            && all.iter().all(|workload| workload.part != Part::Memory)
    );
    for workload in all {
        let doors = Door::of(workload).count();
        let wanted = if workload.part == Part::Dashboard { 4 } else { 5 };
        assert_eq!(doors, wanted, "{workload:?}");
    }
}
