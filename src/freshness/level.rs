//! Freshness levels: what a read may miss.
//!
//! Chosen per read by a hint, the session, a rule or the default, and read by routing and the cache. The words are those
//! that users write: `strict`, `fresh`, `session`, `bounded 5m`, `ttl 1h`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a read may miss.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Level {
    /// Nothing acknowledged to anyone before the read began, by whatever way it was written.
    Strict,
    /// No write acknowledged through this proxy before the read began.
    #[default]
    Fresh,
    /// Other sessions' writes, up to the replicas' lag limit; never the session's own. It is served as `Fresh`, which misses less.
    Session,
    /// A write acknowledged less than this long ago.
    Bounded(Duration),
    /// Anything younger than this; writes are ignored.
    Ttl(Duration),
}

impl Level {
    /// May an answer miss a write that was acknowledged so long ago?
    pub fn may_miss(self, since: Duration) -> bool {
        match self {
            Self::Ttl(_) => true,
            Self::Bounded(bound) => since < bound,
            Self::Strict | Self::Fresh | Self::Session => false,
        }
    }

    /// The one of both under which a read may miss less.
    #[must_use]
    pub fn stricter(self, other: Self) -> Self {
        let rank = |level: Self| match level {
            Self::Strict => (0, Duration::ZERO),
            Self::Fresh => (1, Duration::ZERO),
            Self::Session => (2, Duration::ZERO),
            Self::Bounded(age) => (3, age),
            Self::Ttl(age) => (4, age),
        };
        if rank(other) < rank(self) { other } else { self }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => f.write_str("strict"),
            Self::Fresh => f.write_str("fresh"),
            Self::Session => f.write_str("session"),
            Self::Bounded(age) => write!(f, "bounded {age:?}"),
            Self::Ttl(age) => write!(f, "ttl {age:?}"),
        }
    }
}

/// The text names no level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "not a freshness level: strict, fresh, session, bounded <duration> or ttl <duration>, such as bounded 5m"
)]
pub struct NotALevel;

impl FromStr for Level {
    type Err = NotALevel;

    fn from_str(text: &str) -> Result<Self, NotALevel> {
        let mut words = text.split_whitespace();
        let name = words.next().ok_or(NotALevel)?.to_ascii_lowercase();
        let age = words.next().map(duration).transpose()?;
        if words.next().is_some() {
            return Err(NotALevel);
        }
        match (name.as_str(), age) {
            ("strict", None) => Ok(Self::Strict),
            ("fresh", None) => Ok(Self::Fresh),
            ("session", None) => Ok(Self::Session),
            ("bounded", Some(age)) => Ok(Self::Bounded(age)),
            ("ttl", Some(age)) => Ok(Self::Ttl(age)),
            _ => Err(NotALevel),
        }
    }
}

/// A whole number and its unit, as in `500ms`, `5s`, `5m`, `1h`, `1d`.
fn duration(text: &str) -> Result<Duration, NotALevel> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| NotALevel)?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(NotALevel),
    };
    number
        .checked_mul(milliseconds)
        .map(Duration::from_millis)
        .ok_or(NotALevel)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_known() {
        let check = |text: &str, level: Level| assert_eq!(text.parse(), Ok(level), "{text}");
        check("strict", Level::Strict);
        check(" Fresh ", Level::Fresh);
        check("session", Level::Session);
        check("bounded 5s", Level::Bounded(Duration::from_secs(5)));
        check("bounded 250ms", Level::Bounded(Duration::from_millis(250)));
        check("ttl 15m", Level::Ttl(Duration::from_secs(900)));
        check("ttl 1d", Level::Ttl(Duration::from_secs(86_400)));
    }

    #[test]
    fn of_two_levels_the_one_that_misses_less_is_stricter() {
        let short = Level::Ttl(Duration::from_secs(1));
        let long = Level::Ttl(Duration::from_secs(2));
        for (one, other, wanted) in [
            (Level::Strict, Level::Fresh, Level::Strict),
            (Level::Session, Level::Fresh, Level::Fresh),
            (
                Level::Bounded(Duration::from_secs(60)),
                short,
                Level::Bounded(Duration::from_secs(60)),
            ),
            (long, short, short),
        ] {
            assert_eq!(one.stricter(other), wanted);
            assert_eq!(other.stricter(one), wanted);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "fast",
            "fresh 5s",
            "bounded",
            "bounded 5",
            "bounded -5s",
            "ttl 5 s",
            "ttl 99999999999999999d",
        ] {
            assert_eq!(text.parse::<Level>(), Err(NotALevel), "{text:?}");
        }
    }
}
