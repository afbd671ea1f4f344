//! Figures of the demo: latencies, their quantiles, and how they are written.
//!
//! Used by the steps of the walk. Everything is a pure function, so that what is printed can be checked by a table. A
//! figure is shown and never judged: how fast a loaded machine is says nothing about whether the proxy is right.

use std::time::Duration;

/// Measured durations, kept in order of size.
#[derive(Clone, Debug)]
pub(super) struct Latencies(Vec<Duration>);

impl Latencies {
    /// Takes them in any order.
    pub(super) fn new(mut measured: Vec<Duration>) -> Self {
        measured.sort_unstable();
        Self(measured)
    }

    /// The nearest-rank quantile, zero of no measurement: at least `per_mille` of a thousand are no longer than it.
    pub(super) fn quantile(&self, per_mille: usize) -> Duration {
        let rank = (self.0.len() * per_mille).div_ceil(1_000);
        self.0.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub(super) fn median(&self) -> Duration {
        self.quantile(500)
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Three digits or so, in the unit that reads best.
pub(super) fn duration(measured: Duration) -> String {
    let micros = measured.as_micros();
    let seconds = measured.as_secs_f64();
    match micros {
        0..1_000 => format!("{micros} µs"),
        1_000..10_000 => format!("{:.2} ms", seconds * 1e3),
        10_000..1_000_000 => format!("{:.1} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// With a comma between groups of three digits.
pub(in crate::demo) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// How many times `short` goes into `long`; with decimals while they say something.
pub(super) fn ratio(long: Duration, short: Duration) -> String {
    // A clock may tell no difference at all.
    let short = short.max(Duration::from_nanos(1));
    let times = long.as_secs_f64() / short.as_secs_f64();
    if times < 10.0 {
        return format!("{times:.1} x");
    }
    let whole = long.as_nanos() / short.as_nanos();
    format!("{} x", count(u64::try_from(whole).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(values: &[u64]) -> Latencies {
        Latencies::new(values.iter().copied().map(Duration::from_micros).collect())
    }

    #[test]
    fn a_quantile_is_a_measured_value() {
        let check = |values: &[u64], per_mille: usize, wanted: u64| {
            assert_eq!(
                micros(values).quantile(per_mille),
                Duration::from_micros(wanted),
                "{per_mille} of {values:?}"
            );
        };
        check(&[], 500, 0);
        check(&[7], 500, 7);
        check(&[7], 0, 7);
        check(&[3, 1, 2], 500, 2);
        check(&[4, 3, 2, 1], 500, 2);
        check(&[4, 3, 2, 1], 501, 3);
        check(&[4, 3, 2, 1], 1_000, 4);
        check(&(1..=1_000).collect::<Vec<_>>(), 990, 990);
        check(&(1..=10).collect::<Vec<_>>(), 990, 10);
        assert_eq!(micros(&[5, 1]).median(), Duration::from_micros(1));
        assert_eq!(micros(&[5, 1]).count(), 2);
    }

    #[test]
    fn durations_have_a_fitting_unit() {
        let check = |micros: u64, wanted: &str| assert_eq!(duration(Duration::from_micros(micros)), wanted);
        check(0, "0 µs");
        check(71, "71 µs");
        check(999, "999 µs");
        check(1_000, "1.00 ms");
        check(9_994, "9.99 ms");
        check(212_440, "212.4 ms");
        check(1_234_567, "1.23 s");
        check(61_000_000, "61.00 s");
    }

    #[test]
    fn counts_are_grouped() {
        for (number, wanted) in [
            (0, "0"),
            (999, "999"),
            (1_000, "1,000"),
            (50_000, "50,000"),
            (1_000_000, "1,000,000"),
        ] {
            assert_eq!(count(number), wanted);
        }
    }

    #[test]
    fn ratios_keep_decimals_only_while_small() {
        let check = |long: u64, short: u64, wanted: &str| {
            let ratio = ratio(Duration::from_nanos(long), Duration::from_nanos(short));
            assert_eq!(ratio, wanted, "{long} / {short}");
        };
        check(150, 100, "1.5 x");
        check(80, 100, "0.8 x");
        check(1_000, 100, "10 x");
        check(212_400_000, 71_000, "2,991 x");
        check(5, 0, "5.0 x");
    }
}
