//! What one round-trip right after the login tells about a server connection.
//!
//! Called by `login`. Every name in the query is qualified, because the role's search_path is not ours to trust. Values travel
//! as the hex of their UTF-8, so that a role whose client_encoding is another is read right. `pg_control_system()` may be denied
//! to the role: then the identifier is unknown, and only then it costs a second round-trip.

use std::collections::BTreeMap;

/// The setting names whose values can change the text of an answer, and so belong to a cache key.
pub const ANSWER_SETTINGS: [&str; 16] = [
    "TimeZone",
    "DateStyle",
    "IntervalStyle",
    "extra_float_digits",
    "bytea_output",
    "client_encoding",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "xmlbinary",
    "xmloption",
    "standard_conforming_strings",
    "timezone_abbreviations",
    "default_text_search_config",
    "row_security",
];

/// Limits that the proxy keeps itself while no server connection does.
pub const TIMEOUTS: [&str; 3] = [
    "statement_timeout",
    "idle_in_transaction_session_timeout",
    "idle_session_timeout",
];

/// The effective defaults of a fresh connection, with what the role and the database configure.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginFacts {
    /// `read committed`, `repeatable read`, `serializable` or `read uncommitted`.
    pub default_transaction_isolation: Box<str>,
    /// Whether transactions start read only.
    pub default_transaction_read_only: bool,
    /// As `SHOW search_path` says it, `"$user"` not expanded.
    pub search_path: Box<str>,
    /// The role that logged in.
    pub session_user: Box<str>,
    /// When the backend started, in UTC, as `2026-01-31 23:59:59.123456`; compares as text.
    pub backend_start: Box<str>,
    /// `pg_is_in_recovery()` at the login.
    pub in_recovery: bool,
    /// The cluster's identifier; `None` when the role may not ask.
    pub system_identifier: Option<u64>,
    /// Such as 150004.
    pub server_version_num: u32,
    /// Each of [`ANSWER_SETTINGS`] that this server has, with its value.
    pub settings: BTreeMap<Box<str>, Box<str>>,
    /// Each of [`TIMEOUTS`] that this server has, as it shows it.
    pub timeouts: BTreeMap<Box<str>, Box<str>>,
}

/// The query; its rows are a name and the hex of a value, or NULL.
pub(crate) fn query(with_identifier: bool) -> String {
    let mut rows = vec![
        "('!session_user', session_user::pg_catalog.text)".to_owned(),
        "('!in_recovery', pg_catalog.pg_is_in_recovery()::pg_catalog.text)".to_owned(),
        "('!backend_start', (SELECT pg_catalog.to_char(pg_catalog.timezone('UTC', a.backend_start), \
         'YYYY-MM-DD HH24:MI:SS.US') FROM pg_catalog.pg_stat_activity a \
         WHERE a.pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()))"
            .to_owned(),
    ];
    if with_identifier {
        rows.push(
            "('!system_identifier', (SELECT c.system_identifier::pg_catalog.text \
             FROM pg_catalog.pg_control_system() c))"
                .to_owned(),
        );
    }
    let defaults = [
        "default_transaction_isolation",
        "default_transaction_read_only",
        "search_path",
        "server_version_num",
    ];
    let named = defaults
        .iter()
        .map(|name| ("!", *name))
        .chain(TIMEOUTS.iter().map(|name| ("?", *name)))
        .chain(ANSWER_SETTINGS.iter().map(|name| ("", *name)));
    rows.extend(
        named.map(|(mark, name)| format!("('{mark}{name}', pg_catalog.current_setting('{name}', true))")),
    );
    format!(
        "SELECT f.k, pg_catalog.encode(pg_catalog.convert_to(f.v, 'UTF8'), 'hex') FROM (VALUES {}) AS f(k, v)",
        rows.join(", ")
    )
}

