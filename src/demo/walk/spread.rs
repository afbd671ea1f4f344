//! Step 4: reads go to the replicas, writes to the primary.
//!
//! Called by the walk. Reads follow one another over several connections, so that the balance is the proxy's choice and
//! not the luck of two replicas' speed. The rows are compared with the primary's; who served is the servers' own count.

use std::time::Duration;

use super::deals::{self, Reader, Truth};
use super::figures::{self, Latencies};
use super::paper::Figure;
use super::statistics::Watched;
use super::{StepError, Walk, timed, verdict};

const READS: u64 = 1_000;
const READS_OF_EACH_REPLICA_MIN: u64 = 300;
const WRITES: u64 = 100;
const CONNECTIONS: usize = 10;

const UPDATE: &str = "UPDATE deals SET price_per_night = price_per_night + 1 WHERE id = $1";

/// Step 4.
pub(super) async fn reads_and_writes(walk: &Walk<'_>) -> Result<Vec<Figure>, StepError> {
    let mut readers = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        readers.push(Reader::connect(walk).await?);
    }
    let ids = deals::ids(READS, walk.deals);
    let truth = deals::on_primary(walk, &ids).await?;
    // What earlier steps wrote must have arrived everywhere.
    walk.cluster.wait_caught_up().await?;
    deals::read_until(walk, &readers[0], &truth, verdict::on_every_replica).await?;

    let watched = deals::watch(walk).await?;
    let start = watched.counts(walk.cluster).await?;
    let reads = read_all(&readers, &ids, &truth).await?;
    let spread = watched.counts(walk.cluster).await?.since(&start);
    verdict::spread_over_replicas(READS_OF_EACH_REPLICA_MIN, &spread)?;

    let watched = Watched::new(walk.cluster, UPDATE, &[&1_i64]).await?;
    let start = watched.counts(walk.cluster).await?;
    let writes = write_all(&readers, &ids[..usize::try_from(WRITES).expect("100")]).await?;
    let written = watched.counts(walk.cluster).await?.since(&start);
    verdict::only_on_primary(WRITES, &written)?;
    Ok(vec![
        Figure::new("reads", figures::count(READS), spread.to_string()),
        latency("point read", reads),
        Figure::new("writes", figures::count(WRITES), written.to_string()),
        latency("write", writes),
    ])
}

async fn read_all(readers: &[Reader], ids: &[i64], truth: &Truth) -> Result<Vec<Duration>, StepError> {
    let mut measured = Vec::with_capacity(ids.len());
    for (id, reader) in ids.iter().zip(readers.iter().cycle()) {
        let ((), latency) = timed(reader.read_true(*id, truth)).await?;
        measured.push(latency);
    }
    Ok(measured)
}

async fn write_all(writers: &[Reader], ids: &[i64]) -> Result<Vec<Duration>, StepError> {
    let failed = StepError::proxied("updating a deal");
    let mut statements = Vec::with_capacity(writers.len());
    for writer in writers {
        statements.push(writer.client.prepare(UPDATE).await.map_err(&failed)?);
    }
    let mut measured = Vec::with_capacity(ids.len());
    for (id, (writer, statement)) in ids.iter().zip(writers.iter().zip(&statements).cycle()) {
        let (_, latency) = timed(writer.client.execute(statement, &[id]))
            .await
            .map_err(&failed)?;
        measured.push(latency);
    }
    Ok(measured)
}

fn latency(label: &'static str, measured: Vec<Duration>) -> Figure {
    let measured = Latencies::new(measured);
    let p99 = figures::duration(measured.quantile(990));
    Figure::new(
        label,
        figures::duration(measured.median()),
        format!("median; p99 {p99}"),
    )
}
