//! A text with its plain literals taken out: what simple queries of one shape share, so that one verdict serves them all.
//!
//! Called by the session before it looks for a verdict. Invariant: two texts of one template have the same facts, because what is
//! taken out is a number, or a string that holds no word which the classifier looks for; where that is not certain at a glance
//! there is no template. One pass over the bytes; it is far cheaper than parsing.

use super::analyze::has_clock_word;

/// Statements whose facts no plain literal can change.
const FIRST_WORDS: [&str; 6] = ["select", "insert", "update", "delete", "values", "with"];
/// Longer literals stay: looking at them costs as much as keeping them.
const STRING_BYTES_MAX: usize = 256;

/// What a byte may begin, or be inside of.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    /// White space and operators: nothing to look at.
    Plain,
    /// An identifier's; every byte of a character outside ASCII is one.
    Word,
    Digit,
    /// What is looked at where it stands.
    Marked,
}

const CLASSES: [Class; 256] = classes();

const fn classes() -> [Class; 256] {
    let mut classes = [Class::Plain; 256];
    let mut byte = u8::MAX;
    loop {
        classes[byte as usize] = match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'_' | 0x80.. => Class::Word,
            b'0'..=b'9' => Class::Digit,
            b'\'' | b'"' | b'$' | b'-' | b'/' | b';' | b'.' => Class::Marked,
            _ => Class::Plain,
        };
        if byte == 0 {
            return classes;
        }
        byte -= 1;
    }
}

/// What goes on with a word that has begun.
const WITHIN_WORD: [bool; 256] = {
    let (mut within, mut byte) = ([false; 256], 0);
    while byte < 256 {
        within[byte] = matches!(CLASSES[byte], Class::Word | Class::Digit) || byte == b'$' as usize;
        byte += 1;
    }
    within
};

fn class(byte: u8) -> Class {
    CLASSES[usize::from(byte)]
}

/// The template of a text, or `None` where it has none of its own.
pub fn template(sql: &[u8]) -> Option<Vec<u8>> {
    let sql = sql.trim_ascii_start();
    if !FIRST_WORDS.iter().any(|word| begins_with(sql, word)) {
        return None;
    }
    // Bytes `from..at` are to stay; nothing is copied before the first literal.
    let (mut out, mut from, mut at) = (Vec::new(), 0, 0);
    let mut take = |before: &[u8], left: &[u8]| {
        if out.is_empty() {
            out.reserve(sql.len());
        }
        out.extend_from_slice(before);
        out.extend_from_slice(left);
    };
    while let Some(&byte) = sql.get(at) {
        at = match class(byte) {
            Class::Plain => at + 1,
            Class::Word => word(sql, at)?,
            Class::Digit => {
                take(&sql[from..at], b"0");
                from = number(sql, at)?;
                from
            }
            Class::Marked => match byte {
                b'\'' => {
                    let end = closing(sql, at, b'\'')?;
                    if is_plain(&sql[at + 1..end - 1]) {
                        take(&sql[from..at], b"''");
                        from = end;
                    }
                    end
                }
                b'"' => closing(sql, at, b'"')?,
                b'$' => parameter(sql, at)?,
                b'-' if sql.get(at + 1) == Some(&b'-') => return None,
                b'/' if sql.get(at + 1) == Some(&b'*') => return None,
                // Another statement may be one whose literals are facts.
                b';' if !sql[at + 1..].trim_ascii().is_empty() => return None,
                // A point before a digit begins a number, or ends one that was not read here.
                b'.' if sql.get(at + 1).is_some_and(u8::is_ascii_digit) => return None,
                _ => at + 1,
            },
        };
    }
    if out.is_empty() {
        return None;
    }
    out.extend_from_slice(&sql[from..]);
    Some(out)
}

fn begins_with(sql: &[u8], word: &str) -> bool {
    let length = word.len();
    sql.get(..length)
        .is_some_and(|start| start.eq_ignore_ascii_case(word.as_bytes()))
        && sql
            .get(length)
            .is_some_and(|next| !is_word(*next) && !next.is_ascii_digit())
}

fn is_word(byte: u8) -> bool {
    class(byte) == Class::Word
}

/// The end of the word at `at`; `None` where a quote follows at once, which gives the string another meaning.
fn word(sql: &[u8], at: usize) -> Option<usize> {
    let length = sql[at..].iter().position(|byte| !WITHIN_WORD[usize::from(*byte)]);
    let end = length.map_or(sql.len(), |length| at + length);
    match sql.get(end) {
        Some(b'\'' | b'"') => None,
        Some(b'&') if matches!(&sql[at..end], b"u" | b"U") => None,
        _ => Some(end),
    }
}

/// The end of the number at `at`: digits, a fraction, an exponent; `None` where anything else is grown to it.
fn number(sql: &[u8], at: usize) -> Option<usize> {
    let digits = |from: usize| {
        from + sql[from..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit())
            .count()
    };
    let mut end = digits(at);
    if sql.get(end) == Some(&b'.') {
        end = digits(end + 1);
    }
    if matches!(sql.get(end), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(sql.get(end + 1), Some(b'+' | b'-')));
        let exponent = digits(end + 1 + sign);
        if exponent == end + 1 + sign {
            return None;
        }
        end = exponent;
    }
    match sql.get(end) {
        Some(byte) if is_word(*byte) || matches!(byte, b'.' | b'$') => None,
        _ => Some(end),
    }
}

