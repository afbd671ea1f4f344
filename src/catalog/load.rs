//! Reads one database's catalog over an ordinary connection.
//!
//! Called by `freshness`'s catalog loop at start and whenever the fingerprint moves. One REPEATABLE READ READ ONLY
//! transaction, so that rows and fingerprint are of one moment; names in full and an own search path, so that nothing
//! that a user has made is called. Only columns that PostgreSQL 13 to 18 have. Dropping the future rolls the
//! transaction back when the connection is next used.

use std::collections::BTreeMap;

use tokio_postgres::{IsolationLevel, Row, Transaction};

use super::effects::{Effects, Reader, Token};
use super::facts::{Facts, ForeignKey, FunctionRow, RelationRow, TypeRow};
use super::fingerprint;
use super::snapshot::Catalog;
use super::verdict::Oid;

/// Why a catalog could not be read: ask again later, on a new connection.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The server or the connection failed.
    #[error("the catalog cannot be read: {}", crate::cluster::in_words(.0))]
    Server(#[from] tokio_postgres::Error),
    /// The server answered in another shape than asked for.
    #[error("the server's answer to the catalog fingerprint is not understood")]
    Shape,
}

impl Catalog {
    /// Loads the catalog of the database that `client` is connected to, with its fingerprint.
    pub async fn load(client: &mut tokio_postgres::Client, generation: u64) -> Result<Catalog, LoadError> {
        let transaction = client
            .build_transaction()
            .isolation_level(IsolationLevel::RepeatableRead)
            .read_only(true)
            .start()
            .await?;
        transaction
            .batch_execute("SET LOCAL search_path = pg_catalog")
            .await?;
        let mut facts = Facts {
            relations: relations(&transaction).await?,
            inherits: pairs(&transaction, INHERITS).await?,
            foreign_keys: foreign_keys(&transaction).await?,
            columns: pairs(&transaction, COLUMNS).await?,
            wordy: wordy(&transaction).await?,
            types: types(&transaction).await?,
            functions: functions(&transaction).await?,
            loose: pairs(&transaction, LOOSE).await?,
            implicit: pairs(&transaction, IMPLICIT)
                .await?
                .into_iter()
                .map(|(to, _)| to)
                .collect(),
            fingerprint: fingerprint::within(&transaction).await?,
            ..Facts::default()
        };
        expressions(&transaction, &mut facts).await?;
        transaction.commit().await?;
        Ok(Catalog::build(facts, generation))
    }
}

const INHERITS: &str = "SELECT inhrelid, inhparent FROM pg_catalog.pg_inherits ORDER BY 1, 2";

const COLUMNS: &str = "SELECT attrelid, atttypid FROM pg_catalog.pg_attribute \
    WHERE attnum > 0 AND NOT attisdropped \
        AND (atttypid >= 16384 OR atttypid IN ('timetz'::pg_catalog.regtype, 'timetz[]'::pg_catalog.regtype)) \
    ORDER BY 1, 2";

/// Columns of user relations whose type is none of those in whose text no word of the clock can stand.
const WORDY: &str = "SELECT a.attrelid, a.attname::text FROM pg_catalog.pg_attribute a \
        JOIN pg_catalog.pg_type t ON t.oid = a.atttypid LEFT JOIN pg_catalog.pg_type e ON e.oid = t.typelem \
    WHERE a.attrelid >= 16384 AND a.attnum > 0 AND NOT a.attisdropped \
        AND NOT CASE WHEN t.typcategory = 'A' THEN e.oid ELSE t.oid END = ANY ('{bool,int2,int4,int8,oid,float4,float8, \
            numeric,money,date,time,timetz,timestamp,timestamptz,interval,uuid,inet,cidr,macaddr,macaddr8,bit,varbit, \
            int4range,int8range,numrange,daterange,tsrange,tstzrange}'::pg_catalog.regtype[]) ORDER BY 1, 2";

/// Operators and casts whose function is neither C nor internal, or is volatile: it may do anything.
const LOOSE: &str = "SELECT o.oprleft, o.oprright FROM pg_catalog.pg_operator o \
        JOIN pg_catalog.pg_proc p ON p.oid = o.oprcode JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
        WHERE o.oid >= 16384 AND (l.lanname NOT IN ('c', 'internal') OR p.provolatile = 'v') \
    UNION SELECT c.castsource, c.casttarget FROM pg_catalog.pg_cast c \
        JOIN pg_catalog.pg_proc p ON p.oid = c.castfunc JOIN pg_catalog.pg_language l ON l.oid = p.prolang \
        WHERE c.oid >= 16384 AND (l.lanname NOT IN ('c', 'internal') OR p.provolatile = 'v') ORDER BY 1, 2";

const IMPLICIT: &str = "SELECT casttarget, castsource FROM pg_catalog.pg_cast \
    WHERE castcontext = 'i' AND casttarget >= 16384 AND castsource < 16384 ORDER BY 1, 2";

