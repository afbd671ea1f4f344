//! The password file of libpq: `~/.pgpass`, or what `PGPASSFILE` names.
//!
//! Called as a source of [`Credentials`]. It is read at every login, as libpq does: a changed file counts at once, and logins
//! are rare. A file that others may read, or that is no plain file, is ignored with a warning, as libpq ignores it.
//! Source: the PostgreSQL manual, "The Password File".

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::pool::credentials::{Credentials, Secret};

/// A larger file is no password file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// libpq's default directories of the Unix socket; `localhost` in the file stands for them.
const SOCKET_DIRECTORIES: [&str; 2] = ["/var/run/postgresql", "/tmp"];

/// A password file by its path.
#[derive(Clone, Debug)]
pub struct PgPass {
    path: PathBuf,
}

impl PgPass {
    /// A password file at this path.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// The file that libpq would use for this process; `None` without PGPASSFILE and HOME.
    pub fn from_environment() -> Option<Self> {
        let named = std::env::var_os("PGPASSFILE")
            .filter(|path| !path.is_empty())
            .map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".pgpass"));
        named.or_else(home).map(Self::at)
    }

    /// The file's text when it may be used.
    fn read(&self) -> Option<Zeroizing<String>> {
        let path = self.path.display();
        let about = std::fs::metadata(&self.path).ok()?;
        if !about.is_file() {
            tracing::warn!(%path, "the password file is not a plain file and is ignored");
            return None;
        }
        if about.permissions().mode() & 0o077 != 0 {
            tracing::warn!(%path, "the password file is open to group or others and is ignored; chmod 0600 it");
            return None;
        }
        if about.len() > FILE_BYTES_MAX {
            tracing::warn!(%path, "the password file is larger than 1 MiB and is ignored");
            return None;
        }
        match std::fs::read_to_string(&self.path) {
            Ok(text) => Some(Zeroizing::new(text)),
            Err(error) => {
                tracing::warn!(%path, %error, "the password file cannot be read and is ignored");
                None
            }
        }
    }
}

impl Credentials for PgPass {
    fn secret(&self, user: &str, database: &str, host: &str, port: u16) -> Option<Secret> {
        let text = self.read()?;
        let host = if SOCKET_DIRECTORIES.contains(&host) {
            "localhost"
        } else {
            host
        };
        password(&text, &[host, &port.to_string(), database, user]).map(Secret::Password)
    }
}

/// The password of the first line whose four fields match host, port, database and user.
fn password(text: &str, wanted: &[&str; 4]) -> Option<Zeroizing<String>> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| {
            wanted
                .iter()
                .try_fold(line, |rest, value| after_field(rest, value))
        })
        .map(unescape)
        .find(|password| !password.is_empty())
}

/// What follows the first field of `line` when that field is `*` or, unescaped, equals `value`.
fn after_field<'a>(line: &'a str, value: &str) -> Option<&'a str> {
    if let Some(rest) = line.strip_prefix("*:") {
        return Some(rest);
    }
    let mut wanted = value.chars();
    let mut chars = line.char_indices();
    while let Some((at, c)) = chars.next() {
        let c = match c {
            ':' => return wanted.next().is_none().then(|| &line[at + 1..]),
            '\\' => chars.next()?.1,
            c => c,
        };
        if wanted.next() != Some(c) {
            return None;
        }
    }
    None
}

fn unescape(field: &str) -> Zeroizing<String> {
    let mut plain = Zeroizing::new(String::with_capacity(field.len()));
    let mut chars = field.chars();
    while let Some(c) = chars.next() {
        plain.push(if c == '\\' {
            chars.next().unwrap_or('\\')
        } else {
            c
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: Option<&str>) {
        let found = password(text, &["db:1", "5432", "app", "ann"]);
        assert_eq!(
            found.as_ref().map(|password| password.as_str()),
            expected,
            "{text}"
        );
    }

    #[test]
    fn lines_match_as_libpq_matches_them() {
        check("db\\:1:5432:app:ann:secret", Some("secret"));
        check("*:*:*:*:any", Some("any"));
        check("*:*:*:ann:a\\:b\\\\c", Some("a:b\\c"));
        check("*:*:*:ann:with:colon", Some("with:colon"));
        check("# *:*:*:*:comment\r\n*:*:*:ann:second\r\n", Some("second"));
        check("*:*:*:bob:no\n*:*:*:ann:first\n*:*:*:ann:later", Some("first"));
    }

    #[test]
    fn what_does_not_match_gives_nothing() {
        check("db:1:5432:app:ann:secret", None);
        check("\\*:*:*:*:an escaped star is a star", None);
        check("*:*:app", None);
        check("*:*:*:ann:", None);
        check("*:*:ap:ann:secret", None);
        check("*:*:apps:ann:secret", None);
        check("", None);
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("pgpass");
        std::fs::write(&path, "*:*:*:*:secret\n").expect("written");
        let mode = |mode| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("the mode is set");
            PgPass::at(&path).secret("ann", "app", "h", 5432).is_some()
        };
        assert!(mode(0o600));
        assert!(!mode(0o640));
        assert!(!mode(0o604));
        assert!(
            PgPass::at(directory.path())
                .secret("ann", "app", "h", 5432)
                .is_none()
        );
        assert!(
            PgPass::at("/nonexistent")
                .secret("ann", "app", "h", 5432)
                .is_none()
        );
    }
}
