//! One session of the checker: reads and writes at random until the run is over.
//!
//! Started by `runs`, many at a time. Invariants: what is acknowledged is noted before a read is sent; what was seen on the
//! primary is kept for as long as the session lasts; a failure is excused only while the primary is down or changing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pgladder::demo::cluster::SUPERUSER;
use pgladder::listener::Bound;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use tokio::sync::RwLock;
use tokio::time::timeout;

use super::counters::Counter;
use super::disturbance::Outage;
use super::progress::Progress;
use super::reads::{Found, ReadPath, Reader};
use super::report::Report;
use super::writes::{WritePath, Writer};
use crate::client::{Client, Failed};

/// Of a thousand operations, so many are writes ...
const WRITES: u32 = 50;
/// ... and of a thousand writes so many are of the rare ways.
const RARE_WRITES: u32 = 80;
/// Of a thousand operations, so many end the session and begin another.
const GOODBYES: u32 = 5;

/// Levels of some sessions, by their number: what each says of itself, and how old what it misses may be. All others are `fresh`.
const LEVELS: [(u64, &str, Duration); 3] = [
    (8, "strict", Duration::ZERO),
    (9, "bounded 300ms", Duration::from_millis(300)),
    (10, "ttl 300ms", Duration::from_millis(300)),
];

/// No operation takes longer, unless something hangs: it may wait for a primary that is replaced.
const OPERATION_MAX: Duration = Duration::from_secs(120);

/// What the sessions do.
#[derive(Debug)]
pub struct Load {
    /// The ways to write.
    pub writes: Vec<WritePath>,
    /// A way to read that is taken so many times more often than else.
    pub often: Option<(ReadPath, u32)>,
    /// Some sessions read at other levels than the default.
    pub levels: bool,
}

impl Load {
    pub fn everything() -> Self {
        Self {
            writes: WritePath::ALL.to_vec(),
            often: None,
            levels: false,
        }
    }

    pub fn at_all_levels(self) -> Self {
        Self { levels: true, ..self }
    }

    /// Commits that others see before the proxy has heard of them, and many who look.
    pub fn commits_on_their_way() -> Self {
        Self {
            writes: vec![WritePath::ReadSlowly],
            often: Some((ReadPath::InTransaction, 10)),
            levels: false,
        }
    }

    /// Executions that last long enough for a write to be acknowledged and read meanwhile, and many who ask for the same.
    pub fn long_flights() -> Self {
        Self {
            often: Some((ReadPath::Slow, 100)),
            ..Self::everything()
        }
    }

    fn weight(&self, path: ReadPath) -> u32 {
        match self.often {
            Some((often, times)) if often == path => path.weight() * times,
            _ => path.weight(),
        }
    }
}

/// What the sessions share.
#[derive(Debug)]
pub struct Run {
    pub counters: Vec<Counter>,
    /// By TCP, and by the Unix socket, whose small buffers leave an unread answer with the proxy.
    pub proxy: [Bound; 2],
    pub load: Load,
    /// Writes begun of the rare ways and of the others: each way is taken in its turn.
    pub turns: [AtomicUsize; 2],
    pub progress: Progress,
    /// Held by writers; taken whole by who wants them quiet.
    pub writing: RwLock<()>,
    pub outage: Outage,
    pub report: Mutex<Report>,
}

impl Run {
    /// Something is wrong: the run ends.
    pub fn wrong(&self, what: String) {
        self.report.lock().wrong.push(what);
        self.progress.stop();
    }
}

/// One session.
pub struct Session {
    run: Arc<Run>,
    number: u64,
    random: StdRng,
    prepared: Vec<String>,
    /// What this session has seen of each counter on the primary.
    seen: Vec<(i64, String)>,
    /// A counter of which it has seen on the primary what nobody has acknowledged yet: it looks again, where the cache may answer.
    ahead: Option<usize>,
    /// What it does, for who has to know.
    doing: String,
}

