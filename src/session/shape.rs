//! The shape of a batch of extended query messages: what it leaves behind, and what may be answered without a server.
//!
//! Called by `batch` and `perform` before anything is sent. Pure: it looks at messages whose names are resolved, and decides
//! nothing that depends on the session's state.

use std::sync::Arc;

use super::message::{Binding, Message, Parsing};
use super::statements::Portal;

/// Can the message be answered without a server? The proxy's own statements, and closing.
pub(super) fn is_local(message: &Message) -> bool {
    let own = |bound: &Option<Portal>| bound.as_ref().is_some_and(|bound| bound.statement.own.is_some());
    match message {
        Message::Parse(Parsing {
            statement, duplicate, ..
        }) => statement.own.is_some() && !duplicate,
        Message::DescribeStatement { statement, .. } => statement
            .as_ref()
            .is_some_and(|statement| statement.own.is_some()),
        Message::Bind(Binding { bound, .. })
        | Message::DescribePortal { bound, .. }
        | Message::Execute { bound, .. } => own(bound),
        Message::CloseStatement { .. } | Message::ClosePortal { .. } | Message::Sync | Message::Flush => true,
    }
}

/// Is there a portal that is bound, or executed in part, and not closed?
pub(super) fn leaves_portals(messages: &[Message]) -> bool {
    let mut open: Vec<&[u8]> = Vec::new();
    for message in messages {
        match message {
            // A named one stays also when it is exhausted.
            Message::Execute {
                portal, rows_max: 0, ..
            } if portal.is_empty() => open.retain(|known| known != portal),
            Message::Bind(Binding { portal, .. }) | Message::Execute { portal, .. } => open.push(portal),
            Message::ClosePortal { portal, .. } => open.retain(|known| known != portal),
            _ => {}
        }
    }
    !open.is_empty()
}

/// Do the messages use the portal as it was before them?
pub(super) fn uses_portal(messages: &[Message], portal: &Portal) -> bool {
    messages.iter().any(|message| match message {
        Message::DescribePortal { bound, .. } | Message::Execute { bound, .. } => {
            bound.as_ref().is_some_and(|bound| Arc::ptr_eq(bound, portal))
        }
        _ => false,
    })
}

/// Is the message about this statement and nothing else, in a way that a turn of the transaction is answered?
pub(super) fn concerns(message: &Message, turn: &Portal) -> bool {
    let same = |bound: &Option<Portal>| {
        bound
            .as_ref()
            .is_some_and(|bound| Arc::ptr_eq(&bound.statement, &turn.statement))
    };
    match message {
        Message::Parse(Parsing {
            statement, duplicate, ..
        }) => Arc::ptr_eq(statement, &turn.statement) && !duplicate,
        Message::Bind(Binding {
            portal,
            bound,
            suffix,
            ..
        }) => portal.is_empty() && same(bound) && has_no_values(suffix),
        Message::DescribePortal { bound, .. } | Message::Execute { bound, .. } => same(bound),
        Message::DescribeStatement { statement, .. } => statement
            .as_ref()
            .is_some_and(|statement| Arc::ptr_eq(statement, &turn.statement)),
        Message::CloseStatement { .. } | Message::ClosePortal { .. } | Message::Sync | Message::Flush => true,
    }
}

/// Does all that follows the names in a Bind say that there are no parameters?
fn has_no_values(suffix: &[u8]) -> bool {
    suffix.starts_with(&[0; 4])
}
