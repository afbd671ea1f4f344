//! A client that reads a large answer byte by byte: it waits for nobody but itself, and what it does not read stays with the server.
//!
//! Rows by the thousand, one row of a hundred megabytes, and an answer that the cache would keep if it were smaller. After a while
//! the client reads on as others do, and has every byte.

use pgladder::demo::cluster::{Options, SUPERUSER, ThrowAwayCluster};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_postgres::{Client, NoTls};

use crate::program::{Program, in_time, query, startup};

/// Read one at a time.
const BYTES: usize = 10_000;
const SLOW_CLIENTS: usize = 8;
const ROWS: usize = 100_000;
const LARGE: usize = 100_000_000;
/// What the buffers of all slow clients together may take ...
const GROWTH_BYTES_MAX: usize = 8 << 20;
/// ... and beside them what might be cached: each up to `cache.entry_bytes_max`, in a buffer that has doubled.
const CACHEABLE_BYTES_MAX: usize = SLOW_CLIENTS * (4 << 20) * 2;

struct Slow {
    stream: TcpStream,
    seen: Vec<u8>,
}

impl Slow {
    async fn log_in(program: &Program) -> Self {
        let mut stream = program.connect().await;
        stream
            .write_all(&startup(SUPERUSER, "postgres"))
            .await
            .expect("sent");
        let mut slow = Self {
            stream,
            seen: Vec::new(),
        };
        loop {
            if slow.message_head().await == (b'Z', 1) {
                slow.skip(1).await;
                return slow;
            }
        }
    }

    /// Type and body's length of the next message; the body of all but ReadyForQuery is read past.
    async fn message_head(&mut self) -> (u8, usize) {
        let mut head = [0; 5];
        in_time("a message", self.stream.read_exact(&mut head))
            .await
            .expect("a message");
        let length = u32::from_be_bytes(head[1..].try_into().expect("four bytes"));
        let length = usize::try_from(length).expect("small") - 4;
        if head[0] != b'Z' {
            self.skip(length).await;
        }
        (head[0], length)
    }

    async fn skip(&mut self, mut bytes: usize) {
        let mut room = vec![0; bytes.min(1 << 16)];
        while bytes > 0 {
            let most = bytes.min(room.len());
            let read = in_time("bytes", self.stream.read(&mut room[..most])).await;
            let read = read.expect("bytes");
            assert!(read > 0, "the connection ended {bytes} bytes too early");
            bytes -= read;
        }
    }

    async fn ask(&mut self, sql: &str) {
        self.stream.write_all(&query(sql)).await.expect("sent");
    }

    async fn read_slowly(&mut self) {
        for _ in 0..BYTES {
            let mut one = [0];
            in_time("a byte", self.stream.read_exact(&mut one))
                .await
                .expect("a byte");
            self.seen.push(one[0]);
        }
    }

    /// What is left of an answer that has so many bytes before its CommandComplete, and that.
    async fn read_the_rest(&mut self, answer: usize) {
        self.skip(answer - BYTES).await;
        assert_eq!(self.message_head().await.0, b'C');
        assert_eq!(self.message_head().await, (b'Z', 1));
        self.skip(1).await;
    }
}

pub async fn cluster() -> ThrowAwayCluster {
    let options = Options {
        replicas: 0,
        label: "hostile-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a cluster");
    let primary = cluster.connect(0, "postgres").await.expect("a connection");
    let table = "CREATE TABLE words (word text); INSERT INTO words SELECT 'abc' FROM generate_series(1, 100)";
    primary.batch_execute(table).await.expect("a table");
    cluster
}

pub async fn serve(cluster: &ThrowAwayCluster, more: &[&str]) -> Program {
    let node = cluster.address(0).to_string();
    let arguments = ["--auth", "trust", "--control-user", SUPERUSER, "--node", &node];
    Program::serve(&[&arguments, more].concat()).await
}

pub async fn client(program: &Program, drivers: &mut JoinSet<()>) -> Client {
    let mut config = tokio_postgres::Config::new();
    config.host("127.0.0.1").port(program.address.port());
    config.user(SUPERUSER).dbname("postgres");
    let (client, connection) = in_time("a login", config.connect(NoTls))
        .await
        .expect("a session");
    drivers.spawn(async move { drop(connection.await) });
    client
}

/// Statements of somebody else, through the same pool, cached ones and writes among them.
async fn others_are_served(client: &Client) {
    for number in 0..50 {
        let work = async {
            client
                .execute(
                    "UPDATE words SET word = $1 WHERE word = 'none'",
                    &[&number.to_string()],
                )
                .await
                .expect("a write");
            let row = client
                .query_one("SELECT count(*) FROM words", &[])
                .await
                .expect("a read");
            assert_eq!(row.get::<_, i64>(0), 100);
        };
        in_time("the others", work).await;
    }
}

#[tokio::test]
async fn large_answers_that_nobody_reads_stay_with_the_server() {
    let cluster = cluster().await;
    let program = serve(&cluster, &[]).await;
    let mut drivers = JoinSet::new();
    let other = client(&program, &mut drivers).await;
    others_are_served(&other).await;
    // RowDescription of one text column has 6 bytes besides its name; a DataRow 11 besides its value.
    let described = |name: &str| 5 + 2 + name.len() + 1 + 18;
    let shapes = [
        (
            format!("SELECT repeat('x', 1000) FROM generate_series(1, {ROWS})"),
            described("repeat") + ROWS * 1011,
            GROWTH_BYTES_MAX,
        ),
        (
            format!("SELECT repeat('x', {LARGE})"),
            described("repeat") + 11 + LARGE,
            GROWTH_BYTES_MAX,
        ),
        (
            format!("SELECT repeat(max(word), {}) FROM words", LARGE / 3),
            described("repeat") + 11 + LARGE / 3 * 3,
            GROWTH_BYTES_MAX + CACHEABLE_BYTES_MAX,
        ),
    ];
    let before = program.peak_memory();
    for (sql, answer, growth_max) in shapes {
        let mut slow = Vec::new();
        for _ in 0..SLOW_CLIENTS {
            let mut one = Slow::log_in(&program).await;
            // Each of another text, so that none shares another's execution.
            one.ask(&format!("{sql} /* {} */", slow.len())).await;
            slow.push(one);
        }
        for one in &mut slow {
            one.read_slowly().await;
            others_are_served(&other).await;
        }
        assert!(
            slow.iter()
                .all(|one| one.seen[0] == b'T' && one.seen == slow[0].seen),
            "{sql}"
        );
        let grown = program.growth_since(before);
        assert!(grown < growth_max, "{sql}: memory grew by {grown} bytes");
        let mut last = slow.pop().expect("there are some");
        drop(slow);
        last.read_the_rest(answer).await;
        // The session goes on.
        last.ask("SELECT 1").await;
        assert_eq!(last.message_head().await.0, b'T');
        let grown = program.growth_since(before);
        assert!(grown < growth_max, "{sql}: memory grew by {grown} bytes");
    }
    drop(program);
    drop(other);
    cluster.shut_down().await.expect("nothing is left");
}
