//! Whether a stream may be opened on a server: its settings, what is left of its walsenders and slots, the role's rights.
//!
//! Asked by `steward` before each stream, and by `pgladder check`. Invariant: what replicas need stays free. Nothing is tried: a
//! server that says no nevertheless is heard by whoever opens the stream.

use tokio_postgres::Client;

use super::why_not::WhyNot;
use crate::catalog::verdict::Oid;

/// Beyond these the walsenders of the replicas need some room, to come back while their old ones linger.
const SENDERS_SPARE: i64 = 2;

/// Asks on a connection to the database. `owned`: the proxy makes the publication; `replicas`: so many are configured. Returns the
/// number of the database.
pub async fn permit(client: &Client, owned: bool, replicas: i64) -> Result<Oid, WhyNot> {
    const FACTS: &str = "SELECT pg_catalog.current_setting('wal_level'), \
        (SELECT rolreplication OR rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), \
        pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE'), \
        pg_catalog.current_setting('max_wal_senders')::int8, \
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_replication), \
        pg_catalog.current_setting('max_replication_slots')::int8, \
        (SELECT pg_catalog.count(*) FROM pg_catalog.pg_replication_slots), \
        (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())";
    let row = client.query_one(FACTS, &[]).await?;
    let wal_level: String = row.try_get(0)?;
    if wal_level != "logical" {
        return Err(WhyNot::WalLevel(wal_level));
    }
    if !row.try_get::<_, bool>(1)? {
        return Err(WhyNot::NoReplication);
    }
    if owned && !row.try_get::<_, bool>(2)? {
        return Err(WhyNot::NoCreate);
    }
    let (max, used): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
    if max < used.max(replicas) + 1 + SENDERS_SPARE {
        return Err(WhyNot::Senders { max, used });
    }
    let (slots, taken): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
    if taken >= slots {
        return Err(WhyNot::Slots(slots));
    }
    Ok(row.try_get(7)?)
}
