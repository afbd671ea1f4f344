//! Pure facts about SQL text: what kind of statement it is, what it names, and whether its functions are reproducible.
//!
//! Called by `catalog`, which resolves the names, and by `session`. It does no I/O and knows no database: a doubt about a
//! text is a fact of its own, and leads to the primary.

mod analyze;
mod changes;
mod clock;
mod expressions;
mod fingerprint;
pub mod functions;
mod hints;
pub mod ident;
pub(crate) mod lexer;
mod settings;
pub mod statement;
mod template;
mod transaction;
mod utility;
mod walk;

pub use analyze::{CLASSIFIED_BYTES_MAX, Unclassified, analyze};
pub use fingerprint::fingerprint;
pub use functions::{Purity, is_aggregate, is_builtin_operator, is_builtin_type, is_catalog_type, purity};
pub use template::template;
