//! The proxy's own side: a console in a database of its own, and metrics and health over HTTP.
//!
//! Started by `serve`. It reads what the other parts count and publish, and changes nothing but by FLUSH and RELOAD. Invariant: it
//! works while every node is down, because that is when it is needed; so it never waits for a server. Who may use the console
//! is decided by the login; HTTP asks nobody.

mod clients;
mod console;
mod entries;
mod extended;
mod flush;
mod freshness;
pub mod http;
mod metrics;
mod readiness;
mod show;
mod statement;
mod streams;
mod table;

pub use console::Console;

use std::fmt;

/// Loads the configuration again and applies what can be applied to a running proxy.
pub trait Reload: Send + Sync {
    /// What became of each setting that changed. Blocks on files.
    fn reload(&self) -> Result<Vec<Reloaded>, ReloadError>;
}

/// What became of a setting that changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reloaded {
    /// It counts from now on.
    Applied(&'static str),
    /// Files that are named as before were read again.
    ReadAgain(&'static str),
    /// It will count after a restart.
    NeedsRestart(&'static str),
}

impl Reloaded {
    /// The setting, and what became of it.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Applied(key) => (key, "applied"),
            Self::ReadAgain(what) => (what, "read again"),
            Self::NeedsRestart(key) => (key, "needs a restart"),
        }
    }
}

impl fmt::Display for Reloaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, outcome) = self.words();
        write!(f, "{what}: {outcome}")
    }
}

/// Why nothing was applied.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReloadError {
    /// The proxy was handed its configuration ready-made.
    #[error("this proxy was started without sources to load the configuration from")]
    NoSources,
    /// What is wrong with it, a line for each.
    #[error("the configuration is not good, and nothing of it was applied: {}", .0.join("; "))]
    Refused(Vec<String>),
}
