//! Real clients, each running the same operations directly on the primary and through the proxy.
//!
//! What is proved: whatever a client can tell (values, errors, tags, notices, parameters) is the same both ways, also while
//! other clients of the same user and database do their worst; and where one vanishes, or a node dies, nobody else notices. Each
//! suite starts a cluster of its own; where PostgreSQL or the Python drivers are missing it fails, and `make test` says before
//! what is missing. Every wait is bounded, and fails with who waited, and for what.

mod changed_plans;
mod faults;
#[path = "../support/messages.rs"]
mod messages;
mod numbers;
mod programs;
mod psql;
mod pythons;
mod rivals;
mod rust_driver;
#[path = "../support/mod.rs"]
mod support;
mod wire;
mod wire_programs;
