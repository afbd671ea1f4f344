//! `pgladder demo`: a throw-away cluster with the proxy in front, and a walk through what it does.
//!
//! It turns arguments into the demo's options and signals into a stop: Ctrl-C, SIGTERM and SIGHUP alike end the demo, and
//! nothing of it is left behind. Further signals change nothing, because what remains is the cleaning up. Exit status 0 after
//! a walk whose steps all passed; what the demo is, `demo::run` says.

use std::io::{self, IsTerminal as _};

use anyhow::{Context as _, anyhow};
use clap::{Args, value_parser};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Failure;
use crate::demo::data::DEALS_DEFAULT;
use crate::demo::run::{self, DemoOptions, Outcome};
use crate::telemetry;

/// Arguments of `demo`.
#[derive(Args, Debug)]
pub(super) struct Options {
    /// How many deals are loaded
    #[arg(long, value_name = "NUMBER", default_value_t = DEALS_DEFAULT, value_parser = value_parser!(u64).range(1..))]
    deals: u64,
    /// End after the walk: exit status 0 when every step passed, else 1
    #[arg(long)]
    check: bool,
    /// The proxy's port [default: 6432, or a free one when that is taken]
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// What the proxy logs on standard error: off, error, warn, info, debug, trace
    #[arg(long, value_name = "LEVEL", default_value = "off")]
    log_level: String,
}

pub(super) fn run(options: &Options) -> Result<(), Failure> {
    telemetry::start(&options.log_level, telemetry::Format::Text).context("the log")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("pgladder")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(run_until_told(options));
    runtime.shutdown_background();
    match outcome? {
        Outcome::Passed => Ok(()),
        Outcome::Failed(failure) => Err(anyhow!("demo: {failure}").into()),
        Outcome::Stopped => Err(anyhow!("demo: stopped before the end of the walk").into()),
    }
}

async fn run_until_told(options: &Options) -> anyhow::Result<Outcome> {
    let stop = CancellationToken::new();
    let mut signals = JoinSet::new();
    for kind in [
        SignalKind::interrupt(),
        SignalKind::terminate(),
        SignalKind::hangup(),
    ] {
        let mut signal = signal(kind).context("signals")?;
        let stop = stop.clone();
        signals.spawn(async move {
            // Listening goes on until the process ends: with nobody listening the second signal would kill it.
            while signal.recv().await.is_some() {
                stop.cancel();
            }
        });
    }
    let mut out = io::stdout();
    // https://no-color.org: any value that is not empty.
    let wants_colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let options = DemoOptions {
        deals: options.deals,
        check: options.check,
        port: options.port,
        is_terminal: wants_colour && out.is_terminal(),
    };
    Box::pin(run::run(options, stop, &mut out))
        .await
        .map_err(|error| anyhow::Error::from(error).context("demo"))
}
