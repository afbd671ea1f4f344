//! What is wrong with a configuration: every error at once, each with its key, its value, where it came from and what is allowed.
//!
//! Made while loading and printed by the command line. A value that may be a secret is never shown.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The configuration file.
    File(PathBuf),
    /// A variable of the environment.
    Environment(String),
    /// A flag of the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// A key that is wrong, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key as the file spells it, as in `pool.size` or `node[0].address`; for a file that cannot be read, its path.
    pub key: String,
    /// The offending value as it was written; `None` where nothing was given.
    pub value: Option<String>,
    /// Who gave the value; `None` where nobody did.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The value is of another kind or out of range.
    NotAllowed {
        /// What is.
        allowed: String,
    },
    /// There is no such setting.
    Unknown {
        /// The nearest one that there is.
        nearest: Option<String>,
    },
    /// It has to be given, and was not.
    Missing {
        /// What to give.
        allowed: String,
    },
    /// It contradicts another setting.
    Conflict {
        /// With what, and what would be allowed.
        allowed: String,
    },
    /// The file cannot be read, or is not TOML.
    File {
        /// The reason, with the line where there is one.
        reason: String,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.key)?;
        if let Some(value) = &self.value {
            write!(f, " = {value}")?;
        }
        if let Some(origin) = &self.origin {
            write!(f, " (from {origin})")?;
        }
        match &self.problem {
            Problem::NotAllowed { allowed } => write!(f, ": allowed is {allowed}"),
            Problem::Missing { allowed } => write!(f, ": missing; {allowed}"),
            Problem::Conflict { allowed } => write!(f, ": {allowed}"),
            Problem::Unknown { nearest: Some(name) } => write!(f, ": no such setting; did you mean {name}?"),
            Problem::Unknown { nearest: None } => f.write_str(": no such setting"),
            Problem::File { reason } => write!(f, ": {reason}"),
        }
    }
}

/// All that is wrong, at least one; `Display` prints one line for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
