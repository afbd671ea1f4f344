//! `/metrics`: what is counted and published anyway, in Prometheus' text format.
//!
//! Called by `http` for each scrape. There is no recorder: the values are read where they are kept, so that a pool or a node that
//! is gone leaves no series behind. Invariant: each name has one HELP and one TYPE line, before its samples. Format: Prometheus
//! manual, "Exposition formats", version 0.0.4.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::clients::state;
use super::readiness::Readiness;
use super::show::{address, sorted};
use crate::cluster::{NodeView, Role};
use crate::freshness::invalidations::Invalidated;
use crate::pool::PoolSnapshot;
use crate::session::Proxy;
use crate::session::costs::Wait;
use crate::session::last::ServedBy;
use crate::session::registry::Activity;
use crate::stream::status::{Mode, Status};
use crate::telemetry::histogram::Histogram;
use crate::telemetry::tally::{Kind, Tally};

const SERVED: [ServedBy; 4] = [
    ServedBy::Cache,
    ServedBy::Replica,
    ServedBy::Primary,
    ServedBy::Proxy,
];
const ACTIVITIES: [Activity; 5] = [
    Activity::Idle,
    Activity::Active,
    Activity::Waiting,
    Activity::InTransaction,
    Activity::InFailedTransaction,
];

/// A label's name and value.
type Label<'a> = (&'static str, &'a str);

