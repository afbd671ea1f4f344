//! The command line: what the program can be asked to do, and with which exit status it ends.
//!
//! Called by `main` alone. Each command has a file of its own. Exit status 0: done; 1: it failed; 2: the arguments or the
//! configuration are wrong, with every error on a line of its own on standard error.

mod check;
mod cleanup;
mod control;
mod demo;
mod explain;
mod options;
mod serve;

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::ConfigErrors;

/// The performance ladder for PostgreSQL: pooling, read splitting and a cache that never lies about freshness.
#[derive(Debug, Parser)]
#[command(name = "pgladder", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the proxy, in the foreground
    Serve(serve::ServeOptions),
    /// See what it does: a throw-away cluster with the proxy in front, and a walk through it
    Demo(demo::Options),
    /// Check a configuration, and try its nodes
    Check(check::CheckOptions),
    /// Drop the publications that a killed proxy left on the primary
    Cleanup(cleanup::CleanupOptions),
    /// Say where a statement would go, whether its answer is cached, and why
    Explain(explain::ExplainOptions),
}

/// How a command may fail.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// The user has to change something that was written.
    #[error("{0}")]
    Configuration(#[from] ConfigErrors),
    /// Anything else; the message is what there is to say.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.into())
    }
}

impl Failure {
    fn status(&self) -> u8 {
        match self {
            Self::Configuration(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

/// Reads the arguments and runs the command.
pub fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Serve(options) => serve::run(&options),
        Command::Demo(options) => demo::run(&options),
        Command::Check(options) => check::run(&options, &mut io::stdout().lock()),
        Command::Cleanup(options) => cleanup::run(&options, &mut io::stdout().lock()),
        Command::Explain(options) => explain::run(&options, &mut io::stdout().lock()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Where standard error is gone, the status has to do.
            drop(writeln!(io::stderr(), "{failure}"));
            ExitCode::from(failure.status())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }
}
