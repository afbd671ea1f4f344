//! PostgreSQL's lexical rules under `standard_conforming_strings = on`: a text becomes tokens, comments apart.
//!
//! Called by the splitter, the recogniser of utility statements, the fingerprint and the clock-word check, so that none of
//! these rests on the general parser's reading. Invariant: tokens are in order, do not overlap, and lie on character
//! boundaries. It gives up (`None`) on an unterminated literal, identifier or comment, which the server refuses too.

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lexeme {
    /// An unquoted identifier or keyword.
    Word,
    /// `"…"`.
    Quoted,
    /// `U&"…"`: its escapes are not resolved here.
    UnicodeQuoted,
    /// `'…'`, also with an N prefix.
    String,
    /// `E'…'`.
    Escape,
    /// `U&'…'`, `B'…'` or `X'…'`.
    OddString,
    /// `$tag$…$tag$`.
    Dollar,
    /// A number.
    Number,
    /// `$1`.
    Parameter,
    /// An operator of one or several characters.
    Operator,
    /// One of `( ) [ ] , ; . :`, or `::`, `:=`, `..`.
    Punctuation,
    /// A character that begins no token.
    Unknown,
}

/// A token and its place in the text.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Token<'a> {
    pub(crate) lexeme: Lexeme,
    pub(crate) text: &'a str,
    pub(crate) start: usize,
}

impl Token<'_> {
    pub(crate) fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// It is this unquoted word (given in lower case).
    pub(crate) fn is_word(&self, word: &str) -> bool {
        self.lexeme == Lexeme::Word && self.text.eq_ignore_ascii_case(word)
    }

    pub(crate) fn is(&self, punctuation: &str) -> bool {
        matches!(self.lexeme, Lexeme::Punctuation | Lexeme::Operator) && self.text == punctuation
    }

    /// It is a string literal of any kind.
    pub(crate) fn is_string(&self) -> bool {
        matches!(
            self.lexeme,
            Lexeme::String | Lexeme::Escape | Lexeme::OddString | Lexeme::Dollar
        )
    }

    /// The content of a literal or quoted identifier whose escapes are known; `None` for any other token.
    pub(crate) fn content(&self) -> Option<String> {
        match self.lexeme {
            Lexeme::Quoted => Some(self.text[1..self.text.len() - 1].replace("\"\"", "\"")),
            Lexeme::String => {
                let from = self.text.find('\'')? + 1;
                Some(self.text[from..self.text.len() - 1].replace("''", "'"))
            }
            Lexeme::Dollar => {
                let tag = self.text[1..].find('$')? + 2;
                Some(self.text[tag..self.text.len() - tag].to_owned())
            }
            Lexeme::Escape => unescaped(&self.text[2..self.text.len() - 1]),
            Lexeme::Word
            | Lexeme::UnicodeQuoted
            | Lexeme::OddString
            | Lexeme::Number
            | Lexeme::Parameter
            | Lexeme::Operator
            | Lexeme::Punctuation
            | Lexeme::Unknown => None,
        }
    }
}

/// Content of an `E''` literal with the simple escapes resolved; `None` when it holds numeric ones.
fn unescaped(body: &str) -> Option<String> {
    let mut out = String::with_capacity(body.len());
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next()? {
                'n' => out.push('\n'),
                't' => out.push('\t'),
                'r' => out.push('\r'),
                'b' => out.push('\u{8}'),
                'f' => out.push('\u{c}'),
                '0'..='9' | 'x' | 'u' | 'U' => return None,
                other => out.push(other),
            },
            '\'' => {
                chars.next();
                out.push('\'');
            }
            other => out.push(other),
        }
    }
    Some(out)
}

/// A text's tokens, and its comments with their delimiters.
#[derive(Debug, Default)]
pub(crate) struct Lexed<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    pub(crate) comments: Vec<&'a str>,
}

