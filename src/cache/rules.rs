//! Exceptions from what is cached: by table, by shape, or by pattern, a rule sets TTL and level, or forbids or widens caching.
//!
//! Called by the session for each unit while there are rules at all, and by `explain`. Pure. Invariants: the first rule that matches
//! counts; none makes an answer cacheable that is not, because what may be cached is the catalog's verdict and the session's
//! state. What a text's rule is, is looked for once and remembered: tables and shape beside the verdict, which holds for one
//! generation of the catalog, patterns beside the prepared statement. A change of the rules voids both.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::catalog::QualifiedName;
use crate::catalog::remembered::Remembered;
use crate::freshness::level::Level;
use crate::sql::fingerprint;

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Reads of a table; without a schema, of that name in any.
    Table {
        /// The schema, where one is given.
        schema: Option<Box<str>>,
        /// The table's name.
        name: Box<str>,
    },
    /// Texts of this fingerprint.
    Fingerprint(u64),
    /// Texts that match.
    Pattern(Pattern),
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table {
                schema: Some(schema),
                name,
            } => write!(f, "table {schema}.{name}"),
            Self::Table { schema: None, name } => write!(f, "table {name}"),
            Self::Fingerprint(number) => write!(f, "fingerprint {number:016x}"),
            Self::Pattern(Pattern(pieces)) => write!(f, "pattern {}", pieces.join("*")),
        }
    }
}

impl Subject {
    /// A table as `schema.name` or `name`.
    pub fn table(text: &str) -> Self {
        let (schema, name) = match text.split_once('.') {
            Some((schema, name)) => (Some(schema.into()), name),
            None => (None, text),
        };
        Self::Table {
            schema,
            name: name.into(),
        }
    }
}

/// A text with `*` for any text: letters match in either case, any white space is one blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<String>);

impl Pattern {
    /// Reads a pattern.
    pub fn new(text: &str) -> Self {
        Self(folded(text).split('*').map(str::to_owned).collect())
    }

    fn matches(&self, folded_text: &str) -> bool {
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| only == folded_text);
        };
        let Some(mut rest) = folded_text.strip_prefix(first.as_str()) else {
            return false;
        };
        for piece in middle {
            let Some(at) = rest.find(piece.as_str()) else {
                return false;
            };
            rest = &rest[at + piece.len()..];
        }
        rest.ends_with(last.as_str())
    }
}

fn folded(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_lowercase()
}

/// A rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Its place in the list, from 1 on, as people count.
    pub number: usize,
    /// What it is about.
    pub subject: Subject,
    /// What it decides.
    pub decision: Decision,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.number, self.subject)
    }
}

/// What a rule decides; `None` leaves a matter as it is without rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// The longest age of an answer.
    pub ttl: Option<Duration>,
    /// What a read may miss.
    pub level: Option<Level>,
    /// Is the answer cached?
    pub cache: Option<bool>,
}

/// What a rule may be about, and where it is remembered.
pub struct Text<'a> {
    /// The exact text.
    pub sql: &'a [u8],
    /// Beside the verdict, which all texts of its shape share.
    pub verdict: &'a Remembered,
    /// Beside the prepared statement, where it is one.
    pub statement: Option<&'a Remembered>,
}

/// Rules in their order.
#[derive(Clone, Debug)]
pub struct Rules {
    version: u64,
    list: Vec<Arc<Rule>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self::new([])
    }
}

impl Rules {
    /// These rules, in this order.
    pub fn new(rules: impl IntoIterator<Item = (Subject, Decision)>) -> Self {
        let numbered = (1..).zip(rules).map(|(number, (subject, decision))| {
            Arc::new(Rule {
                number,
                subject,
                decision,
            })
        });
        Self {
            version: 1,
            list: numbered.collect(),
        }
    }

