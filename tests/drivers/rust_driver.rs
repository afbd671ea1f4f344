//! tokio-postgres: one line for each operation's outcome, the same directly on the primary and through the proxy.
//!
//! It prepares what it runs, asks for results in binary, and pipelines whatever is asked at once. Values are compared as the bytes
//! that came, errors with all their fields. The operations run by themselves first, then while four other clients are busy.

use std::fmt::Debug;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::future::{join_all, poll_fn};
use futures_util::{SinkExt, StreamExt, TryStreamExt};
use pgladder::demo::cluster::SUPERUSER;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval_at};
use tokio_postgres::error::DbError;
use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{
    AsyncMessage, Client, Error, IsolationLevel, NoTls, Row, SimpleColumn, SimpleQueryMessage,
};

use crate::rivals::Rivals;
use crate::support::compare::assert_same;
use crate::support::{Stage, within};

const CONTENT: &str = include_str!("content.sql");
/// Notices and notifications that may wait to be read.
const MESSAGES_MAX: usize = 1_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_postgres_sees_the_same() {
    let stage = Stage::start(2).await;
    for (name, seed, others) in [("quiet", 1, 0), ("crowd", 2, 4)] {
        let pair = stage.databases(name, CONTENT).await;
        let direct = run(stage.primary_port(), &pair.direct, seed).await;
        let rivals = Rivals::start(&stage, &pair.proxied, others);
        let proxied = run(stage.proxy_port(), &pair.proxied, seed).await;
        rivals.stop().await;
        assert_same(&direct, &proxied);
    }
    stage.shut_down().await;
}

/// What happened, line by line.
#[derive(Default)]
struct Record(Vec<String>);

impl Record {
    fn note(&mut self, what: &str, outcome: impl Debug) {
        self.0.push(format!("{what}: {outcome:?}"));
    }
}

/// A connected client; what it hears beside its answers arrives in `heard`.
pub struct Session {
    pub client: Client,
    heard: mpsc::Receiver<String>,
    _driving: JoinSet<()>,
}

/// A value as it came.
struct Raw(Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(raw.to_vec())))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

pub async fn connect(port: u16, database: &str) -> Session {
    let mut config = tokio_postgres::Config::new();
    config
        .host("127.0.0.1")
        .port(port)
        .user(SUPERUSER)
        .dbname(database);
    config.application_name("suite");
    let connected = within("a client that connects", config.connect(NoTls)).await;
    let (client, mut connection) = connected.expect("connected");
    let (tell, heard) = mpsc::channel(MESSAGES_MAX);
    let mut driving = JoinSet::new();
    driving.spawn(async move {
        while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
            let said = match message {
                AsyncMessage::Notice(notice) => format!("{:?}", fields(&notice)),
                AsyncMessage::Notification(news) => format!("{} {}", news.channel(), news.payload()),
                other => format!("{other:?}"),
            };
            tell.try_send(said).expect("few messages");
        }
    });
    Session {
        client,
        heard,
        _driving: driving,
    }
}

fn fields(error: &DbError) -> Vec<Option<String>> {
    let position = error.position().map(|position| format!("{position:?}"));
    let text = |field: Option<&str>| field.map(str::to_owned);
    vec![
        text(Some(error.severity())),
        text(Some(error.code().code())),
        Some(without_own_name(error.message())),
        text(error.detail()),
        text(error.hint()),
        position,
        text(error.where_()),
        text(error.schema()),
        text(error.table()),
        text(error.column()),
        text(error.datatype()),
        text(error.constraint()),
        // By this drivers know that preparing it anew helps.
        text(
            error
                .routine()
                .filter(|routine| *routine == "RevalidateCachedQuery"),
        ),
    ]
}

/// The driver numbers its statements through the whole process.
fn without_own_name(message: &str) -> String {
    match message.split_once("prepared statement \"s") {
        Some((before, after)) => {
            let rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
            format!("{before}prepared statement \"s<n>{rest}")
        }
        None => message.to_owned(),
    }
}

