//! Where a statement goes, and why: one pure decision over the statement's verdict and the session's state.
//!
//! Called by the session before it borrows a server connection. Invariant: a replica is chosen only for what is proven
//! to be a plain read, and every answer carries its reason. It does not choose the node: which replica has replayed far
//! enough is known only when a connection is in hand.

use std::fmt;

use crate::catalog::verdict::{Verdict, Why};
use crate::sql::statement::RouteHint;

/// What the session adds to the decision.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionFacts {
    /// A server connection is held by an open transaction.
    pub in_transaction: bool,
    /// The session keeps its server connection, and why.
    pub pinned: Option<Pin>,
    /// `route` of the statement's hint, else of `SET pgladder.route`.
    pub asked: Option<RouteHint>,
    /// The effective isolation level is READ COMMITTED.
    pub read_committed: bool,
    /// It has a temporary schema: its names may stand for other tables than the catalog's.
    pub temporary_schema: bool,
    /// `standard_conforming_strings` is off.
    pub odd_strings: bool,
}

/// Why a session keeps its server connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pin {
    /// It listens on a channel.
    Listens,
    /// It has temporary tables.
    Temporary,
    /// It holds a session-level advisory lock.
    AdvisoryLock,
    /// It has a cursor WITH HOLD.
    HeldCursor,
    /// It has statements made by SQL-level PREPARE.
    SqlPrepare,
    /// It ran something that changed the session in a way that its text does not tell.
    UnknownState,
}

/// Where a statement goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Route {
    /// The primary.
    Primary(Because),
    /// Any replica that has replayed what the freshness level asks for; where there is none, the primary.
    Replica(Because),
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Because {
    /// It is a plain read.
    PlainRead,
    /// Its verdict forbids a replica.
    Statement(Why),
    /// The transaction is open on this server connection.
    InTransaction,
    /// The session is pinned.
    Pinned(Pin),
    /// A hint, or `SET pgladder.route`, asked for it.
    Asked,
    /// Another isolation level than READ COMMITTED is in effect.
    Isolation,
    /// The session has a temporary schema.
    TemporarySchema,
    /// String literals are lexed by other rules.
    OddStrings,
}

impl fmt::Display for Because {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlainRead => f.write_str("plain read"),
            Self::Statement(why) => write!(f, "statement: {why:?}"),
            Self::InTransaction => f.write_str("open transaction"),
            Self::Pinned(pin) => write!(f, "pinned session: {pin:?}"),
            Self::Asked => f.write_str("asked for by hint or session"),
            Self::Isolation => f.write_str("isolation level above read committed"),
            Self::TemporarySchema => f.write_str("session has a temporary schema"),
            Self::OddStrings => f.write_str("standard_conforming_strings is off"),
        }
    }
}

/// Decides. The most binding reason is named: what ties the session to its connection comes before what the statement is.
pub fn route(verdict: &Verdict, session: &SessionFacts) -> Route {
    if session.in_transaction {
        return Route::Primary(Because::InTransaction);
    }
    if let Some(pin) = session.pinned {
        return Route::Primary(Because::Pinned(pin));
    }
    if session.odd_strings {
        return Route::Primary(Because::OddStrings);
    }
    if let Err(why) = verdict.replica {
        return Route::Primary(Because::Statement(why));
    }
    if session.temporary_schema {
        return Route::Primary(Because::TemporarySchema);
    }
    if !session.read_committed {
        return Route::Primary(Because::Isolation);
    }
    match session.asked {
        Some(RouteHint::Primary) => Route::Primary(Because::Asked),
        Some(RouteHint::Replica) => Route::Replica(Because::Asked),
        None => Route::Replica(Because::PlainRead),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::catalog::remembered::Remembered;
    use crate::catalog::verdict::{ReadSet, WriteSet};
    use crate::sql::statement::{Hints, Script};

    const QUIET: SessionFacts = SessionFacts {
        in_transaction: false,
        pinned: None,
        asked: None,
        read_committed: true,
        temporary_schema: false,
        odd_strings: false,
    };

    fn verdict(replica: Result<(), Why>) -> Verdict {
        Verdict {
            script: Arc::new(Script {
                statements: Vec::new(),
                hints: Hints::default(),
            }),
            generation: 1,
            reads: ReadSet::Tables([1].into()),
            writes: WriteSet::None,
            replica,
            cache: Ok(()),
            aggregates: false,
            reads_settings: false,
            leaves_state: false,
            ruled: Remembered::default(),
            may_draw: false,
        }
    }

    #[test]
    fn a_plain_read_goes_to_a_replica_and_all_else_to_the_primary() {
        let check = |session: SessionFacts, route_wanted: Route| {
            assert_eq!(route(&verdict(Ok(())), &session), route_wanted, "{session:?}");
        };
        check(QUIET, Route::Replica(Because::PlainRead));
        check(
            SessionFacts {
                in_transaction: true,
                ..QUIET
            },
            Route::Primary(Because::InTransaction),
        );
        let pinned = Some(Pin::Listens);
        check(
            SessionFacts { pinned, ..QUIET },
            Route::Primary(Because::Pinned(Pin::Listens)),
        );
        check(
            SessionFacts {
                odd_strings: true,
                ..QUIET
            },
            Route::Primary(Because::OddStrings),
        );
        check(
            SessionFacts {
                temporary_schema: true,
                ..QUIET
            },
            Route::Primary(Because::TemporarySchema),
        );
        check(
            SessionFacts {
                read_committed: false,
                ..QUIET
            },
            Route::Primary(Because::Isolation),
        );
        let asked = |hint| SessionFacts {
            asked: Some(hint),
            ..QUIET
        };
        check(asked(RouteHint::Primary), Route::Primary(Because::Asked));
        check(asked(RouteHint::Replica), Route::Replica(Because::Asked));
    }

    #[test]
    fn a_hint_never_sends_a_write_to_a_replica() {
        let asked = SessionFacts {
            asked: Some(RouteHint::Replica),
            ..QUIET
        };
        for why in [Why::Writes, Why::UnknownFunction, Why::Unparsed, Why::NoCatalog] {
            assert_eq!(
                route(&verdict(Err(why)), &asked),
                Route::Primary(Because::Statement(why))
            );
        }
    }
}
