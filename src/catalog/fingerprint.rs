//! A hash over all of the catalog that a verdict, a cached answer or a privilege rests on, computed by the server.
//!
//! Polled by `freshness` to see DDL made past the proxy, and taken by `load` in its own transaction. Left out are
//! temporary schemas, statistics and freeze horizons, or each CREATE TEMP TABLE and each ANALYZE would flush the cache.
//! Rows other than `pg_class`'s are told apart by their `xmin`, which every change of a row renews: no column is
//! forgotten, in any version. A privilege or the row security of a single role is in it through the rows that hold it.
//! Dropping the future leaves nothing behind: the poll is one implicit transaction.

use tokio_postgres::{SimpleQueryMessage, Transaction};

use super::load::LoadError;

/// One row, one text: the sum of the rows' hashes needs no sort, and is the same in any order.
const FINGERPRINT: &str = "
WITH space AS (
    SELECT oid, xmin::text AS version FROM pg_catalog.pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'
), relation AS (
    SELECT c.* FROM pg_catalog.pg_class c JOIN space s ON s.oid = c.relnamespace WHERE c.relpersistence <> 't'
), item (source, identity, version) AS (
    SELECT 'namespace', oid::text, version FROM space
    UNION ALL SELECT 'class', oid::text, ROW(relname, relnamespace, reltype, reloftype, relowner, relam, relfilenode,
        reltablespace, relpersistence, relkind, relnatts, relchecks, relhasrules, relhastriggers, relrowsecurity,
        relforcerowsecurity, relreplident, relispartition, relacl, reloptions, relpartbound)::text FROM relation
    UNION ALL SELECT 'attribute', a.attrelid::text || '/' || a.attnum::text, a.xmin::text
        FROM pg_catalog.pg_attribute a JOIN relation r ON r.oid = a.attrelid
        WHERE a.attnum > 0 AND (r.oid >= 16384 OR a.attacl IS NOT NULL)
    UNION ALL SELECT 'inherits', i.inhrelid::text || '/' || i.inhparent::text, i.xmin::text
        FROM pg_catalog.pg_inherits i JOIN relation r ON r.oid = i.inhrelid
    UNION ALL SELECT 'proc', p.oid::text, p.xmin::text FROM pg_catalog.pg_proc p JOIN space s ON s.oid = p.pronamespace
    UNION ALL SELECT 'type', t.oid::text, t.xmin::text FROM pg_catalog.pg_type t JOIN space s ON s.oid = t.typnamespace
    UNION ALL SELECT 'enum', e.oid::text, e.xmin::text FROM pg_catalog.pg_enum e
    UNION ALL SELECT 'operator', o.oid::text, o.xmin::text
        FROM pg_catalog.pg_operator o JOIN space s ON s.oid = o.oprnamespace
    UNION ALL SELECT 'cast', oid::text, xmin::text FROM pg_catalog.pg_cast
    UNION ALL SELECT 'collation', oid::text, xmin::text FROM pg_catalog.pg_collation WHERE oid >= 16384
    UNION ALL SELECT 'aggregate', aggfnoid::oid::text, xmin::text FROM pg_catalog.pg_aggregate
    UNION ALL SELECT 'opclass', oid::text, xmin::text FROM pg_catalog.pg_opclass WHERE oid >= 16384
    UNION ALL SELECT 'amproc', oid::text, xmin::text FROM pg_catalog.pg_amproc WHERE oid >= 16384
    UNION ALL SELECT 'language', oid::text, xmin::text FROM pg_catalog.pg_language
    UNION ALL SELECT 'rewrite', w.oid::text, w.xmin::text
        FROM pg_catalog.pg_rewrite w JOIN relation r ON r.oid = w.ev_class
    UNION ALL SELECT 'policy', p.oid::text, p.xmin::text
        FROM pg_catalog.pg_policy p JOIN relation r ON r.oid = p.polrelid
    UNION ALL SELECT 'trigger', t.oid::text, t.xmin::text
        FROM pg_catalog.pg_trigger t JOIN relation r ON r.oid = t.tgrelid
    UNION ALL SELECT 'constraint', c.oid::text, c.xmin::text
        FROM pg_catalog.pg_constraint c JOIN space s ON s.oid = c.connamespace
        LEFT JOIN relation r ON r.oid = c.conrelid WHERE c.conrelid = 0 OR r.oid IS NOT NULL
    UNION ALL SELECT 'default', d.oid::text, d.xmin::text
        FROM pg_catalog.pg_attrdef d JOIN relation r ON r.oid = d.adrelid
    UNION ALL SELECT 'index', i.indexrelid::text, ROW(i.indrelid, i.indisunique, i.indisprimary, i.indisreplident,
        i.indisvalid, i.indkey)::text FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indrelid
    UNION ALL SELECT 'role', oid::text, ROW(rolname, rolsuper, rolinherit, rolcanlogin, rolreplication, rolbypassrls,
        rolconfig)::text FROM pg_catalog.pg_roles
    UNION ALL SELECT 'member', roleid::text || '/' || member::text || '/' || grantor::text, xmin::text
        FROM pg_catalog.pg_auth_members
    UNION ALL SELECT 'setting', setdatabase::text || '/' || setrole::text, xmin::text
        FROM pg_catalog.pg_db_role_setting
    UNION ALL SELECT 'grant', defaclrole::text || '/' || defaclnamespace::text || '/' || defaclobjtype::text, xmin::text
        FROM pg_catalog.pg_default_acl
    UNION ALL SELECT 'database', oid::text, ROW(datname, datdba, datacl)::text FROM pg_catalog.pg_database
        WHERE datname = pg_catalog.current_database()
)
SELECT pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', pg_catalog.count(*)::text, pg_catalog.sum(
    pg_catalog.hashtextextended(pg_catalog.concat_ws(' ', source, identity, version), 0)::numeric)::text), 0)::text
FROM item";

/// The fingerprint of the database now, to compare with `Catalog::fingerprint`. A cheap poll for DDL made past the proxy.
pub async fn fingerprint(client: &tokio_postgres::Client) -> Result<u64, LoadError> {
    // One simple query is one implicit transaction: SET LOCAL ends with it, also when it fails.
    let answer = client
        .simple_query(&format!("SET LOCAL search_path = pg_catalog; {FINGERPRINT}"))
        .await?;
    let row = answer.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    parse(row)
}

/// The same inside a transaction that has set its search path.
pub(super) async fn within(transaction: &Transaction<'_>) -> Result<u64, LoadError> {
    let row = transaction.query_one(FINGERPRINT, &[]).await?;
    parse(row.try_get(0)?)
}

fn parse(hash: Option<&str>) -> Result<u64, LoadError> {
    hash.and_then(|hash| hash.parse::<i64>().ok())
        .map(i64::cast_unsigned)
        .ok_or(LoadError::Shape)
}