/// A result to be compared: the server's errors with all their fields.
fn told<T: Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => match error.as_db_error() {
            Some(of_server) => format!("{:?}", fields(of_server)),
            None => error.to_string(),
        },
    }
}

/// Columns and values, as bytes.
fn rows(rows: &[Row]) -> Vec<String> {
    let mut all = Vec::new();
    if let Some(first) = rows.first() {
        let columns = first.columns().iter();
        all.push(format!(
            "{:?}",
            columns.map(|c| (c.name(), c.type_().name())).collect::<Vec<_>>()
        ));
    }
    let value = |row: &Row, at: usize| match row.get::<_, Raw>(at).0 {
        Some(bytes) => bytes.escape_ascii().to_string(),
        None => "NULL".to_owned(),
    };
    all.extend(rows.iter().map(|row| {
        (0..row.len())
            .map(|at| value(row, at))
            .collect::<Vec<_>>()
            .join(" | ")
    }));
    all
}

async fn extended(client: &Client, sql: &str, values: &[&(dyn ToSql + Sync)]) -> String {
    told(client.query(sql, values).await.map(|found| rows(&found)))
}

async fn simple(client: &Client, sql: &str) -> String {
    let message = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            format!("{:?}", (0..row.len()).map(|at| row.get(at)).collect::<Vec<_>>())
        }
        SimpleQueryMessage::CommandComplete(count) => format!("{count} rows"),
        SimpleQueryMessage::RowDescription(columns) => {
            format!("{:?}", columns.iter().map(SimpleColumn::name).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    };
    let answered = client.simple_query(sql).await;
    told(answered.map(|all| all.iter().map(message).collect::<Vec<_>>()))
}

/// All operations, in order.
async fn run(port: u16, database: &str, seed: u64) -> Vec<String> {
    let mut record = Record::default();
    let all = async {
        values(&mut record, connect(port, database).await).await;
        errors(&mut record, connect(port, database).await).await;
        statements(&mut record, connect(port, database).await).await;
        transactions(&mut record, connect(port, database).await).await;
        portals(&mut record, connect(port, database).await).await;
        copies(&mut record, connect(port, database).await).await;
        pipelines(&mut record, connect(port, database).await).await;
        cancels(&mut record, connect(port, database).await).await;
        messages(
            &mut record,
            connect(port, database).await,
            connect(port, database).await,
        )
        .await;
        drawn_from_a_seed(&mut record, connect(port, database).await, seed).await;
    };
    // All of it: a busy machine takes its time.
    let done = tokio::time::timeout(Duration::from_secs(300), all).await;
    assert!(done.is_ok(), "{database} hangs after {:?}", record.0.last());
    let cut = record.0.iter().find(|line| line.contains("connection closed"));
    assert_eq!(cut, None, "what follows would prove nothing");
    record.0
}

const READS: [&str; 14] = [
    "SELECT * FROM items WHERE id < 6 ORDER BY id",
    "SELECT * FROM notes WHERE id < 3 ORDER BY id",
    "SELECT * FROM moods ORDER BY id",
    "SELECT * FROM cheap ORDER BY id",
    "SELECT * FROM by_quantity ORDER BY quantity",
    "SELECT part, count(*), sum(id), avg(id) FROM parted GROUP BY part ORDER BY part",
    "SELECT seven FROM other.elsewhere",
    "SELECT count(*), sum(price), min(added), max(name) FROM items",
    "SELECT 1.5::float8, 1e30::float4, 'NaN'::float8, 12.3400::numeric, -1::int2, 4294967296::int8, true, NULL::int",
    "SELECT '\\x00ff'::bytea, 'é'::text, 'c'::\"char\", 'a'::name, '{1,NULL,3}'::int[], '{{a,b},{c,d}}'::text[]",
    "SELECT '2024-02-29'::date, '12:30'::time, '2024-02-29 12:30+02'::timestamptz, '1 mon 2 days'::interval",
    "SELECT '{\"a\": [1]}'::jsonb, '[1,5)'::int4range, '10.0.0.1/8'::inet, 'happy'::mood, ROW(1, 'x')::pair, 3::positive",
    "VALUES (1, 'a'), (2, 'b')",
    "SHOW timezone",
];

