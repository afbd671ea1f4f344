//! What a console statement answers: columns and rows of text.
//!
//! Made by `show` and its neighbours, written by the console. Invariant: every row has a value, or NULL, for each column.

/// Characters of a query's text that are shown.
const QUERY_CHARS: usize = 200;

/// A row's values in the order of the columns; `None` is NULL.
pub(super) type Row = Vec<Option<String>>;

/// Columns, which a statement has before it is executed, and rows.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub columns: &'static [&'static str],
    pub rows: Vec<Row>,
}

impl Table {
    /// A table of these rows.
    pub fn new(columns: &'static [&'static str], rows: impl IntoIterator<Item = Row>) -> Self {
        let rows: Vec<Row> = rows.into_iter().collect();
        debug_assert!(rows.iter().all(|row| row.len() == columns.len()), "{columns:?}");
        Self { columns, rows }
    }
}

/// A value of anything that can be shown.
#[expect(
    clippy::needless_pass_by_value,
    clippy::unnecessary_wraps,
    reason = "rows are written as lists of what is at hand, and any value may be NULL"
)]
pub(super) fn text(value: impl ToString) -> Option<String> {
    Some(value.to_string())
}

/// A number of milliseconds.
pub(super) fn milliseconds(duration: std::time::Duration) -> Option<String> {
    text(duration.as_millis())
}

/// The beginning of a query's text.
pub(super) fn in_one_line(sql: &[u8]) -> String {
    let text = String::from_utf8_lossy(sql);
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").chars().take(QUERY_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_shown_in_one_line_and_cut_between_characters() {
        assert_eq!(
            in_one_line(b"SELECT count(*)\n  FROM\tdeals "),
            "SELECT count(*) FROM deals"
        );
        let long = "é".repeat(QUERY_CHARS + 1);
        assert_eq!(in_one_line(long.as_bytes()).chars().count(), QUERY_CHARS);
    }
}
