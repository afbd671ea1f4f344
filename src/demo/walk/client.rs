//! A client of the proxy, as an application would be one.
//!
//! Used by the steps. It owns the task that drives its connection, so that dropping it hangs up. It knows the proxy by
//! its address alone: what it speaks to may as well be a server, and the steps must then notice.
//! Its futures are as cancel safe as tokio-postgres's: a dropped query goes on on the server.

use std::ops::Deref;

use tokio::task::JoinSet;
use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Client, Config, Error, NoTls, Row, SimpleQueryMessage};

use super::ProxyAddress;
use crate::demo::cluster::SUPERUSER;

/// The rows of a simple query, as text.
pub(super) type Answer = Vec<Vec<Option<String>>>;

/// The rows of a prepared query, in the format that the driver chose.
pub(super) type RawAnswer = Vec<Vec<Option<Vec<u8>>>>;

/// A logged-in client; dropping it closes its connection.
pub(super) struct ProxyClient {
    client: Client,
    _driver: JoinSet<()>,
}

impl ProxyClient {
    pub(super) async fn connect(proxy: &ProxyAddress, database: &str) -> Result<Self, Error> {
        let mut config = Config::new();
        config
            .host(&proxy.host)
            .port(proxy.port)
            .user(SUPERUSER)
            .dbname(database)
            .application_name("pgladder-demo");
        let (client, connection) = config.connect(NoTls).await?;
        let mut driver = JoinSet::new();
        // A driver's error also reaches every call on its client.
        driver.spawn(async move { drop(connection.await) });
        Ok(Self {
            client,
            _driver: driver,
        })
    }
}

impl Deref for ProxyClient {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Asks by the simple protocol.
pub(super) async fn answer(client: &Client, sql: &str) -> Result<Answer, Error> {
    let messages = client.simple_query(sql).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    Ok(rows
        .map(|row| (0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        .collect())
}

/// The bytes of a prepared query's rows, compared without being understood.
pub(super) fn raw(rows: &[Row]) -> RawAnswer {
    let bytes = |row: &Row| {
        let columns = (0..row.len()).map(|at| row.get::<_, Option<Bytes>>(at).map(|bytes| bytes.0));
        columns.collect()
    };
    rows.iter().map(bytes).collect()
}

/// A value of any type, as it came.
struct Bytes(Vec<u8>);

impl FromSql<'_> for Bytes {
    fn from_sql(_: &Type, raw: &[u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(raw.to_vec()))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}
