//! What follows from a session's settings and its login: the identity in cache keys, the search path, the isolation level.
//!
//! Made by the session when a setting has changed, read for each statement. Invariant: every setting that can change the bytes
//! of an answer is in the identity, with its effective value; a session that has changed a setting not known to be harmless
//! uses no cache. Pure.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::settings::{OWN_PREFIX, Settings};
use crate::cache::key::Identity;
use crate::catalog::Path;
use crate::pool::LoginFacts;
use crate::pool::facts::ANSWER_SETTINGS;

/// Settings that change when or whether an answer comes, or what is logged, but not its bytes.
const HARMLESS: [&str; 14] = [
    "application_name",
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
    "client_min_messages",
    "log_statement",
    "log_min_duration_statement",
    "work_mem",
    "synchronous_commit",
    "default_transaction_deferrable",
    "default_transaction_isolation",
    "default_transaction_read_only",
    "jit",
];

/// What a session's statements are judged and keyed under.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Derived {
    /// Part of every cache key.
    pub identity: Bytes,
    /// The effective search path: schemas apart by NUL.
    pub path: Arc<str>,
    /// All settings that were changed are in the identity, or harmless.
    pub cacheable: bool,
    /// The effective default isolation level is READ COMMITTED.
    pub read_committed: bool,
    /// A backslash in a string literal is an escape.
    pub odd_strings: bool,
    /// Texts arrive in UTF-8.
    pub utf8: bool,
    /// `idle_in_transaction_session_timeout`: kept by the proxy while no server has the block.
    pub idle_in_block_max: Option<Duration>,
    /// `idle_session_timeout`: kept by the proxy while the session has no server connection.
    pub idle_max: Option<Duration>,
    /// `statement_timeout`: kept by the proxy while no server has the statement.
    pub statement_max: Option<Duration>,
}

impl Derived {
    /// Derives all from the settings in force over the facts of the login.
    pub fn new(database: &str, user: &str, facts: &LoginFacts, settings: &Settings) -> Self {
        let value = |name: &str| {
            let lower = name.to_ascii_lowercase();
            let fact = || facts.settings.get(name).map(|value| &**value);
            settings.in_force(&lower).or_else(fact).unwrap_or_default()
        };
        let path_setting = settings.in_force("search_path").unwrap_or(&facts.search_path);
        let session_user = settings.in_force("session_authorization").unwrap_or(user);
        let role = match settings.in_force("role") {
            None | Some("none") => session_user,
            Some(role) => role,
        };
        let values: Vec<&[u8]> = std::iter::once(path_setting)
            .chain(ANSWER_SETTINGS.iter().map(|name| value(name)))
            .map(str::as_bytes)
            .collect();
        let identity = Identity {
            database: database.as_bytes(),
            role: role.as_bytes(),
            session_user: session_user.as_bytes(),
            settings: &values,
        };
        let isolation = settings
            .in_force("default_transaction_isolation")
            .unwrap_or(&facts.default_transaction_isolation);
        let limit = |name: &str| {
            let fact = || facts.timeouts.get(name).map(|value| &**value);
            settings.in_force(name).or_else(fact).and_then(duration)
        };
        Self {
            identity: identity.encode(),
            path: Path::parse(path_setting, role).schemas.join("\0").into(),
            cacheable: settings.names().all(is_known),
            read_committed: matches!(isolation, "read committed" | "read uncommitted"),
            odd_strings: value("standard_conforming_strings") == "off",
            utf8: matches!(value("client_encoding"), "UTF8" | "SQL_ASCII"),
            idle_in_block_max: limit("idle_in_transaction_session_timeout"),
            idle_max: limit("idle_session_timeout"),
            statement_max: limit("statement_timeout"),
        }
    }

    /// Is a text lexed as the classifier lexes it?
    pub fn reads_as_written(&self, sql: &[u8]) -> bool {
        (self.utf8 || sql.is_ascii()) && (!self.odd_strings || !sql.contains(&b'\\'))
    }
}