impl Session {
    pub fn new(run: Arc<Run>, number: u64, seed: u64) -> Self {
        Self {
            seen: vec![Default::default(); run.counters.len()],
            run,
            number,
            random: StdRng::seed_from_u64(seed.wrapping_add(number)),
            prepared: Vec::new(),
            ahead: None,
            doing: String::new(),
        }
    }

    /// Works until the run is over.
    pub async fn work(mut self) {
        let mut client = None;
        while self.run.progress.begin() {
            let before = self.run.outage.phase();
            let connected = match client.take() {
                Some(client) => Ok(client),
                None => self.connect().await,
            };
            let done = match connected {
                Ok(mut connected) => self.in_time(&mut connected).await.map(|stays| {
                    client = stays.then_some(connected);
                }),
                Err(failed) => Err(failed),
            };
            if let Err(failed) = done {
                self.fail(before, &failed);
            }
            self.run.progress.end();
        }
    }

    async fn connect(&mut self) -> Result<Client, Failed> {
        "its login".clone_into(&mut self.doing);
        self.prepared.clear();
        self.seen.fill(Default::default());
        self.ahead = None;
        let to = &self.run.proxy[usize::try_from(self.number % 2).expect("one of two")];
        let connecting = timeout(OPERATION_MAX, Client::connect(to, SUPERUSER, "postgres"));
        let late = |_| Err(Failed::Gone(format!("no login for {OPERATION_MAX:?}")));
        let mut client = connecting.await.unwrap_or_else(late)?;
        self.choose_level(&mut client).await?;
        Ok(client)
    }

    /// The level that it reads at, where that is not the default, and how old what it misses may be.
    fn level(&self) -> Option<(&'static str, Duration)> {
        let levels = LEVELS.iter().filter(|_| self.run.load.levels);
        let mut mine = levels.filter(|(number, ..)| *number == self.number);
        mine.next().map(|(_, level, age)| (*level, *age))
    }

    async fn choose_level(&self, client: &mut Client) -> Result<(), Failed> {
        if let Some((level, _)) = self.level() {
            client
                .query(&format!("SET pgladder.freshness = '{level}'"))
                .await?;
        }
        Ok(())
    }

    fn fail(&self, before: u64, failed: &Failed) {
        if self.run.outage.excuses(before) {
            self.run.report.lock().failures += 1;
        } else {
            self.run.wrong(format!(
                "session {} failed at {}: {failed}",
                self.number, self.doing
            ));
        }
    }

    /// One operation, which has its time: what hangs is wrong.
    async fn in_time(&mut self, client: &mut Client) -> Result<bool, Failed> {
        let done = timeout(OPERATION_MAX, self.operate(client)).await;
        done.unwrap_or_else(|_| {
            let (number, doing) = (self.number, &self.doing);
            self.run.wrong(format!(
                "session {number}: nothing for {OPERATION_MAX:?} at {doing}"
            ));
            Ok(false)
        })
    }

    /// One operation; false when the session is to end.
    async fn operate(&mut self, client: &mut Client) -> Result<bool, Failed> {
        if self.random.random_ratio(WRITES, 1_000) {
            let path = self.write(client).await?;
            if path.is_unknown() {
                // It may have left something in the session, which then keeps its server connection.
                if self.random.random() {
                    return Ok(false);
                }
                client.query("DISCARD ALL").await?;
                self.prepared.clear();
                self.choose_level(client).await?;
            }
        } else if let Some(counter) = self.ahead.take() {
            self.read(client, ReadPath::Aggregate, counter).await?;
        } else {
            let counter = self.counter();
            let path = self.way_to_read(counter);
            self.read(client, path, counter).await?;
        }
        Ok(!self.random.random_ratio(GOODBYES, 1_000))
    }