/// The tokens of a text; `None` if something in it is not terminated.
pub(crate) fn lex(sql: &str) -> Option<Lexed<'_>> {
    let mut lexer = Lexer {
        sql,
        bytes: sql.as_bytes(),
        at: 0,
    };
    let mut out = Lexed::default();
    loop {
        lexer.skip_white_space();
        let start = lexer.at;
        if start >= sql.len() {
            return Some(out);
        }
        let end = lexer.comment()?;
        if end > start {
            out.comments.push(&sql[start..end]);
            lexer.at = end;
            continue;
        }
        let lexeme = lexer.token()?;
        out.tokens.push(Token {
            lexeme,
            text: &sql[start..lexer.at],
            start,
        });
    }
}

struct Lexer<'a> {
    sql: &'a str,
    bytes: &'a [u8],
    at: usize,
}

fn begins_word(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn continues_word(byte: u8) -> bool {
    begins_word(byte) || byte.is_ascii_digit() || byte == b'$'
}

const OPERATOR_BYTES: &[u8] = b"+-*/<>=~!@#%^&|`?";

impl Lexer<'_> {
    fn byte(&self, offset: usize) -> u8 {
        self.bytes.get(self.at + offset).copied().unwrap_or(0)
    }

    fn skip_white_space(&mut self) {
        while matches!(self.byte(0), b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c) {
            self.at += 1;
        }
    }

    /// End of the comment that begins here, or this very place where none does; `None` if it is not terminated.
    fn comment(&self) -> Option<usize> {
        if self.byte(0) == b'-' && self.byte(1) == b'-' {
            let rest = &self.bytes[self.at..];
            let len = rest
                .iter()
                .position(|b| matches!(b, b'\n' | b'\r'))
                .unwrap_or(rest.len());
            return Some(self.at + len);
        }
        if self.byte(0) != b'/' || self.byte(1) != b'*' {
            return Some(self.at);
        }
        let mut depth = 0u32;
        let mut at = self.at;
        while at < self.bytes.len() {
            match self.bytes[at..] {
                [b'/', b'*', ..] => {
                    depth += 1;
                    at += 2;
                }
                [b'*', b'/', ..] => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => at += 1,
            }
        }
        None
    }

    fn token(&mut self) -> Option<Lexeme> {
        let first = self.byte(0);
        match (first, self.byte(1), self.byte(2)) {
            (b'\'', ..) => self.quoted(0, b'\'', false, Lexeme::String),
            (b'"', ..) => self.quoted(0, b'"', false, Lexeme::Quoted),
            (b'e' | b'E', b'\'', _) => self.quoted(1, b'\'', true, Lexeme::Escape),
            (b'n' | b'N', b'\'', _) => self.quoted(1, b'\'', false, Lexeme::String),
            (b'b' | b'B' | b'x' | b'X', b'\'', _) => self.quoted(1, b'\'', false, Lexeme::OddString),
            (b'u' | b'U', b'&', b'\'') => self.quoted(2, b'\'', false, Lexeme::OddString),
            (b'u' | b'U', b'&', b'"') => self.quoted(2, b'"', false, Lexeme::UnicodeQuoted),
            (b'$', ..) => self.dollar(),
            (b'0'..=b'9', ..) | (b'.', b'0'..=b'9', _) => Some(self.number()),
            (b':', b':' | b'=', _) | (b'.', b'.', _) => Some(self.punctuation(2)),
            (b'(' | b')' | b'[' | b']' | b',' | b';' | b':' | b'.', ..) => Some(self.punctuation(1)),
            _ if begins_word(first) => {
                while continues_word(self.byte(0)) {
                    self.at += 1;
                }
                Some(Lexeme::Word)
            }
            _ if OPERATOR_BYTES.contains(&first) => Some(self.operator()),
            _ => {
                self.at += 1;
                Some(Lexeme::Unknown)
            }
        }
    }

    fn punctuation(&mut self, len: usize) -> Lexeme {
        self.at += len;
        Lexeme::Punctuation
    }

    fn quoted(&mut self, prefix: usize, quote: u8, backslashes: bool, lexeme: Lexeme) -> Option<Lexeme> {
        self.at += prefix + 1;
        loop {
            match *self.bytes.get(self.at)? {
                b'\\' if backslashes => self.at += 2,
                byte if byte == quote => {
                    self.at += 1;
                    if self.byte(0) != quote {
                        break;
                    }
                    self.at += 1;
                }
                _ => self.at += 1,
            }
        }
        // A backslash may have stepped into a character: such a text never reaches here, because the closing quote is ASCII.
        Some(lexeme)
    }

    fn dollar(&mut self) -> Option<Lexeme> {
        if self.byte(1).is_ascii_digit() {
            self.at += 1;
            while self.byte(0).is_ascii_digit() {
                self.at += 1;
            }
            return Some(Lexeme::Parameter);
        }
        let mut end = self.at + 1;
        while end < self.bytes.len() && continues_word(self.bytes[end]) && self.bytes[end] != b'$' {
            end += 1;
        }
        if self.bytes.get(end) != Some(&b'$') {
            self.at += 1;
            return Some(Lexeme::Unknown);
        }
        let tag = &self.sql[self.at..=end];
        let body = end + 1;
        let length = self.sql[body..].find(tag)?;
        self.at = body + length + tag.len();
        Some(Lexeme::Dollar)
    }

    fn number(&mut self) -> Lexeme {
        let mut dot = false;
        loop {
            match self.byte(0) {
                b'.' if !dot && self.byte(1) != b'.' => dot = true,
                b'e' | b'E' if self.exponent_follows() => self.at += 1,
                byte if byte.is_ascii_alphanumeric() || byte == b'_' => {}
                _ => return Lexeme::Number,
            }
            self.at += 1;
        }
    }

    fn exponent_follows(&self) -> bool {
        matches!(self.byte(1), b'+' | b'-') && self.byte(2).is_ascii_digit()
    }

    /// The longest operator, by the rules of the manual's section 4.1.3: a comment ends it, and a trailing `+` or `-` is
    /// given back unless the operator holds one of `~ ! @ # % ^ & | ` ?`.
    fn operator(&mut self) -> Lexeme {
        let start = self.at;
        let mut end = start;
        while end < self.bytes.len() && OPERATOR_BYTES.contains(&self.bytes[end]) {
            if end > start && matches!(self.bytes[end..], [b'-', b'-', ..] | [b'/', b'*', ..]) {
                break;
            }
            end += 1;
        }
        let keeps_sign = self.bytes[start..end].iter().any(|b| b"~!@#%^&|`?".contains(b));
        while !keeps_sign && end - start > 1 && matches!(self.bytes[end - 1], b'+' | b'-') {
            end -= 1;
        }
        self.at = end;
        Lexeme::Operator
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sql: &str, want: &[&str]) {
        let lexed = lex(sql).expect("lexes");
        let texts: Vec<&str> = lexed.tokens.iter().map(|t| t.text).collect();
        assert_eq!(texts, want, "{sql}");
    }

    #[test]
    fn tokens() {
        check("a--b\nc", &["a", "c"]);
        check("a /* x /* y */ z */ b", &["a", "b"]);
        check("a>=-1", &["a", ">=", "-", "1"]);
        check("a@-1", &["a", "@-", "1"]);
        check(
            "'a''b' E'a\\'b' $$a'b$$ $x$ $$ $x$",
            &["'a''b'", "E'a\\'b'", "$$a'b$$", "$x$ $$ $x$"],
        );
        check(
            "\"A\"\"b\".c::int[1]",
            &["\"A\"\"b\"", ".", "c", "::", "int", "[", "1", "]"],
        );
        check("$1+1.5e-3", &["$1", "+", "1.5e-3"]);
        check("a$b$c", &["a$b$c"]);
        check("E'\\é'", &["E'\\é'"]);
    }

    #[test]
    fn unterminated_texts_are_given_up() {
        for sql in ["'a", "\"a", "/* /* */", "$$a", "E'\\'"] {
            assert!(lex(sql).is_none(), "{sql}");
        }
    }
}
