//! `[cache]`: which answers are kept, how many and for how long.
//!
//! Read by `Config::load`; used by the session and the cache's store. The rules stand in `[[cache.rule]]`. A TTL bounds how
//! long a write made past the proxy may stay unseen; writes through it are seen at once, whatever the TTL.

use std::time::Duration;

use super::cache_rule::{self, CacheRule};
use super::kind::{Bytes, Kind, Raw, Span, Switch, Whole, Words};
use super::reader::Section;
use super::units::show_duration;

/// Which cacheable reads are cached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheWhat {
    /// Those that aggregate: aggregate functions, GROUP BY, DISTINCT, window functions.
    #[default]
    Aggregates,
    /// All of them.
    AllReads,
}

/// The cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheConfig {
    /// Is anything cached at all?
    pub enabled: bool,
    /// Bytes of all entries, with their keys and overhead.
    pub bytes: u64,
    /// Number of entries.
    pub entries: usize,
    /// Bytes of one entry; a larger answer is not kept.
    pub entry_bytes_max: u64,
    /// Which cacheable reads are cached.
    pub what: CacheWhat,
    /// The longest age of an answer, from its query on.
    pub ttl: Duration,
    /// Keep an answer at the second miss only.
    pub doorkeeper: bool,
    /// An answer that took less time, in milliseconds, is not worth its place.
    pub min_cost_ms: u64,
    /// Entries that are renewed in the background at a time.
    pub refreshes_max: usize,
    /// Each hit of so many is read again on the primary and compared; 0: none.
    pub sample_every: u64,
    /// Exceptions, the first that matches counts.
    pub rules: Vec<CacheRule>,
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            bytes: 256 << 20,
            entries: 100_000,
            entry_bytes_max: 4 << 20,
            what: CacheWhat::Aggregates,
            ttl: Duration::from_secs(300),
            doorkeeper: false,
            min_cost_ms: 0,
            refreshes_max: 4,
            sample_every: 0,
            rules: Vec::new(),
        }
    }
}

const WHAT: &[(&str, CacheWhat)] = &[
    ("aggregates", CacheWhat::Aggregates),
    ("all_reads", CacheWhat::AllReads),
];

impl CacheConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("enabled", &mut self.enabled, &Switch);
        section.read("bytes", &mut self.bytes, &Bytes(64 << 10..=1 << 44));
        section.read("entries", &mut self.entries, &Whole(1..=1_000_000_000));
        section.read(
            "entry_bytes_max",
            &mut self.entry_bytes_max,
            &Bytes(1 << 10..=1 << 30),
        );
        section.read("what", &mut self.what, &Words(WHAT));
        section.read("ttl", &mut self.ttl, &Ttl::default());
        section.read("doorkeeper", &mut self.doorkeeper, &Switch);
        section.read("min_cost_ms", &mut self.min_cost_ms, &Whole(0..=3_600_000));
        section.read("refreshes_max", &mut self.refreshes_max, &Whole(0..=10_000));
        section.read("sample_every", &mut self.sample_every, &Whole(0..=1_000_000_000));
        self.rules = section.list("rule", cache_rule::read);
    }
}

/// Names for how old an answer may be.
const PRESETS: [(&str, Duration); 4] = [
    ("near_real_time", Duration::from_secs(30)),
    ("minutes", Duration::from_secs(300)),
    ("hours", Duration::from_secs(3_600)),
    ("daily", Duration::from_secs(86_400)),
];

/// The kind of a TTL: a preset's name or a duration.
pub(super) struct Ttl(Span);

impl Default for Ttl {
    fn default() -> Self {
        Self(Span::new(1_000, 30 * 86_400))
    }
}

impl Kind for Ttl {
    type Value = Duration;

    fn parse(&self, raw: &Raw) -> Option<Duration> {
        let preset = PRESETS.iter().find(|(name, _)| raw.text() == Some(name));
        preset.map(|(_, ttl)| *ttl).or_else(|| self.0.parse(raw))
    }

    fn show(&self, value: &Duration) -> String {
        let preset = PRESETS.iter().find(|(_, ttl)| ttl == value);
        preset.map_or_else(|| self.0.show(value), |(name, _)| format!("\"{name}\""))
    }

    fn allowed(&self) -> String {
        let presets: Vec<_> = PRESETS
            .iter()
            .map(|(name, ttl)| format!("\"{name}\" ({})", show_duration(*ttl)))
            .collect();
        format!("{}, or {}", presets.join(", "), self.0.allowed())
    }
}
