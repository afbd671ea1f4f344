//! The result cache: complete keys, encoded answers under a byte budget, and one execution for any number of readers.
//!
//! Called by the session before and after it asks a server. Invariant: an entry is served only while the note that it was
//! filled under is current; the cache itself never decides freshness, `freshness` does. Rows are stored as the bytes
//! that the server sent.

pub mod answer;
pub mod doorkeeper;
pub mod entry;
pub mod flight;
pub mod key;
pub mod rules;
pub mod store;
