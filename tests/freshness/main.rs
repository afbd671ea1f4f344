//! Freshness on real servers: no read through the proxy misses what was acknowledged before it was sent.
//!
//! A checker with monotone counters writes and reads in every way there is, while replicas lag, are killed, and the primary
//! changes; it is itself checked with each guard switched off. Around it stands one test for each hole that the protocol was
//! found to have before it was built. PostgreSQL's server programs must be installed.

mod checker;
mod client;
mod forwarder;
mod levels;
mod life_of_a_fill;
mod life_of_a_write;
mod refusing_replicas;
mod sampled;
mod setup;
mod stream;
mod stream_bounds;
mod stream_ends;
mod stream_rights;
mod stream_schema;
mod transactions;
mod what_is_known;
