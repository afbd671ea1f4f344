//! Durations and sizes as people write them: `100ms`, `5m`, `64MiB`.
//!
//! Called by the kinds of settings. Reading and showing are inverse: what is shown reads back as the same value. A number
//! without a unit is no duration, because nobody can tell seconds from milliseconds; a size without one is in bytes.

use std::time::Duration;

/// Largest first, so that a value is shown in the largest unit that divides it.
const TIME: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];
const SIZE: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
/// PostgreSQL's own spelling, in which a kB has 1,024 bytes, and the letter for bytes.
const SIZE_AS_POSTGRESQL: [(&str, u64); 5] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
];

/// A whole number with one of `ms`, `s`, `m` (or `min`), `h`, `d`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let unit = if unit == "min" { "m" } else { unit };
    let (_, milliseconds) = TIME.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*milliseconds).map(Duration::from_millis)
}

/// A whole number of bytes, or with one of `KiB`, `MiB`, `GiB`, `TiB` (or `kB`, `MB`, ... as PostgreSQL means them).
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    if unit.is_empty() {
        return Some(number);
    }
    let mut units = SIZE.iter().chain(&SIZE_AS_POSTGRESQL);
    let (_, bytes) = units.find(|(name, _)| *name == unit)?;
    number.checked_mul(*bytes)
}

/// In the largest unit that divides it; configured durations are whole milliseconds.
pub fn show_duration(duration: Duration) -> String {
    let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    show(milliseconds, &TIME).unwrap_or_else(|| "0s".to_owned())
}

/// In the largest unit that divides it.
pub(super) fn show_size(bytes: u64) -> String {
    show(bytes, &SIZE).unwrap_or_else(|| format!("{bytes}B"))
}

fn show(value: u64, units: &[(&str, u64)]) -> Option<String> {
    let mut fitting = units
        .iter()
        .filter(|(_, factor)| value > 0 && value.is_multiple_of(*factor));
    fitting
        .next()
        .map(|(unit, factor)| format!("{}{unit}", value / factor))
}

fn split(text: &str) -> Option<(u64, &str)> {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    Some((number.parse().ok()?, unit.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let check = |text: &str, milliseconds: Option<u64>| {
            assert_eq!(
                parse_duration(text),
                milliseconds.map(Duration::from_millis),
                "{text:?}"
            );
        };
        check("100ms", Some(100));
        check("5s", Some(5_000));
        check(" 5 min ", Some(300_000));
        check("5m", Some(300_000));
        check("1h", Some(3_600_000));
        check("2d", Some(172_800_000));
        for text in [
            "5",
            "",
            "s",
            "-5s",
            "1.5s",
            "5 weeks",
            "5s5",
            "99999999999999999d",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn sizes_are_in_powers_of_1024() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(parse_size(text), bytes, "{text:?}");
        check("64MiB", Some(64 << 20));
        check("64 MB", Some(64 << 20));
        check("1kB", Some(1024));
        check("512", Some(512));
        check("512B", Some(512));
        for text in ["", "MiB", "1.5GiB", "64M", "64mib", "-1", "99999999999TiB"] {
            check(text, None);
        }
    }

    #[test]
    fn what_is_shown_reads_back() {
        for milliseconds in [1, 100, 1_000, 1_500, 300_000, 3_600_000, 86_400_000, 90_000_000] {
            let duration = Duration::from_millis(milliseconds);
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration));
        }
        for bytes in [0, 1, 1_000, 1_024, 1_536, 64 << 20, 3 << 40] {
            assert_eq!(parse_size(&show_size(bytes)), Some(bytes));
        }
        assert_eq!(show_duration(Duration::from_secs(300)), "5m");
        assert_eq!(show_size(64 << 20), "64MiB");
    }
}
