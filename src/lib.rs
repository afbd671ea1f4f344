//! pgladder: the performance ladder for PostgreSQL as one binary.

pub mod catalog;
pub mod demo;
pub mod sql;
