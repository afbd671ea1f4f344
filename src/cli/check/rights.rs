//! What the control user may not do, and what each missing right costs.
//!
//! Asked on the primary, because replicas have its catalog. Rights are looked up, not tried, except for `auth.query`, whose text
//! is the operator's own and says nothing of what it needs.

use std::fmt;

use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::cli::control::{self, Login};
use crate::config::{AuthMethod, Config, Endpoint};

/// A right that is missing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Missing {
    /// How it is given.
    grant: String,
    /// What goes on without it.
    cost: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.grant, self.cost)
    }
}

pub(super) fn count(rights: usize) -> String {
    match rights {
        0 => "no right".to_owned(),
        1 => "1 right".to_owned(),
        many => format!("{many} rights"),
    }
}

/// Functions that the poll calls: right, and what it costs to lack it.
const FUNCTIONS: [(&str, &str); 3] = [
    (
        "pg_catalog.pg_control_system()",
        "nodes cannot be told from those of another cluster, so none is used",
    ),
    (
        "pg_catalog.pg_control_checkpoint()",
        "the timeline of a replica cannot be told, so none is used",
    ),
    (
        "pg_catalog.pg_logical_emit_message(boolean, text, text)",
        "after a write to an otherwise idle primary, replicas may be passed over for its tables for many seconds",
    ),
];

/// All that is missing, the gravest first.
pub(super) async fn missing(
    config: &Config,
    primary: &Endpoint,
    drivers: &mut JoinSet<()>,
) -> anyhow::Result<Vec<Missing>> {
    let login = Login {
        node: primary,
        database: &config.cluster.control_database,
        user: &config.cluster.control_user,
    };
    let client = control::open(config, login, drivers).await?;
    let in_words = |error: tokio_postgres::Error| control::in_words(&error);
    let mut missing = functions(&client).await.map_err(in_words)?;
    missing.extend(monitor(&client).await.map_err(in_words)?);
    missing.extend(databases(&client).await.map_err(in_words)?);
    missing.extend(auth_query(config, &client).await);
    let user = crate::sql::ident::quote_ident(&config.cluster.control_user);
    for right in &mut missing {
        right.grant = right.grant.replace("{user}", &user);
    }
    Ok(missing)
}

async fn functions(client: &Client) -> Result<Vec<Missing>, tokio_postgres::Error> {
    const MAY: &str = "SELECT pg_catalog.has_function_privilege($1, 'EXECUTE')";
    let mut missing = Vec::new();
    for (function, cost) in FUNCTIONS {
        if !client.query_one(MAY, &[&function]).await?.try_get::<_, bool>(0)? {
            missing.push(Missing {
                grant: format!("GRANT EXECUTE ON FUNCTION {function} TO {{user}}"),
                cost: cost.to_owned(),
            });
        }
    }
    Ok(missing)
}

async fn monitor(client: &Client) -> Result<Option<Missing>, tokio_postgres::Error> {
    const MAY: &str = "SELECT pg_catalog.pg_has_role('pg_monitor', 'USAGE')";
    let may: bool = client.query_one(MAY, &[]).await?.try_get(0)?;
    Ok((!may).then(|| Missing {
        grant: "GRANT pg_monitor TO {user}".to_owned(),
        cost: "after a failover a replica is passed over until its next restartpoint, because only that tells its timeline"
            .to_owned(),
    }))
}

async fn databases(client: &Client) -> Result<Vec<Missing>, tokio_postgres::Error> {
    const CLOSED: &str = "SELECT datname::text FROM pg_catalog.pg_database \
        WHERE datallowconn AND NOT datistemplate \
            AND NOT pg_catalog.has_database_privilege(oid, 'CONNECT') ORDER BY 1";
    let rows = client.query(CLOSED, &[]).await?;
    let closed = rows.iter().map(|row| {
        let name: String = row.try_get(0)?;
        Ok(Missing {
            grant: format!(
                "GRANT CONNECT ON DATABASE {} TO {{user}}",
                crate::sql::ident::quote_ident(&name)
            ),
            cost: "no catalog of it: nothing of it is cached, and nothing is read from replicas".to_owned(),
        })
    });
    closed.collect()
}

/// Asks for the control user itself.
async fn auth_query(config: &Config, client: &Client) -> Option<Missing> {
    let query = config.auth.query.as_deref()?;
    if config.auth.method != AuthMethod::Scram {
        return None;
    }
    let error = client.query(query, &[&config.cluster.control_user]).await.err()?;
    Some(Missing {
        grant: format!("auth.query: {:#}", control::in_words(&error)),
        cost: "only users of [[auth.user]] and auth.file can log in".to_owned(),
    })
}
