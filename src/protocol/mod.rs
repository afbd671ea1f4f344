//! PostgreSQL's wire protocol as pure bytes: framing, the parts of messages that a proxy reads, and what it says itself.
//!
//! Called by everything that owns a socket; does no I/O and allocates nothing for a length that was only declared.
//! Invariant: a view never reaches past its own frame, so one message cannot smuggle another. Rows are never decoded.
//! Source: PostgreSQL manual, chapter "Frontend/Backend Protocol".

pub mod backend;
pub mod end_point;
pub mod error;
pub mod frame;
pub mod frontend;
pub mod lsn;
pub mod scanner;
pub mod sqlstate;
pub mod startup;
