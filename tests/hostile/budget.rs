//! More answers than the cache has room for, of sizes that change from minute to minute: its budget is the budget of the process.
//!
//! Each size fills the whole cache more than once, so that what is evicted and what takes its place are not of one size. What an
//! allocator cannot use again, and what each size leaves behind, counts.

use tokio::task::JoinSet;

use crate::program::in_time;
use crate::slow::{client, cluster, serve};

const BUDGET: usize = 32 << 20;
/// Buffers of the sessions, catalogs, the program itself.
const BESIDES: usize = 64 << 20;
const CLIENTS: usize = 8;
/// Bytes of an answer, about, and how many different ones are asked for.
const SIZES: [(usize, usize); 5] = [
    (500, 24_000),
    (6_000, 8_000),
    (60_000, 1_200),
    (600_000, 120),
    (500, 24_000),
];

#[tokio::test]
async fn the_budget_holds_whatever_the_size_of_the_answers() {
    let cluster = cluster().await;
    let program = serve(&cluster, &["--set", "cache.bytes=32MiB"]).await;
    let mut drivers = JoinSet::new();
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(client(&program, &mut drivers).await);
    }
    for (size, answers) in SIZES {
        let mut asking = JoinSet::new();
        for (number, client) in clients.drain(..).enumerate() {
            asking.spawn(async move {
                for answer in (number..answers).step_by(CLIENTS) {
                    // Three bytes are the word's.
                    let sql = format!("SELECT repeat(max(word), {}), {answer} FROM words", size / 3);
                    in_time("an answer", client.simple_query(&sql))
                        .await
                        .expect("an answer");
                }
                client
            });
        }
        while let Some(client) = asking.join_next().await {
            clients.push(client.expect("it asks to the end"));
        }
        // They were cached: the latest one is there.
        let sql = format!(
            "SELECT repeat(max(word), {}), {} FROM words",
            size / 3,
            answers - 1
        );
        clients[0].simple_query(&sql).await.expect("an answer");
        let last = clients[0].query_one("SHOW pgladder.last", &[]).await;
        assert_eq!(last.expect("a row").get::<_, &str>("served_by"), "cache", "{sql}");
        let peak = program.peak_memory();
        assert!(
            peak < BUDGET * 3 / 2 + BESIDES,
            "{peak} bytes for answers of {size}"
        );
    }
    drop((program, clients));
    cluster.shut_down().await.expect("nothing is left");
}

#[tokio::test]
async fn the_budget_holds_for_entries_over_many_tables() {
    const PARTITIONS: usize = 150;
    let cluster = cluster().await;
    let primary = cluster.connect(0, "postgres").await.expect("a connection");
    let parts = (0..PARTITIONS)
        .map(|part| format!("CREATE TABLE part_{part} PARTITION OF parted FOR VALUES IN ({part});"));
    let table = format!(
        "CREATE TABLE parted (k int) PARTITION BY LIST (k); {}",
        parts.collect::<String>()
    );
    primary.batch_execute(&table).await.expect("a table");
    drop(primary);
    let program = serve(&cluster, &["--set", "cache.bytes=32MiB"]).await;
    let mut drivers = JoinSet::new();
    let mut asking = JoinSet::new();
    for number in 0..CLIENTS {
        let client = client(&program, &mut drivers).await;
        asking.spawn(async move {
            for answer in (number..8_000).step_by(CLIENTS) {
                let sql = format!("SELECT count(*), {answer} FROM parted WHERE k = 1");
                in_time("an answer", client.simple_query(&sql))
                    .await
                    .expect("an answer");
            }
        });
    }
    while let Some(asked) = asking.join_next().await {
        asked.expect("it asks to the end");
    }
    let peak = program.peak_memory();
    assert!(peak < BUDGET * 3 / 2 + BESIDES, "{peak} bytes");
    drop(program);
    cluster.shut_down().await.expect("nothing is left");
}
