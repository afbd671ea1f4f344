//! `[functions]`: user functions that the operator declares safe.
//!
//! Read by `Config::load`; used by the catalog's verdicts. A function outside PostgreSQL's own list counts as writing and as
//! reading anything, whatever volatility it declares, so that a name here is a promise which nothing checks.

use super::kind::{List, Text};
use super::reader::Section;

/// Functions that read no table, no clock and no session, and write nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FunctionsConfig {
    /// Names as `schema.name`, or `name` for any schema.
    pub safe: Vec<String>,
}

const NAME: Text = Text {
    allowed: "\"schema.name\" or \"name\", without parentheses",
    accepts: |text| {
        let odd = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';');
        let parts = text.split('.').count();
        parts <= 2 && text.split('.').all(|part| !part.is_empty()) && !text.contains(odd)
    },
};

impl FunctionsConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let kind = List {
            kind: NAME,
            parts_max: 10_000,
        };
        section.read("safe", &mut self.safe, &kind);
    }
}
