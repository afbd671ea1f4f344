//! Micro benchmarks of what happens to every message: framing, grouping, classification, verdicts, keys, the store.
//!
//! Run by `cargo bench --bench micro`. The verdict comes from a catalog that is read from a real throw-away server, because
//! without one nothing is kept; where PostgreSQL is not installed that one group is left out, and said so. What a whole hit or
//! a forwarded read costs is not measured here but by the macro benchmark, where the system calls are counted too.

use std::hint::black_box;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use pgladder::cache::entry::{Entry, Renewal};
use pgladder::cache::key::{Form, Identity, Key, Request};
use pgladder::cache::store::{Limits, Store};
use pgladder::catalog::Subject;
use pgladder::cluster::{Cluster, ClusterSettings};
use pgladder::demo::cluster::{Options, SUPERUSER, ThrowAwayCluster};
use pgladder::demo::data::{self, DASHBOARD};
use pgladder::freshness::catalogs::CatalogSource;
use pgladder::freshness::clocks::Clocks;
use pgladder::freshness::database::Database;
use pgladder::freshness::databases::{DatabaseSettings, Databases};
use pgladder::freshness::guards::Guards;
use pgladder::protocol::frame;
use pgladder::protocol::scanner::{Scanner, Step};
use pgladder::session::unit;
use pgladder::sql::{analyze, fingerprint, template};

const POINT: &str = "SELECT id, hotel_id, price_per_night, is_available FROM deals WHERE id = 123456";
const PATIENCE: Duration = Duration::from_secs(30);

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a small body");
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// What a server sends for so many rows of 40 bytes.
fn answer(rows: usize) -> Vec<u8> {
    let mut bytes = message(b'T', &[0; 60]);
    for _ in 0..rows {
        bytes.extend(message(b'D', &[0; 40]));
    }
    bytes.extend(message(b'C', b"SELECT 200\0"));
    bytes.extend(message(b'Z', b"I"));
    bytes
}

fn framing(c: &mut Criterion) {
    let chunk = answer(200);
    let mut group = c.benchmark_group("framing");
    group.throughput(Throughput::Bytes(chunk.len() as u64));
    group.bench_function("frame::next over 200 rows", |b| {
        b.iter(|| {
            let (mut at, mut messages) = (0, 0);
            while let Some(frame) = frame::next(black_box(&chunk), at, 1 << 20).expect("a valid stream") {
                at = frame.end();
                messages += 1;
            }
            messages
        });
    });
    group.bench_function("Scanner::step over 200 rows", |b| {
        b.iter(|| {
            let (mut scanner, mut at) = (Scanner::default(), 0);
            while let Step::Message(frame) = scanner.step(black_box(&chunk), at).expect("a valid stream") {
                at = frame.end();
            }
            at
        });
    });
    group.finish();
}

fn grouping(c: &mut Criterion) {
    let limits = unit::Limits {
        message_bytes_max: 1 << 30,
        batch_bytes_max: 16 << 20,
    };
    let simple = message(b'Q', format!("{POINT}\0").as_bytes());
    let prepared = [
        message(b'B', b"\0P0_1\0\0\0\0\x01\0\0\0\x06123456\0\x01\0\0"),
        message(b'D', b"P\0"),
        message(b'E', b"\0\0\0\0\0"),
        message(b'S', b""),
    ]
    .concat();
    let pipeline = prepared[..prepared.len() - 5].repeat(10);
    let pipeline = [pipeline, message(b'S', b"")].concat();
    let mut group = c.benchmark_group("unit::next");
    for (name, bytes) in [
        ("simple query", &simple),
        ("prepared query", &prepared),
        ("pipeline of ten", &pipeline),
    ] {
        group.bench_function(name, |b| b.iter(|| unit::next(black_box(bytes), limits)));
    }
    group.finish();
}

fn classification(c: &mut Criterion) {
    let insert = "INSERT INTO deals (hotel_id, price_per_night, is_available, checkin_date) VALUES (7, 99.50, true, '2026-05-01')";
    let update =
        "UPDATE deals SET price_per_night = price_per_night * 1.1 WHERE hotel_id = 42 AND is_available";
    let cte = "WITH best AS (SELECT hotel_id, min(price_per_night) AS price FROM deals WHERE is_available GROUP BY hotel_id) \
        SELECT h.name, b.price, rank() OVER (PARTITION BY h.city ORDER BY b.price) FROM best b JOIN hotels h ON h.id = b.hotel_id";
    let shapes = [
        ("point read", POINT),
        ("dashboard", DASHBOARD),
        ("insert", insert),
        ("update", update),
        ("CTE with window", cte),
        ("begin", "BEGIN"),
    ];
    let mut group = c.benchmark_group("sql::analyze");
    for (name, sql) in shapes {
        group.bench_function(name, |b| b.iter(|| analyze(black_box(sql.as_bytes()))));
    }
    group.finish();
    let mut group = c.benchmark_group("sql::template");
    for (name, sql) in shapes {
        group.bench_function(name, |b| b.iter(|| template(black_box(sql.as_bytes()))));
    }
    group.finish();
    c.bench_function("sql::fingerprint/dashboard", |b| {
        b.iter(|| fingerprint(black_box(DASHBOARD)));
    });
}

fn identity() -> Bytes {
    let settings: [&[u8]; 6] = [b"public", b"UTC", b"ISO, MDY", b"UTF8", b"on", b"1"];
    let identity = Identity {
        database: b"shop",
        role: b"app",
        session_user: b"app",
        settings: &settings,
    };
    identity.encode()
}

fn request<'a>(identity: &'a [u8], sql: &'a str) -> Request<'a> {
    Request {
        identity,
        generation: 1,
        form: Form::Simple,
        sql: sql.as_bytes(),
        types: b"",
        bind: b"",
    }
}

