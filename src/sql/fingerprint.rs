//! A number that queries of one shape share: same words, other literals.
//!
//! Called by the cache's rules, the advisor and the statistics. Invariant: white space, comments, the case of keywords and
//! the values of literals and the length of literal lists do not change it. It is a label for people and rules, never a
//! cache key: two texts of one fingerprint have different answers.

use super::lexer::{Lexeme, lex};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The fingerprint (FNV-1a, 64 bits, the same on every machine and in every version of the lexer's rules).
pub fn fingerprint(sql: &str) -> u64 {
    let mut hash = OFFSET;
    let mut add = |bytes: &[u8]| {
        for byte in bytes.iter().chain(b" ") {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
    };
    let Some(lexed) = lex(sql) else {
        add(sql.as_bytes());
        return hash;
    };
    let tokens = &lexed.tokens;
    let is_literal = |at: usize| {
        tokens
            .get(at)
            .is_some_and(|t| t.is_string() || matches!(t.lexeme, Lexeme::Number | Lexeme::Parameter))
    };
    let mut at = 0;
    while at < tokens.len() {
        let token = &tokens[at];
        at += 1;
        if is_literal(at - 1) {
            add(b"?");
            // `1, 2, 3` is as long as the application's list happens to be.
            while tokens.get(at).is_some_and(|t| t.is(",")) && is_literal(at + 1) {
                at += 2;
            }
        } else if token.lexeme == Lexeme::Word {
            add(token.text.to_ascii_lowercase().as_bytes());
        } else if !(token.is(";") && at == tokens.len()) {
            add(token.text.as_bytes());
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_shape() {
        let same = |a: &str, b: &str| assert_eq!(fingerprint(a), fingerprint(b), "{a} | {b}");
        same("SELECT 1", "select  2 ;");
        same(
            "select a from t where b = 'x'",
            "SELECT a /* c */ FROM t WHERE b = $1",
        );
        same(
            "select * from t where a in (1,2,3)",
            "select * from t where a in (7)",
        );
    }

    #[test]
    fn other_shapes() {
        let differ = |a: &str, b: &str| assert_ne!(fingerprint(a), fingerprint(b), "{a} | {b}");
        differ("select a from t", "select b from t");
        differ("select \"A\" from t", "select a from t");
        differ("select 1 from t", "select 1 from u");
    }

    proptest! {
        #[test]
        fn stable_under_white_space_and_comments(
            words in prop::collection::vec("[a-z]{1,6}|[0-9]{1,3}|'[a-z ]{0,5}'|[(),=]", 1..20),
            gaps in prop::collection::vec("( |\t|\n|/\\* [a-z]{0,4} \\*/|-- [a-z]{0,4}\n){1,3}", 20),
        ) {
            let plain = words.join(" ");
            let mut spaced = String::new();
            for (word, gap) in words.iter().zip(&gaps) {
                spaced.push_str(gap);
                spaced.push_str(word);
                spaced.push(' ');
            }
            prop_assert_eq!(fingerprint(&plain), fingerprint(&spaced));
        }
    }
}