async fn values(record: &mut Record, session: Session) {
    let client = &session.client;
    for sql in READS {
        record.note(sql, simple(client, sql).await);
        for _ in 0..2 {
            record.note(sql, extended(client, sql, &[]).await);
        }
    }
    let moment = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let given: [(&str, &(dyn ToSql + Sync)); 12] = [
        ("int2", &-7i16),
        ("int4", &7i32),
        ("int8", &(1i64 << 40)),
        ("float4", &1.5f32),
        ("float8", &1e300f64),
        ("bool", &true),
        ("text", &"é\u{1f600}"),
        ("bytea", &&b"\x00\xff"[..]),
        ("int4[]", &vec![Some(1i32), None]),
        ("text[]", &vec!["a", ""]),
        ("timestamptz", &moment),
        ("int4", &None::<i32>),
    ];
    for (kind, value) in given {
        let sql = format!("SELECT $1::{kind} AS it, $1::{kind} IS NULL AS none");
        record.note(&sql, extended(client, &sql, &[value]).await);
    }
    let typed = client.query_typed("SELECT $1 + 1", &[(&41i32, Type::INT4)]).await;
    record.note("typed", told(typed.map(|found| rows(&found))));
    let long = "x".repeat(3_000_000);
    let length = client
        .query_one("SELECT length($1::text), $1::text", &[&long])
        .await;
    let length = length.map(|row| (row.get::<_, i32>(0), row.get::<_, &str>(1).len()));
    record.note("long", told(length));
    let many = client
        .query_raw(
            "SELECT n, md5(n::text) FROM generate_series(1, $1::int) n",
            [50_000],
        )
        .await;
    let mut many = pin!(many.expect("it starts"));
    let mut sum = 0;
    while let Some(row) = many.try_next().await.expect("rows") {
        sum += i64::from(row.get::<_, i32>(0));
    }
    record.note("many", (sum, many.rows_affected()));
}

const WRONG: [&str; 12] = [
    "selec 1",
    "SELECT * FROM nowhere",
    "SELECT nothing FROM items",
    "SELECT 1 / (id - id) FROM items",
    "INSERT INTO items (id, name) VALUES (1, 'again')",
    "INSERT INTO items (id) VALUES (5000)",
    "INSERT INTO notes (item) VALUES (99999)",
    "INSERT INTO moods VALUES (9, 'ok', NULL, -1)",
    "SELECT 'angry'::mood",
    "SELECT fail('P0001')",
    "SELECT fail('23505')",
    "SELECT unheard_of(1)",
];

async fn errors(record: &mut Record, session: Session) {
    let client = &session.client;
    for sql in WRONG {
        record.note(sql, simple(client, sql).await);
        record.note(sql, extended(client, sql, &[]).await);
        record.note(sql, told(client.execute(sql, &[]).await));
        record.note(
            "afterwards",
            extended(client, "SELECT count(*) FROM items", &[]).await,
        );
    }
    record.note(
        "several",
        simple(client, "SELECT 1; SELECT 1 / 0; SELECT 2").await,
    );
    record.note("nothing", simple(client, "").await);
    record.note("nothing", extended(client, "", &[]).await);
    record.note("a word", extended(client, "SELECT $1::int", &[&"x"]).await);
    record.note(
        "no row",
        told(client.query_one("SELECT 1 WHERE false", &[]).await.map(|_| ())),
    );
    let none = client.query_opt("SELECT 1 WHERE $1", &[&false]).await;
    record.note("no row", told(none.map(|row| row.is_some())));
}