/// The text under construction.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    /// Begins a metric, whose name all samples up to the next one share.
    fn metric(&mut self, name: &'static str, kind: &str, help: &str) -> Metric<'_> {
        let Self(out) = self;
        put(out, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"));
        Metric { out, name }
    }

    /// A metric of one sample.
    fn single(&mut self, name: &'static str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help).sample("", &[], value);
    }
}

struct Metric<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Metric<'_> {
    fn sample(&mut self, suffix: &str, labels: &[Label<'_>], value: impl Display) {
        put(self.out, format_args!("{}{suffix}", self.name));
        for (at, (name, value)) in labels.iter().enumerate() {
            let before = if at == 0 { '{' } else { ',' };
            put(self.out, format_args!("{before}{name}=\"{}\"", escaped(value)));
        }
        let after = if labels.is_empty() { "" } else { "}" };
        put(self.out, format_args!("{after} {value}\n"));
    }

    /// The samples of a histogram; at most one label besides its bounds.
    fn durations(&mut self, histogram: &Histogram, label: Option<Label<'_>>) {
        let reading = histogram.read();
        let bounds = histogram.bounds().iter().map(|bound| seconds(*bound).to_string());
        for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(reading.cumulative) {
            let labels: Vec<Label<'_>> = label.into_iter().chain([("le", &*bound)]).collect();
            self.sample("_bucket", &labels, count);
        }
        let all = reading.cumulative.last().copied().unwrap_or_default();
        self.sample("_sum", label.as_slice(), seconds(reading.sum_us));
        self.sample("_count", label.as_slice(), all);
    }

    /// A sample of each kind, told apart by this label.
    fn tally<K: Kind>(&mut self, label: &'static str, tally: &Tally<K>) {
        for (kind, count) in tally.all() {
            self.sample("", &[(label, kind.word())], count);
        }
    }
}

fn put(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string cannot fail");
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

/// All metrics now.
pub(super) fn exposition(proxy: &Proxy, up_for: Duration, is_draining: bool) -> String {
    let mut out = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    out.metric("pgladder_info", "gauge", "The program's version.")
        .sample("", &[("version", version)], 1);
    let help = "Time since the start.";
    out.single("pgladder_uptime_seconds", "gauge", help, up_for.as_secs_f64());
    let ready = u8::from(Readiness::of(proxy, is_draining).ready);
    out.single("pgladder_ready", "gauge", "1 while /readyz says 200.", ready);
    nodes(&mut out, proxy);
    pools(&mut out, proxy);
    cache(&mut out, proxy);
    counters(&mut out, proxy);
    costs(&mut out, proxy);
    invalidations(&mut out, proxy);
    clients(&mut out, proxy);
    units(&mut out, proxy);
    streams(&mut out, proxy);
    out.0
}

fn nodes(out: &mut Exposition, proxy: &Proxy) {
    type Value = fn(&NodeView) -> Option<f64>;
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows floats only")]
    let metrics: [(&'static str, &str, &str, Value); 6] = [
        (
            "pgladder_node_usable",
            "gauge",
            "1 while the node is up, of this cluster, and within the lag limits.",
            |node| Some(f64::from(u8::from(node.usable))),
        ),
        ("pgladder_node_primary", "gauge", "1 on the primary.", |node| {
            Some(f64::from(u8::from(node.role == Role::Primary)))
        }),
        (
            "pgladder_node_lag_bytes",
            "gauge",
            "WAL that a replica has still to replay.",
            |node| node.lag_bytes.map(|bytes| bytes as f64),
        ),
        (
            "pgladder_node_lag_seconds",
            "gauge",
            "Time since the primary was no further than the replica.",
            |node| node.lag.map(|lag| lag.as_secs_f64()),
        ),
        (
            "pgladder_node_outstanding",
            "gauge",
            "Requests that run on the node now.",
            |node| Some(node.outstanding.load(Ordering::Relaxed) as f64),
        ),
        (
            "pgladder_node_requests_total",
            "counter",
            "Requests that were begun on the node.",
            |node| Some(node.served.requests.load(Ordering::Relaxed) as f64),
        ),
    ];
    let view = proxy.cluster.view();
    for (name, kind, help, value) in metrics {
        let mut metric = out.metric(name, kind, help);
        for node in &view.nodes {
            if let Some(value) = value(node) {
                metric.sample("", &[("node", &node.address.to_string())], value);
            }
        }
    }
    let mut catalogs = out.metric(
        "pgladder_database_catalog_known",
        "gauge",
        "1 while the database's catalog is known; without it nothing is cached or read from replicas.",
    );
    for database in proxy.databases.all() {
        let known = u8::from(database.catalog(database.doubts()).is_some());
        catalogs.sample("", &[("database", &database.name)], known);
    }
}

fn pools(out: &mut Exposition, proxy: &Proxy) {
    type Value = fn(&PoolSnapshot) -> u64;
    const METRICS: [(&str, &str, &str, Value); 5] = [
        (
            "pgladder_pool_lent",
            "gauge",
            "Server connections in use.",
            |pool| pool.lent as u64,
        ),
        (
            "pgladder_pool_idle",
            "gauge",
            "Idle server connections.",
            |pool| pool.idle as u64,
        ),
        (
            "pgladder_pool_waiting",
            "gauge",
            "Clients that wait for one.",
            |pool| pool.waiting as u64,
        ),
        ("pgladder_pool_size", "gauge", "The most there may be.", |pool| {
            pool.size as u64
        }),
        (
            "pgladder_pool_leases_total",
            "counter",
            "Times one was lent.",
            |pool| pool.leases,
        ),
    ];
    let (view, pools) = (proxy.cluster.view(), proxy.pools.snapshot());
    for (name, kind, help, value) in METRICS {
        let mut metric = out.metric(name, kind, help);
        for pool in &pools {
            let labels = [
                ("node", &*address(&view, pool.key.node)),
                ("database", &pool.key.database),
                ("user", &pool.key.user),
            ];
            metric.sample("", &labels, value(pool));
        }
    }
}

fn streams(out: &mut Exposition, proxy: &Proxy) {
    type Value = fn(&Status) -> Option<f64>;
    #[expect(clippy::cast_precision_loss, reason = "Prometheus knows floats only")]
    let metrics: [(&'static str, &str, &str, Value); 6] = [
        (
            "pgladder_stream_up",
            "gauge",
            "1 while the primary's log tells of writes made past the proxy.",
            |status| Some(f64::from(u8::from(status.mode == Mode::Streaming))),
        ),
        (
            "pgladder_stream_delay_seconds",
            "gauge",
            "How far the stream is known to be behind.",
            |status| status.delay(Instant::now()).map(|delay| delay.as_secs_f64()),
        ),
        (
            "pgladder_stream_tables",
            "gauge",
            "Tables of which it misses no commit.",
            |status| Some(status.carried as f64),
        ),
        (
            "pgladder_stream_transactions_total",
            "counter",
            "Transactions that it has told of.",
            |status| Some(status.transactions as f64),
        ),
        (
            "pgladder_stream_bytes_total",
            "counter",
            "Bytes received.",
            |status| Some(status.bytes as f64),
        ),
        (
            "pgladder_stream_begun_total",
            "counter",
            "Streams begun: each further one has ended all entries over what it carried.",
            |status| Some(status.begun as f64),
        ),
    ];
    let databases = sorted(proxy);
    let statuses: Vec<(&str, Status)> = databases
        .iter()
        .map(|database| (&*database.name, proxy.streams.status(&database.name)))
        .collect();
    for (name, kind, help, value) in metrics {
        let mut metric = out.metric(name, kind, help);
        for (database, status) in &statuses {
            if let Some(value) = value(status) {
                metric.sample("", &[("database", database)], value);
            }
        }
    }
}

fn cache(out: &mut Exposition, proxy: &Proxy) {
    let ((entries, bytes), limits) = (proxy.store.size(), proxy.store.limits());
    let gauges = [
        ("pgladder_cache_entries", "Answers in the cache.", entries),
        (
            "pgladder_cache_entries_max",
            "The most there may be.",
            limits.entries_max,
        ),
        ("pgladder_cache_bytes", "Bytes of the cache in use.", bytes),
        (
            "pgladder_cache_bytes_max",
            "The most there may be.",
            limits.bytes_max,
        ),
    ];
    for (name, help, value) in gauges {
        out.single(name, "gauge", help, value);
    }
}

fn counters(out: &mut Exposition, proxy: &Proxy) {
    let counters = &proxy.counters;
    let counted = [
        (
            "pgladder_cache_hits_total",
            "Reads answered from the cache.",
            &counters.hits,
        ),
        (
            "pgladder_cache_shared_total",
            "Reads answered by another client's execution.",
            &counters.shared,
        ),
        (
            "pgladder_cache_misses_total",
            "Cacheable reads that were not there.",
            &counters.misses,
        ),
        ("pgladder_cache_stored_total", "Answers stored.", &counters.stored),
        (
            "pgladder_cache_refreshed_total",
            "Entries renewed in the background.",
            &counters.refreshed,
        ),
        (
            "pgladder_cache_refreshes_dropped_total",
            "Entries not renewed because too many others were.",
            &counters.refreshes_dropped,
        ),
        (
            "pgladder_read_index_total",
            "Strict reads that asked how far the primary had written.",
            &counters.read_index,
        ),
        (
            "pgladder_retried_total",
            "Reads that a replica refused or dropped, and the primary answered.",
            &counters.retried,
        ),
        (
            "pgladder_logins_total",
            "Clients that logged in.",
            &counters.logins,
        ),
    ];
    for (name, help, counter) in counted {
        out.single(name, "counter", help, counter.load(Ordering::Relaxed));
    }
    let probes = "Questions to the primary how far it has written, each of which serves all who wait.";
    out.single("pgladder_probes_total", "counter", probes, proxy.cluster.probes());
}

fn costs(out: &mut Exposition, proxy: &Proxy) {
    let costs = &proxy.costs;
    let help = "Cacheable reads that were run for their client alone.";
    out.metric("pgladder_cache_bypasses_total", "counter", help)
        .tally("reason", &costs.bypasses);
    let help = "Answers of cacheable reads that were not kept.";
    out.metric("pgladder_cache_not_kept_total", "counter", help)
        .tally("reason", &costs.not_kept);
    let help = "Hits that were read again on the primary and compared.";
    out.metric("pgladder_cache_samples_total", "counter", help)
        .tally("result", &costs.samples);
    let help = "For how long answers from the cache had missed a write; 0 for those that missed none.";
    out.metric("pgladder_cache_staleness_seconds", "histogram", help)
        .durations(&costs.staleness, None);
    let help = "Time that requests waited in the proxy, by what for.";
    let mut metric = out.metric("pgladder_wait_seconds", "histogram", help);
    for wait in Wait::ALL {
        metric.durations(costs.waited_for(*wait), Some(("for", wait.word())));
    }
}

fn invalidations(out: &mut Exposition, proxy: &Proxy) {
    let help = "Times that answers over a table were made untrue, by what: a write twice, at its completion and at the end of its unit; without a name: over every table.";
    let mut metric = out.metric("pgladder_invalidations_total", "counter", help);
    for database in sorted(proxy) {
        let catalog = database.latest_catalog();
        let name = |table| {
            let known = catalog.as_deref().and_then(|catalog| catalog.table_name(table));
            known.map_or_else(|| table.to_string(), ToString::to_string)
        };
        // Two tables may be shown by the same words.
        let mut shown: BTreeMap<(String, &'static str), u64> = BTreeMap::new();
        for (what, source, count) in database.invalidations() {
            let table = match what {
                Invalidated::Everything => String::new(),
                Invalidated::Table(table) => name(table),
                Invalidated::Other => "other".to_owned(),
            };
            *shown.entry((table, source.word())).or_default() += count;
        }
        for ((table, source), count) in &shown {
            let labels = [
                ("database", &*database.name),
                ("table", table),
                ("source", *source),
            ];
            metric.sample("", &labels, count);
        }
    }
}

fn clients(out: &mut Exposition, proxy: &Proxy) {
    let present = proxy.registry.all();
    let mut metric = out.metric("pgladder_clients", "gauge", "Clients by what they are doing.");
    for activity in ACTIVITIES {
        let count = present.iter().filter(|one| one.activity() == activity).count();
        metric.sample("", &[("state", state(activity))], count);
    }
}

fn units(out: &mut Exposition, proxy: &Proxy) {
    let help = "Requests by who answered and why, in the words of SHOW pgladder.last.";
    let mut metric = out.metric("pgladder_units_total", "counter", help);
    for (by, reason, count) in proxy.reasons.counted() {
        metric.sample("", &[("served_by", &by.to_string()), ("reason", &reason)], count);
    }
    let help = "Time from a client's request to its answer, by who answered.";
    let mut metric = out.metric("pgladder_unit_duration_seconds", "histogram", help);
    for by in SERVED {
        metric.durations(proxy.latency(by), Some(("served_by", &by.to_string())));
    }
}

fn seconds(microseconds: u64) -> f64 {
    Duration::from_micros(microseconds).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_under_their_name_with_escaped_labels() {
        let mut out = Exposition::default();
        out.metric("a_total", "counter", "Some.")
            .sample("", &[("user", "o\"n\\e\n"), ("x", "")], 3);
        out.single("b", "gauge", "One.", 0.5);
        let wanted = "# HELP a_total Some.\n# TYPE a_total counter\na_total{user=\"o\\\"n\\\\e\\n\",x=\"\"} 3\n\
                      # HELP b One.\n# TYPE b gauge\nb 0.5\n";
        assert_eq!(out.0, wanted);
    }

    #[test]
    fn bounds_are_written_in_seconds() {
        assert_eq!(seconds(10).to_string(), "0.00001");
        assert_eq!(seconds(2_500_000).to_string(), "2.5");
    }
}
