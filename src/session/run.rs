//! The session's state and its main loop: take the next unit from the client, have it answered, wait for more.
//!
//! `run` is called by the listener with a client that has passed the door. Invariants: units are answered in their order, each
//! before the next is looked at; a connection that is not clean is never given back. When the client goes, what it left open is
//! rolled back by closing its connection; a statement that writes is seen through first, as PostgreSQL would.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Poll;
use std::time::Instant;

use bytes::{Buf, Bytes};

use super::acquire::Place;
use super::alarm::Alarm;
use super::cancel::CancelSlot;
use super::client::Client;
use super::costs::Wait;
use super::derived::Derived;
use super::effects::Completion;
use super::exchange::{Run, news};
use super::held::{Held, ServerLost, Turn};
use super::last::Last;
use super::login::{self, Base};
use super::own::Asked;
use super::proxy::{Counters, Proxy, SessionSettings};
use super::registry::{self, Who};
use super::settings::{Settings, Values};
use super::statements::{ClientStatement, Statements};
use super::unit::{self, Unit, UnitError};
use super::wire::Wire;
use super::writes::Pending;
use crate::catalog::Subject;
use crate::catalog::verdict::Verdict;
use crate::freshness::database::Database;
use crate::protocol::backend::{self, Status};
use crate::protocol::error::{Report, Severity};
use crate::protocol::frame::{self, FrameError, HEADER_BYTES};
use crate::protocol::sqlstate;
use crate::route::Pin;
use crate::sql::template;

/// Output beyond this is written before the next unit is looked at.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// Longest wait for a database's first catalog, or of a text that would pin its session for lack of one.
const CATALOG_WAIT: std::time::Duration = std::time::Duration::from_secs(3);

/// Between two cancel requests for the statement of a client that is gone.
const CANCEL_AGAIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Longest wait of a statement for the comparison of a catalog in doubt.
const DOUBT_WAIT: std::time::Duration = std::time::Duration::from_millis(250);

/// What is awaited from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// Its next request: it was told ReadyForQuery, and has sent nothing since.
    Request,
    /// The rest of one.
    Rest,
}

/// What ended a wait.
enum Woken {
    Client,
    Server(Result<Turn, ServerLost>),
    Stopped,
}

/// The session ends: the client said so, is gone, or was told why.
#[derive(Debug)]
pub struct Goodbye;

/// Where the session's transaction block stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Block {
    /// There is none.
    None,
    /// BEGIN was answered and not sent yet: its text.
    Deferred(Bytes),
    /// It failed before, or without, a server: all is refused up to its end.
    Failed,
    /// A server has it; the connection in hand knows its status.
    Open,
}

/// One client's session.
pub struct Session {
    pub(super) id: u64,
    pub(super) proxy: Arc<Proxy>,
    /// The proxy's settings, as they were when the unit in work was taken up.
    pub(super) policy: Arc<SessionSettings>,
    pub(super) place: Place,
    pub(super) presence: registry::Place,
    pub(super) database: Arc<Database>,
    pub(super) wire: Wire,
    pub(super) cancel: CancelSlot,
    pub(super) base: Arc<Base>,
    pub(super) settings: Settings,
    pub(super) derived: Derived,
    pub(super) asked: Asked,
    /// What a connection is to be set to; follows `settings`.
    pub(super) wanted: Arc<Values>,
    pub(super) statements: Statements,
    /// What ParameterStatus has told the client.
    pub(super) reported: BTreeMap<Box<str>, Box<str>>,
    /// The latest doubt about the catalog when the unit in work arrived.
    pub(super) doubts: u64,
    pub(super) block: Block,
    /// The deferred block has been read in: PostgreSQL would have taken a snapshot.
    pub(super) read_early: bool,
    pub(super) held: Option<Box<Held>>,
    pub(super) pin: Option<Pin>,
    pub(super) last: Last,
    pub(super) pending: Pending,
    /// The connection on which it may have drawn from a sequence last.
    pub(super) drew: Option<u64>,
    /// It has read from the primary, and may have seen what is not acknowledged yet.
    pub(super) saw_primary: bool,
    /// An error came in a batch without a Sync: all up to that is dropped.
    pub(super) skipping: bool,
    /// What the client is to send.
    pub(super) awaits: Awaits,
    /// A batch without a Sync failed, and its Sync has not come yet.
    pub(super) failed_before: bool,
    pub(super) completed: Vec<(Completion, Bytes)>,
    /// For a replica that says nothing.
    pub(super) alarm: Alarm,
    /// For a pool that has no connection.
    pub(super) patience: Alarm,
    /// Until when the unit in work waits for connections, once it does.
    pub(super) lease_until: Option<Instant>,
    /// When the unit in work was taken up.
    pub(super) unit_began: Instant,
    /// Bytes at the head of the client's input that belong to the unit in work.
    pub(super) unit_bytes: usize,
}

