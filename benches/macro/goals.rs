//! The speed that is wanted, and whether it was reached.
//!
//! Used by the report. Pure: ratios within one run, because they are comparable where absolute figures are not. A goal whose
//! figures are missing is neither met nor missed. Nothing fails here: a busy machine says nothing of the code.

use super::figures::Figure;
use super::results::{Door, Part, Protocol, Results, Workload};

/// On which side of the limit a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Wanted {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// A goal, and what was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Goal {
    /// In words.
    pub what: String,
    /// The limit.
    pub wanted: Wanted,
    /// The measured figure.
    pub measured: Option<f64>,
}

impl Goal {
    /// Was it reached? `None` where it was not measured.
    pub fn is_met(&self) -> Option<bool> {
        self.measured.map(|measured| match self.wanted {
            Wanted::AtMost(limit) => measured <= limit,
            Wanted::AtLeast(limit) => measured >= limit,
        })
    }
}

/// All goals.
pub fn goals(results: &Results) -> Vec<Goal> {
    let mut goals = Vec::new();
    for protocol in [Protocol::Simple, Protocol::Extended, Protocol::Prepared] {
        goals.extend(forwarding(results, protocol));
    }
    goals.extend(hits(results));
    goals.push(Goal {
        what: "memory of an idle client, KiB".to_owned(),
        wanted: Wanted::AtMost(16.0),
        measured: results
            .memory(Door::PgladderOneNode)
            .map(|memory| memory.kib_per_client()),
    });
    goals
}

/// A read that is forwarded, beside PgBouncer with the same one node.
fn forwarding(results: &Results, protocol: Protocol) -> [Goal; 2] {
    let workload = Workload {
        part: Part::Point,
        protocol,
        clients: 64,
    };
    let own = results.median(workload, Door::PgladderOneNode);
    let theirs = results.median(workload, Door::PgBouncer);
    let name = protocol.name();
    [
        Goal {
            what: format!("CPU of a forwarded {name} point read, 64 clients, ÷ PgBouncer's"),
            wanted: Wanted::AtMost(1.3),
            measured: ratio(
                own.and_then(|figure| figure.cpu_us),
                theirs.and_then(|figure| figure.cpu_us),
            ),
        },
        Goal {
            what: format!("TPS of {name} point reads, 64 clients, ÷ PgBouncer's"),
            wanted: Wanted::AtLeast(1.0),
            measured: ratio(tps(own), tps(theirs)),
        },
    ]
}

/// The dashboard out of the cache.
fn hits(results: &Results) -> [Goal; 4] {
    let of = |protocol, door| {
        let workload = Workload {
            part: Part::Dashboard,
            protocol,
            clients: 16,
        };
        results.median(workload, door)
    };
    let simple = of(Protocol::Simple, Door::Pgladder);
    let prepared = of(Protocol::Prepared, Door::Pgladder);
    let cpu = |what: &str, figure: Option<Figure>| Goal {
        what: what.to_owned(),
        wanted: Wanted::AtMost(12.0),
        measured: figure.and_then(|figure| figure.cpu_us),
    };
    [
        Goal {
            what: "TPS of dashboard hits, simple, ÷ Pgpool-II's".to_owned(),
            wanted: Wanted::AtLeast(2.0),
            measured: ratio(tps(simple), tps(of(Protocol::Simple, Door::Pgpool))),
        },
        Goal {
            what: "TPS of dashboard hits, prepared ÷ simple".to_owned(),
            wanted: Wanted::AtLeast(0.9),
            measured: ratio(tps(prepared), tps(simple)),
        },
        cpu("CPU of a dashboard hit, simple, µs", simple),
        cpu("CPU of a dashboard hit, prepared, µs", prepared),
    ]
}

fn tps(figure: Option<Figure>) -> Option<f64> {
    figure.map(|figure| figure.tps)
}

/// One figure over another; none where either is missing, or the lower one is too small to divide by.
pub fn ratio(upper: Option<f64>, lower: Option<f64>) -> Option<f64> {
    lower
        .filter(|lower| *lower > f64::EPSILON)
        .and_then(|lower| upper.map(|upper| upper / lower))
}