    /// These rules in the place of earlier ones: where they differ, nothing holds that was remembered.
    #[must_use]
    pub fn after(self, earlier: &Self) -> Self {
        let version = earlier.version + u64::from(self.list != earlier.list);
        Self { version, ..self }
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The first rule that matches a read. `tables`: those that it reads, and whether that will hold as long as its verdict.
    pub fn find(
        &self,
        text: &Text<'_>,
        tables: impl FnOnce() -> (Vec<QualifiedName>, bool),
    ) -> Option<&Arc<Rule>> {
        if self.is_empty() {
            return None;
        }
        let shaped = text.verdict.under(self.version).unwrap_or_else(|| {
            let (tables, holds) = tables();
            let found = self.by_shape(text.sql, &tables);
            if holds {
                text.verdict.keep(self.version, found);
            }
            found
        });
        let known = text.statement.and_then(|statement| statement.under(self.version));
        let patterned = known.unwrap_or_else(|| {
            let found = self.by_pattern(text.sql);
            if let Some(statement) = text.statement {
                statement.keep(self.version, found);
            }
            found
        });
        let first = match (shaped, patterned) {
            (Some(one), Some(other)) => one.min(other),
            (one, other) => one.or(other)?,
        };
        self.list.get(first)
    }

    fn by_shape(&self, sql: &[u8], tables: &[QualifiedName]) -> Option<usize> {
        let mut shape = None;
        self.list.iter().position(|rule| match &rule.subject {
            Subject::Table { schema, name } => tables.iter().any(|table| {
                table.name == *name && schema.as_ref().is_none_or(|schema| table.schema == *schema)
            }),
            Subject::Fingerprint(wanted) => {
                let shape = shape.get_or_insert_with(|| std::str::from_utf8(sql).ok().map(fingerprint));
                *shape == Some(*wanted)
            }
            Subject::Pattern(_) => false,
        })
    }

    fn by_pattern(&self, sql: &[u8]) -> Option<usize> {
        let mut text = None;
        self.list.iter().position(|rule| match &rule.subject {
            Subject::Pattern(pattern) => {
                pattern.matches(text.get_or_insert_with(|| folded(&String::from_utf8_lossy(sql))))
            }
            Subject::Table { .. } | Subject::Fingerprint(_) => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, sql: &str) -> bool {
        Pattern::new(pattern).matches(&folded(sql))
    }

    #[test]
    fn a_star_is_any_text_and_white_space_one_blank() {
        assert!(matches(
            "select * from deals*",
            "SELECT  a, b\n FROM deals WHERE id = 1"
        ));
        assert!(matches("*deals*", "select 1 from Deals"));
        assert!(matches("select 1", "select\t1"));
        assert!(matches("a*b*b", "a b b"));
        assert!(!matches("a*b*b", "a b"), "no character counts twice");
        assert!(!matches("select 1", "select 12"));
        assert!(!matches("select * from deals", "select 1 from deals d"));
    }

    fn rule(subject: Subject, ttl: u64) -> (Subject, Decision) {
        let ttl = Some(Duration::from_secs(ttl));
        let decision = Decision {
            ttl,
            ..Decision::default()
        };
        (subject, decision)
    }

    fn pattern(text: &str) -> Subject {
        Subject::Pattern(Pattern::new(text))
    }

    fn names(names: &[(&str, &str)]) -> Vec<QualifiedName> {
        let name = |(schema, name): &(&str, &str)| QualifiedName {
            schema: (*schema).into(),
            name: (*name).into(),
        };
        names.iter().map(name).collect()
    }

    /// What is found by somebody who remembers nothing.
    fn number(rules: &Rules, sql: &str, tables: &[(&str, &str)]) -> Option<usize> {
        let text = Text {
            sql: sql.as_bytes(),
            verdict: &Remembered::default(),
            statement: None,
        };
        let found = rules.find(&text, || (names(tables), true));
        found.map(|rule| rule.number)
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = Rules::new([
            rule(Subject::table("archive.deals"), 1),
            rule(
                Subject::Fingerprint(fingerprint("select count(*) from t where a = 5")),
                2,
            ),
            rule(pattern("*special*"), 3),
            rule(Subject::table("deals"), 4),
            rule(pattern("*"), 5),
        ]);
        let number = |sql: &str, tables: &[(&str, &str)]| number(&rules, sql, tables);
        assert_eq!(number("select 1 from deals", &[("archive", "deals")]), Some(1));
        assert_eq!(number("select 1 from deals", &[("public", "deals")]), Some(4));
        assert_eq!(
            number("select special from deals", &[("public", "deals")]),
            Some(3),
            "a pattern between tables"
        );
        assert_eq!(
            number("SELECT count(*) FROM t WHERE a = 7", &[("public", "deals")]),
            Some(2)
        );
        assert_eq!(number("select 1", &[]), Some(5));
        assert_eq!(super::Rules::default().list.len(), 0);
        let text = Text {
            sql: b"select 1",
            verdict: &Remembered::default(),
            statement: None,
        };
        let unasked = || panic!("nobody needs to know");
        assert_eq!(Rules::default().find(&text, unasked), None);
    }

    #[test]
    fn what_was_found_is_remembered_until_the_rules_change() {
        let (verdict, statement) = (Remembered::default(), Remembered::default());
        let text = Text {
            sql: b"select 1 from deals",
            verdict: &verdict,
            statement: Some(&statement),
        };
        let rules = Rules::new([rule(Subject::table("deals"), 1), rule(pattern("*deals"), 2)]);
        let numbers = |rules: &Rules, tables: &dyn Fn() -> (Vec<QualifiedName>, bool)| {
            rules.find(&text, tables).map(|rule| rule.number)
        };
        let deals = || (names(&[("public", "deals")]), true);
        let unasked = || panic!("it is remembered");
        let for_now = || (names(&[("public", "deals")]), false);
        assert_eq!(numbers(&rules, &for_now), Some(1));
        assert_eq!(verdict.under(1), None, "what may not hold is not remembered");
        assert_eq!(numbers(&rules, &deals), Some(1));
        assert_eq!(numbers(&rules, &unasked), Some(1));
        assert_eq!(statement.under(1), Some(Some(1)));
        let same = rules.clone().after(&rules);
        assert_eq!(numbers(&same, &unasked), Some(1), "a reload that changes nothing");
        let other = Rules::new([rule(pattern("select 1 *"), 3)]).after(&rules);
        let nothing = || (Vec::new(), true);
        let found = other.find(&text, nothing).expect("it matches");
        assert_eq!(found.decision.ttl, Some(Duration::from_secs(3)));
    }

    #[test]
    fn texts_of_one_template_are_of_one_shape() {
        for sql in [
            "select a, 12 from t where b = 'x' and c in (1, 2, 3)",
            "SELECT 1.5 - 3 FROM t WHERE d > -7",
            "insert into t values (1, 'a'), (2, 'b')",
        ] {
            let shared = crate::sql::template(sql.as_bytes()).expect("a template");
            let shared = String::from_utf8(shared).expect("text");
            assert_eq!(fingerprint(sql), fingerprint(&shared), "{sql}");
        }
    }

    #[test]
    fn a_rule_says_which_it_is() {
        let rules = Rules::new([
            rule(Subject::table("public.deals"), 1),
            rule(Subject::Fingerprint(255), 1),
            rule(pattern("Select *  from T*"), 1),
        ]);
        let shown: Vec<String> = rules.list.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "1: table public.deals",
                "2: fingerprint 00000000000000ff",
                "3: pattern select * from t*"
            ]
        );
    }
}