async fn statements(record: &mut Record, session: Session) {
    let client = &session.client;
    let sql = "SELECT id, name FROM items WHERE id < $1 ORDER BY id";
    let prepared = client.prepare(sql).await.expect("prepared");
    let again = client.prepare(sql).await.expect("prepared");
    record.note(
        "parameters",
        prepared.params().iter().map(Type::name).collect::<Vec<_>>(),
    );
    for statement in [&prepared, &again, &prepared] {
        record.note(
            sql,
            told(client.query(statement, &[&4i32]).await.map(|found| rows(&found))),
        );
    }
    drop(again);
    record.note(
        "kept",
        told(client.query(&prepared, &[&2i32]).await.map(|found| rows(&found))),
    );
    let typed = client.prepare_typed("SELECT $1 || 'x'", &[Type::VARCHAR]).await;
    record.note(
        "typed",
        told(typed.map(|statement| format!("{:?} {:?}", statement.params(), statement.columns()))),
    );
    record.note("DISCARD", told(client.batch_execute("DEALLOCATE ALL").await));
    record.note(
        "gone",
        told(client.query(&prepared, &[&2i32]).await.map(|found| rows(&found))),
    );
    altered(record, client).await;
    written(record, client).await;
}

/// A prepared statement whose table becomes another.
async fn altered(record: &mut Record, client: &Client) {
    client
        .batch_execute("CREATE TABLE widened (a int); INSERT INTO widened VALUES (1)")
        .await
        .expect("made");
    let wide = client.prepare("SELECT * FROM widened").await.expect("prepared");
    record.note(
        "narrow",
        told(client.query(&wide, &[]).await.map(|found| rows(&found))),
    );
    client
        .batch_execute("ALTER TABLE widened ADD b text DEFAULT 'b'")
        .await
        .expect("altered");
    record.note(
        "widened",
        told(client.query(&wide, &[]).await.map(|found| rows(&found))),
    );
    record.note("anew", extended(client, "SELECT * FROM widened", &[]).await);
    client.batch_execute("DROP TABLE widened").await.expect("dropped");
    record.note(
        "dropped",
        told(client.query(&wide, &[]).await.map(|found| rows(&found))),
    );
}

async fn written(record: &mut Record, client: &Client) {
    let insert = client
        .prepare("INSERT INTO items (id, name) VALUES ($1, $2)")
        .await
        .expect("prepared");
    for number in 0..20i32 {
        record.note(
            "insert",
            told(client.execute(&insert, &[&(6_000 + number), &"new"]).await),
        );
    }
    record.note(
        "read",
        extended(client, "SELECT count(*) FROM items WHERE id >= 6000", &[]).await,
    );
    record.note(
        "delete",
        told(
            client
                .execute("DELETE FROM items WHERE id >= $1", &[&6_000i32])
                .await,
        ),
    );
    let returned = "UPDATE items SET quantity = quantity + 1 WHERE id <= $1 RETURNING id, quantity";
    record.note("returned", extended(client, returned, &[&3i32]).await);
}

