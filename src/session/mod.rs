//! One client: its login, its statements, and the server connections that it borrows.
//!
//! Called by the listener with a socket. Parts that decide without a socket, such as which answer of a server belongs to
//! which message of the client, are pure and stand in files of their own.

pub mod acquire;
mod alarm;
pub mod answers;
pub mod batch;
mod block;
pub mod cached;
pub mod cancel;
mod choose;
pub mod client;
pub mod costs;
mod deliver;
pub mod derived;
pub mod effects;
pub mod exchange;
pub mod held;
pub mod last;
pub mod login;
pub mod message;
mod names;
pub mod own;
pub mod perform;
pub mod proxy;
mod query;
pub mod reasons;
pub mod refresh;
mod refused;
pub mod registry;
mod rerun;
pub mod run;
pub mod sample;
mod sequences;
pub mod settings;
mod shape;
pub mod statements;
pub mod stream;
mod strict;
mod told;
pub mod unit;
pub mod wire;
pub mod writes;

pub use client::{Client, Peer};
pub use proxy::{CacheSettings, Counters, Parts, Proxy, SessionSettings};
pub use run::run;
