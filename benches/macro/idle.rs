//! What an idle client costs a proxy: the growth of its proportional set size over thousands of them.
//!
//! Called by the main loop, with a proxy that was started for this alone. The first clients are not counted: with them the proxy
//! grows its threads, its server connections and its tables. Blocks a thread of the blocking pool; a dropped call leaves that
//! thread to its end.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::resource::{Resource, getrlimit};
use tokio::task::spawn_blocking;

use super::doors::Opened;
use super::load;
use super::results::Memory;

const FIRST_CLIENTS: u32 = 64;
/// How long a proxy may take to give back what it does not need for idle clients.
const SETTLING: Duration = Duration::from_secs(2);
/// Files that a process has open besides its clients.
const OTHER_FILES: u64 = 300;

/// As many clients as were wanted, or as the limit of open files lets be.
pub fn clients_possible(wanted: u32) -> u32 {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    let possible = limit.saturating_sub(OTHER_FILES + u64::from(FIRST_CLIENTS));
    wanted.min(u32::try_from(possible).unwrap_or(u32::MAX))
}

/// Clients that the proxy must let in for so many that are counted.
pub fn clients_max(counted: u32) -> u32 {
    counted + FIRST_CLIENTS + 100
}

/// Measures; `None` where the system does not tell the size of a process.
pub async fn measure(opened: &Opened, clients: u32, deals: u32) -> anyhow::Result<Option<Memory>> {
    let daemon = opened
        .daemon
        .as_ref()
        .context("a server itself has no idle clients to measure")?;
    let port = opened.port;
    let connect = |count: u32| async move {
        spawn_blocking(move || {
            (0..count)
                .map(|_| load::idle_client(port, deals))
                .collect::<anyhow::Result<Vec<_>>>()
        })
        .await
        .expect("a client does not panic")
    };
    let first = connect(FIRST_CLIENTS).await?;
    tokio::time::sleep(SETTLING).await;
    let before = daemon.pss_bytes();
    let counted = connect(clients).await?;
    tokio::time::sleep(SETTLING).await;
    let after = daemon.pss_bytes();
    drop((first, counted));
    Ok(before.zip(after).map(|(before, after)| Memory {
        clients,
        before,
        after,
    }))
}
