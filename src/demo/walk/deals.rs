//! Point reads of deals, through the proxy and, for comparison, on the primary.
//!
//! Used by the steps that read single rows. The rows to compare with are fetched by another statement, so that the
//! count of the watched one is the proxy's alone. Every row that is read is compared: a fast wrong answer is no answer.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, Row, Statement};

use super::client::ProxyClient;
use super::statistics::Watched;
use super::verdict::{self, Counts, Refuted};
use super::{StepError, Walk};

/// The point read whose calls are counted.
pub(super) const READ: &str = "SELECT hotel_id, price_per_night::text, is_available FROM deals WHERE id = $1";

const READ_MANY: &str =
    "SELECT hotel_id, price_per_night::text, is_available, id FROM deals WHERE id = ANY($1)";

/// A prime, so that the rows of a walk lie all over the table.
const STRIDE: u64 = 7_919;
const READS_AT_ONCE: u8 = 10;
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// What a point read shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Deal {
    hotel_id: i32,
    pub price: String,
    is_available: bool,
}

impl Deal {
    fn of(row: &Row) -> Self {
        Self {
            hotel_id: row.get(0),
            price: row.get(1),
            is_available: row.get(2),
        }
    }
}

/// Deals as the primary shows them.
pub(super) type Truth = HashMap<i64, Deal>;

/// `count` deals' ids, always the same for a table of this size; repeated when the table is smaller.
pub(super) fn ids(count: u64, deals: u64) -> Vec<i64> {
    let id = |number: u64| 1 + number * STRIDE % deals;
    (0..count)
        .map(|number| i64::try_from(id(number)).expect("a table of 2^63 rows fits nowhere"))
        .collect()
}

/// The deals as they are on the primary now.
pub(super) async fn on_primary(walk: &Walk<'_>, ids: &[i64]) -> Result<Truth, StepError> {
    shown_by(&walk.primary().await?, ids).await
}

/// The deals as a node shows them that is asked directly.
pub(super) async fn shown_by(node: &Client, ids: &[i64]) -> Result<Truth, StepError> {
    let rows = node
        .query(READ_MANY, &[&ids])
        .await
        .map_err(StepError::direct("reading deals"))?;
    Ok(rows.iter().map(|row| (row.get(3), Deal::of(row))).collect())
}

/// The watch over `READ`.
pub(super) async fn watch(walk: &Walk<'_>) -> Result<Watched, StepError> {
    Watched::new(walk.cluster, READ, &[&1_i64]).await
}

/// A client of the proxy that prepared `READ`.
pub(super) struct Reader {
    pub client: ProxyClient,
    statement: Statement,
}

impl Reader {
    pub(super) async fn connect(walk: &Walk<'_>) -> Result<Self, StepError> {
        let client = walk.client().await?;
        let statement = client
            .prepare(READ)
            .await
            .map_err(StepError::proxied("preparing a point read"))?;
        Ok(Self { client, statement })
    }

    /// Reads one deal; `None` when there is no such row.
    pub(super) async fn read(&self, id: i64) -> Result<Option<Deal>, StepError> {
        let row = self.client.query_opt(&self.statement, &[&id]).await;
        let row = row.map_err(StepError::proxied("reading a deal"))?;
        Ok(row.as_ref().map(Deal::of))
    }

    /// Reads one deal and compares it with the primary's.
    pub(super) async fn read_true(&self, id: i64, truth: &Truth) -> Result<(), StepError> {
        let read = self.read(id).await?;
        Ok(verdict::as_on_primary("a deal", &read.as_ref(), &truth.get(&id))?)
    }
}

/// Reads until the nodes' counts satisfy `wanted`; returns the number of reads, all of them true, and the counts.
///
/// After a write a replica serves a table only once it has replayed it and the proxy knows: how soon is no verdict.
pub(super) async fn read_until(
    walk: &Walk<'_>,
    reader: &Reader,
    truth: &Truth,
    wanted: fn(u64, &Counts) -> Result<(), Refuted>,
) -> Result<(u64, Counts), StepError> {
    let watched = watch(walk).await?;
    let start = watched.counts(walk.cluster).await?;
    let deadline = Instant::now() + walk.patience;
    let mut reads = 0;
    loop {
        for (id, _) in truth.iter().cycle().take(usize::from(READS_AT_ONCE)) {
            reader.read_true(*id, truth).await?;
        }
        reads += u64::from(READS_AT_ONCE);
        let counts = watched.counts(walk.cluster).await?.since(&start);
        match wanted(reads, &counts) {
            Ok(()) => return Ok((reads, counts)),
            Err(refuted) if Instant::now() >= deadline => return Err(refuted.into()),
            Err(_) => tokio::time::sleep(RETRY_INTERVAL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_lie_in_the_table_and_are_spread() {
        let mut many = ids(1_000, 1_000_000);
        assert!(many.iter().all(|id| (1..=1_000_000).contains(id)));
        assert!(many.iter().any(|id| *id > 900_000));
        assert_eq!(many, ids(1_000, 1_000_000));
        many.sort_unstable();
        many.dedup();
        assert_eq!(many.len(), 1_000);
        assert_eq!(ids(3, 1), [1, 1, 1]);
    }
}
