//! The report, in Markdown: facts, a table for each kind of load, memory, goals.
//!
//! Called once at the end with all results. Pure: the same results make the same text. Ratios are taken of medians, within one
//! workload. It judges nothing; `goals` does.

use super::figures::Figure;
use super::goals::{Goal, Wanted, goals, ratio};
use super::results::{Door, Part, Results, Workload};

/// A table under construction: every row has as many cells as the head.
struct Table {
    rows: Vec<Vec<String>>,
    /// Leading columns of words; the others are figures, and end under each other.
    words: usize,
}

impl Table {
    fn new(words: usize, head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()],
            words,
        }
    }

    fn row(&mut self, cells: Vec<String>) {
        assert_eq!(cells.len(), self.rows[0].len(), "a cell for each column");
        self.rows.push(cells);
    }

    /// Columns stand under each other also where nothing renders them.
    fn render(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or(0).max(3)
        };
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
        let mut lines = Vec::new();
        for (number, row) in self.rows.iter().enumerate() {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| {
                    if column < self.words {
                        format!(" {cell:<width$} ")
                    } else {
                        format!(" {cell:>width$} ")
                    }
                });
            lines.push(format!("|{}|", cells.collect::<Vec<_>>().join("|")));
            if number == 0 {
                let rules = widths.iter().enumerate().map(|(column, width)| {
                    let rule = "-".repeat(width + 1);
                    if column < self.words {
                        format!("{rule}-")
                    } else {
                        format!("{rule}:")
                    }
                });
                lines.push(format!("|{}|", rules.collect::<Vec<_>>().join("|")));
            }
        }
        lines.join("\n") + "\n"
    }
}

/// The whole report. Facts are names and values.
pub fn report(facts: &[(String, String)], results: &Results) -> String {
    let mut parts = Vec::new();
    let mut table = Table::new(2, &["Machine", ""]);
    for (name, value) in facts {
        table.row(vec![name.clone(), value.clone()]);
    }
    parts.push(table.render());
    let workloads = results.workloads();
    for kind in workloads.chunk_by(|a, b| (a.part, a.protocol) == (b.part, b.protocol)) {
        parts.push(format!("### {}\n\n{}", title(kind[0]), loads(kind, results)));
    }
    if Door::ALL.iter().any(|door| results.memory(*door).is_some()) {
        parts.push(format!("### Memory of idle clients\n\n{}", memory(results)));
    }
    parts.push(format!("### Goals\n\n{}", judged(&goals(results))));
    parts.join("\n")
}

fn title(workload: Workload) -> String {
    let protocol = workload.protocol.name();
    match workload.part {
        Part::Point => format!("Point reads, {protocol}, no cache"),
        Part::Dashboard => {
            format!("Dashboard, {protocol}: pgladder and Pgpool-II with their caches")
        }
        Part::Connect => "Connect, one point read, disconnect".to_owned(),
        Part::Memory => "Memory".to_owned(),
    }
}

fn loads(workloads: &[Workload], results: &Results) -> String {
    let mut table = Table::new(
        1,
        &[
            "Through",
            "Clients",
            "TPS",
            "spread",
            "÷ direct",
            "÷ PgBouncer",
            "p50 ms",
            "p99 ms",
            "proxy CPU µs/query",
            "÷ PgBouncer",
        ],
    );
    for workload in workloads {
        let direct = results.median(*workload, Door::Direct);
        let bouncer = results.median(*workload, Door::PgBouncer);
        for door in Door::of(*workload) {
            let clients = workload.clients.to_string();
            let Some(figure) = results.median(*workload, door) else {
                if let Some(reason) = results.reason(*workload, door) {
                    let mut cells = vec![door.name().to_owned(), clients, reason.to_owned()];
                    cells.resize(table.rows[0].len(), dash());
                    table.row(cells);
                }
                continue;
            };
            let spread = Figure::spread_percent(results.rounds(*workload, door));
            table.row(vec![
                door.name().to_owned(),
                clients,
                grouped(figure.tps),
                spread.map_or_else(dash, |percent| format!("{percent:.0} %")),
                times(ratio(Some(figure.tps), direct.map(|direct| direct.tps))),
                times(ratio(Some(figure.tps), bouncer.map(|bouncer| bouncer.tps))),
                format!("{:.3}", figure.p50_ms),
                format!("{:.3}", figure.p99_ms),
                figure.cpu_us.map_or_else(dash, |cpu| format!("{cpu:.1}")),
                times(ratio(figure.cpu_us, bouncer.and_then(|bouncer| bouncer.cpu_us))),
            ]);
        }
    }
    table.render()
}

fn memory(results: &Results) -> String {
    let mut table = Table::new(
        1,
        &[
            "Proxy",
            "Clients",
            "PSS before, MiB",
            "PSS after, MiB",
            "KiB per client",
            "÷ PgBouncer",
        ],
    );
    let mib = |bytes: u64| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0;
    let bouncer = results
        .memory(Door::PgBouncer)
        .map(|memory| memory.kib_per_client());
    for door in Door::ALL {
        if let Some(memory) = results.memory(door) {
            table.row(vec![
                door.name().to_owned(),
                grouped(f64::from(memory.clients)),
                format!("{:.1}", mib(memory.before)),
                format!("{:.1}", mib(memory.after)),
                format!("{:.1}", memory.kib_per_client()),
                times(ratio(Some(memory.kib_per_client()), bouncer)),
            ]);
        }
    }
    table.render()
}

fn judged(goals: &[Goal]) -> String {
    let mut table = Table::new(1, &["Goal", "wanted", "measured", "met"]);
    for goal in goals {
        let wanted = match goal.wanted {
            Wanted::AtMost(limit) => format!("≤ {limit:.1}"),
            Wanted::AtLeast(limit) => format!("≥ {limit:.1}"),
        };
        table.row(vec![
            goal.what.clone(),
            wanted,
            goal.measured
                .map_or_else(dash, |measured| format!("{measured:.2}")),
            match goal.is_met() {
                Some(true) => "yes",
                Some(false) => "no",
                None => "not measured",
            }
            .to_owned(),
        ]);
    }
    table.render()
}

fn dash() -> String {
    "–".to_owned()
}

fn times(ratio: Option<f64>) -> String {
    ratio.map_or_else(dash, |ratio| {
        if ratio < 10.0 {
            format!("{ratio:.2}")
        } else {
            grouped(ratio)
        }
    })
}

/// A whole number with a comma between groups of three digits.
fn grouped(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