fn cache(c: &mut Criterion) {
    let identity = identity();
    let store = Store::new(Limits {
        bytes_max: 64 << 20,
        entries_max: 100_000,
        entry_bytes_max: 1 << 20,
    });
    let note = Clocks::new(1, 0).note(&[16_384, 16_390]);
    for number in 0..10_000 {
        let entry = Entry {
            answer: store.answer(&answer(50)),
            note: note.clone(),
            node: "db1:5432".into(),
            asked_at: Instant::now(),
            ttl: Duration::from_secs(300),
            cost: Duration::from_millis(40),
            renewal: Renewal::default(),
        };
        store.insert(
            Key::of(&request(&identity, &format!("{DASHBOARD} LIMIT {number}"))),
            Arc::new(entry),
        );
    }
    let known = format!("{DASHBOARD} LIMIT 5000");
    let mut group = c.benchmark_group("cache");
    group.bench_function("Identity::encode", |b| b.iter(self::identity));
    group.bench_function("Key::of", |b| {
        b.iter(|| Key::of(black_box(&request(&identity, &known))));
    });
    let key = Key::of(&request(&identity, &known));
    assert!(store.find(&key).is_some(), "the entry was stored");
    group.bench_function("Store::find, hit among 10,000", |b| {
        b.iter(|| store.find(black_box(&key)));
    });
    let missing = Key::of(&request(&identity, POINT));
    group.bench_function("Store::find, miss", |b| {
        b.iter(|| store.find(black_box(&missing)));
    });
    group.finish();
}

/// A database with the demo's tables and its catalog, as a session has it.
struct Shop {
    _runtime: Runtime,
    stop: CancellationToken,
    database: Arc<Database>,
    /// Ends with its server when it is dropped.
    _cluster: ThrowAwayCluster,
}

impl Shop {
    fn open() -> anyhow::Result<Self> {
        let runtime = Runtime::new()?;
        let (cluster, database, stop) = runtime.block_on(async {
            let cluster = ThrowAwayCluster::start(Options {
                label: "micro".to_owned(),
                ..Options::default()
            })
            .await?;
            let mut client = cluster.connect(cluster.primary(), "postgres").await?;
            data::load(&mut client, 1_000, |_| ()).await?;
            let node = ("127.0.0.1".to_owned(), cluster.port(cluster.primary()), 1);
            let settings = ClusterSettings::new([node], SUPERUSER.to_owned());
            let source = CatalogSource {
                nodes: settings.nodes.clone().into(),
                user: SUPERUSER.into(),
                password: Arc::clone(&settings.password),
                tls: settings.tls.clone(),
                connect_timeout: settings.connect_timeout,
                interval: Duration::from_secs(3_600),
            };
            let databases = DatabaseSettings {
                allowed: Arc::default(),
                source,
                guards: Guards::default(),
            };
            let (tasks, stop, ticks) = (TaskTracker::new(), CancellationToken::new(), Arc::default());
            let nodes = Cluster::start(settings, Arc::clone(&ticks), &tasks, &stop);
            let databases = Databases::start(databases, nodes, ticks, &tasks, &stop);
            let database = databases.open("postgres");
            // Before the cluster has found its primary, a load ends without a catalog.
            tokio::time::timeout(PATIENCE, async {
                while database.catalog(database.doubts()).is_none() {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            })
            .await?;
            anyhow::Ok((cluster, database, stop))
        })?;
        Ok(Self {
            _runtime: runtime,
            stop,
            database,
            _cluster: cluster,
        })
    }

    /// A text's verdict, as the session asks for it.
    fn verdict(&self, path: &Arc<str>, sql: &Bytes) -> bool {
        let shared = template(sql).map_or_else(|| sql.clone(), Bytes::from);
        let subject = Subject {
            path: Arc::clone(path),
            sql: shared,
        };
        let as_of = self.database.doubts();
        self.database.verdict(&subject, sql, as_of).replica.is_ok()
    }
}

impl Drop for Shop {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn verdicts(c: &mut Criterion) {
    let shop = match Shop::open() {
        Ok(shop) => shop,
        Err(error) => {
            drop(writeln!(
                std::io::stderr(),
                "NOT RUN: Database::verdict: {error:#}"
            ));
            return;
        }
    };
    let path: Arc<str> = "postgres\0public".into();
    let mut group = c.benchmark_group("Database::verdict");
    for (name, sql) in [
        ("template of a point read, warm", POINT),
        ("dashboard, warm", DASHBOARD),
    ] {
        let sql = Bytes::from_static(sql.as_bytes());
        assert!(shop.verdict(&path, &sql), "a replica may serve {name}");
        group.bench_function(name, |b| {
            b.iter(|| shop.verdict(black_box(&path), black_box(&sql)));
        });
    }
    let mut number = 0_u64;
    group.bench_function("a text of a new shape, parsed and judged", |b| {
        b.iter_batched(
            || {
                number += 1;
                Bytes::from(format!("SELECT id AS c{number}x FROM deals WHERE hotel_id = $1"))
            },
            |sql| shop.verdict(&path, &sql),
            BatchSize::SmallInput,
        );
    });
    let tables = [16_384, 16_390];
    let begun = shop.database.begin(&tables);
    group.bench_function("Database::begin", |b| {
        b.iter(|| shop.database.begin(black_box(&tables)));
    });
    group.bench_function("Database::is_current", |b| {
        b.iter(|| shop.database.is_current(black_box(&begun.note)));
    });
    group.finish();
}

criterion_group!(benches, framing, grouping, classification, cache, verdicts);
criterion_main!(benches);
