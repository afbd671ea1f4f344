//! Pure facts about SQL text: what kind of statement it is, what it names, and whether its functions are reproducible.
//!
//! Called by `catalog`, which resolves the names, and by `session`. It does no I/O and knows no database: a doubt about a
//! text is a fact of its own, and leads to the primary.

pub mod statement;
