//! Quoting of names and literals for every statement that the proxy composes itself.
//!
//! Called by whoever writes SQL: settings, prepared names, the control plane. Invariant: the result is one token under any
//! `standard_conforming_strings` setting, whatever the input holds. It does not decide whether a name exists.

/// A name as an SQL identifier, always quoted: `a"b` becomes `"a""b"`.
pub fn quote_ident(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text as an SQL string literal: `it's` becomes `'it''s'`; with a backslash it takes the ` E''` form, as libpq's does,
/// which reads the same under both lexing rules.
pub fn quote_literal(text: &str) -> String {
    let doubled = text.replace('\'', "''");
    if text.contains('\\') {
        format!(" E'{}'", doubled.replace('\\', "\\\\"))
    } else {
        format!("'{doubled}'")
    }
}

/// Longest identifier that PostgreSQL keeps, in bytes (`NAMEDATALEN - 1`).
const IDENT_BYTES_MAX: usize = 63;

/// An unquoted identifier as PostgreSQL folds it: ASCII letters in lower case, cut to 63 bytes.
pub(crate) fn fold(word: &str) -> Box<str> {
    truncated(&word.to_ascii_lowercase())
}

/// An identifier cut to the length that PostgreSQL keeps, never inside a character.
pub(crate) fn truncated(name: &str) -> Box<str> {
    if name.len() <= IDENT_BYTES_MAX {
        return name.into();
    }
    let mut end = IDENT_BYTES_MAX;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    name[..end].into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        assert_eq!(quote_ident("a"), "\"a\"");
        assert_eq!(quote_ident("a\"b"), "\"a\"\"b\"");
        assert_eq!(quote_literal("it's"), "'it''s'");
        assert_eq!(quote_literal("a\\'b"), " E'a\\\\''b'");
    }

    #[test]
    fn long_names_are_cut_as_the_server_cuts_them() {
        assert_eq!(fold(&"A".repeat(70)).as_ref(), "a".repeat(63));
        assert_eq!(truncated(&"é".repeat(40)).len(), 62);
    }
}
