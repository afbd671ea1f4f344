//! `SHOW CLIENTS`: who is connected, and what each one is doing.
//!
//! Called by `show`. It reads the registry's atomics one after the other: a line is what a client was doing about now. It holds
//! the registry's lock only to copy the list of places.

use std::time::{SystemTime, UNIX_EPOCH};

use super::table::{Row, Table, milliseconds, text};
use crate::route::Pin;
use crate::session::last::ServedBy;
use crate::session::registry::{Activity, Presence, Registry};

pub(super) const COLUMNS: &[&str] = &[
    "process",
    "user",
    "database",
    "peer",
    "state",
    "pinned",
    "connected_since",
    "unit_age_ms",
    "cache",
    "replica",
    "primary",
    "proxy",
];

pub(super) fn table(registry: &Registry) -> Table {
    Table::new(COLUMNS, registry.all().iter().map(|presence| row(presence)))
}

fn row(presence: &Presence) -> Row {
    let who = &presence.who;
    let served = |by| text(presence.served(by));
    vec![
        text(who.process),
        text(&who.user),
        text(&who.database),
        text(who.peer),
        text(state(presence.activity())),
        presence.pin().map(|pin| reason(pin).to_owned()),
        text(utc(presence.since)),
        presence.unit_age().and_then(milliseconds),
        served(ServedBy::Cache),
        served(ServedBy::Replica),
        served(ServedBy::Primary),
        served(ServedBy::Proxy),
    ]
}

/// In the words of `pg_stat_activity` where it has one.
pub(super) fn state(activity: Activity) -> &'static str {
    match activity {
        Activity::Idle => "idle",
        Activity::Active => "active",
        Activity::Waiting => "waiting",
        Activity::InTransaction => "idle in transaction",
        Activity::InFailedTransaction => "idle in transaction (aborted)",
    }
}

fn reason(pin: Pin) -> &'static str {
    match pin {
        Pin::Listens => "listens",
        Pin::Temporary => "temporary tables",
        Pin::AdvisoryLock => "session-level advisory lock",
        Pin::HeldCursor => "cursor with hold",
        Pin::SqlPrepare => "prepared by SQL",
        Pin::UnknownState => "changed in a way that is not known",
    }
}

/// As PostgreSQL writes it with DateStyle ISO and TimeZone UTC.
fn utc(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}+00")
}

/// The day so many days after 1970-01-01, counted in years that begin in March (H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let check = |seconds: u64, wanted: &str| {
            assert_eq!(utc(UNIX_EPOCH + Duration::from_secs(seconds)), wanted);
        };
        check(0, "1970-01-01 00:00:00+00");
        check(951_782_399, "2000-02-28 23:59:59+00");
        check(951_782_400, "2000-02-29 00:00:00+00");
        check(1_709_251_199, "2024-02-29 23:59:59+00");
        check(1_735_689_600, "2025-01-01 00:00:00+00");
        check(4_107_542_400, "2100-03-01 00:00:00+00");
    }
}