/// Serves a client until one of both ends it.
pub async fn run(client: Client, proxy: Arc<Proxy>) {
    Counters::count(&proxy.counters.logins);
    proxy.counters.clients.fetch_add(1, Ordering::Relaxed);
    let counted = Arc::clone(&proxy);
    serve(client, proxy).await;
    counted.counters.clients.fetch_sub(1, Ordering::Relaxed);
}

async fn serve(mut client: Client, proxy: Arc<Proxy>) {
    match login::base(&proxy, &client).await {
        Ok(base) => {
            let mut session = Box::new(Session::new(client, proxy, base));
            session.greet();
            session.await_catalog().await;
            Box::pin(session.serve()).await;
        }
        Err(refusal) => {
            let input = std::mem::take(&mut client.input);
            let mut wire = Wire::new(client.stream, input);
            refusal.fatal().encode(&mut wire.out);
            wire.flush().await;
            wire.close().await;
        }
    }
}

impl Session {
    fn new(client: Client, proxy: Arc<Proxy>, base: Arc<Base>) -> Self {
        let settings = Settings::new(base.startup.clone());
        let database = proxy.databases.open(&client.database);
        let derived = Derived::new(&client.database, &client.user, &base.facts, &settings);
        let cancel = proxy.cancels.slot(client.protocol_minor);
        let presence = proxy.registry.enter(Who {
            process: cancel.process(),
            user: Arc::clone(&client.user),
            database: Arc::clone(&client.database),
            peer: client.peer,
        });
        Self {
            id: proxy.sessions.fetch_add(1, Ordering::Relaxed) + 1,
            policy: Arc::clone(&proxy.settings()),
            place: Place {
                user: client.user,
                database: client.database,
            },
            database,
            wire: Wire::new(client.stream, client.input),
            cancel,
            presence,
            derived,
            asked: Asked::default(),
            wanted: Arc::clone(&base.wanted),
            settings,
            statements: Statements::default(),
            reported: base.parameters.clone(),
            doubts: 0,
            block: Block::None,
            read_early: false,
            held: None,
            pin: None,
            last: Last::own(proxy.settings().level),
            pending: Pending::default(),
            drew: None,
            saw_primary: false,
            skipping: false,
            awaits: Awaits::Request,
            failed_before: false,
            completed: Vec::new(),
            alarm: Alarm::default(),
            patience: Alarm::default(),
            lease_until: None,
            unit_began: Instant::now(),
            unit_bytes: 0,
            base,
            proxy,
        }
    }

    /// A statement that came after the catalog was doubted waits until it has been compared, one round trip to the primary, rather
    /// than be judged without it. What is doubted later does not concern it.
    async fn await_verified(&mut self) -> Result<(), Goodbye> {
        self.doubts = self.database.doubts();
        // In a block nothing is decided by the catalog; on a connection of one's own, whether its plans are good.
        let begins = self.held.as_ref().is_none_or(|held| !held.lease.dirty);
        if begins && !self.database.is_verified(self.doubts) {
            let (database, doubts) = (Arc::clone(&self.database), self.doubts);
            let verified = tokio::time::timeout(DOUBT_WAIT, database.verified(doubts));
            // Too late, or cancelled: it goes without.
            let (None | Some(_)) = self.waiting(Wait::Catalog, verified).await?;
        }
        Ok(())
    }

