//! `[auth]`: who may connect, and how clients prove it.
//!
//! Read by `Config::load`; used by the authentication of clients and, where a password is known, by logins to servers. Secrets
//! never show in `Debug`, in an error, or in a log, and are overwritten when dropped.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

use super::error::Problem;
use super::kind::{List, NOT_EMPTY, Optional, ReadableFile, Span, Text, Words};
use super::reader::Section;
use super::userlist;

/// How clients prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMethod {
    /// SCRAM-SHA-256.
    #[default]
    Scram,
    /// A certificate whose common name is the user's.
    Cert,
    /// Not at all; only where nobody but this machine can connect.
    Trust,
}

/// A secret text.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(pub Zeroizing<String>);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

/// What is known of a user's secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserSecret {
    /// The password, of the file or of a variable: good for clients and for servers.
    Password(Password),
    /// `SCRAM-SHA-256$...` as in pg_authid: good for clients; with the keys learnt from them, for servers of the same verifier.
    Verifier(Password),
}

/// A user of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserConfig {
    /// The role's name.
    pub name: String,
    /// The role's secret.
    pub secret: UserSecret,
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthConfig {
    /// How clients prove it.
    pub method: AuthMethod,
    /// Asked by the control user, with the name as `$1`, for the verifier of users that stand nowhere else; `None`: not asked.
    pub query: Option<String>,
    /// How long an answer to it may be used again.
    pub query_ttl: Duration,
    /// A file of users; they stand in `users` already.
    pub file: Option<PathBuf>,
    /// Users of the configuration, then those of the file that are not among them.
    pub users: Vec<UserConfig>,
    /// Who may use the console; empty: the control user alone.
    pub admins: Vec<String>,
}

/// Every role that can log in and has a password. Only a superuser may read `pg_authid`.
const DEFAULT_QUERY: &str = "SELECT rolpassword FROM pg_catalog.pg_authid WHERE rolname = $1 AND rolcanlogin \
     AND (rolvaliduntil IS NULL OR rolvaliduntil > pg_catalog.now())";

impl Default for AuthConfig {
    fn default() -> Self {
        Self {
            method: AuthMethod::Scram,
            query: Some(DEFAULT_QUERY.to_owned()),
            query_ttl: Duration::from_secs(5),
            file: None,
            users: Vec::new(),
            admins: Vec::new(),
        }
    }
}

const QUERY: Text = Text {
    allowed: "a SELECT with $1 for the user's name",
    accepts: |text| text.contains("$1"),
};

const VARIABLE: Text = Text {
    allowed: "the name of a variable that is set and not empty",
    accepts: |text| !text.is_empty(),
};

const VERIFIER: Text = Text {
    allowed: "a verifier as in pg_authid, SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>",
    accepts: is_verifier,
};

impl AuthConfig {
    /// `variable` finds the value of a variable of the environment.
    pub(super) fn read<'a>(&mut self, mut section: Section<'_>, variable: impl Fn(&str) -> Option<&'a str>) {
        const METHODS: &[(&str, AuthMethod)] = &[
            ("scram", AuthMethod::Scram),
            ("cert", AuthMethod::Cert),
            ("trust", AuthMethod::Trust),
        ];
        section.read("method", &mut self.method, &Words(METHODS));
        section.read(
            "query",
            &mut self.query,
            &Optional {
                none: "off",
                kind: QUERY,
            },
        );
        section.read(
            "file",
            &mut self.file,
            &Optional {
                none: "",
                kind: ReadableFile,
            },
        );
        section.read("query_ttl", &mut self.query_ttl, &Span::new(1, 3_600));
        let names = List {
            kind: NOT_EMPTY,
            parts_max: 10_000,
        };
        section.read("admins", &mut self.admins, &names);
        self.users = section.list("user", |user| read_user(user, &variable));
        self.read_file(&mut section);
    }

    /// Adds the file's users; a user of the configuration counts before one of the file.
    fn read_file(&mut self, section: &mut Section<'_>) {
        let Some(path) = &self.file else {
            return;
        };
        let text = std::fs::read_to_string(path).map(Zeroizing::new);
        let read = text
            .map_err(|error| error.to_string())
            .and_then(|text| userlist::parse(&text));
        match read {
            Ok(users) => {
                let is_new = |user: &UserConfig| self.users.iter().all(|known| known.name != user.name);
                let new: Vec<_> = users.into_iter().filter(is_new).collect();
                self.users.extend(new);
            }
            Err(reason) => section.object("file", Problem::File { reason }),
        }
    }
}

fn read_user<'a>(
    section: &mut Section<'_>,
    variable: &impl Fn(&str) -> Option<&'a str>,
) -> Option<UserConfig> {
    let name = section.read_required("name", &NOT_EMPTY);
    let password = section.read_if_given("password", &NOT_EMPTY).map(Zeroizing::new);
    let password_env = section.read_if_given("password_env", &VARIABLE);
    let verifier = section.read_if_given("verifier", &VERIFIER).map(Zeroizing::new);
    let secrets = ["password", "password_env", "verifier"];
    if secrets.iter().filter(|name| section.is_given(name)).count() != 1 {
        let allowed = "give exactly one of password, password_env and verifier".to_owned();
        section.object("", Problem::Conflict { allowed });
    }
    let of_variable = password_env.and_then(|name| {
        let found = variable(&name).map(|value| Zeroizing::new(value.to_owned()));
        if found.is_none() {
            let allowed = VARIABLE.allowed.to_owned();
            section.object("password_env", Problem::NotAllowed { allowed });
        }
        found
    });
    let password = password
        .or(of_variable)
        .map(|text| UserSecret::Password(Password(text)));
    let secret = password.or(verifier.map(|text| UserSecret::Verifier(Password(text))))?;
    Some(UserConfig { name: name?, secret })
}

/// The shape only: whether the keys are right shows when somebody logs in.
pub(super) fn is_verifier(text: &str) -> bool {
    let Some((iterations, keys)) = text
        .strip_prefix("SCRAM-SHA-256$")
        .and_then(|rest| rest.split_once(':'))
    else {
        return false;
    };
    let parts: Vec<&str> = keys.split(['$', ':']).collect();
    let is_base64 = |part: &&str| {
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
        !part.is_empty() && part.len().is_multiple_of(4) && part.bytes().all(known)
    };
    iterations.parse::<u32>().is_ok_and(|count| count > 0) && parts.len() == 3 && parts.iter().all(is_base64)
}
