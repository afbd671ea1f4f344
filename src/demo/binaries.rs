//! Finds the directory with PostgreSQL's server programs.
//!
//! Called by `cluster` before anything is created. A directory counts only when it holds every program that a cluster
//! needs: Debian, for one, links some of them into `/usr/bin` and hides `initdb`. It never downloads or installs; the
//! error names the command that would.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The environment variable that names the directory and overrides the search.
pub const BINDIR_VARIABLE: &str = "PGLADDER_POSTGRES_BIN";

const NEEDED: [&str; 3] = ["postgres", "initdb", "pg_basebackup"];

/// Directories, searched in this order after `PATH` and `pg_config`. A `*` stands for a version, highest first.
const WELL_KNOWN: [&str; 5] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql*/bin",
    "/usr/local/opt/postgresql*/bin",
    "/usr/local/pgsql/bin",
];

/// Why no server programs were found.
#[derive(Debug, thiserror::Error)]
pub enum MissingBinaries {
    /// The directory that the environment names lacks a program; the search does not go on behind the operator's back.
    #[error("{BINDIR_VARIABLE}={} has no `{program}`", dir.display())]
    NotInNamedDirectory {
        /// What the variable says.
        dir: PathBuf,
        /// The first program that is missing there.
        program: &'static str,
    },
    /// No directory has all programs.
    #[error(
        "PostgreSQL's server programs were not found; install them with `{install}`, or set {BINDIR_VARIABLE}"
    )]
    NotInstalled {
        /// The command for this system.
        install: &'static str,
    },
}

/// A directory that holds `postgres`, `initdb` and `pg_basebackup`.
#[derive(Clone, Debug)]
pub struct Binaries {
    dir: PathBuf,
}

impl Binaries {
    /// Searches the environment, `PATH`, `pg_config --bindir`, then the places where packages put them.
    pub fn find() -> Result<Self, MissingBinaries> {
        let named = std::env::var_os(BINDIR_VARIABLE).filter(|dir| !dir.is_empty());
        Self::search(named, std::env::var_os("PATH").as_deref(), &WELL_KNOWN)
    }

    fn search(
        named: Option<OsString>,
        path: Option<&OsStr>,
        well_known: &[&str],
    ) -> Result<Self, MissingBinaries> {
        if let Some(dir) = named.map(PathBuf::from) {
            return match lacks(&dir) {
                Some(program) => Err(MissingBinaries::NotInNamedDirectory { dir, program }),
                None => Ok(Self { dir }),
            };
        }
        let on_path: Vec<PathBuf> = path
            .map(|path| std::env::split_paths(path).collect())
            .unwrap_or_default();
        let configured = on_path
            .iter()
            .find_map(|dir| ask(&dir.join("pg_config"), "--bindir"));
        on_path
            .into_iter()
            .chain(configured)
            .chain(well_known.iter().flat_map(|pattern| versions(pattern)))
            .find(|dir| lacks(dir).is_none())
            .map(|dir| Self { dir })
            .ok_or_else(|| MissingBinaries::NotInstalled {
                install: install_command(),
            })
    }

    /// The path of a program, such as `initdb`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Whether a loadable library, such as `pg_stat_statements`, is installed.
    pub fn has_library(&self, name: &str) -> bool {
        let up = self.dir.parent().unwrap_or(&self.dir);
        let guesses = ["lib", "lib/postgresql", "lib64", "lib64/postgresql"].map(|dir| up.join(dir));
        // `pg_config` belongs to a development package; where it is missing the usual layout is tried.
        ask(&self.program("pg_config"), "--pkglibdir")
            .into_iter()
            .chain(guesses)
            .any(|dir| {
                ["so", "dylib"]
                    .iter()
                    .any(|ext| dir.join(name).with_extension(ext).is_file())
            })
    }
}

fn lacks(dir: &Path) -> Option<&'static str> {
    NEEDED.into_iter().find(|program| !dir.join(program).is_file())
}

fn ask(program: &Path, option: &str) -> Option<PathBuf> {
    let output = Command::new(program)
        .arg(option)
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let line = String::from_utf8(output.stdout).ok()?;
    Some(PathBuf::from(line.trim())).filter(|dir| dir.is_absolute())
}

/// The existing directories that match a pattern with at most one `*`, highest version first.
fn versions(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let Ok(entries) = std::fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(Result::ok)
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            let version = name
                .strip_prefix(prefix)?
                .trim_start_matches('@')
                .parse()
                .unwrap_or(0);
            Some((version, entry.path().join(after.trim_start_matches('/'))))
        })
        .collect();
    found.sort_by(|left, right| right.cmp(left));
    found.into_iter().map(|(_, dir)| dir).collect()
}

fn install_command() -> &'static str {
    if cfg!(target_os = "macos") {
        return "brew install postgresql@17";
    }
    install_command_for(&std::fs::read_to_string("/etc/os-release").unwrap_or_default())
}

fn install_command_for(os_release: &str) -> &'static str {
    let names = os_release
        .lines()
        .filter_map(|line| line.strip_prefix("ID=").or_else(|| line.strip_prefix("ID_LIKE=")))
        .flat_map(|value| value.trim_matches('"').split_whitespace());
    for name in names {
        match name {
            "debian" | "ubuntu" => return "sudo apt-get install postgresql",
            "fedora" | "rhel" | "centos" => return "sudo dnf install postgresql-server postgresql-contrib",
            "alpine" => return "sudo apk add postgresql postgresql-contrib",
            "arch" => return "sudo pacman -S postgresql",
            "suse" | "opensuse" => return "sudo zypper install postgresql-server postgresql-contrib",
            _ => {}
        }
    }
    "your package manager (the package is usually called postgresql or postgresql-server)"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        for program in NEEDED {
            std::fs::write(dir.join(program), "").expect("a file");
        }
    }

    #[test]
    fn the_highest_version_wins_by_number() {
        let root = tempfile::tempdir().expect("a directory");
        for version in ["9", "15", "16"] {
            install(&root.path().join(version).join("bin"));
        }
        std::fs::remove_file(root.path().join("16/bin/initdb")).expect("the file is there");
        let pattern = format!("{}/*/bin", root.path().display());
        let found = Binaries::search(None, None, &[&pattern]).expect("version 15 is whole");
        assert_eq!(found.program("initdb"), root.path().join("15/bin/initdb"));
    }

    #[test]
    fn a_named_directory_is_not_searched_past() {
        let root = tempfile::tempdir().expect("a directory");
        let whole = root.path().join("whole");
        install(&whole);
        let error = Binaries::search(Some(root.path().into()), Some(whole.as_os_str()), &[])
            .expect_err("the named directory is empty");
        assert!(error.to_string().contains("has no `postgres`"), "{error}");
        Binaries::search(None, Some(whole.as_os_str()), &[]).expect("it is on the path");
    }

    #[test]
    fn the_error_names_the_systems_own_command() {
        let cases = [
            ("ID=ubuntu\nID_LIKE=debian\n", "sudo apt-get install postgresql"),
            (
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"",
                "sudo dnf install postgresql-server postgresql-contrib",
            ),
            ("ID=alpine\n", "sudo apk add postgresql postgresql-contrib"),
        ];
        for (os_release, command) in cases {
            assert_eq!(install_command_for(os_release), command);
        }
        let error = Binaries::search(None, None, &[]).expect_err("nowhere to look");
        assert!(error.to_string().contains(install_command()), "{error}");
    }
}
