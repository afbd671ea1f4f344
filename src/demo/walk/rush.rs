//! Step 2: many clients ask for the same cold answer at the same moment.
//!
//! Called by the walk. The query differs from the dashboard of the other steps, so that nothing can have remembered it,
//! and all clients wait at one barrier with open connections, so that they ask together. One call is right, whether a
//! client joined the first one's or came late enough for its answer.

use std::sync::Arc;

use tokio::sync::Barrier;
use tokio::task::JoinSet;

use super::client::answer;
use super::figures::{self, Latencies};
use super::paper::Figure;
use super::statistics::Watched;
use super::{StepError, Walk, timed, verdict};

const CLIENTS: usize = 300;

/// The dashboard of the good hotels.
const RUSHED: &str = "SELECT h.city, round(avg(d.price_per_night), 2) AS average_price, count(*) AS deals \
     FROM deals d JOIN hotels h ON h.id = d.hotel_id \
     WHERE d.is_available AND h.stars >= 4 GROUP BY h.city ORDER BY h.city";

/// Step 2.
pub(super) async fn one_call(walk: &Walk<'_>) -> Result<Vec<Figure>, StepError> {
    let primary = walk.primary().await?;
    let truth = answer(&primary, RUSHED)
        .await
        .map_err(StepError::direct("reading the good hotels' dashboard"))?;
    let watched = Watched::new(walk.cluster, RUSHED, &[]).await?;
    let start = watched.counts(walk.cluster).await?;

    let barrier = Arc::new(Barrier::new(CLIENTS));
    let mut rush = JoinSet::new();
    for _ in 0..CLIENTS {
        let client = walk.client().await?;
        let barrier = Arc::clone(&barrier);
        rush.spawn(async move {
            barrier.wait().await;
            timed(answer(&client, RUSHED)).await
        });
    }
    let mut measured = Vec::with_capacity(CLIENTS);
    while let Some(done) = rush.join_next().await {
        let (answer, latency) = done
            .expect("a client does not panic")
            .map_err(StepError::proxied("reading the good hotels' dashboard"))?;
        verdict::rows_as_on_primary("one of 300 dashboards", &answer, &truth)?;
        measured.push(latency);
    }
    let counts = watched.counts(walk.cluster).await?.since(&start);
    verdict::one_call(CLIENTS as u64, &counts)?;

    let measured = Latencies::new(measured);
    Ok(vec![
        Figure::new(
            "clients",
            figures::count(measured.count() as u64),
            "all answers equal to the primary's own",
        ),
        Figure::new("calls", figures::count(counts.total()), counts.to_string()),
        Figure::new(
            "answer",
            figures::duration(measured.median()),
            format!(
                "median; the last one {}",
                figures::duration(measured.quantile(1_000))
            ),
        ),
    ])
}
