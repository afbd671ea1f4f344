//! What a StartupMessage asks for, in the proxy's terms.
//!
//! Called by the entrance with the packet that `protocol::startup` took apart. It follows PostgreSQL in what it accepts, truncates
//! and prefers, and refuses what a pooling proxy cannot give (replication). Pure. It knows nothing of which settings exist:
//! those are sent to a server, which refuses what it does not know.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::protocol::error::Report;
use crate::protocol::sqlstate;
use crate::protocol::startup::{Startup, split_options};

/// Bytes of a role's or database's name that PostgreSQL keeps (NAMEDATALEN - 1).
const NAME_BYTES_MAX: usize = 63;
/// The newest minor version of protocol 3 that is spoken here. There is no 3.1.
const NEWEST_MINOR: u16 = 2;
const MAJOR: i32 = 3 << 16;

/// Who wants in, and how.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub user: Arc<str>,
    pub database: Arc<str>,
    pub parameters: BTreeMap<Box<str>, Box<str>>,
    pub protocol_minor: u16,
    pub negotiation: Option<Negotiation>,
}

/// The client asked for more of the protocol than there is: it must be told before anything else.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Negotiation {
    /// Major and minor version, as in a StartupMessage: what libpq reads here is not the minor version alone.
    pub version: i32,
    /// Options that begin with `_pq_.`; none is known.
    pub unsupported: Vec<String>,
}

impl Request {
    /// Reads a packet. The error is for the client.
    pub fn read(startup: Startup) -> Result<Self, Report> {
        let mut request = Self {
            user: Arc::default(),
            database: Arc::default(),
            parameters: BTreeMap::new(),
            protocol_minor: if startup.minor < NEWEST_MINOR {
                0
            } else {
                NEWEST_MINOR
            },
            negotiation: None,
        };
        let (mut unsupported, mut direct) = (Vec::new(), BTreeMap::new());
        for (name, value) in startup.parameters {
            let (name, value) = (text(name)?, text(value)?);
            match name.as_str() {
                "user" => request.user = truncated(&value).into(),
                "database" => request.database = truncated(&value).into(),
                "options" => request.parameters = settings_of(&value)?,
                "replication" => refuse_replication(&value)?,
                _ if name.starts_with("_pq_.") => unsupported.push(name),
                _ => drop(direct.insert(name.to_ascii_lowercase().into(), value.into())),
            }
        }
        // The server applies the command line first, so that a parameter of its own wins.
        request.parameters.append(&mut direct);
        if request.user.is_empty() {
            let text = "no PostgreSQL user name specified in startup packet";
            return Err(Report::fatal(sqlstate::INVALID_AUTHORIZATION, text));
        }
        if request.database.is_empty() {
            request.database = Arc::clone(&request.user);
        }
        if startup.minor != request.protocol_minor || !unsupported.is_empty() {
            request.negotiation = Some(Negotiation {
                version: MAJOR | i32::from(request.protocol_minor),
                unsupported,
            });
        }
        Ok(request)
    }
}

fn text(bytes: Vec<u8>) -> Result<String, Report> {
    String::from_utf8(bytes).map_err(|_| {
        Report::fatal(
            sqlstate::PROTOCOL_VIOLATION,
            "the startup packet holds text that is not UTF-8",
        )
    })
}

fn truncated(name: &str) -> &str {
    let mut end = name.len().min(NAME_BYTES_MAX);
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    &name[..end]
}

/// PostgreSQL reads `replication` as a boolean that may also be `database`.
fn refuse_replication(value: &str) -> Result<(), Report> {
    let lower = value.to_ascii_lowercase();
    let is_prefix_of = |word: &str, min: usize| lower.len() >= min && word.starts_with(&lower);
    if is_prefix_of("false", 1) || is_prefix_of("no", 1) || is_prefix_of("off", 2) || lower == "0" {
        return Ok(());
    }
    let text = "replication connections are not supported by this proxy";
    Err(Report::fatal(sqlstate::FEATURE_NOT_SUPPORTED, text)
        .hint("Connect to the PostgreSQL server directly."))
}

/// The settings in `options`: `-c name=value`, `--name=value`, and the two old switches that are settings.
fn settings_of(options: &str) -> Result<BTreeMap<Box<str>, Box<str>>, Report> {
    let refused = |word: &str| {
        let text = format!("invalid command-line argument for server process: {word}");
        Report::fatal(sqlstate::SYNTAX_ERROR, text)
    };
    let mut settings = BTreeMap::new();
    let words: Result<Vec<String>, Report> =
        split_options(options.as_bytes()).into_iter().map(text).collect();
    let mut words = words?.into_iter();
    while let Some(word) = words.next() {
        let switch = word.get(..2).ok_or_else(|| refused(&word))?;
        let mut argument = || match &word[2..] {
            "" => words.next().ok_or_else(|| refused(&word)),
            attached => Ok(attached.to_owned()),
        };
        let (name, value) = match switch {
            "-c" => assignment(&argument()?)?,
            "--" if word.len() > 2 => assignment(&word[2..])?,
            "-S" => ("work_mem".into(), argument()?.into()),
            "-e" if word == "-e" => ("datestyle".into(), "euro".into()),
            _ => return Err(refused(&word)),
        };
        settings.insert(name, value);
    }
    Ok(settings)
}

