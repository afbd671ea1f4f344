//! One measurement, and the median of several.
//!
//! Used by everything that measures and by the report. Pure. Invariant: each column of a median is the median of that column
//! alone, over the rounds that have it; of no round there is none.

/// What one run of one workload through one door has shown.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figure {
    /// Transactions per second.
    pub tps: f64,
    /// Half of the transactions took no longer, in milliseconds.
    pub p50_ms: f64,
    /// 99 of 100 took no longer, in milliseconds.
    pub p99_ms: f64,
    /// Processor time of the proxy for each transaction, in microseconds; none where there is no proxy, or no `/proc`.
    pub cpu_us: Option<f64>,
}

impl Figure {
    /// The figure of so many transactions, given their rate, their durations in microseconds, and the proxy's seconds.
    pub fn new(transactions: u64, tps: f64, mut durations: Vec<u32>, cpu_seconds: Option<f64>) -> Self {
        durations.sort_unstable();
        Self {
            tps,
            p50_ms: quantile(&durations, 500) / 1e3,
            p99_ms: quantile(&durations, 990) / 1e3,
            cpu_us: cpu_seconds.map(|seconds| seconds * 1e6 / count(transactions)),
        }
    }

    /// The medians over rounds.
    pub fn median(rounds: &[Self]) -> Option<Self> {
        let column = |of: fn(&Self) -> f64| median(rounds.iter().map(of));
        Some(Self {
            tps: column(|figure| figure.tps)?,
            p50_ms: column(|figure| figure.p50_ms)?,
            p99_ms: column(|figure| figure.p99_ms)?,
            cpu_us: median(rounds.iter().filter_map(|figure| figure.cpu_us)),
        })
    }

    /// How far the rounds' rates lie apart, in percent of their median: what of a difference is noise. Of one round, unknown.
    pub fn spread_percent(rounds: &[Self]) -> Option<f64> {
        if rounds.len() < 2 {
            return None;
        }
        let middle = Self::median(rounds)?.tps;
        let rates = rounds.iter().map(|figure| figure.tps);
        let (least, most) = rates.fold((middle, middle), |(least, most), rate| {
            (least.min(rate), most.max(rate))
        });
        Some((most - least) / middle * 100.0)
    }
}

/// The middle value; between the two middle ones of an even number.
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    let lower = values[(values.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
}

/// The nearest-rank quantile of sorted values: at least `per_mille` of a thousand are no greater. Of no value, zero.
fn quantile(sorted: &[u32], per_mille: usize) -> f64 {
    let rank = (sorted.len() * per_mille).div_ceil(1_000);
    sorted.get(rank.saturating_sub(1)).copied().map_or(0.0, f64::from)
}

/// A count as a divisor.
fn count(transactions: u64) -> f64 {
    f64::from(u32::try_from(transactions).unwrap_or(u32::MAX)).max(1.0)
}
