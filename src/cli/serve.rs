//! `pgladder serve`: the proxy in the foreground, until it is told to stop.
//!
//! It loads the configuration, starts the log and the runtime, and turns signals into what they ask for: the first SIGINT or
//! SIGTERM lets the proxy drain, the second ends it at once; SIGHUP loads the configuration again. Invariant: no signal is lost
//! between the start of listening for signals and the end; so they are listened for before the proxy starts. What serving means
//! is not decided here.

use std::fmt::Display;
use std::io;
use std::num::NonZeroUsize;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Failure;
use super::options::ConfigOptions;
use crate::config::{Config, LogFormat};
use crate::serve::{self, Origins};
use crate::telemetry;

/// Arguments of `serve`.
#[derive(Args, Debug)]
pub(super) struct ServeOptions {
    #[command(flatten)]
    config: ConfigOptions,
}

pub(super) fn run(options: &ServeOptions) -> Result<(), Failure> {
    let sources = options.config.sources();
    let config = Config::load(&sources)?;
    let format = match config.log.format {
        LogFormat::Text => telemetry::Format::Text,
        LogFormat::Json => telemetry::Format::Json,
    };
    let log = telemetry::start(&config.log.level, format).context("the log")?;
    let origins = Origins {
        sources,
        log: Some(log),
        asked: Arc::default(),
    };
    let processors = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let runtime = match config.limits.threads_of(processors) {
        // No queues to be stolen from, no other thread to be woken.
        1 => tokio::runtime::Builder::new_current_thread(),
        threads => {
            let mut several = tokio::runtime::Builder::new_multi_thread();
            several.worker_threads(threads);
            several
        }
    }
    .thread_name("pgladder")
    .enable_all()
    .build()?;
    let ended = runtime.block_on(serve_until_told(config, origins));
    // What a second signal cut off must not keep the process.
    runtime.shutdown_background();
    ended.map_err(Failure::from)
}

async fn serve_until_told(config: Config, origins: Origins) -> anyhow::Result<()> {
    let mut signals = Signals::listen().context("signals")?;
    let mut hangups = signal(SignalKind::hangup()).context("signals")?;
    let asked = Arc::clone(&origins.asked);
    let stop = CancellationToken::new();
    let (bound, _) = oneshot::channel();
    let serving = Box::pin(serve::serve_reloadable(config, origins, stop.clone(), bound));
    let mut served = pin!(until_told(serving, async || signals.next().await, stop));
    loop {
        tokio::select! {
            ended = &mut served => return ended,
            Some(()) = hangups.recv() => asked.notify_one(),
        }
    }
}

/// Runs to the end of `serving`; the first signal asks it to stop, the second does not wait for it.
async fn until_told<E>(
    serving: impl Future<Output = Result<(), E>>,
    mut next_signal: impl AsyncFnMut() -> &'static str,
    stop: CancellationToken,
) -> anyhow::Result<()>
where
    E: Display + Send + Sync + 'static,
{
    let mut serving = pin!(serving);
    let in_words = |ended: Result<(), E>| ended.map_err(|error| anyhow!("{error}"));
    tokio::select! {
        ended = &mut serving => return in_words(ended),
        name = next_signal() => {
            tracing::info!("{name}: draining; a second signal ends at once");
            stop.cancel();
        }
    }
    tokio::select! {
        ended = &mut serving => in_words(ended),
        name = next_signal() => Err(anyhow!("ended by a second signal, {name}: clients were cut off")),
    }
}

/// The signals that mean: stop.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    /// Cancel safe: a signal that arrived is kept for the next call.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::sync::mpsc;

    use super::*;

    /// So many signals arrive, and no more.
    fn signals(count: usize) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel(count.max(1));
        for _ in 0..count {
            sender.try_send(()).expect("there is room");
        }
        receiver
    }

    async fn next(signals: &mut mpsc::Receiver<()>) -> &'static str {
        match signals.recv().await {
            Some(()) => "SIGTERM",
            None => pending().await,
        }
    }

    #[tokio::test]
    async fn the_first_signal_asks_to_stop_and_waits() {
        let (stop, mut one) = (CancellationToken::new(), signals(1));
        let serving = async {
            stop.cancelled().await;
            Ok::<(), io::Error>(())
        };
        let ended = until_told(serving, async || next(&mut one).await, stop.clone()).await;
        assert!(ended.is_ok(), "{ended:?}");
        assert!(stop.is_cancelled());
    }

    #[tokio::test]
    async fn the_second_signal_does_not_wait() {
        let (stop, mut two) = (CancellationToken::new(), signals(2));
        let serving = pending::<Result<(), io::Error>>();
        let ended = until_told(serving, async || next(&mut two).await, stop.clone()).await;
        let error = ended.expect_err("clients were cut off").to_string();
        assert!(error.contains("second signal, SIGTERM"), "{error}");
    }

    #[tokio::test]
    async fn without_a_signal_the_proxys_own_end_counts() {
        let (stop, mut none) = (CancellationToken::new(), signals(0));
        let serving = ready(Err(io::Error::other("the address is taken")));
        let ended = until_told(serving, async || next(&mut none).await, stop.clone()).await;
        assert_eq!(ended.expect_err("it failed").to_string(), "the address is taken");
        assert!(!stop.is_cancelled());
    }
}