async fn transactions(record: &mut Record, mut session: Session) {
    let count = "SELECT count(*) FROM items WHERE id >= 6100";
    let insert = "INSERT INTO items (id, name) VALUES ($1, 'x')";
    let shown = "SELECT current_setting('transaction_isolation'), current_setting('transaction_read_only')";
    for level in [
        IsolationLevel::ReadUncommitted,
        IsolationLevel::ReadCommitted,
        IsolationLevel::RepeatableRead,
        IsolationLevel::Serializable,
    ] {
        for read_only in [false, true] {
            let builder = session.client.build_transaction().isolation_level(level);
            let transaction = builder.read_only(read_only).start().await.expect("begun");
            record.note(
                "begun",
                told(transaction.query(shown, &[]).await.map(|found| rows(&found))),
            );
            record.note("insert", told(transaction.execute(insert, &[&6_100i32]).await));
            record.note(
                "count",
                told(transaction.query(count, &[]).await.map(|found| rows(&found))),
            );
            record.note("rollback", told(transaction.rollback().await));
        }
    }
    let mut outer = session.client.transaction().await.expect("begun");
    record.note("outer", told(outer.execute(insert, &[&6_101i32]).await));
    let mut inner = outer.transaction().await.expect("a savepoint");
    record.note("inner", told(inner.execute(insert, &[&6_102i32]).await));
    let named = inner.savepoint("named").await.expect("a savepoint");
    record.note("wrong", told(named.execute(insert, &[&1i32]).await));
    record.note(
        "refused",
        told(named.query(count, &[]).await.map(|found| rows(&found))),
    );
    record.note("back", told(named.rollback().await));
    record.note(
        "inside",
        told(inner.query(count, &[]).await.map(|found| rows(&found))),
    );
    record.note("release", told(inner.commit().await));
    record.note("commit", told(outer.commit().await));
    record.note("kept", extended(&session.client, count, &[]).await);
    let failed = session.client.transaction().await.expect("begun");
    record.note("wrong", told(failed.batch_execute("SELECT 1 / 0").await));
    record.note("commit of a failed one", told(failed.commit().await));
    let dropped = session.client.transaction().await.expect("begun");
    record.note(
        "gone",
        told(
            dropped
                .execute("DELETE FROM items WHERE id >= $1", &[&6_100i32])
                .await,
        ),
    );
    drop(dropped);
    record.note("rolled back", extended(&session.client, count, &[]).await);
    record.note(
        "delete",
        told(
            session
                .client
                .execute("DELETE FROM items WHERE id >= 6100", &[])
                .await,
        ),
    );
}

async fn portals(record: &mut Record, mut session: Session) {
    let transaction = session.client.transaction().await.expect("begun");
    let sql = "SELECT id, name FROM items WHERE id > $1 ORDER BY id";
    let first = transaction.bind(sql, &[&0i32]).await.expect("bound");
    let other = transaction.bind(sql, &[&100i32]).await.expect("bound");
    for (portal, most) in [
        (&first, 3),
        (&other, 2),
        (&first, 1),
        (&first, 0),
        (&other, 5),
        (&first, 2),
    ] {
        let found = transaction.query_portal(portal, most).await;
        record.note("portal", told(found.map(|found| rows(&found))));
        let between = transaction.query_one("SELECT count(*) FROM items", &[]).await;
        record.note("between", told(between.map(|row| row.get::<_, i64>(0))));
    }
    let raw = transaction.query_portal_raw(&other, 4).await.expect("it starts");
    let raw: Result<Vec<Row>, Error> = raw.try_collect().await;
    record.note("raw", told(raw.map(|found| rows(&found))));
    let failing = transaction
        .bind("SELECT 1 / (60 - id) FROM items ORDER BY id", &[])
        .await
        .expect("bound");
    for most in [50, 50, 50] {
        record.note(
            "failing",
            told(
                transaction
                    .query_portal(&failing, most)
                    .await
                    .map(|found| rows(&found)),
            ),
        );
    }
    record.note("commit", told(transaction.commit().await));
    record.note("after", extended(&session.client, "SELECT 1", &[]).await);
}

