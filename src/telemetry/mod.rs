//! The log: one subscriber for the process, on standard error, as text for people or as JSON for machines.
//!
//! Started once by the command line, before anything that may log. Everything else only uses `tracing`'s macros. Invariant:
//! colours appear on a terminal only, so that a log file never holds escape codes.

pub mod histogram;
pub mod tally;

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::reload;
use tracing_subscriber::util::TryInitError;

/// How a line looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object on each line.
    Json,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The level is no level, and no list of levels by module.
    #[error("the log level cannot be read: {0}")]
    Level(#[from] ParseError),
    /// The process has a subscriber already.
    #[error("the log was started before: {0}")]
    Started(#[from] TryInitError),
    /// The level of a log that is gone cannot be changed.
    #[error("the log level cannot be changed: {0}")]
    Gone(#[from] reload::Error),
}

/// The log that was started: its level can be changed.
pub struct Log(Box<dyn Fn(EnvFilter) -> Result<(), reload::Error> + Send + Sync>);

impl Log {
    /// Another level from now on, written as for `start`. After an error it stays as it was.
    pub fn change_level(&self, level: &str) -> Result<(), LogError> {
        Ok((self.0)(filter(level)?)?)
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Log")
    }
}

/// Starts the log. `level` is a level, or levels by module as in `info,pgladder::pool=debug`.
pub fn start(level: &str, format: Format) -> Result<Log, LogError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = filter(level)?;
    // https://no-color.org: any value that is not empty.
    let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(wants_colour && std::io::stderr().is_terminal());
    Ok(match format {
        Format::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            Log(Box::new(move |filter| handle.reload(filter)))
        }
        Format::Json => {
            let builder = builder.json().with_filter_reloading();
            let handle = builder.reload_handle();
            builder.finish().try_init()?;
            Log(Box::new(move |filter| handle.reload(filter)))
        }
    })
}

/// A bare level is the proxy's own; the libraries below it tell at that level more than anybody wants to read.
fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    if level.contains(['=', ',']) {
        EnvFilter::try_new(level)
    } else {
        EnvFilter::try_new(format!("warn,pgladder={level}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_named() {
        let error = start("info,pgladder=loud", Format::Json).expect_err("not a level");
        assert!(matches!(error, LogError::Level(_)), "{error}");
    }
}