impl LoginFacts {
    /// Takes one row; false when it makes no sense.
    pub(crate) fn take(&mut self, name: &[u8], hex: Option<&[u8]>) -> bool {
        let Ok(name) = std::str::from_utf8(name) else {
            return false;
        };
        let Some(hex) = hex else { return true };
        let Some(value) = unhex(hex).and_then(|bytes| String::from_utf8(bytes).ok()) else {
            return false;
        };
        match name {
            "!session_user" => self.session_user = value.into(),
            "!in_recovery" => self.in_recovery = value == "true",
            "!backend_start" => self.backend_start = value.into(),
            "!default_transaction_isolation" => self.default_transaction_isolation = value.into(),
            "!default_transaction_read_only" => self.default_transaction_read_only = value != "off",
            "!search_path" => self.search_path = value.into(),
            "!server_version_num" => {
                return value
                    .parse()
                    .map(|number| self.server_version_num = number)
                    .is_ok();
            }
            // PostgreSQL shows the unsigned identifier as a signed bigint.
            "!system_identifier" => {
                return value
                    .parse()
                    .map(|id: i64| self.system_identifier = Some(id.cast_unsigned()))
                    .is_ok();
            }
            setting => match setting.strip_prefix('?') {
                Some(timeout) => {
                    self.timeouts.insert(timeout.into(), value.into());
                }
                None => {
                    self.settings.insert(setting.into(), value.into());
                }
            },
        }
        true
    }

    /// True when everything a session relies on was answered.
    pub(crate) fn is_complete(&self) -> bool {
        !self.session_user.is_empty()
            && !self.default_transaction_isolation.is_empty()
            && self.server_version_num > 0
    }
}

/// The first two columns of a DataRow's body; `None` when its lengths do not add up.
pub(crate) fn two_columns(body: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let (&count, rest) = body.split_first_chunk::<2>()?;
    if count != [0, 2] {
        return None;
    }
    let (name, rest) = column(rest)?;
    let (value, rest) = column(rest)?;
    rest.is_empty().then_some((name?, value))
}

fn column(body: &[u8]) -> Option<(Option<&[u8]>, &[u8])> {
    let (&length, rest) = body.split_first_chunk::<4>()?;
    match i32::from_be_bytes(length) {
        -1 => Some((None, rest)),
        length => rest
            .split_at_checked(usize::try_from(length).ok()?)
            .map(|(value, rest)| (Some(value), rest)),
    }
}

fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digit = |c: u8| {
        char::from(c)
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
    };
    text.chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_read_by_their_lengths() {
        let row = b"\0\x02\0\0\0\x01k\0\0\0\x02vw";
        assert_eq!(two_columns(row), Some((&b"k"[..], Some(&b"vw"[..]))));
        assert_eq!(
            two_columns(b"\0\x02\0\0\0\x01k\xff\xff\xff\xff"),
            Some((&b"k"[..], None))
        );
        assert_eq!(two_columns(b"\0\x02\0\0\0\x09k"), None);
        assert_eq!(two_columns(b"\0\x01\0\0\0\x01k"), None);
        assert_eq!(two_columns(b""), None);
    }

    #[test]
    fn values_are_taken_by_name() {
        let mut facts = LoginFacts::default();
        assert!(facts.take(b"!session_user", Some(b"616e6e")));
        assert!(facts.take(b"!system_identifier", Some(b"2d31")));
        assert!(facts.take(b"DateStyle", Some(b"49534f")));
        assert!(facts.take(b"?statement_timeout", Some(b"3573")));
        assert!(facts.take(b"lc_time", None));
        assert!(!facts.take(b"!server_version_num", Some(b"6e6f")));
        assert!(!facts.take(b"DateStyle", Some(b"4")));
        assert_eq!(&*facts.session_user, "ann");
        assert_eq!(facts.system_identifier, Some(u64::MAX));
        assert_eq!(facts.settings.len(), 1);
        assert_eq!(facts.timeouts["statement_timeout"].as_ref(), "5s");
        assert!(!facts.is_complete());
    }
}
