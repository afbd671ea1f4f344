//! Publications of the proxy's own: their names, who lives behind one, and what is left of those who do not.
//!
//! Called by `steward` and by `pgladder cleanup`. A proxy holds an advisory lock for as long as it uses its publication; the server
//! frees it with the connection, also after a kill -9. Invariant: only a publication that bears our prefix, belongs to the role,
//! and whose lock is free is dropped.

use tokio_postgres::Client;

use crate::sql::ident::quote_ident;

/// What all names begin with.
pub const PREFIX: &str = "pgladder_";
/// The first half of the lock's key: "pgld".
const LOCK_CLASS: i32 = 0x7067_6c64;

/// A name that no other proxy has.
pub fn new_name() -> String {
    format!("{PREFIX}{:016x}", rand::random::<u64>())
}

/// Takes the lock that says that a proxy lives; false when another holds it.
pub async fn lock(client: &Client, name: &str) -> Result<bool, tokio_postgres::Error> {
    const LOCK: &str = "SELECT pg_catalog.pg_try_advisory_lock($1, pg_catalog.hashtext($2))";
    client.query_one(LOCK, &[&LOCK_CLASS, &name]).await?.try_get(0)
}

/// What a sweep has found in a database.
#[derive(Debug, Default)]
pub struct Swept {
    /// Names of what was dropped.
    pub dropped: Vec<String>,
    /// So many belong to proxies that live, or whose end the server has not noticed.
    pub locked: usize,
}

/// Drops what proxies that live no more have left in this database. `used`: what the caller itself streams, whose lock, being the
/// caller's own, would not keep it.
pub async fn sweep(client: &Client, used: &str) -> Result<Swept, tokio_postgres::Error> {
    const OURS: &str = "SELECT pubname::text FROM pg_catalog.pg_publication WHERE pubname ~ '^pgladder_[0-9a-f]{16}$' \
        AND pubname <> $1 AND pg_catalog.pg_has_role(pubowner, 'USAGE') ORDER BY 1";
    const UNLOCK: &str = "SELECT pg_catalog.pg_advisory_unlock($1, pg_catalog.hashtext($2))";
    let mut swept = Swept::default();
    for row in client.query(OURS, &[&used]).await? {
        let name: String = row.try_get(0)?;
        if lock(client, &name).await? {
            let drop = client.batch_execute(&dropping(&name)).await;
            client.execute(UNLOCK, &[&LOCK_CLASS, &name]).await?;
            drop?;
            swept.dropped.push(name);
        } else {
            swept.locked += 1;
        }
    }
    Ok(swept)
}

/// The statement that drops one.
pub fn dropping(name: &str) -> String {
    format!("DROP PUBLICATION IF EXISTS {}", quote_ident(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_are_such_as_a_sweep_looks_for() {
        let (one, other) = (new_name(), new_name());
        assert_ne!(one, other);
        let digits = one.strip_prefix(PREFIX).expect("our prefix");
        assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
        assert_eq!(dropping("a\"b"), "DROP PUBLICATION IF EXISTS \"a\"\"b\"");
    }
}
