//! `[[cache.rule]]`: exceptions from what is cached, by table, fingerprint or pattern.
//!
//! Read by the cache's section; used by the session once it has a verdict. A rule narrows, or sets how old an answer may be; none
//! of them can make an answer cacheable that is not.

use std::time::Duration;

use super::cache::Ttl;
use super::error::Problem;
use super::freshness::{Freshness, Level};
use super::kind::{Kind, NOT_EMPTY, Raw, Switch};
use super::reader::Section;

/// What a rule is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RuleSubject {
    /// Reads of this table, `schema.name` or `name` for any schema.
    Table(String),
    /// Statements of this fingerprint, as `pgladder explain` prints it.
    Fingerprint(u64),
    /// Statements whose text matches: `*` stands for any text, letters match in either case, white space is one blank.
    Pattern(String),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRule {
    /// What it is about.
    pub subject: RuleSubject,
    /// The longest age of an answer; `None`: as in `[cache]`.
    pub ttl: Option<Duration>,
    /// What a read may miss; `None`: as in `[freshness]`.
    pub freshness: Option<Freshness>,
    /// Are such answers cached? `None`: as `cache.what` says.
    pub cache: Option<bool>,
}

pub(super) fn read(section: &mut Section<'_>) -> Option<CacheRule> {
    let table = section.read_if_given("table", &NOT_EMPTY).map(RuleSubject::Table);
    let fingerprint = section
        .read_if_given("fingerprint", &Fingerprint)
        .map(RuleSubject::Fingerprint);
    let pattern = section
        .read_if_given("pattern", &NOT_EMPTY)
        .map(RuleSubject::Pattern);
    let ttl = section.read_if_given("ttl", &Ttl::default());
    let freshness = section.read_if_given("freshness", &Level);
    let cache = section.read_if_given("cache", &Switch);
    if ["ttl", "freshness", "cache"]
        .iter()
        .all(|name| !section.is_given(name))
    {
        let allowed = "give one or more of ttl, freshness and cache".to_owned();
        section.object("", Problem::Missing { allowed });
    }
    let given = ["table", "fingerprint", "pattern"];
    if given.iter().filter(|name| section.is_given(name)).count() != 1 {
        let allowed = "give exactly one of table, fingerprint and pattern".to_owned();
        section.object("", Problem::Conflict { allowed });
    }
    let subject = table.or(fingerprint).or(pattern)?;
    Some(CacheRule {
        subject,
        ttl,
        freshness,
        cache,
    })
}

/// Sixteen hexadecimal digits.
struct Fingerprint;

impl Kind for Fingerprint {
    type Value = u64;

    fn parse(&self, raw: &Raw) -> Option<u64> {
        let digits = raw.text()?;
        let is_hex = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        u64::from_str_radix(digits, 16).ok().filter(|_| is_hex)
    }

    fn show(&self, value: &u64) -> String {
        format!("\"{value:016x}\"")
    }

    fn allowed(&self) -> String {
        "16 hexadecimal digits, as pgladder explain prints them".to_owned()
    }
}
