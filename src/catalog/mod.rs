//! What PostgreSQL's catalog knows and a statement's text does not: which table a name is, what a view reads, what a write
//! reaches.
//!
//! Called by `session` and `freshness`. A snapshot is immutable and has a generation; a verdict made under one is void
//! under another. Invariant: what the snapshot does not hold, or cannot settle, is doubt and never a guess. It follows
//! no DDL by itself: `fingerprint` tells that the database has moved on, and the caller loads again.

mod effects;
mod facts;
mod fingerprint;
mod judge;
mod load;
mod path;
pub mod remembered;
mod snapshot;
#[cfg(test)]
mod tests;
pub mod verdict;
pub mod verdicts;

pub use fingerprint::fingerprint;
pub use judge::{NO_CATALOG, judge_without_catalog};
pub use load::LoadError;
pub use path::Path;
pub use snapshot::{Allowed, Catalog, QualifiedName};
pub use verdicts::{Subject, Verdicts};
