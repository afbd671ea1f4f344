//! The dashboard from memory (step 1), and from memory no longer once a deal was inserted (step 3).
//!
//! Called by the walk. What came from memory is known by what the nodes did not count, and what is true by asking the
//! primary the same. Binary answers are compared as bytes. It does not look at what the proxy says of itself.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use super::client::{Answer, answer, raw};
use super::figures::{self, Latencies};
use super::paper::Figure;
use super::statistics::Watched;
use super::verdict::{self, Refuted};
use super::{StepError, Walk, timed};
use crate::demo::data::DASHBOARD;

const HITS: usize = 200;
const ROUNDS: usize = 5;
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// Cacheable, cheap, and not the dashboard: asked until the proxy has come so far that it remembers answers.
const WARM_UP: &str = "SELECT count(*) FROM hotels";

const TORONTO: &str = "SELECT min(id) FROM hotels WHERE city = 'Toronto'";
const INSERT: &str = "INSERT INTO deals (hotel_id, price_per_night, is_available, checkin_date) \
     VALUES ($1, 99.90, true, '2026-06-01')";

/// Step 1.
pub(super) async fn cold_and_hit(walk: &Walk<'_>) -> Result<Vec<Figure>, StepError> {
    let client = walk.client().await?;
    let warm_up = Watched::new(walk.cluster, WARM_UP, &[]).await?;
    remembered(walk, &client, WARM_UP, warm_up).await?;
    let primary = walk.primary().await?;
    // Once unmeasured, so that the direct figure and the cold one both find the table in memory.
    direct(&primary).await?;
    let (truth, on_primary) = timed(direct(&primary)).await?;

    let dashboard = Watched::new(walk.cluster, DASHBOARD, &[]).await?;
    let start = dashboard.counts(walk.cluster).await?;
    let (first, cold) = timed(proxied(&client)).await?;
    let computed = dashboard.counts(walk.cluster).await?;
    verdict::computed(&computed.since(&start))?;
    verdict::rows_as_on_primary("the cold dashboard", &first, &truth)?;

    let simple = simple_hits(&client, &truth).await?;
    let asked = dashboard.counts(walk.cluster).await?.since(&computed);
    verdict::from_cache(HITS as u64, &asked)?;

    let prepared = prepared_hits(walk, &client, dashboard).await?;
    Ok(vec![
        Figure::new(
            "cold",
            figures::duration(cold),
            format!(
                "through the proxy; {} on the primary directly",
                figures::duration(on_primary)
            ),
        ),
        hit("hit, simple", &simple),
        hit("hit, prepared", &prepared),
        Figure::new("cold / hit", figures::ratio(cold, simple.median()), "simple"),
    ])
}

