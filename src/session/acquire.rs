//! Borrowing a server connection: from the primary, or from a replica that has replayed what a read needs.
//!
//! Called by the session when a unit needs a server. Invariants: a replica's connection is returned only when its position is
//! known, on this very connection, to have passed the fence, in the era of the fence; whatever the session has set is in force
//! before the unit is sent. Cancel safe: a dropped borrowing leaves nothing behind.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::held::{AskError, Held, ServerLost};
use super::last::Reason;
use super::proxy::Proxy;
use super::sequences::LOOKS_MAX;
use super::settings::{Apply, Values, difference};
use crate::cluster::{ClusterView, NodeId, Role};
use crate::freshness::database::Begun;
use crate::freshness::fence::Fence;
use crate::pool::{Drawn, LoginFacts, PoolError, PoolKey};
use crate::protocol::error::{self, Report, Severity};
use crate::protocol::lsn::Lsn;
use crate::protocol::sqlstate;
use crate::sql::ident::{quote_ident, quote_literal};

/// Longest look for what a statement waits for.
const LOOK_LIMIT: std::time::Duration = std::time::Duration::from_millis(500);

/// Why a unit could not be run.
#[derive(Debug)]
pub enum Refusal {
    /// The proxy's own answer.
    Proxy(Box<Report>),
    /// A server's ErrorResponse, whole.
    Server(Bytes),
}

impl Refusal {
    /// The server connection was lost.
    pub fn lost(lost: &ServerLost) -> Self {
        Self::Proxy(Box::new(Report::error(
            sqlstate::CONNECTION_FAILURE,
            lost.to_string(),
        )))
    }

    /// A cancel request came while the unit waited.
    pub fn cancelled() -> Self {
        Self::Proxy(Box::new(Report::error(
            sqlstate::QUERY_CANCELED,
            "canceling statement due to user request",
        )))
    }

    /// Its time was over while the unit waited.
    pub fn timed_out() -> Self {
        Self::Proxy(Box::new(Report::error(
            sqlstate::QUERY_CANCELED,
            "canceling statement due to statement timeout",
        )))
    }

    /// The same as the end of a connection.
    #[must_use]
    pub fn fatal(self) -> Self {
        match self {
            Self::Proxy(report) => Self::Proxy(Box::new(Report {
                severity: Severity::Fatal,
                ..*report
            })),
            Self::Server(frame) => Self::Server(error::as_fatal(&frame).freeze()),
        }
    }

    /// Appends the ErrorResponse.
    pub fn encode(&self, out: &mut BytesMut) {
        match self {
            Self::Proxy(report) => report.encode(out),
            Self::Server(frame) => out.extend_from_slice(frame),
        }
    }
}

impl From<PoolError> for Refusal {
    fn from(error: PoolError) -> Self {
        let code = match &error {
            PoolError::Refused(refusal) => return Self::Server(refusal.frame.clone()),
            PoolError::QueueFull { .. } | PoolError::TimedOut | PoolError::TooManyConnections { .. } => {
                sqlstate::TOO_MANY_CONNECTIONS
            }
            PoolError::Connect(_) | PoolError::UnknownNode(_) => sqlstate::CANNOT_CONNECT,
        };
        Self::Proxy(Box::new(Report::error(code, error.to_string())))
    }
}

impl From<AskError> for Refusal {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Refused(frame) => Self::Server(frame),
            AskError::Lost(lost) => Self::lost(&lost),
        }
    }
}

/// Whose connections are borrowed.
#[derive(Debug, Clone)]
pub struct Place {
    /// The role that logs in.
    pub user: Arc<str>,
    /// The database.
    pub database: Arc<str>,
}

impl Place {
    /// A connection to the primary, waiting for one to be there.
    pub async fn primary(&self, proxy: &Proxy) -> Result<Box<Held>, Refusal> {
        let deadline = std::time::Instant::now() + proxy.settings().primary_wait;
        let Some(primary) = proxy.cluster.wait_for_primary(deadline).await else {
            let view = proxy.cluster.view();
            let report = Report::error(
                sqlstate::CANNOT_CONNECT_NOW,
                "no primary is available to pgladder",
            );
            return Err(Refusal::Proxy(Box::new(match &view.conflict {
                Some(conflict) => report.detail(conflict.clone()),
                None => report,
            })));
        };
        Ok(self.lease(proxy, primary, false).await?)
    }

