//! The beginning of a session: what the server says of itself, with the client's startup parameters in force.
//!
//! Called once per session. Invariant: the client sees the parameters of a primary on which its role could log in to its
//! database and its startup parameters were accepted; a refusal arrives in the server's own words. What was learnt is used for
//! further logins of the same role, database and parameters for a few seconds. Cancel safe: a dropped login closes what it held.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{BufMut, BytesMut};

use super::acquire::{Place, Refusal};
use super::client::Client;
use super::held::{AskError, Held};
use super::proxy::{LoginKey, Proxy};
use super::settings::{Settings, Values};
use crate::pool::LoginFacts;
use crate::sql::ident::quote_literal;

/// What a session starts from.
#[derive(Debug)]
pub struct Base {
    /// What held on the primary's connection right after its own login.
    pub facts: LoginFacts,
    /// The client's startup parameters, as the server shows them.
    pub startup: Values,
    /// What a connection is to be set to for a session that has changed nothing: the same value for all of them.
    pub wanted: Arc<Values>,
    /// What ParameterStatus says with these in force.
    pub parameters: BTreeMap<Box<str>, Box<str>>,
}

/// Learns what the session starts from.
pub(super) async fn base(proxy: &Proxy, client: &Client) -> Result<Arc<Base>, Refusal> {
    let key = key(client);
    if let Some(known) = proxy.known_login(&key) {
        return Ok(known);
    }
    let generation = proxy.login_generation();
    let place = Place {
        user: Arc::clone(&client.user),
        database: Arc::clone(&client.database),
    };
    let mut held = place.primary(proxy).await?;
    let startup = apply(&mut held, &client.parameters).await?;
    let base = Arc::new(Base {
        facts: held.lease.login.clone(),
        wanted: Arc::new(Settings::new(startup.clone()).wanted()),
        startup,
        parameters: held.lease.parameters.clone(),
    });
    proxy.keep_login(key, Arc::clone(&base), generation);
    Ok(base)
}

fn key(client: &Client) -> LoginKey {
    let mut key = BytesMut::new();
    let pairs = client.parameters.iter().flat_map(|(name, value)| [name, value]);
    for part in [&*client.user, &*client.database]
        .into_iter()
        .chain(pairs.map(|part| &**part))
    {
        key.put_u32(u32::try_from(part.len()).expect("a startup packet is short"));
        key.put_slice(part.as_bytes());
    }
    key.freeze()
}

/// Puts the startup parameters in force on the connection; returns them as the server shows them.
async fn apply(held: &mut Held, parameters: &BTreeMap<Box<str>, Box<str>>) -> Result<Values, Refusal> {
    let mut wanted = parameters.clone();
    // A client that gives no name has none; the connection's own is the proxy's.
    wanted
        .entry("application_name".into())
        .or_insert_with(|| "".into());
    let calls = wanted.iter().map(|(name, value)| {
        let (name, value) = (quote_literal(name), quote_literal(value));
        format!("pg_catalog.set_config({name}, {value}, false)")
    });
    let statements: Vec<String> = calls.map(|call| format!("SELECT {call}")).collect();
    // The connection may carry another session's settings: all of them go first.
    let sql = format!(
        "RESET SESSION AUTHORIZATION; RESET ALL; {}",
        statements.join("; ")
    );
    let shown = held.ask(&sql).await.map_err(|error| match error {
        AskError::Refused(frame) => Refusal::Server(frame),
        AskError::Lost(lost) => Refusal::lost(&lost),
    })?;
    let names = wanted.into_keys();
    let values = shown.into_iter().flatten();
    let startup: Values = names
        .zip(values)
        .map(|(name, value)| (name, String::from_utf8_lossy(&value).into()))
        .collect();
    held.lease.settings.clone_from(&startup);
    held.lease.brought_to = None;
    Ok(startup)
}