    /// Writes, and reads it back by any way.
    async fn write(&mut self, client: &mut Client) -> Result<WritePath, Failed> {
        let run = Arc::clone(&self.run);
        let rarely = self.random.random_ratio(RARE_WRITES, 1_000);
        let (rare, mut ways): (Vec<WritePath>, Vec<WritePath>) =
            run.load.writes.iter().partition(|path| path.is_rare());
        let rarely = rarely && !rare.is_empty();
        if rarely {
            ways = rare;
        }
        let turn = run.turns[usize::from(rarely)].fetch_add(1, Ordering::Relaxed);
        let path = ways[turn % ways.len()];
        let suited: Vec<usize> = (0..run.counters.len())
            .filter(|at| path.suits(&run.counters[*at]))
            .collect();
        let mut any = || suited[self.random.random_range(0..suited.len())];
        let (at, other) = (any(), any());
        self.doing = format!("{path:?} of {}", run.counters[at].written);
        {
            let _quiet = run.writing.read().await;
            let mut writer = Writer {
                client: &mut *client,
                prepared: &mut self.prepared,
                progress: &run.progress,
            };
            writer
                .write(path, &run.counters[at], &run.counters[other])
                .await?;
        }
        *run.report.lock().writes.entry(path).or_default() += 1;
        let way = self.way_to_read(at);
        self.read(client, way, at).await?;
        Ok(path)
    }

    async fn read(&mut self, client: &mut Client, path: ReadPath, at: usize) -> Result<(), Failed> {
        let run = Arc::clone(&self.run);
        let counter = &run.counters[at];
        self.doing = format!("{path:?} of {}", counter.read);
        let age = self.level().map_or(Duration::ZERO, |(_, age)| age);
        let floor = if age.is_zero() {
            counter.acknowledged()
        } else {
            let before = Instant::now().checked_sub(age);
            before.map_or(0, |before| counter.acknowledged_before(before))
        };
        let mut reader = Reader {
            client,
            prepared: &mut self.prepared,
        };
        let found = reader.read(path, counter).await?;
        let whence = |what: &str, least: i64| {
            format!(
                "operation {}, session {}, {path:?} of {}: {} is less than {least}, {what}; {:?}; outage {}; latest writes {}",
                run.progress.done(),
                self.number,
                counter.read,
                found.value,
                found.last,
                run.outage.phase(),
                counter.history()
            )
        };
        if found.value < floor {
            run.wrong(whence(
                &format!("which was acknowledged {age:?} before the read was sent"),
                floor,
            ));
        } else if age.is_zero() && found.value < self.seen[at].0 && !counter.has_unknown_writers {
            let (seen, how) = &self.seen[at];
            run.wrong(whence(
                &format!("which this session has read on the primary by {how}"),
                *seen,
            ));
        }
        self.note(path, at, &found);
        Ok(())
    }

    fn note(&mut self, path: ReadPath, at: usize, found: &Found) {
        let mut report = self.run.report.lock();
        let served = &found.last.served_by;
        report.reads.entry(path).or_default().count(served);
        if served == "primary" {
            *report.reasons.entry(found.last.reason.clone()).or_default() += 1;
            if found.value > self.run.counters[at].acknowledged() {
                self.ahead = Some(at);
            }
            if found.value > self.seen[at].0 {
                let how = format!(
                    "{path:?}, after {} operations, {}",
                    self.run.progress.done(),
                    found.last.reason
                );
                self.seen[at] = (found.value, how);
            }
        }
    }

    fn way_to_read(&mut self, at: usize) -> ReadPath {
        let (counter, load) = (&self.run.counters[at], &self.run.load);
        let suited = || ReadPath::ALL.into_iter().filter(|path| path.suits(counter));
        let all: u32 = suited().map(|path| load.weight(path)).sum();
        let mut place = self.random.random_range(0..all);
        for path in suited() {
            match place.checked_sub(load.weight(path)) {
                Some(rest) => place = rest,
                None => return path,
            }
        }
        unreachable!("the place lies below the sum of the weights")
    }

    /// Any counter, the first ones more often.
    fn counter(&mut self) -> usize {
        let all = self.run.counters.len();
        self.random
            .random_range(0..all)
            .min(self.random.random_range(0..all))
    }
}