/// A duration as PostgreSQL shows it: a whole number and its unit; `None` for 0, which is none.
fn duration(shown: &str) -> Option<Duration> {
    let digits = shown.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = shown.split_at(digits);
    let milliseconds: u64 = match unit {
        "" | "ms" => 1,
        "s" => 1_000,
        "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    let number: u64 = number.parse().ok().filter(|number| *number > 0)?;
    number.checked_mul(milliseconds).map(Duration::from_millis)
}

fn is_known(name: &str) -> bool {
    matches!(name, "search_path" | "role" | "session_authorization")
        || name.starts_with(OWN_PREFIX)
        || HARMLESS.contains(&name)
        || ANSWER_SETTINGS
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> LoginFacts {
        let mut facts = LoginFacts {
            default_transaction_isolation: "read committed".into(),
            search_path: "\"$user\", public".into(),
            ..LoginFacts::default()
        };
        for (name, value) in [
            ("TimeZone", "UTC"),
            ("client_encoding", "UTF8"),
            ("standard_conforming_strings", "on"),
        ] {
            facts.settings.insert(name.into(), value.into());
        }
        facts.timeouts.insert("statement_timeout".into(), "7s".into());
        facts
    }

    fn derived(changes: &[(&str, &str)]) -> Derived {
        let mut settings = Settings::default();
        for (name, value) in changes {
            settings.set(name, value);
        }
        Derived::new("shop", "ann", &facts(), &settings)
    }

    #[test]
    fn what_changes_bytes_changes_the_identity() {
        let plain = derived(&[]);
        for change in [
            ("timezone", "Europe/Rome"),
            ("search_path", "other"),
            ("role", "bob"),
            ("extra_float_digits", "0"),
        ] {
            let changed = derived(&[change]);
            assert_ne!(changed.identity, plain.identity, "{change:?}");
            assert!(changed.cacheable, "{change:?}");
        }
        assert_eq!(derived(&[("timezone", "UTC")]).identity, plain.identity);
        assert_eq!(derived(&[("application_name", "x")]).identity, plain.identity);
    }

    #[test]
    fn a_setting_of_unknown_effect_forbids_the_cache() {
        assert!(derived(&[("statement_timeout", "5s")]).cacheable);
        assert!(!derived(&[("app.tenant", "7")]).cacheable);
        assert!(!derived(&[("enable_seqscan", "off")]).cacheable);
    }

    #[test]
    fn the_path_is_that_of_the_effective_role() {
        assert_eq!(&*derived(&[]).path, "ann\0public");
        assert_eq!(&*derived(&[("role", "bob")]).path, "bob\0public");
        assert_eq!(&*derived(&[("role", "none")]).path, "ann\0public");
    }

    #[test]
    fn a_timeout_is_read_as_the_server_shows_it() {
        assert_eq!(duration("0"), None);
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("5min"), Some(Duration::from_secs(300)));
        assert_eq!(duration("5 parsecs"), None);
        let session = derived(&[("idle_in_transaction_session_timeout", "2s")]);
        assert_eq!(session.idle_in_block_max, Some(Duration::from_secs(2)));
        assert_eq!(session.statement_max, Some(Duration::from_secs(7)), "the role's");
        assert_eq!(derived(&[("statement_timeout", "0")]).statement_max, None);
    }

    #[test]
    fn isolation_and_lexing_follow_the_settings() {
        assert!(derived(&[]).read_committed);
        assert!(!derived(&[("default_transaction_isolation", "serializable")]).read_committed);
        let odd = derived(&[("standard_conforming_strings", "off")]);
        assert!(odd.reads_as_written(b"select 'a'"));
        assert!(!odd.reads_as_written(b"select 'a\\''"));
        let latin = derived(&[("client_encoding", "SJIS")]);
        assert!(latin.reads_as_written(b"select 1"));
        assert!(!latin.reads_as_written(b"select '\xc3\xa9'"));
    }
}