/// Asks until an answer reached no server, and returns that one: only what is remembered can be outdated by a write.
///
/// A proxy that just started reads the catalog first, and remembers nothing before it has.
async fn remembered(
    walk: &Walk<'_>,
    client: &Client,
    sql: &str,
    watched: Watched,
) -> Result<Answer, StepError> {
    let deadline = Instant::now() + walk.patience;
    let mut before = watched.counts(walk.cluster).await?;
    let mut reads = 0;
    loop {
        let answer = answer(client, sql)
            .await
            .map_err(StepError::proxied("reading what should be remembered"))?;
        reads += 1;
        let now = watched.counts(walk.cluster).await?;
        let counts = now.since(&before);
        if counts.total() == 0 {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            return Err(Refuted::NeverRemembers { reads, counts }.into());
        }
        before = now;
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

fn hit(label: &'static str, measured: &Latencies) -> Figure {
    let p99 = figures::duration(measured.quantile(990));
    let note = format!("median of {HITS}, p99 {p99}; the servers count no call");
    Figure::new(label, figures::duration(measured.median()), note)
}

async fn simple_hits(client: &Client, truth: &Answer) -> Result<Latencies, StepError> {
    let mut measured = Vec::with_capacity(HITS);
    for _ in 0..HITS {
        let (hit, latency) = timed(proxied(client)).await?;
        verdict::rows_as_on_primary("a dashboard from memory", &hit, truth)?;
        measured.push(latency);
    }
    Ok(Latencies::new(measured))
}

/// The driver asks for binary values, which are another answer than text and have their own first read.
async fn prepared_hits(walk: &Walk<'_>, client: &Client, watched: Watched) -> Result<Latencies, StepError> {
    let primary = walk.primary().await?;
    let truth = primary
        .query(DASHBOARD, &[])
        .await
        .map_err(StepError::direct("reading the dashboard, prepared"))?;
    let truth = raw(&truth);
    let failed = StepError::proxied("reading the dashboard, prepared");
    let statement = client.prepare(DASHBOARD).await.map_err(&failed)?;
    client.query(&statement, &[]).await.map_err(&failed)?;
    let start = watched.counts(walk.cluster).await?;
    let mut measured = Vec::with_capacity(HITS);
    for _ in 0..HITS {
        let (rows, latency) = timed(client.query(&statement, &[])).await.map_err(&failed)?;
        verdict::rows_as_on_primary("a prepared dashboard from memory", &raw(&rows), &truth)?;
        measured.push(latency);
    }
    let counts = watched.counts(walk.cluster).await?.since(&start);
    verdict::from_cache(HITS as u64, &counts)?;
    Ok(Latencies::new(measured))
}

/// Step 3.
pub(super) async fn after_a_write(walk: &Walk<'_>) -> Result<Vec<Figure>, StepError> {
    let (writer, reader) = (walk.client().await?, walk.client().await?);
    let primary = walk.primary().await?;
    let row = primary.query_one(TORONTO, &[]).await;
    let hotel: i32 = row
        .map_err(StepError::direct("looking for a hotel in Toronto"))?
        .get(0);
    let watched = Watched::new(walk.cluster, DASHBOARD, &[]).await?;
    let mut measured = Vec::with_capacity(ROUNDS);
    let mut deals = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let before = deals_in_toronto(&remembered(walk, &reader, DASHBOARD, watched).await?);
        writer
            .execute(INSERT, &[&hotel])
            .await
            .map_err(StepError::proxied("inserting a deal"))?;
        let (after, latency) = timed(proxied(&reader)).await?;
        verdict::rows_as_on_primary("the dashboard after an insert", &after, &direct(&primary).await?)?;
        // The primary's own answer is no proof if the insert never happened.
        verdict::one_more(before, deals_in_toronto(&after))?;
        measured.push(latency);
        deals.push(figures::count(before));
    }
    let last = deals_in_toronto(&remembered(walk, &reader, DASHBOARD, watched).await?);
    let measured = Latencies::new(measured);
    Ok(vec![
        Figure::new(
            "deals in Toronto",
            figures::count(last),
            format!("after {ROUNDS} inserts; before each: {}", deals.join(" ")),
        ),
        Figure::new(
            "next read",
            figures::duration(measured.median()),
            "median; each equal to the primary's own answer, and the one before each from memory",
        ),
    ])
}

async fn proxied(client: &Client) -> Result<Answer, StepError> {
    answer(client, DASHBOARD)
        .await
        .map_err(StepError::proxied("reading the dashboard"))
}

async fn direct(primary: &Client) -> Result<Answer, StepError> {
    answer(primary, DASHBOARD)
        .await
        .map_err(StepError::direct("reading the dashboard"))
}

/// The third column of Toronto's row; zero when it has none.
fn deals_in_toronto(dashboard: &Answer) -> u64 {
    let row = dashboard
        .iter()
        .find(|row| row.first().and_then(Option::as_deref) == Some("Toronto"));
    row.and_then(|row| row.get(2)?.as_deref()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn toronto_is_found_by_name() {
        let row = |city: &str, deals: &str| {
            [city, "300.00", deals]
                .map(|value| Some(value.to_owned()))
                .to_vec()
        };
        assert_eq!(
            deals_in_toronto(&vec![row("Tokyo", "7"), row("Toronto", "12")]),
            12
        );
        assert_eq!(deals_in_toronto(&vec![row("Tokyo", "7")]), 0);
        assert_eq!(deals_in_toronto(&Vec::new()), 0);
    }
}
