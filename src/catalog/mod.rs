//! What PostgreSQL's catalog knows and a statement's text does not: which table a name is, what a view reads, what a write
//! reaches.
//!
//! Called by `session` and `freshness`. A snapshot is immutable and has a generation; a verdict made under one is void under
//! another.

pub mod verdict;
