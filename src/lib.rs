//! pgladder: the performance ladder for PostgreSQL as one binary.

pub mod cache;
pub mod catalog;
pub mod freshness;
pub mod protocol;
pub mod sql;