    /// A text that would pin the session for good, and perhaps only because there is no catalog to look its functions up in, waits
    /// for one; false: there is nothing to wait for, or no longer. `until` is set by the first wait.
    pub(super) async fn await_known(
        &mut self,
        until: &mut Option<tokio::time::Instant>,
    ) -> Result<bool, Goodbye> {
        if self.pin.is_some() {
            return Ok(false);
        }
        let until = *until.get_or_insert_with(|| tokio::time::Instant::now() + CATALOG_WAIT);
        let (database, doubts) = (Arc::clone(&self.database), self.doubts);
        let known = tokio::time::timeout_at(until, database.known(doubts));
        Ok(matches!(
            self.waiting(Wait::Catalog, known).await?,
            Some(Ok(true))
        ))
    }

    /// The first client of a database waits for its catalog, rather than have its first statements go without.
    async fn await_catalog(&self) {
        if tokio::time::timeout(CATALOG_WAIT, self.database.first_load())
            .await
            .is_err()
        {
            tracing::debug!(database = %self.database.name, "the catalog is late: served without it");
        }
    }

    fn greet(&mut self) {
        for (name, value) in &self.reported {
            backend::parameter_status(name, value, &mut self.wire.out);
        }
        backend::backend_key_data(self.cancel.process(), self.cancel.secret(), &mut self.wire.out);
        self.ready_for_query();
    }

    async fn serve(&mut self) {
        let ended = loop {
            // Answering takes several times the room that waiting does, and most clients wait most of the time.
            if let Err(goodbye) = Box::pin(self.serve_input()).await {
                break goodbye;
            }
            self.wire.flush().await;
            if self.wire.gone {
                break Goodbye;
            }
            if let Err(goodbye) = self.wait().await {
                break goodbye;
            }
        };
        let Goodbye = ended;
        self.wire.flush().await;
        self.end().await;
        self.wire.close().await;
    }

