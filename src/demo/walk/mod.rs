//! The walk: six steps through what the proxy does, each with its figures and a verdict from the servers.
//!
//! Called by `demo::run`, and by tests that let it walk where there is no proxy, to see that each step can fail. A step
//! speaks to the proxy only as an application would, and judges by what the nodes counted themselves or by the same
//! query asked of the primary directly. No duration decides anything: a loaded machine is slow, not wrong.
//! A walk that is dropped leaves its cluster as it is, perhaps with a replica paused or dead.

mod client;
mod crash;
mod dashboard;
mod deals;
mod figures;
mod lag;
mod paper;
mod rush;
mod spread;
mod statistics;
mod verdict;

use std::error::Error;
use std::io;
use std::time::{Duration, Instant};

pub(super) use figures::count as grouped;
pub use paper::Paper;
pub(super) use statistics::node_name;

use super::cluster::{ClusterError, ThrowAwayCluster};
use super::proxy::ProxyAddress;
use client::ProxyClient;
use paper::Figure;
use verdict::Refuted;

/// The database that the demo fills.
pub const DATABASE: &str = "demo";

/// How long the proxy may take to get where a step needs it, such as to learn that a replica caught up.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A step that takes longer hangs.
const STEP_TIME_MAX: Duration = Duration::from_secs(180);

/// One of the six.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The dashboard, computed and then remembered.
    Dashboard,
    /// 300 clients and one call.
    Rush,
    /// A write, and the dashboard after it.
    Flush,
    /// Reads on the replicas, writes on the primary.
    Spread,
    /// Reads while replay is paused.
    Lag,
    /// Reads while a replica is killed.
    Crash,
}

impl Step {
    /// In the order of the walk.
    pub const ALL: [Self; 6] = [
        Self::Dashboard,
        Self::Rush,
        Self::Flush,
        Self::Spread,
        Self::Lag,
        Self::Crash,
    ];

    /// Its number, from 1.
    pub fn number(self) -> u8 {
        self as u8 + 1
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Dashboard => "The dashboard is computed once; after that it comes from memory.",
            Self::Rush => {
                "300 clients ask at once for a dashboard that nobody asked for before: one query runs."
            }
            Self::Flush => "A deal is inserted: the next dashboard, on another connection, counts it.",
            Self::Spread => "1,000 point reads go to the replicas, 100 writes to the primary.",
            Self::Lag => {
                "Replay stands still on the replicas: what was written is read fresh, other tables from a replica."
            }
            Self::Crash => "A replica is killed with SIGKILL while 32 clients read: no read fails.",
        }
    }
}

/// A step that showed something else than it claims, or could not be done.
#[derive(Debug, thiserror::Error)]
#[error("step {} failed: {}", step.number(), with_causes(source))]
pub struct Failure {
    step: Step,
    source: StepError,
}

impl Failure {
    /// Which step it was.
    pub fn step(&self) -> Step {
        self.step
    }
}

/// Why a walk did not reach its end.
#[derive(Debug, thiserror::Error)]
pub enum WalkError {
    /// A step failed.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// The output is gone.
    #[error("the output cannot be written")]
    Output(#[from] io::Error),
}

/// Why a step did not show what it claims.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error(transparent)]
    Refuted(#[from] Refuted),
    #[error("{doing}, through the proxy")]
    Proxied {
        doing: &'static str,
        source: tokio_postgres::Error,
    },
    #[error("{doing}, on the node itself")]
    Direct {
        doing: &'static str,
        source: tokio_postgres::Error,
    },
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(
        "PostgreSQL gave a statement no identifier: compute_query_id is off, or the server is older than 14"
    )]
    NoIdentifier,
    #[error("SHOW pgladder.last gave no row")]
    NoReason,
    #[error("{reads} of {wanted} reads were answered {when} the kill within {} seconds", within.as_secs())]
    FewReads {
        when: &'static str,
        reads: usize,
        wanted: usize,
        within: Duration,
    },
    #[error("it was not done within {} seconds", STEP_TIME_MAX.as_secs())]
    Hangs,
}

impl StepError {
    fn proxied(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Proxied { doing, source }
    }

    fn direct(doing: &'static str) -> impl Fn(tokio_postgres::Error) -> Self {
        move |source| Self::Direct { doing, source }
    }
}

/// What a walk goes through.
#[derive(Copy, Clone, Debug)]
pub struct Walk<'a> {
    /// The nodes behind the proxy, with the demo's data and pg_stat_statements in `DATABASE`.
    pub cluster: &'a ThrowAwayCluster,
    /// What is asked.
    pub proxy: &'a ProxyAddress,
    /// How many deals were loaded; at least one.
    pub deals: u64,
    /// See `PATIENCE`.
    pub patience: Duration,
}

impl Walk<'_> {
    /// All steps in their order, printed as they go; ends at the first that fails.
    pub async fn take(&self, paper: &mut Paper<'_>) -> Result<(), WalkError> {
        for step in Step::ALL {
            self.step(step, paper).await?;
        }
        Ok(())
    }

    /// One step alone; each brings about itself what it needs.
    pub async fn step(&self, step: Step, paper: &mut Paper<'_>) -> Result<(), WalkError> {
        paper.step(step.number(), step.sentence())?;
        let done = tokio::time::timeout(STEP_TIME_MAX, Box::pin(self.figures(step))).await;
        let figures = done
            .unwrap_or(Err(StepError::Hangs))
            .map_err(|source| Failure { step, source })?;
        Ok(paper.figures(&figures)?)
    }

    async fn figures(&self, step: Step) -> Result<Vec<Figure>, StepError> {
        match step {
            Step::Dashboard => dashboard::cold_and_hit(self).await,
            Step::Rush => rush::one_call(self).await,
            Step::Flush => dashboard::after_a_write(self).await,
            Step::Spread => spread::reads_and_writes(self).await,
            Step::Lag => lag::paused_replicas(self).await,
            Step::Crash => crash::killed_replica(self).await,
        }
    }

    async fn client(&self) -> Result<ProxyClient, StepError> {
        ProxyClient::connect(self.proxy, DATABASE)
            .await
            .map_err(StepError::proxied("connecting"))
    }

    async fn primary(&self) -> Result<tokio_postgres::Client, StepError> {
        Ok(self.cluster.connect(self.cluster.primary(), DATABASE).await?)
    }
}

/// Times one request.
async fn timed<T, E>(request: impl Future<Output = Result<T, E>>) -> Result<(T, Duration), E> {
    let began = Instant::now();
    let done = request.await?;
    Ok((done, began.elapsed()))
}

/// An error and what caused it in one line; tokio-postgres's own text says no more than "db error".
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_in_order() {
        let numbers = Step::ALL.map(Step::number);
        assert_eq!(numbers, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn a_failure_names_its_step_and_all_causes_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Outer(#[source] io::Error);

        let error = Outer(io::Error::other("inner"));
        assert_eq!(with_causes(&error), "outer: inner");
        let refused = Failure {
            step: Step::Rush,
            source: StepError::Refuted(Refuted::NeverRan),
        };
        assert_eq!(
            refused.to_string(),
            "step 2 failed: the first read was answered although no server ran the query"
        );
    }
}
