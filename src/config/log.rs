//! `[log]`: what is logged, and how it looks.
//!
//! Read by `Config::load`; used by the command line, which sets up logging before anything else runs.

use super::kind::{Text, Words};
use super::reader::Section;

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// The log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// A level, or levels by module as in `info,pgladder::pool=debug`.
    pub level: String,
    /// How a line looks.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

const LEVEL: Text = Text {
    allowed: "off, error, warn, info, debug or trace, or such levels by module as in \"info,pgladder::pool=debug\"",
    accepts: is_filter,
};

/// A bare word that is no level would be taken for the name of a module, and silence the log.
fn is_filter(text: &str) -> bool {
    let level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let one = |part: &str| level(part.rsplit('=').next().unwrap_or(part).trim());
    text.split(',').all(one) && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}

impl LogConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        const FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
        section.read("level", &mut self.level, &LEVEL);
        section.read("format", &mut self.format, &Words(FORMATS));
    }
}
