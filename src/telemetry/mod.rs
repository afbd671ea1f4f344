//! The log: one subscriber for the process, on standard error, as text for people or as JSON for machines.
//!
//! Started once by the command line, before anything that may log. Everything else only uses `tracing`'s macros. Invariant:
//! colours appear on a terminal only, so that a log file never holds escape codes.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
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
}

/// Starts the log. `level` is a level, or levels by module as in `info,pgladder::pool=debug`.
pub fn start(level: &str, format: Format) -> Result<(), LogError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    // A bare level is the proxy's own; the libraries below it tell at that level more than anybody wants to read.
    let filter = if level.contains(['=', ',']) {
        EnvFilter::try_new(level)?
    } else {
        EnvFilter::try_new(format!("warn,pgladder={level}"))?
    };
    // https://no-color.org: any value that is not empty.
    let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(wants_colour && std::io::stderr().is_terminal());
    match format {
        Format::Text => builder.finish().try_init()?,
        Format::Json => builder.json().finish().try_init()?,
    }
    Ok(())
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
