//! What keeps a read from missing an acknowledged write: clocks of tables, fences for replicas, notes of fills.
//!
//! Called by the session around every statement that it sends, and by the cache before it serves or stores. The
//! decisions are pure values (`clocks`), so that a test, or a model checker, drives the very code that runs; whoever holds
//! them behind a lock adds time and sockets. It does not know what a statement writes: `catalog` judges that.

pub mod catalogs;
pub mod clocks;
pub mod coverage;
pub mod database;
pub mod databases;
pub mod fence;
#[doc(hidden)]
pub mod guards;
pub mod invalidations;
pub mod level;
mod raises;
pub mod withheld;