const RELATIONS: &str = "SELECT c.oid, n.nspname::text, c.relname::text, c.relkind::text, c.relpersistence::text, \
        c.relrowsecurity, c.reltype, \
        EXISTS (SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) \
        OR EXISTS (SELECT FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid AND r.ev_type <> '1') \
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND c.relpersistence <> 't' \
        AND n.nspname !~ '^pg_(toast_)?temp_' ORDER BY 1";

const FOREIGN_KEYS: &str = "SELECT confrelid, conrelid, \
        pg_catalog.bool_or(confdeltype IN ('c', 'n', 'd')), pg_catalog.bool_or(confupdtype IN ('c', 'n', 'd')) \
    FROM pg_catalog.pg_constraint WHERE contype = 'f' GROUP BY 1, 2 ORDER BY 1, 2";

const TYPES: &str = "SELECT t.oid, n.nspname::text, t.typname::text, t.typtype::text, \
        CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.typelem END, t.typrelid, \
        EXISTS (SELECT FROM pg_catalog.pg_type b WHERE b.typname = t.typname AND b.oid < 16384) \
    FROM pg_catalog.pg_type t JOIN pg_catalog.pg_namespace n ON n.oid = t.typnamespace \
    WHERE t.oid >= 16384 AND n.nspname !~ '^pg_(toast_)?temp_' ORDER BY 1";

const FUNCTIONS: &str = "SELECT n.nspname::text, p.proname::text, p.proargtypes::oid[] \
    FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace \
    WHERE (p.oid >= 16384 OR n.nspname <> 'pg_catalog') AND n.nspname !~ '^pg_temp_' ORDER BY p.oid";

/// Stored expressions of user objects, cut into what `Reader` wants to know: the server does the cutting, so that large
/// views cost little here. The label of a node follows its brace; braces inside a value are escaped there.
const EXPRESSIONS: &str = r"
WITH expression (kind, owner, tree) AS (
    SELECT 'view', ev_class, ev_action::text FROM pg_catalog.pg_rewrite WHERE ev_type = '1' AND ev_class >= 16384
    UNION ALL SELECT 'policy', polrelid, pg_catalog.concat(polqual::text, polwithcheck::text) FROM pg_catalog.pg_policy
    UNION ALL SELECT CASE WHEN a.attgenerated = 'v' THEN 'read' WHEN a.attgenerated <> '' OR EXISTS (
            SELECT FROM pg_catalog.pg_constraint k WHERE k.conrelid = d.adrelid AND 'd' IN (k.confdeltype, k.confupdtype))
        THEN 'write' ELSE 'default' END, d.adrelid, d.adbin::text
        FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum
    UNION ALL SELECT 'default', attrelid, '{NEXTVALUEEXPR' FROM pg_catalog.pg_attribute
        WHERE attidentity <> '' AND NOT attisdropped
    UNION ALL SELECT CASE WHEN contypid <> 0 THEN 'domain' ELSE 'write' END,
        CASE WHEN contypid <> 0 THEN contypid ELSE conrelid END, conbin::text
        FROM pg_catalog.pg_constraint WHERE conbin IS NOT NULL AND oid >= 16384
    UNION ALL SELECT 'domain', oid, typdefaultbin::text FROM pg_catalog.pg_type
        WHERE typdefaultbin IS NOT NULL AND oid >= 16384
    UNION ALL SELECT 'write', indrelid, pg_catalog.concat(indexprs::text, indpred::text) FROM pg_catalog.pg_index
        WHERE indexprs IS NOT NULL OR indpred IS NOT NULL
    UNION ALL SELECT 'write', partrelid, partexprs::text FROM pg_catalog.pg_partitioned_table WHERE partexprs IS NOT NULL
), token AS (
    SELECT DISTINCT e.kind, e.owner, m[1] AS tag, m[2] AS value
    FROM expression e CROSS JOIN LATERAL pg_catalog.regexp_matches(e.tree,
        '(:funcid|:opfuncid|:aggfnoid|:winfnoid|:relid|:resulttype|\{SQLVALUEFUNCTION :(?:op|svfop)|\{)\s?([0-9A-Z_]+)',
        'g') m
)
SELECT t.kind, t.owner, t.tag, t.value, p.proname::text, p.pronargs,
    COALESCE(p.oid < 16384 AND p.pronamespace = 'pg_catalog'::pg_catalog.regnamespace, false),
    COALESCE(p.provolatile = 'i', false)
FROM token t LEFT JOIN pg_catalog.pg_proc p
    ON p.oid = CASE WHEN t.tag ~ '^:(funcid|opfuncid|aggfnoid|winfnoid)$' THEN t.value::oid END