    /// Serves every whole unit that has arrived.
    async fn serve_input(&mut self) -> Result<(), Goodbye> {
        loop {
            self.renew_policy();
            let unit = match unit::next(&self.wire.input, self.policy.unit_limits) {
                Ok(Some(unit)) => unit,
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.refuse(error)),
            };
            self.unit_bytes = unit.bytes();
            self.unit_began = Instant::now();
            self.lease_until = None;
            self.cancel.begin_unit();
            self.presence.begin_unit(self.unit_began);
            self.awaits = Awaits::Rest;
            self.await_verified().await?;
            match unit {
                // After an error in a batch all is dropped up to its Sync.
                Unit::Query(_) | Unit::Function(_) if self.skipping => {}
                Unit::Query(frame) => self.query(frame).await?,
                Unit::Function(frame) => self.function(frame).await?,
                Unit::Batch(frames, end) => self.batch(&frames, end).await?,
                Unit::Stray(_) => {}
                Unit::Terminate => return Err(Goodbye),
            }
            self.end_unit();
            self.wire.consume(std::mem::take(&mut self.unit_bytes));
            if self.wire.gone {
                return Err(Goodbye);
            }
            if self.wire.out.len() > OUT_BYTES_MAX {
                self.wire.flush().await;
            }
        }
    }

    fn renew_policy(&mut self) {
        let latest = self.proxy.settings();
        if !Arc::ptr_eq(&latest, &self.policy) {
            self.policy = Arc::clone(&latest);
        }
    }

    fn end_unit(&self) {
        let (by, took) = self.presence.end_unit(self.status(), self.pin);
        self.proxy.latency(by).add(self.id, took);
    }

    /// Waits until the client has more to say; a server connection in hand may say something meanwhile.
    async fn wait(&mut self) -> Result<(), Goodbye> {
        // It may have come together with the end of the unit before.
        if self.held.as_deref().is_some_and(has_message) {
            return self.hear_server();
        }
        // Who has a server connection is watched by the server, and who is in the middle of a request by nobody.
        let is_idle = self.held.is_none() && self.awaits == Awaits::Request && self.wire.input.is_empty();
        let (idle_max, code, kind) = if self.block == Block::None {
            let code = sqlstate::IDLE_SESSION_TIMEOUT;
            (self.derived.idle_max, code, "idle-session")
        } else {
            let code = sqlstate::IDLE_IN_TRANSACTION_TIMEOUT;
            (self.derived.idle_in_block_max, code, "idle-in-transaction")
        };
        let woken = match idle_max.filter(|_| is_idle) {
            Some(idle_max) => tokio::time::timeout(idle_max, self.woken()).await,
            None => Ok(self.woken().await),
        };
        match woken {
            Ok(Woken::Server(Ok(Turn::Server))) => self.hear_server(),
            Ok(Woken::Client | Woken::Server(Ok(_))) => Ok(()),
            Ok(Woken::Server(Err(lost))) => Err(self.fatal(sqlstate::ADMIN_SHUTDOWN, lost.to_string())),
            Ok(Woken::Stopped) => Err(self.farewell()),
            Err(_) => Err(self.fatal(code, format!("terminating connection due to {kind} timeout"))),
        }
    }

    /// Waits for whatever comes first.
    async fn woken(&mut self) -> Woken {
        if self.held.is_none() {
            self.wire.shrink();
        }
        // A transaction that is open, in a block or in a batch without its Sync, may be finished first.
        let may_stop =
            self.status() == Status::Idle && self.held.as_ref().is_none_or(|held| !held.lease.dirty);
        std::future::poll_fn(|cx| {
            if may_stop && self.presence.poll_stopped(cx).is_ready() {
                return Poll::Ready(Woken::Stopped);
            }
            match &mut self.held {
                Some(held) => held.poll_turn(cx, Some(&mut self.wire)).map(Woken::Server),
                None => self.wire.poll_read(cx).map(|()| Woken::Client),
            }
        })
        .await
    }

    /// Takes what a server says unasked: notices, notifications, parameters, or that it ends the connection.
    fn hear_server(&mut self) -> Result<(), Goodbye> {
        let Some(held) = &mut self.held else {
            return Ok(());
        };
        loop {
            let next = frame::next(&held.lease.input, 0, crate::protocol::scanner::CONTROL_BYTES_MAX);
            let Ok(Some(frame)) = next else {
                return match next {
                    Ok(_) => Ok(()),
                    Err(error) => Err(self.fatal(sqlstate::PROTOCOL_VIOLATION, error.to_string())),
                };
            };
            let message = held.lease.input.split_to(frame.len).freeze();
            match frame.tag {
                b'S' => {
                    held.note_parameter(&message[HEADER_BYTES..]);
                    if self.is_news(&message[HEADER_BYTES..]) {
                        self.wire.out.extend_from_slice(&message);
                    }
                    return self.hear_server();
                }
                b'N' | b'A' => self.wire.out.extend_from_slice(&message),
                b'E' => {
                    self.wire.out.extend_from_slice(&message);
                    return Err(Goodbye);
                }
                tag => {
                    return Err(self.fatal(
                        sqlstate::PROTOCOL_VIOLATION,
                        format!("the server sent message type {tag:#04x}, which answers nothing"),
                    ));
                }
            }
        }
    }

    /// Gives back or closes what the session holds.
    async fn end(&mut self) {
        let undisturbed = self.cancel.clear().await;
        if let Some(mut held) = self.held.take() {
            held.lease.dirty |= !undisturbed;
            self.abandon(held);
        }
    }

    /// Is a ParameterStatus one that the client has not seen? Then it counts as seen from now on.
    pub(super) fn is_news(&mut self, body: &[u8]) -> bool {
        let Some((name, value)) = news(body, &self.reported) else {
            return false;
        };
        self.reported.insert(name.into(), value.into());
        true
    }

    /// What follows from the settings is derived anew.
    pub(super) fn settings_changed(&mut self) {
        let (user, database) = (&self.place.user, &self.place.database);
        self.derived = Derived::new(database, user, &self.base.facts, &self.settings);
        self.asked = Asked::of(&self.settings);
        let wanted = self.settings.wanted();
        if *self.wanted != wanted {
            self.wanted = if *self.base.wanted == wanted {
                Arc::clone(&self.base.wanted)
            } else {
                Arc::new(wanted)
            };
        }
    }

    /// The verdict on a text, under the search path and the catalog of now.
    pub(super) fn verdict(&self, sql: &Bytes) -> Arc<Verdict> {
        if !self.derived.reads_as_written(sql) {
            return Database::unread();
        }
        let shared = template(sql).map_or_else(|| sql.clone(), Bytes::from);
        let path = Arc::clone(&self.derived.path);
        self.database
            .verdict(&Subject { path, sql: shared }, sql, self.doubts)
    }

    /// The verdict on a prepared statement, under the search path and the catalog of now: the last one, while that holds.
    pub(super) fn verdict_of(&self, statement: &ClientStatement) -> Arc<Verdict> {
        let sql = &statement.parsed.sql;
        let mut judged = statement.judged.lock();
        if let Some((path, verdict)) = &*judged
            && Arc::ptr_eq(path, &self.derived.path)
            && self.derived.reads_as_written(sql)
            && self.database.holds(verdict, self.doubts)
        {
            return Arc::clone(verdict);
        }
        let verdict = self.verdict(sql);
        *judged = Some((Arc::clone(&self.derived.path), Arc::clone(&verdict)));
        verdict
    }

    /// The status that ReadyForQuery tells the client.
    pub(super) fn status(&self) -> Status {
        match &self.block {
            Block::None => Status::Idle,
            Block::Deferred(_) => Status::InTransaction,
            Block::Failed => Status::Failed,
            Block::Open => self.held.as_ref().map_or(Status::Failed, |held| held.status),
        }
    }

    pub(super) fn ready_for_query(&mut self) {
        self.awaits = Awaits::Request;
        backend::ready_for_query(self.status(), &mut self.wire.out);
    }

    /// The client is gone in the middle of a unit: a statement that writes is seen through, and one for whose answer others wait; any
    /// other is cancelled. A request may come before its server has begun, and is ignored then; so it is repeated until the unit is over.
    pub(super) fn client_vanished(&mut self, run: &Run) {
        self.alarm.set(Instant::now() + CANCEL_AGAIN);
        if self.pending.is_empty() && !run.is_shared() {
            self.forward_cancel();
        }
    }

    /// Cancels what the session runs now.
    pub(super) fn forward_cancel(&self) {
        // Begun here and not in its task, so that the connection is not given back, to be hit by it, before it is taken.
        if let Some(request) = self.cancel.request() {
            let pools = Arc::clone(&self.proxy.pools);
            self.proxy.tasks.spawn(async move { request.end(&pools).await });
        }
    }

    /// Tells the client why the session ends.
    pub(super) fn fatal(&mut self, code: &'static str, message: impl Into<String>) -> Goodbye {
        Report::new(Severity::Fatal, code, message).encode(&mut self.wire.out);
        Goodbye
    }

    fn farewell(&mut self) -> Goodbye {
        self.fatal(
            sqlstate::ADMIN_SHUTDOWN,
            "terminating connection due to administrator command",
        )
    }

    fn refuse(&mut self, error: UnitError) -> Goodbye {
        let code = match error {
            UnitError::Frame(FrameError::TooLong { .. }) => sqlstate::PROGRAM_LIMIT_EXCEEDED,
            UnitError::Frame(FrameError::TooShort { .. }) | UnitError::UnknownType(_) => {
                sqlstate::PROTOCOL_VIOLATION
            }
        };
        self.wire.input.advance(self.wire.input.len());
        self.fatal(code, error.to_string())
    }
}

/// Has the server said a whole message that nobody has heard? One that is too long counts too.
fn has_message(held: &Held) -> bool {
    let next = frame::next(&held.lease.input, 0, crate::protocol::scanner::CONTROL_BYTES_MAX);
    !matches!(next, Ok(None))
}