    /// A connection to the primary on which `wanted` holds, where an idle one is; else any.
    pub async fn primary_where(
        &self,
        proxy: &Proxy,
        wanted: impl Fn(&Held) -> bool,
    ) -> Result<Box<Held>, Refusal> {
        let mut found = self.primary(proxy).await?;
        // Those that were looked at are kept until the end, so that none is looked at twice.
        let mut looked_at = Vec::new();
        while !wanted(&found) && looked_at.len() < LOOKS_MAX {
            let now = Instant::now();
            let Ok(next) = self.lease_by(proxy, found.node, false, now).await else {
                break;
            };
            looked_at.push(std::mem::replace(&mut found, next));
        }
        Ok(found)
    }

    /// Does what runs on this replica's connection wait for a lock? Not where it cannot be told soon.
    pub(super) async fn is_blocked(&self, proxy: &Proxy, held: &Held) -> bool {
        let sql = format!(
            "SELECT 1 FROM pg_catalog.pg_stat_activity a WHERE a.pid OPERATOR(pg_catalog.=) {} \
             AND a.wait_event_type OPERATOR(pg_catalog.=) 'Lock'",
            held.lease.process
        );
        let asked = async {
            let mut other = self.lease(proxy, held.node, true).await.ok()?;
            other.ask(&sql).await.ok()
        };
        let rows = tokio::time::timeout(LOOK_LIMIT, asked).await;
        rows.is_ok_and(|rows| rows.is_some_and(|rows| !rows.is_empty()))
    }

    /// A connection to a node, in the time that waiting for one may take.
    pub(super) async fn lease(
        &self,
        proxy: &Proxy,
        node: NodeId,
        is_replica: bool,
    ) -> Result<Box<Held>, PoolError> {
        let deadline = Instant::now() + proxy.settings().lease_wait;
        self.lease_by(proxy, node, is_replica, deadline).await
    }

    async fn lease_by(
        &self,
        proxy: &Proxy,
        node: NodeId,
        is_replica: bool,
        deadline: Instant,
    ) -> Result<Box<Held>, PoolError> {
        let outstanding = proxy.cluster.track(node);
        let lease = proxy.pools.lease(&self.key(node), deadline).await?;
        let address = proxy.node_name(node);
        Ok(Box::new(Held::new(lease, address, is_replica, outstanding)))
    }

    /// Which pool lends connections to a node.
    pub(super) fn key(&self, node: NodeId) -> PoolKey {
        PoolKey {
            node,
            database: Arc::clone(&self.database),
            user: Arc::clone(&self.user),
        }
    }
}

/// The replica to ask: one that is known to have passed the fence, else any.
pub(super) fn candidate(proxy: &Proxy, begun: &Begun) -> Result<NodeId, Reason> {
    let view = proxy.cluster.view();
    if view.era != begun.era {
        return Err(Reason::FencePending);
    }
    let Fence::At(lsn) = begun.fence else {
        proxy.cluster.request_probe();
        return Err(Reason::FencePending);
    };
    let replica = |ok: &dyn Fn(Lsn) -> bool| {
        proxy.cluster.pick(&view, |node| {
            node.role == Role::Replica && node.sample.number > 0 && ok(node.sample.lsn)
        })
    };
    replica(&|replayed| replayed >= lsn)
        .or_else(|| replica(&|_| true))
        .ok_or(Reason::NoReplica)
}

/// May a replica's connection serve the read, as far as that is known without asking?
pub(super) fn is_admitted(held: &Held, proxy: &Proxy, begun: &Begun) -> bool {
    let view = proxy.cluster.view();
    is_replica_of(held, &view)
        && known_position(held, &view).is_some_and(|replayed| begun.fence.admits(replayed))
        && view.era == begun.era
}

/// A replica's connection if it may serve the read, which it may have to be asked; else why not, and the primary has to.
pub(super) async fn ask_admitted(
    mut held: Box<Held>,
    proxy: &Proxy,
    begun: &Begun,
) -> Result<Box<Held>, Reason> {
    let view = proxy.cluster.view();
    if !is_replica_of(&held, &view) {
        return Err(Reason::NoReplica);
    }
    if !admits(&mut held, &view, begun.fence).await? {
        return Err(Reason::ReplicasBehind);
    }
    if proxy.cluster.view().era != begun.era {
        return Err(Reason::FencePending);
    }
    Ok(held)
}

/// Was it a replica of this very cluster when the connection was opened?
fn is_replica_of(held: &Held, view: &ClusterView) -> bool {
    let login = &held.lease.login;
    let same_system = login.system_identifier.is_none() || login.system_identifier == view.system_identifier;
    login.in_recovery && same_system
}

/// How far its replica has replayed at least, as far as it is known without asking. A sample counts only if it was sent after
/// the connection was open.
fn known_position(held: &Held, view: &ClusterView) -> Option<Lsn> {
    let sample = view.node(held.node).map(|node| node.sample);
    let sampled = sample.filter(|sample| sample.number > held.lease.opened_at_sample);
    held.lease.replayed.max(sampled.map(|sample| sample.lsn))
}