/// The end of `$1`; `None` for a dollar-quoted string.
fn parameter(sql: &[u8], at: usize) -> Option<usize> {
    let digits = sql[at + 1..]
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    let end = at + 1 + digits;
    let grown = sql.get(end).is_some_and(|byte| is_word(*byte) || *byte == b'$');
    (digits > 0 && !grown).then_some(end)
}

/// One past the quote that closes what begins at `at`, doubled quotes inside.
fn closing(sql: &[u8], at: usize, quote: u8) -> Option<usize> {
    let mut end = at + 1;
    loop {
        end += sql.get(end..)?.iter().position(|byte| *byte == quote)? + 1;
        if sql.get(end) != Some(&quote) {
            return Some(end);
        }
        end += 1;
    }
}

/// May a string with this content be taken out?
fn is_plain(content: &[u8]) -> bool {
    content.len() <= STRING_BYTES_MAX
        && !content.contains(&b'\\')
        && std::str::from_utf8(content).is_ok_and(|content| !has_clock_word(content))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sql::analyze;

    fn text(sql: &str) -> Option<String> {
        template(sql.as_bytes()).map(|out| String::from_utf8(out).expect("utf-8"))
    }

    #[test]
    fn plain_literals_are_taken_out() {
        let check = |sql: &str, expected: Option<&str>| assert_eq!(text(sql).as_deref(), expected, "{sql}");
        check(
            "SELECT a FROM t WHERE id = 42",
            Some("SELECT a FROM t WHERE id = 0"),
        );
        check(
            "select a from t1 where b='x''y' and c=1.5e-3",
            Some("select a from t1 where b='' and c=0"),
        );
        check(
            "insert into t values (1, $1, 'a')",
            Some("insert into t values (0, $1, '')"),
        );
        check(
            "select '2020-01-01'::date, \"q 1\"",
            Some("select ''::date, \"q 1\""),
        );
        check("select 'Today'::date, 1", Some("select 'Today'::date, 0"));
    }

    #[test]
    fn what_is_not_plain_has_no_template() {
        for sql in [
            "select a from t",
            "set a = 1",
            "select 1 -- c",
            "select 1 /* pgladder: cache=off */",
            "select e'\\n', 1",
            "select $$a$$, 1",
            "select u&\"a\", 1",
            "select 1from t",
            "select 1.5.5",
            "select .5",
            "select 'open",
            "selection 1",
            "select 0x1f",
            "select 1e",
            "select 1; set a = 1",
        ] {
            assert_eq!(text(sql), None, "{sql}");
        }
    }

    fn literal() -> impl Strategy<Value = String> {
        prop_oneof![
            (0u32..2_000_000).prop_map(|number| number.to_string()),
            (0u32..99, 0u32..99).prop_map(|(a, b)| format!("{a}.{b}")),
            "[a-zA-Z0-9 :,.{}()%_-]{0,12}".prop_map(|content| format!("'{content}'")),
            Just("'it''s'".to_owned()),
            Just("'now'".to_owned()),
            Just("'yesterday'".to_owned()),
        ]
    }

    const SHAPES: [&str; 9] = [
        "select a, count(*) from t where b = ? and c in (?, ?) group by a having count(*) > ? limit 5",
        "select ?::date + a from t where b between ? and ?",
        "insert into t (a, b) values (?, ?), (?, ?) on conflict (a) do update set b = ?",
        "update t set a = ?, b = ? where c = ?",
        "delete from t where a = ? and b < ?",
        "with x as (select ? as v) select * from x join t on t.a = x.v where b > ?",
        "values (?, ?), (?, ?)",
        "select set_config(?, ?, false)",
        "select f(?), nextval(?), ?::regclass from s.t tablesample bernoulli (?) for update",
    ];

    fn filled(shape: &str, literals: &[String]) -> String {
        let mut pieces = shape.split('?');
        let mut out = pieces.next().unwrap_or_default().to_owned();
        for (piece, literal) in pieces.zip(literals.iter().cycle()) {
            out.push_str(literal);
            out.push_str(piece);
        }
        out
    }

    proptest! {
        #[test]
        fn texts_of_one_template_have_the_same_facts(
            shape in 0..SHAPES.len(),
            one in proptest::collection::vec(literal(), 6),
            other in proptest::collection::vec(literal(), 6),
        ) {
            let (one, other) = (filled(SHAPES[shape], &one), filled(SHAPES[shape], &other));
            if let (Some(a), Some(b)) = (text(&one), text(&other))
                && a == b
            {
                prop_assert_eq!(analyze(one.as_bytes()), analyze(other.as_bytes()), "{} | {}", one, other);
            }
        }

        #[test]
        fn a_text_and_its_template_have_the_same_facts(
            shape in 0..SHAPES.len(),
            literals in proptest::collection::vec(literal(), 6),
        ) {
            let sql = filled(SHAPES[shape], &literals);
            if let Some(template) = text(&sql) {
                prop_assert_eq!(analyze(sql.as_bytes()), analyze(template.as_bytes()), "{} | {}", sql, template);
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            let mut sql = b"select ".to_vec();
            sql.extend(bytes);
            let _ = template(&sql);
        }
    }
}
