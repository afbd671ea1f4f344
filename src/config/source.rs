//! Where values come from: the file, the environment and flags, laid over each other key by key.
//!
//! Called by `Config::load`. The later source wins for each key by itself, in the order file, environment, flags. The process's
//! environment is handed in, so that loading is a function of its sources. It reads the file, and judges no value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Origin, Problem};
use super::kind::Raw;
use super::nearest;

/// What a configuration is made of.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The file, if one was named.
    pub file: Option<PathBuf>,
    /// Variables by name; only those that begin with `PGLADDER_`, and `PGUSER`, count.
    pub environment: Vec<(String, String)>,
    /// Flags of the command line.
    pub flags: Vec<Flag>,
    /// For a command that can do without nodes: having none is no error.
    pub nodes_optional: bool,
}

/// A setting given on the command line.
#[derive(Clone, Debug)]
pub struct Flag {
    /// The setting, as in `listen.addresses`.
    pub key: String,
    /// The flag as it was written, as in `--listen`.
    pub name: String,
    /// Its values: several when it was repeated.
    pub values: Vec<String>,
}

impl Sources {
    /// A file and flags over the environment of this process. Variables that are not UTF-8 do not count.
    pub fn of_process(file: Option<PathBuf>, flags: Vec<Flag>) -> Self {
        let unicode = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self {
            file,
            environment: std::env::vars_os().filter_map(unicode).collect(),
            flags,
            nodes_optional: false,
        }
    }

    /// The value of a variable that is set and not empty.
    pub(super) fn variable(&self, name: &str) -> Option<&str> {
        let mut named = self.environment.iter().filter(|(known, _)| known == name);
        named
            .next()
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }
}

/// A value and who gave it.
#[derive(Clone, Debug)]
pub(super) struct Leaf {
    pub raw: Raw,
    pub origin: Origin,
}

/// Values by key, `section.name` or `list[0].name`. An empty table of the file stands for itself.
pub(super) type Leaves = BTreeMap<String, Leaf>;

/// What begins the name of every variable.
const PREFIX: &str = "PGLADDER_";
/// Short names of variables, the same words as the flags.
const ALIASES: [(&str, &str); 4] = [
    ("PGLADDER_LISTEN", "listen.addresses"),
    ("PGLADDER_HTTP", "http.listen"),
    ("PGLADDER_AUTH", "auth.method"),
    ("PGLADDER_CONTROL_USER", "cluster.control_user"),
];
/// The key that `PGUSER` is a default for, as in libpq.
const CONTROL_USER: &str = "cluster.control_user";
const NODES: &str = "nodes";

/// Lays the sources over each other. `keys` are the settings that there are; errors are those of the sources themselves.
pub(super) fn gather(sources: &Sources, keys: &[String], errors: &mut Vec<ConfigError>) -> Leaves {
    let mut leaves = Leaves::new();
    if let Some(user) = sources.variable("PGUSER") {
        let origin = Origin::Environment("PGUSER".to_owned());
        leaves.insert(
            CONTROL_USER.to_owned(),
            Leaf {
                raw: Raw::Text(user.to_owned()),
                origin,
            },
        );
    }
    if let Some(path) = &sources.file {
        match read_file(path) {
            Ok(table) => flatten(
                "",
                toml::Value::Table(table),
                &Origin::File(path.clone()),
                &mut leaves,
            ),
            Err(error) => errors.push(error),
        }
    }
    from_environment(sources, keys, &mut leaves, errors);
    for flag in &sources.flags {
        let raw = Raw::Texts(flag.values.clone());
        put(&mut leaves, &flag.key, raw, Origin::Flag(flag.name.clone()));
    }
    leaves
}

