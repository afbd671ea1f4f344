//! Server connections: connect, TLS, login, and the pools that lend them to sessions.
//!
//! Called by the session (which leases raw connections) and by its cancel path. A lent connection is dirty from its first
//! request to ReadyForQuery idle; dropped dirty it is closed, so that no client ever reads another one's answer. Every wait is
//! bounded: the queue has a length, the caller a deadline, connecting a timeout, and each node a cap over all pools. It parses
//! nothing after the login: framing the answers is the session's.

pub mod address;
pub(crate) mod connect;
pub mod connection;
pub mod credentials;
mod demand;
pub mod error;
pub mod facts;
pub mod lease;
mod line;
mod login;
mod manager;
pub mod pgpass;
pub mod pools;
pub mod prepared;
pub(crate) mod replication;
pub mod scram;
mod shelf;
pub mod stream;
pub mod tls;
mod verifier;

pub use address::Address;
pub use connection::{AppliedSettings, CancelTarget, Drawn, PoolKey, ServerConnection};
pub use credentials::{Credentials, FirstOf, Secret};
pub use error::{CancelError, ConnectError, PoolError, Refusal};
pub use facts::LoginFacts;
pub use lease::Lease;
pub use pgpass::PgPass;
pub use pools::{Admitted, Entry, InLine, PoolSettings, PoolSnapshot, Pools, SampleNumbers, Vacancy};
pub use prepared::{PreparedNames, PreparedStatement, ServerName};
pub use stream::ServerStream;
pub use tls::{ServerTls, TlsMode};
