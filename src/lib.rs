//! pgladder: the performance ladder for PostgreSQL as one binary.
//!
//! Data flows one way, listener to session to route to cache or pool, and imports point the same way.

pub mod admin;
pub mod auth;
pub mod cache;
pub mod catalog;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod demo;
pub mod freshness;
pub mod listener;
pub mod pool;
pub mod protocol;
pub mod route;
pub mod serve;
pub mod session;
pub mod sql;
pub mod stream;
pub mod telemetry;