fn read_file(path: &Path) -> Result<toml::Table, ConfigError> {
    let failed = |reason: String| ConfigError {
        key: path.display().to_string(),
        value: None,
        origin: None,
        problem: Problem::File { reason },
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(format!("cannot be read: {error}")))?;
    text.parse::<toml::Table>().map_err(|error| {
        // The error's own display quotes the line, which may hold a password.
        let before = error
            .span()
            .and_then(|span| text.get(..span.start))
            .unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        failed(format!(
            "line {line} is not TOML: {}",
            error.message().replace('\n', ", ")
        ))
    })
}

/// Values of tables, however deep, by their dotted keys; tables in a list are numbered.
fn flatten(key: &str, value: toml::Value, origin: &Origin, leaves: &mut Leaves) {
    match value {
        toml::Value::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                let key = if key.is_empty() {
                    name
                } else {
                    format!("{key}.{name}")
                };
                flatten(&key, value, origin, leaves);
            }
        }
        toml::Value::Array(list) if !list.is_empty() && list.iter().all(toml::Value::is_table) => {
            for (at, value) in list.into_iter().enumerate() {
                flatten(&format!("{key}[{at}]"), value, origin, leaves);
            }
        }
        // An empty file has nothing to say.
        toml::Value::Table(_) if key.is_empty() => {}
        value => {
            let (raw, origin) = (Raw::Toml(value), origin.clone());
            leaves.insert(key.to_owned(), Leaf { raw, origin });
        }
    }
}

/// Nodes given by a later source are all the nodes there are.
fn put(leaves: &mut Leaves, key: &str, raw: Raw, origin: Origin) {
    if key == NODES {
        leaves.retain(|key, _| !key.starts_with("node["));
    }
    leaves.insert(key.to_owned(), Leaf { raw, origin });
}

fn from_environment(sources: &Sources, keys: &[String], leaves: &mut Leaves, errors: &mut Vec<ConfigError>) {
    let settable = keys.iter().filter(|key| !key.contains('['));
    let named: Vec<(String, &str)> = ALIASES
        .iter()
        .map(|(name, key)| ((*name).to_owned(), *key))
        .chain(settable.map(|key| (variable_of(key), key.as_str())))
        .collect();
    for (name, key) in &named {
        if let Some(value) = sources.variable(name) {
            put(
                leaves,
                key,
                Raw::Text(value.to_owned()),
                Origin::Environment(name.clone()),
            );
        }
    }
    let known = || named.iter().map(|(name, _)| name.as_str());
    for (name, value) in &sources.environment {
        let is_known = known().any(|variable| variable == name) || !name.starts_with(PREFIX);
        if !is_known && is_meant_for_us(name, keys, known()) {
            errors.push(ConfigError {
                key: name.clone(),
                value: Some(Raw::Text(value.clone()).show()).filter(|_| !name.contains("PASSWORD")),
                origin: Some(Origin::Environment("the environment".to_owned())),
                problem: Problem::Unknown {
                    nearest: nearest::nearest(name, known()).map(str::to_owned),
                },
            });
        }
    }
}

/// The variable of a setting: `pool.size` is `PGLADDER_POOL_SIZE`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "_").to_ascii_uppercase())
}

/// Kubernetes sets `PGLADDER_PORT` and its like beside every pod where a service has this name, and other programs may use the
/// prefix: only a section's name, or a slip of one or two characters, is taken for a setting.
fn is_meant_for_us<'a>(name: &str, keys: &[String], mut known: impl Iterator<Item = &'a str>) -> bool {
    let of_a_service = ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"]
        .iter()
        .any(|end| name.ends_with(end))
        || ["_SERVICE_PORT_", "_PORT_"]
            .iter()
            .any(|part| name.contains(part));
    if of_a_service {
        return false;
    }
    let sections = keys
        .iter()
        .filter_map(|key| key.split_once('.'))
        .map(|(section, _)| section);
    let mut sections = sections.filter(|section| !section.contains('['));
    sections.any(|section| name.starts_with(&format!("{}_", variable_of(section))))
        || known.any(|known| nearest::distance(known, name) <= 2)
}