async fn copies(record: &mut Record, session: Session) {
    let client = &session.client;
    let count = "SELECT count(*), sum(quantity) FROM items WHERE id >= 7000";
    let copy = "COPY items (id, name, quantity) FROM STDIN";
    for (what, bytes) in [
        ("well", "7000\tone\t1\n"),
        ("badly", "x\tone\t1\n"),
        ("twice", "1\tagain\t1\n"),
    ] {
        let mut sink = pin!(client.copy_in::<_, Bytes>(copy).await.expect("it starts"));
        for number in 1..200 {
            let row = format!("{}\tcopied\t{number}\n", 7_000 + number);
            sink.send(Bytes::from(row)).await.expect("taken");
        }
        sink.send(Bytes::from_static(bytes.as_bytes()))
            .await
            .expect("taken");
        record.note(what, told(sink.finish().await));
        record.note("count", extended(client, count, &[]).await);
        record.note(
            "delete",
            told(client.execute("DELETE FROM items WHERE id >= 7000", &[]).await),
        );
    }
    {
        let mut sink = pin!(client.copy_in::<_, Bytes>(copy).await.expect("it starts"));
        sink.send(Bytes::from_static(b"7000\tgiven up\t1\n"))
            .await
            .expect("taken");
    }
    record.note("given up", extended(client, count, &[]).await);
    for sql in [
        "COPY (SELECT id, name FROM items ORDER BY id) TO STDOUT",
        "COPY (SELECT * FROM moods ORDER BY id) TO STDOUT (FORMAT binary)",
        "COPY items (id) TO STDOUT (FORMAT csv, HEADER)",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 5000)) TO STDOUT",
        "COPY (SELECT 1 / (100 - id) FROM items ORDER BY id) TO STDOUT",
    ] {
        let mut out = pin!(client.copy_out(sql).await.expect("it starts"));
        let (mut bytes, mut end) = (Vec::new(), Ok(()));
        while let Some(part) = out.next().await {
            match part {
                Ok(part) => bytes.extend_from_slice(&part),
                Err(error) => {
                    // It has no end of its own after one.
                    end = Err(error);
                    break;
                }
            }
        }
        let shown = bytes[..bytes.len().min(300)].escape_ascii().to_string();
        record.note(sql, (bytes.len(), shown, told(end)));
    }
    record.note("afterwards", extended(client, count, &[]).await);
}

async fn pipelines(record: &mut Record, session: Session) {
    let client = &session.client;
    let read = client
        .prepare("SELECT quantity FROM items WHERE id = $1")
        .await
        .expect("prepared");
    let write = client
        .prepare("UPDATE items SET quantity = $2 WHERE id = $1")
        .await
        .expect("prepared");
    let divide = client
        .prepare("SELECT 10 / ($1::int % 5)")
        .await
        .expect("prepared");
    let numbers: Vec<i32> = (1..=60).collect();
    let asked = numbers.iter().map(async |number| match number % 3 {
        0 => told(client.query(&read, &[number]).await.map(|found| rows(&found))),
        1 => told(client.execute(&write, &[number, &(number + 1_000)]).await),
        _ => told(client.query(&divide, &[number]).await.map(|found| rows(&found))),
    });
    record.note("one by one", join_all(asked).await);
    let block = tokio::join!(
        client.batch_execute("BEGIN"),
        client.execute(&write, &[&1i32, &77i32]),
        client.query(&read, &[&1i32]),
        client.query(&divide, &[&5i32]),
        client.query(&read, &[&1i32]),
        client.batch_execute("ROLLBACK"),
        client.query(&read, &[&1i32]),
    );
    let found = |result: Result<Vec<Row>, Error>| told(result.map(|found| rows(&found)));
    record.note("begin", told(block.0));
    record.note("write", told(block.1));
    record.note("own", found(block.2));
    record.note("wrong", found(block.3));
    record.note("refused", found(block.4));
    record.note("rollback", told(block.5));
    record.note("after", found(block.6));
    let mixed = tokio::join!(
        simple(client, "SELECT count(*) FROM items; SELECT 1"),
        extended(client, "SELECT name FROM items WHERE id = $1", &[&9i32]),
        simple(client, "SELECT 1 / 0"),
        extended(client, "SELECT count(*), sum(quantity) FROM items", &[]),
    );
    record.note("mixed", mixed);
}

