//! Step 6: a replica dies under the reads of 32 clients, and none of them notices.
//!
//! Called by the walk. Reads are told apart by when they began, so that those of "after" began when every process of
//! the replica was dead. All answers are compared with the primary's, and the nodes' counts must bear out both phases.
//! The replica is started again at the end. A step that is dropped stops its readers and leaves the replica dead.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::deals::{self, Reader, Truth};
use super::figures;
use super::paper::Figure;
use super::statistics::node_name;
use super::verdict::{self, Counts};
use super::{StepError, Walk, timed};

const CLIENTS: usize = 32;
const READS_MIN: u32 = 1_000;
const ROWS: u64 = 256;
const PHASE_TIME_MAX: Duration = Duration::from_secs(60);

/// Step 6.
pub(super) async fn killed_replica(walk: &Walk<'_>) -> Result<Vec<Figure>, StepError> {
    // The one that was made last: every other node goes on.
    let victim = walk.cluster.node_count() - 1;
    let name = node_name(walk.cluster, victim);
    let ids = deals::ids(ROWS, walk.deals);
    let truth = Arc::new(deals::on_primary(walk, &ids).await?);
    let settling = Reader::connect(walk).await?;
    walk.cluster.wait_caught_up().await?;
    deals::read_until(walk, &settling, &truth, verdict::on_every_replica).await?;

    let watched = deals::watch(walk).await?;
    let start = watched.counts(walk.cluster).await?;
    let mut crowd = Crowd::gather(walk, ids, truth).await?;
    crowd.read_at_least(Phase::Before).await?;
    crowd.enter(Phase::During);
    let before = watched.counts(walk.cluster).await?.since(&start);
    verdict::was_at_work(&name, crowd.reads(Phase::Before), &before)?;
    verdict::ran_on_servers("before", u64::from(READS_MIN), &before)?;

    walk.cluster.kill_hard(victim).await?;
    let killed = watched.counts(walk.cluster).await?;
    crowd.enter(Phase::After);
    crowd.read_at_least(Phase::After).await?;
    let tally = crowd.disperse().await?;
    let after = watched.counts(walk.cluster).await?.since(&killed);
    verdict::ran_on_servers("after", tally.reads[Phase::After as usize], &after)?;

    walk.cluster.restart(victim).await?;
    walk.cluster.wait_caught_up().await?;
    Ok(figures_of(&tally, &name, &before, &after))
}

fn figures_of(tally: &Tally, victim: &str, before: &Counts, after: &Counts) -> Vec<Figure> {
    let reads = |phase: Phase| figures::count(tally.reads[phase as usize]);
    vec![
        Figure::new(
            "reads before",
            reads(Phase::Before),
            format!("by the kill the servers count {before}"),
        ),
        Figure::new(
            "reads during",
            reads(Phase::During),
            format!("while {victim} was being killed"),
        ),
        Figure::new(
            "reads after",
            reads(Phase::After),
            format!("the servers count {after}"),
        ),
        Figure::new("errors", "0", "every answer equal to the primary's"),
        Figure::new("longest read", figures::duration(tally.longest), ""),
    ]
}

/// When a read began, seen from the kill.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    During,
    After,
}

/// What a client did.
#[derive(Clone, Debug, Default)]
struct Tally {
    reads: [u64; 3],
    longest: Duration,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        for (sum, reads) in self.reads.iter_mut().zip(other.reads) {
            *sum += reads;
        }
        self.longest = self.longest.max(other.longest);
    }
}

/// What the clients and the step share.
struct Board {
    phase: AtomicUsize,
    /// A permit for each read that was answered, by phase: who wants to know of a thousand waits for as many.
    answered: [Semaphore; 3],
    is_over: AtomicBool,
}

/// The clients; they read until they are told to go home, or until one of them fails.
struct Crowd {
    board: Arc<Board>,
    clients: JoinSet<Result<Tally, StepError>>,
}

impl Crowd {
    async fn gather(walk: &Walk<'_>, ids: Vec<i64>, truth: Arc<Truth>) -> Result<Self, StepError> {
        let board = Arc::new(Board {
            phase: AtomicUsize::new(Phase::Before as usize),
            answered: [const { Semaphore::const_new(0) }; 3],
            is_over: AtomicBool::new(false),
        });
        let mut clients = JoinSet::new();
        for number in 0..CLIENTS {
            let reader = Reader::connect(walk).await?;
            let mut ids = ids.clone();
            // Each begins elsewhere, or all would ask for the same row at the same time.
            let first = number * ids.len() / CLIENTS;
            ids.rotate_left(first);
            let (board, truth) = (Arc::clone(&board), Arc::clone(&truth));
            clients.spawn(async move { board.read(&reader, &ids, &truth).await });
        }
        Ok(Self { board, clients })
    }

    fn enter(&self, phase: Phase) {
        self.board.phase.store(phase as usize, Ordering::Release);
    }

    fn reads(&self, phase: Phase) -> u64 {
        self.board.answered[phase as usize].available_permits() as u64
    }

    /// Waits for the reads that a phase needs; ends at once with the error of a client that has one.
    async fn read_at_least(&mut self, phase: Phase) -> Result<(), StepError> {
        let answered = &self.board.answered[phase as usize];
        let enough = tokio::time::timeout(PHASE_TIME_MAX, answered.acquire_many(READS_MIN));
        tokio::select! {
            done = enough => match done {
                // The permits go back when they are dropped: they stay the count of reads.
                Ok(_permits) => Ok(()),
                Err(_) => Err(StepError::FewReads {
                    when: if phase == Phase::Before { "before" } else { "after" },
                    reads: answered.available_permits(),
                    wanted: READS_MIN as usize,
                    within: PHASE_TIME_MAX,
                }),
            },
            Some(ended) = self.clients.join_next() => {
                ended.expect("a client does not panic")?;
                unreachable!("a client reads until it is told to stop")
            }
        }
    }

    async fn disperse(mut self) -> Result<Tally, StepError> {
        self.board.is_over.store(true, Ordering::Release);
        let mut sum = Tally::default();
        while let Some(ended) = self.clients.join_next().await {
            sum.add(&ended.expect("a client does not panic")?);
        }
        Ok(sum)
    }
}

impl Board {
    async fn read(&self, reader: &Reader, ids: &[i64], truth: &Truth) -> Result<Tally, StepError> {
        let mut tally = Tally::default();
        for id in ids.iter().cycle() {
            if self.is_over.load(Ordering::Acquire) {
                break;
            }
            let phase = self.phase.load(Ordering::Acquire);
            let ((), latency) = timed(reader.read_true(*id, truth)).await?;
            tally.reads[phase] += 1;
            tally.longest = tally.longest.max(latency);
            self.answered[phase].add_permits(1);
        }
        Ok(tally)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up() {
        let tally = |reads, millis| Tally {
            reads,
            longest: Duration::from_millis(millis),
        };
        let mut sum = tally([1, 2, 3], 7);
        sum.add(&tally([10, 20, 30], 5));
        assert_eq!(sum.reads, [11, 22, 33]);
        assert_eq!(sum.longest, Duration::from_millis(7));
    }
}
