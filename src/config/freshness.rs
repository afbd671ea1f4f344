//! `[freshness]`: what a read may miss when nobody says otherwise.
//!
//! Read by `Config::load`; used by routing and the cache. The words are those of the hint and of `SET pgladder.freshness`, and
//! `Display` writes them so that either reads them back.

use std::fmt;
use std::time::Duration;

use super::kind::{Kind, Raw};
use super::reader::Section;
use super::units::{parse_duration, show_duration};

/// What a read may miss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing acknowledged to anyone before it began.
    Strict,
    /// No write acknowledged through this proxy before it began.
    #[default]
    Fresh,
    /// Other sessions' writes, up to the lag limit; never the session's own.
    Session,
    /// A write acknowledged less than this long ago.
    Bounded(Duration),
    /// Anything younger than this.
    Ttl(Duration),
}

impl fmt::Display for Freshness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Strict => f.write_str("strict"),
            Self::Fresh => f.write_str("fresh"),
            Self::Session => f.write_str("session"),
            Self::Bounded(age) => write!(f, "bounded {}", show_duration(*age)),
            Self::Ttl(age) => write!(f, "ttl {}", show_duration(*age)),
        }
    }
}

/// The kind of a level.
pub(super) struct Level;

impl Kind for Level {
    type Value = Freshness;

    fn parse(&self, raw: &Raw) -> Option<Freshness> {
        let mut words = raw.text()?.split_whitespace();
        let (name, age) = (words.next()?, words.next());
        let age = match age {
            Some(age) => Some(parse_duration(age)?),
            None => None,
        };
        match (name, age, words.next()) {
            ("strict", None, None) => Some(Freshness::Strict),
            ("fresh", None, None) => Some(Freshness::Fresh),
            ("session", None, None) => Some(Freshness::Session),
            ("bounded", Some(age), None) => Some(Freshness::Bounded(age)),
            ("ttl", Some(age), None) => Some(Freshness::Ttl(age)),
            _ => None,
        }
    }

    fn show(&self, value: &Freshness) -> String {
        format!("\"{value}\"")
    }

    fn allowed(&self) -> String {
        "\"strict\", \"fresh\", \"session\", \"bounded 5m\" or \"ttl 1h\" with any duration".to_owned()
    }
}

/// The default level.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FreshnessConfig {
    /// The level of a read for which no hint, session setting or rule names one.
    pub level: Freshness,
}

impl FreshnessConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("level", &mut self.level, &Level);
    }
}