/// Has the connection's replica replayed the fence? Where that is not known, it is asked on the connection itself.
async fn admits(held: &mut Held, view: &ClusterView, fence: Fence) -> Result<bool, Reason> {
    if known_position(held, view).is_some_and(|replayed| fence.admits(replayed)) {
        return Ok(true);
    }
    let rows = Box::pin(held.ask("SELECT pg_catalog.pg_last_wal_replay_lsn()"))
        .await
        .map_err(|_| Reason::NoReplica)?;
    let answer = rows.first().and_then(Option::as_ref);
    let text = answer.and_then(|text| std::str::from_utf8(text).ok());
    let replayed = text.and_then(|text| text.parse::<Lsn>().ok());
    held.lease.replayed = held.lease.replayed.max(replayed);
    Ok(replayed.is_some_and(|replayed| fence.admits(replayed)))
}

/// Are a session's settings in force on a borrowed connection, and nobody else's traces left there?
pub(super) fn is_brought_to(held: &Held, session: u64, wanted: &Arc<Values>) -> bool {
    let brought = held.lease.brought_to.as_ref();
    held.lease.tainted_by.is_none_or(|by| by == session)
        && brought.is_some_and(|brought| Arc::ptr_eq(brought, wanted))
}

/// Brings a borrowed connection to a session's settings, where the node's own defaults differ from the primary's to those.
/// What `is_brought_to` finds done needs no call.
pub(super) async fn bring_to(
    held: &mut Held,
    session: u64,
    wanted: &Arc<Values>,
    primary: &LoginFacts,
) -> Result<(), AskError> {
    if held.lease.tainted_by.is_some_and(|by| by != session) {
        held.ask("DISCARD ALL").await?;
        let connection = &mut held.lease;
        connection.settings.clear();
        connection.prepared.clear();
        connection.tainted_by = None;
        connection.drawn = Drawn::ByNobody;
        connection.brought_to = None;
    }
    let mut all = Cow::Borrowed(&**wanted);
    for (name, value) in differing(primary, &held.lease.login) {
        let name = name.to_ascii_lowercase();
        all.to_mut().entry(name.into()).or_insert_with(|| value.into());
    }
    let steps = difference(&held.lease.settings, &all);
    if !steps.is_empty() {
        let statements: Vec<String> = steps.iter().map(statement).collect();
        held.ask(&statements.join("; ")).await?;
        held.lease.settings = all.into_owned();
    }
    held.lease.brought_to = Some(Arc::clone(wanted));
    Ok(())
}

/// The defaults of the session's login that are others on this connection: of a node with other settings, or because the role's
/// were changed between the two.
fn differing<'a>(primary: &'a LoginFacts, here: &'a LoginFacts) -> impl Iterator<Item = (&'a str, &'a str)> {
    let on_off = |on: bool| if on { "on" } else { "off" };
    let defaults = |facts: &'a LoginFacts| {
        [
            ("search_path", &*facts.search_path),
            (
                "default_transaction_isolation",
                &*facts.default_transaction_isolation,
            ),
            (
                "default_transaction_read_only",
                on_off(facts.default_transaction_read_only),
            ),
        ]
    };
    let settings = primary.settings.iter();
    settings
        .filter(|(name, value)| here.settings.get(*name) != Some(value))
        .map(|(name, value)| (&**name, &**value))
        .chain(
            defaults(primary)
                .into_iter()
                .zip(defaults(here))
                .filter(|(theirs, mine)| theirs != mine)
                .map(|(theirs, _)| theirs),
        )
}

fn statement(step: &Apply<'_>) -> String {
    match step {
        Apply::Set(name, value) => format!(
            "SELECT pg_catalog.set_config({}, {}, false)",
            quote_literal(name),
            quote_literal(value)
        ),
        Apply::Reset("session_authorization") => "RESET SESSION AUTHORIZATION".to_owned(),
        Apply::Reset(name) => {
            let parts: Vec<String> = name.split('.').map(quote_ident).collect();
            format!("RESET {}", parts.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_value_is_quoted() {
        assert_eq!(
            statement(&Apply::Set("app.user", "o'neil\\")),
            r"SELECT pg_catalog.set_config('app.user',  E'o''neil\\', false)"
        );
        assert_eq!(
            statement(&Apply::Reset("app.odd name")),
            "RESET \"app\".\"odd name\""
        );
        assert_eq!(
            statement(&Apply::Reset("session_authorization")),
            "RESET SESSION AUTHORIZATION"
        );
    }
}