async fn cancels(record: &mut Record, mut session: Session) {
    let slow = "SELECT pg_sleep(30)";
    let token = session.client.cancel_token();
    // A request that comes before the statement cancels nothing: it is repeated until the statement ends; but seldom, for one
    // that comes after it may hit the next.
    let cancel = async |work: std::pin::Pin<&mut (dyn Future<Output = String> + '_)>| {
        let first = Instant::now() + Duration::from_millis(200);
        let mut again = interval_at(first, Duration::from_secs(2));
        let mut work = work;
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                _ = again.tick() => token.cancel_query(NoTls).await.expect("heard"),
            }
        }
    };
    let client = &session.client;
    record.note("simple", cancel(pin!(simple(client, slow))).await);
    record.note("extended", cancel(pin!(extended(client, slow, &[]))).await);
    let endless = "SELECT count(*) FROM generate_series(1, 10000000000)";
    record.note("a read", cancel(pin!(extended(client, endless, &[]))).await);
    record.note("after", extended(client, "SELECT 1", &[]).await);
    let transaction = session.client.transaction().await.expect("begun");
    transaction
        .execute("UPDATE items SET quantity = 0 WHERE id = 1", &[])
        .await
        .expect("written");
    let inside = async { told(transaction.batch_execute(slow).await) };
    record.note("inside", cancel(pin!(inside)).await);
    record.note("refused", told(transaction.batch_execute("SELECT 1").await));
    record.note("rollback", told(transaction.rollback().await));
    session
        .client
        .batch_execute("SET statement_timeout = '300ms'")
        .await
        .expect("set");
    record.note("too slow", simple(&session.client, slow).await);
}

async fn messages(record: &mut Record, mut listener: Session, mut speaker: Session) {
    record.note(
        "notice",
        extended(&speaker.client, "SELECT remark($1)", &[&"seen"]).await,
    );
    record.note(
        "notice",
        simple(&speaker.client, "SELECT remark('a'); SELECT remark('b')").await,
    );
    record.note(
        "none",
        simple(&speaker.client, "DROP TABLE IF EXISTS nowhere").await,
    );
    for _ in 0..4 {
        record.note("heard", within("a notice", speaker.heard.recv()).await);
    }
    listener
        .client
        .batch_execute("LISTEN suite")
        .await
        .expect("listens");
    speaker
        .client
        .batch_execute("NOTIFY suite, 'first'")
        .await
        .expect("notified");
    let transaction = speaker.client.transaction().await.expect("begun");
    transaction
        .query("SELECT pg_notify('suite', $1)", &[&"second"])
        .await
        .expect("notified");
    transaction.commit().await.expect("committed");
    for _ in 0..2 {
        record.note("heard", within("a notification", listener.heard.recv()).await);
    }
    record.note(
        "reads",
        extended(&listener.client, "SELECT count(*) FROM items", &[]).await,
    );
    record.note(
        "unlisten",
        told(listener.client.batch_execute("UNLISTEN *").await),
    );
}

const DRAWN: [&str; 10] = [
    "SELECT count(*), sum(quantity) FROM items",
    "SELECT quantity, count(*) FROM items WHERE id < 50 GROUP BY quantity ORDER BY quantity",
    "SELECT name FROM items WHERE id = 7",
    "UPDATE items SET quantity = quantity + 1 WHERE id = 7 RETURNING quantity",
    "INSERT INTO items (id, name) VALUES (8000, 'random') ON CONFLICT DO NOTHING RETURNING id",
    "DELETE FROM items WHERE id = 8000 RETURNING id",
    "SELECT 10 / (id - 5) FROM items WHERE id = 5",
    "SET timezone = 'Europe/Rome'",
    "RESET timezone",
    "SELECT current_setting('timezone'), '2024-07-01 12:00+00'::timestamptz::text",
];

async fn drawn_from_a_seed(record: &mut Record, session: Session, seed: u64) {
    let mut draw = StdRng::seed_from_u64(seed);
    let turns = ["BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT a", "ROLLBACK TO a"];
    for _ in 0..300 {
        let texts: &[&str] = if draw.random_bool(0.3) { &turns } else { &DRAWN };
        let sql = *texts.choose(&mut draw).expect("some");
        let outcome = if draw.random_bool(0.5) {
            simple(&session.client, sql).await
        } else {
            extended(&session.client, sql, &[]).await
        };
        record.note(sql, outcome);
    }
    record.note("end", simple(&session.client, "ROLLBACK").await);
}