WHERE NOT (t.tag LIKE ':%' AND t.value = '0')
ORDER BY t.kind, t.owner, t.tag, t.value";

async fn pairs(transaction: &Transaction<'_>, sql: &str) -> Result<Vec<(Oid, Oid)>, LoadError> {
    let rows = transaction.query(sql, &[]).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect()
}

/// PostgreSQL's `"char"`, asked for as text.
fn letter(row: &Row, column: usize) -> Result<char, LoadError> {
    row.try_get::<_, &str>(column)?
        .chars()
        .next()
        .ok_or(LoadError::Shape)
}

async fn relations(transaction: &Transaction<'_>) -> Result<Vec<RelationRow>, LoadError> {
    let rows = transaction.query(RELATIONS, &[]).await?;
    let relation = |row: &Row| {
        Ok(RelationRow {
            oid: row.try_get(0)?,
            schema: row.try_get::<_, &str>(1)?.into(),
            name: row.try_get::<_, &str>(2)?.into(),
            kind: letter(row, 3)?,
            persistence: letter(row, 4)?,
            row_security: row.try_get(5)?,
            row_type: row.try_get(6)?,
            triggers: row.try_get(7)?,
        })
    };
    rows.iter().map(relation).collect()
}

async fn foreign_keys(transaction: &Transaction<'_>) -> Result<Vec<ForeignKey>, LoadError> {
    let rows = transaction.query(FOREIGN_KEYS, &[]).await?;
    let key = |row: &Row| {
        Ok(ForeignKey {
            referenced: row.try_get(0)?,
            referencing: row.try_get(1)?,
            on_delete: row.try_get(2)?,
            on_update: row.try_get(3)?,
        })
    };
    rows.iter().map(key).collect()
}

async fn wordy(transaction: &Transaction<'_>) -> Result<Vec<(Oid, Box<str>)>, LoadError> {
    let rows = transaction.query(WORDY, &[]).await?;
    let column = |row: &Row| Ok((row.try_get(0)?, row.try_get::<_, &str>(1)?.into()));
    rows.iter().map(column).collect()
}

async fn types(transaction: &Transaction<'_>) -> Result<Vec<TypeRow>, LoadError> {
    let rows = transaction.query(TYPES, &[]).await?;
    let type_row = |row: &Row| {
        Ok(TypeRow {
            oid: row.try_get(0)?,
            schema: row.try_get::<_, &str>(1)?.into(),
            name: row.try_get::<_, &str>(2)?.into(),
            kind: letter(row, 3)?,
            of: row.try_get(4)?,
            relation: row.try_get(5)?,
            shadows: row.try_get(6)?,
        })
    };
    rows.iter().map(type_row).collect()
}

async fn functions(transaction: &Transaction<'_>) -> Result<Vec<FunctionRow>, LoadError> {
    let rows = transaction.query(FUNCTIONS, &[]).await?;
    let function = |row: &Row| {
        Ok(FunctionRow {
            schema: row.try_get::<_, &str>(0)?.into(),
            name: row.try_get::<_, &str>(1)?.into(),
            args: row.try_get(2)?,
        })
    };
    rows.iter().map(function).collect()
}

async fn expressions(transaction: &Transaction<'_>, facts: &mut Facts) -> Result<(), LoadError> {
    let mut readers: BTreeMap<(String, Oid), Reader> = BTreeMap::new();
    for row in transaction.query(EXPRESSIONS, &[]).await? {
        let reader = readers.entry((row.try_get(0)?, row.try_get(1)?)).or_default();
        reader.take(&token(&row)?);
    }
    for ((kind, owner), reader) in readers {
        let effects: Effects = reader.finish();
        let into = match kind.as_str() {
            "view" => &mut facts.views,
            "policy" => &mut facts.policies,
            "read" => &mut facts.read_expressions,
            "default" => &mut facts.defaults,
            "write" => &mut facts.write_expressions,
            "domain" => &mut facts.domains,
            _ => return Err(LoadError::Shape),
        };
        into.push((owner, effects));
    }
    Ok(())
}

fn token(row: &Row) -> Result<Token<'_>, LoadError> {
    let (tag, value): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
    let number = || value.parse::<Oid>().map_err(|_| LoadError::Shape);
    Ok(match tag {
        "{" => Token::Node(value),
        ":relid" => Token::Relation(number()?),
        ":resulttype" => Token::ResultType(number()?),
        tag if tag.starts_with('{') => Token::Keyword(number()?),
        tag => Token::Function {
            name: row.try_get::<_, Option<&str>>(4)?.unwrap_or_default(),
            args: row
                .try_get::<_, Option<i16>>(5)?
                .and_then(|args| u16::try_from(args).ok())
                .unwrap_or_default(),
            builtin: row.try_get(6)?,
            immutable: row.try_get(7)?,
            operator: tag == ":opfuncid",
        },
    })
}
