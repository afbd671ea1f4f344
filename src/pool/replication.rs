//! A connection for logical replication: the stream, TLS and login of the pools, with the parameters of a walsender.
//!
//! Called by `stream`, which owns what comes back and frames it itself; no pool ever holds it. Invariant: the whole attempt is under
//! one timeout, and the login's proofs are those of every other server connection. Not cancel safe: a dropped attempt closes what
//! it opened, which is what is wanted.

use std::sync::Arc;
use std::time::Duration;

use super::address::Address;
use super::connect;
use super::credentials::Credentials;
use super::error::ConnectError;
use super::facts::LoginFacts;
use super::login::{self, Identity};
use super::stream::ServerStream;
use super::tls::ServerTls;

/// How a walsender is reached.
#[derive(Clone)]
pub(crate) struct Walsenders {
    /// TLS, as for the pools.
    pub tls: ServerTls,
    /// Secrets, as for the pools.
    pub credentials: Arc<dyn Credentials>,
    /// The role.
    pub user: Arc<str>,
    /// For connecting, TLS and login together.
    pub timeout: Duration,
    /// What the server is to think of silence: after this time without a word it ends the connection, and the slot with it.
    pub sender_timeout: Duration,
}

impl Walsenders {
    /// Logs in to a database for logical replication; also says what the login showed of the server.
    pub async fn open(
        &self,
        address: &Address,
        database: &str,
    ) -> Result<(ServerStream, LoginFacts), ConnectError> {
        let options = format!("-c wal_sender_timeout={}ms", self.sender_timeout.as_millis());
        let further = [("replication", "database"), ("options", options.as_str())];
        let attempt = async {
            let mut stream = connect::open(address, &self.tls).await?;
            let identity = Identity {
                user: &self.user,
                database,
                application_name: "pgladder stream",
                further: &further,
                secret: self
                    .credentials
                    .secret(&self.user, database, address.host(), address.port()),
                binding: connect::binding(&stream),
            };
            let facts = login::login(&mut stream, &identity).await?.facts;
            Ok((stream, facts))
        };
        tokio::time::timeout(self.timeout, Box::pin(attempt))
            .await
            .map_err(|_| ConnectError::TimedOut {
                address: address.to_string(),
                limit: self.timeout,
            })?
    }
}
