//! Exceptions from what is cached: by table, by shape, or by pattern, a rule sets TTL and level, or forbids or widens caching.
//!
//! Called by the session for each read while there are rules at all. Pure. Invariant: the first rule that matches counts, and
//! none makes an answer cacheable that is not: what may be cached is the catalog's verdict, and the session's state.

use std::time::Duration;

use crate::catalog::QualifiedName;
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
    /// What it is about.
    pub subject: Subject,
    /// What it decides.
    pub decision: Decision,
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

/// Rules in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// These rules.
    pub fn new(rules: Vec<Rule>) -> Self {
        Self(rules)
    }

    /// There are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What the first rule that matches a read decides. `tables`: those that it reads.
    pub fn decide<'a>(&self, sql: &str, tables: impl Fn() -> Vec<&'a QualifiedName>) -> Decision {
        let (mut shape, mut text) = (None, None);
        let matching = self.0.iter().find(|rule| match &rule.subject {
            Subject::Table { schema, name } => tables().iter().any(|table| {
                *table.name == **name && schema.as_ref().is_none_or(|schema| *table.schema == **schema)
            }),
            Subject::Fingerprint(wanted) => *shape.get_or_insert_with(|| fingerprint(sql)) == *wanted,
            Subject::Pattern(pattern) => pattern.matches(text.get_or_insert_with(|| folded(sql))),
        });
        matching.map_or_else(Decision::default, |rule| rule.decision)
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

    fn rule(subject: Subject, ttl: u64) -> Rule {
        let ttl = Some(Duration::from_secs(ttl));
        Rule {
            subject,
            decision: Decision {
                ttl,
                ..Decision::default()
            },
        }
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rules = Rules::new(vec![
            rule(Subject::table("archive.deals"), 1),
            rule(
                Subject::Fingerprint(fingerprint("select count(*) from t where a = 5")),
                2,
            ),
            rule(Subject::table("deals"), 3),
            rule(Subject::Pattern(Pattern::new("*")), 4),
        ]);
        let name = |schema: &str, name: &str| QualifiedName {
            schema: schema.into(),
            name: name.into(),
        };
        let (archived, deals) = (name("archive", "deals"), name("public", "deals"));
        let ttl = |sql: &str, tables: &[&QualifiedName]| {
            let decision = rules.decide(sql, || tables.to_vec());
            decision.ttl.map_or(0, |ttl| ttl.as_secs())
        };
        assert_eq!(ttl("select 1 from deals", &[&archived]), 1);
        assert_eq!(ttl("select 1 from deals", &[&deals]), 3);
        assert_eq!(ttl("SELECT count(*) FROM t WHERE a = 7", &[&deals]), 2);
        assert_eq!(ttl("select 1", &[]), 4);
        let none = Rules::default().decide("select 1", Vec::new);
        assert_eq!(none, Decision::default());
    }
}
