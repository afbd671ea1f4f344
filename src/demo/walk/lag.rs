//! Step 5: replicas that stand still serve what was not written since, and nothing else.
//!
//! Called by the walk. That replay is really paused is asked of each replica: it must still show the old row. The reason
//! that the proxy gives for its choice is printed and decides nothing. Replay goes on at the end of the step.

use tokio_postgres::{Client, SimpleQueryMessage};

use super::deals::{self, Reader, Truth};
use super::figures;
use super::paper::Figure;
use super::statistics::{Watched, node_name};
use super::verdict::{self, Counts, Refuted};
use super::{DATABASE, StepError, Walk, timed};

const UNRELATED_READS: u64 = 100;
const UNRELATED: &str = "SELECT name, stars FROM hotels WHERE id = $1";
const UPDATE: &str = "UPDATE deals SET price_per_night = price_per_night + 1 WHERE id = $1";
const WRITTEN: i64 = 1;

/// Step 5.
pub(super) async fn paused_replicas(walk: &Walk<'_>) -> Result<Vec<Figure>, StepError> {
    let (writer, reader) = (walk.client().await?, Reader::connect(walk).await?);
    let old = deals::on_primary(walk, &[WRITTEN]).await?;
    walk.cluster.wait_caught_up().await?;
    // Replicas serve the table before: that they do not after the write is then the write's doing.
    deals::read_until(walk, &reader, &old, verdict::on_every_replica).await?;
    for replica in replicas(walk) {
        walk.cluster.pause_replay(replica).await?;
    }

    let reads = deals::watch(walk).await?;
    let start = reads.counts(walk.cluster).await?;
    writer
        .execute(UPDATE, &[&WRITTEN])
        .await
        .map_err(StepError::proxied("updating a deal"))?;
    let (read, latency) = timed(reader.read(WRITTEN)).await?;
    let last = Last::of(&reader.client).await?;
    let served = reads.counts(walk.cluster).await?.since(&start);
    let new = deals::on_primary(walk, &[WRITTEN]).await?;
    verdict::as_on_primary(
        "the deal that was just written",
        &read.as_ref(),
        &new.get(&WRITTEN),
    )?;
    show_the_old(walk, &old).await?;

    let unrelated = read_unrelated(walk, &reader).await?;
    for replica in replicas(walk) {
        walk.cluster.resume_replay(replica).await?;
    }
    walk.cluster.wait_caught_up().await?;
    let (rereads, resumed) = deals::read_until(walk, &reader, &new, verdict::on_some_replica).await?;
    let price = |deals: &Truth| {
        deals
            .get(&WRITTEN)
            .map_or_else(String::new, |deal| deal.price.clone())
    };
    Ok(vec![
        Figure::new(
            "read back",
            figures::duration(latency),
            format!("price {}, {} on the replicas; {served}", price(&new), price(&old)),
        ),
        Figure::new(
            "reason",
            last.served_by,
            format!("{}: {}", last.node, last.reason),
        ),
        Figure::new(
            "hotels meanwhile",
            figures::count(UNRELATED_READS),
            unrelated.to_string(),
        ),
        Figure::new("deals after", figures::count(rereads), resumed.to_string()),
    ])
}

fn replicas(walk: &Walk<'_>) -> impl Iterator<Item = usize> {
    let primary = walk.cluster.primary();
    (0..walk.cluster.node_count()).filter(move |node| *node != primary)
}

/// Every replica, asked directly, must lack the write, or nothing was shown.
async fn show_the_old(walk: &Walk<'_>, old: &Truth) -> Result<(), StepError> {
    for replica in replicas(walk) {
        let client = walk.cluster.connect(replica, DATABASE).await?;
        let shown = deals::shown_by(&client, &[WRITTEN]).await?;
        if shown != *old {
            return Err(Refuted::NotPaused {
                node: node_name(walk.cluster, replica),
            }
            .into());
        }
    }
    Ok(())
}

async fn read_unrelated(walk: &Walk<'_>, reader: &Reader) -> Result<Counts, StepError> {
    let failed = StepError::proxied("reading a hotel");
    let watched = Watched::new(walk.cluster, UNRELATED, &[&1_i32]).await?;
    let statement = reader.client.prepare(UNRELATED).await.map_err(&failed)?;
    let start = watched.counts(walk.cluster).await?;
    for _ in 0..UNRELATED_READS {
        reader
            .client
            .query_one(&statement, &[&1_i32])
            .await
            .map_err(&failed)?;
    }
    let counts = watched.counts(walk.cluster).await?.since(&start);
    verdict::on_some_replica(UNRELATED_READS, &counts)?;
    Ok(counts)
}

/// What the proxy says of the statement before.
struct Last {
    served_by: String,
    node: String,
    reason: String,
}

impl Last {
    async fn of(client: &Client) -> Result<Self, StepError> {
        let failed = StepError::proxied("SHOW pgladder.last");
        let messages = client.simple_query("SHOW pgladder.last").await.map_err(&failed)?;
        let row = messages.iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.ok_or(StepError::NoReason)?;
        let text = |column: &str| match row.try_get(column) {
            Ok(value) => Ok(value.unwrap_or_default().to_owned()),
            Err(error) => Err(failed(error)),
        };
        Ok(Self {
            served_by: text("served_by")?,
            node: text("node")?,
            reason: text("reason")?,
        })
    }
}