/// `name=value`, where a dash in the name stands for an underscore.
fn assignment(text: &str) -> Result<(Box<str>, Box<str>), Report> {
    let (name, value) = text
        .split_once('=')
        .ok_or_else(|| Report::fatal(sqlstate::SYNTAX_ERROR, format!("-c {text} requires a value")))?;
    let name = name.replace('-', "_").to_ascii_lowercase();
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn startup(minor: u16, parameters: &[(&str, &str)]) -> Startup {
        let parameters = parameters
            .iter()
            .map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec()))
            .collect();
        Startup {
            major: 3,
            minor,
            parameters,
        }
    }

    fn read(parameters: &[(&str, &str)]) -> Result<Request, Report> {
        Request::read(startup(0, parameters))
    }

    fn settings(parameters: &[(&str, &str)]) -> Vec<(String, String)> {
        let with_user: Vec<_> = [("user", "ann")].iter().chain(parameters).copied().collect();
        let request = read(&with_user).expect("valid");
        let pairs = request.parameters.into_iter();
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn the_database_defaults_to_the_user() {
        let request = read(&[("user", "ann")]).expect("valid");
        assert_eq!((&*request.user, &*request.database), ("ann", "ann"));
        let request = read(&[("user", "ann"), ("database", "app")]).expect("valid");
        assert_eq!(&*request.database, "app");
        assert_eq!(request.negotiation, None);
    }

    #[test]
    fn names_are_cut_where_postgresql_cuts_them() {
        let long = format!("{}é", "x".repeat(62));
        let request = read(&[("user", &long), ("database", &"d".repeat(70))]).expect("valid");
        assert_eq!(&*request.user, "x".repeat(62));
        assert_eq!(request.database.len(), 63);
    }

    #[test]
    fn what_cannot_be_served_is_refused() {
        let check = |parameters: &[(&str, &str)], code: &str| {
            assert_eq!(
                read(parameters).expect_err("refused").code,
                code,
                "{parameters:?}"
            );
        };
        check(&[], "28000");
        check(&[("user", "")], "28000");
        check(&[("database", "app")], "28000");
        for value in ["true", "on", "1", "yes", "database", "junk"] {
            check(&[("user", "ann"), ("replication", value)], "0A000");
        }
        for options in [
            "-c", "-c geqo", "--", "--geqo", "-", "-x", "geqo=off", "-é", "-ex",
        ] {
            check(&[("user", "ann"), ("options", options)], "42601");
        }
        let mut latin = startup(0, &[]);
        latin.parameters.insert(b"user".to_vec(), b"\xe9".to_vec());
        assert_eq!(Request::read(latin).expect_err("refused").code, "08P01");
    }

    #[test]
    fn a_replication_parameter_that_says_no_is_taken() {
        for value in ["false", "f", "off", "no", "0", "OFF"] {
            assert!(settings(&[("replication", value)]).is_empty(), "{value}");
        }
    }

    #[test]
    fn settings_come_from_parameters_and_options() {
        let options = r"-c geqo=off -cwork_mem=1MB --statement-timeout=5 -S 64 -e -c search_path=a,\ b";
        let found = settings(&[
            ("options", options),
            ("Application_Name", "x"),
            ("work_mem", "2MB"),
        ]);
        let expected = [
            ("application_name", "x"),
            ("datestyle", "euro"),
            ("geqo", "off"),
            ("search_path", "a, b"),
            ("statement_timeout", "5"),
            ("work_mem", "2MB"),
        ];
        assert_eq!(
            found,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn a_newer_protocol_is_negotiated_down() {
        let check = |minor, options: &[(&str, &str)], spoken, told: Option<i32>| {
            let with_user: Vec<_> = [("user", "ann")].iter().chain(options).copied().collect();
            let request = Request::read(startup(minor, &with_user)).expect("valid");
            assert_eq!(request.protocol_minor, spoken, "3.{minor}");
            assert_eq!(request.negotiation.map(|told| told.version), told, "3.{minor}");
        };
        check(0, &[], 0, None);
        check(2, &[], 2, None);
        check(1, &[], 0, Some(0x0003_0000));
        check(9999, &[], 2, Some(0x0003_0002));
        check(0, &[("_pq_.x", "1")], 0, Some(0x0003_0000));
        check(2, &[("_pq_.x", "1")], 2, Some(0x0003_0002));
    }
}
