//! Reads settings out of gathered values, one by one, and keeps every error.
//!
//! Called by the sections. What a section asks for *is* the schema: read with nothing given, the reader has seen every setting
//! with its default and what it allows; read with values, it knows the keys that nobody asked for. After an error the default
//! stands in, so that reading always goes on to the end.

use std::collections::BTreeSet;

use super::error::{ConfigError, Problem};
use super::kind::{Kind, Raw};
use super::nearest::nearest;
use super::source::{Leaf, Leaves};

/// A setting that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its key; an element of a list of tables is written `[]`, as in `node[].weight`.
    pub key: String,
    /// Its default as the file spells it; `None` where there is none.
    pub default: Option<String>,
    /// What is allowed, in words.
    pub allowed: String,
}

/// The values, and what was found about them.
#[derive(Debug, Default)]
pub(super) struct Reader {
    leaves: Leaves,
    settings: Vec<Setting>,
    errors: Vec<ConfigError>,
    failed: BTreeSet<String>,
    describing: bool,
}

impl Reader {
    pub(super) fn new(leaves: Leaves, errors: Vec<ConfigError>) -> Self {
        Self {
            leaves,
            errors,
            ..Self::default()
        }
    }

    /// The part of the values under a name; the empty name is the file's top.
    pub(super) fn section(&mut self, name: &str) -> Section<'_> {
        Section {
            path: name.to_owned(),
            reader: self,
        }
    }

    /// Did this key, or one below it, fail? Then what depends on it is not judged.
    pub(super) fn has_failed(&self, key: &str) -> bool {
        self.failed.iter().any(|failed| failed.starts_with(key))
    }

    /// Adds an error about a key that was read well but does not go with the others.
    pub(super) fn object(&mut self, key: &str, problem: Problem) {
        let leaf = self.leaves.get(key);
        let error = ConfigError {
            key: key.to_owned(),
            value: leaf.map(|leaf| leaf.raw.show()).filter(|_| !is_secret(key)),
            origin: leaf.map(|leaf| leaf.origin.clone()),
            problem,
        };
        self.failed.insert(key.to_owned());
        self.errors.push(error);
    }

    /// Was this key, or one below it, given by anybody?
    pub(super) fn is_given(&self, key: &str) -> bool {
        let below = [format!("{key}."), format!("{key}[")];
        let is_below = |given: &String| below.iter().any(|start| given.starts_with(start));
        self.leaves.contains_key(key) || self.leaves.keys().any(is_below)
    }

    /// Every setting that was asked for, and every error, with the keys that nobody asked for.
    pub(super) fn finish(mut self) -> (Vec<Setting>, Vec<ConfigError>) {
        let known: BTreeSet<&str> = self.settings.iter().map(|setting| setting.key.as_str()).collect();
        for (key, Leaf { raw, origin }) in &self.leaves {
            let pattern = without_numbers(key);
            let is_empty_table = matches!(raw, Raw::Toml(toml::Value::Table(table)) if table.is_empty());
            let begins = format!("{pattern}.");
            let is_section = is_empty_table && known.iter().any(|key| key.starts_with(&begins));
            if !known.contains(pattern.as_str()) && !is_section {
                let nearest = nearest(&pattern, known.iter().copied()).map(|name| name.replace("[]", ""));
                self.errors.push(ConfigError {
                    key: key.clone(),
                    value: Some(raw.show()).filter(|_| !is_secret(key)),
                    origin: Some(origin.clone()),
                    problem: Problem::Unknown { nearest },
                });
            }
        }
        (self.settings, self.errors)
    }

    fn ask<K: Kind>(&mut self, key: &str, default: Option<&K::Value>, kind: &K) -> Option<K::Value> {
        if self.describing || !key.contains('[') {
            self.settings.push(Setting {
                key: key.to_owned(),
                default: default.map(|value| kind.show(value)),
                allowed: kind.allowed(),
            });
        }
        let raw = &self.leaves.get(key)?.raw;
        let value = kind.parse(raw);
        if value.is_none() {
            self.object(
                key,
                Problem::NotAllowed {
                    allowed: kind.allowed(),
                },
            );
        }
        value
    }
}

/// A part of the values, by the keys that begin with its path.
pub(super) struct Section<'r> {
    reader: &'r mut Reader,
    path: String,
}

impl Section<'_> {
    /// Reads a setting; where none is given, or a wrong one, `value` stays as it is.
    pub(super) fn read<K: Kind>(&mut self, name: &str, value: &mut K::Value, kind: &K) {
        let key = self.key(name);
        if let Some(given) = self.reader.ask(&key, Some(value), kind) {
            *value = given;
        }
    }

    /// Reads a setting that has no default; `None` where it is not given.
    pub(super) fn read_if_given<K: Kind>(&mut self, name: &str, kind: &K) -> Option<K::Value> {
        let key = self.key(name);
        self.reader.ask(&key, None, kind)
    }

    /// Reads a setting that must be given.
    pub(super) fn read_required<K: Kind>(&mut self, name: &str, kind: &K) -> Option<K::Value> {
        let key = self.key(name);
        let value = self.reader.ask(&key, None, kind);
        if value.is_none() && !self.reader.leaves.contains_key(&key) {
            self.object(
                name,
                Problem::Missing {
                    allowed: format!("give {}", kind.allowed()),
                },
            );
        }
        value
    }

    /// A section within this one.
    pub(super) fn section(&mut self, name: &str) -> Section<'_> {
        let path = self.key(name);
        Section {
            path,
            reader: self.reader,
        }
    }

    /// Reads a list of tables, `[[section.name]]`; an element that cannot be read is left out, with its errors kept.
    pub(super) fn list<T>(&mut self, name: &str, read: impl Fn(&mut Section<'_>) -> Option<T>) -> Vec<T> {
        let path = self.key(name);
        self.describe(&path, &read);
        let mut elements = Vec::new();
        for at in 0.. {
            let path = format!("{path}[{at}]");
            if !self.reader.is_given(&path) {
                break;
            }
            elements.extend(read(&mut Section {
                path,
                reader: self.reader,
            }));
        }
        elements
    }

    /// Was this setting given, well or not?
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.reader.is_given(&self.key(name))
    }

    /// Adds an error about a setting of this section, or about the section itself where the name is empty.
    pub(super) fn object(&mut self, name: &str, problem: Problem) {
        let key = self.key(name);
        if !self.reader.describing {
            self.reader.object(&key, problem);
        }
    }

    /// Reads an element that nobody gave, to learn its settings.
    fn describe<T>(&mut self, path: &str, read: &impl Fn(&mut Section<'_>) -> Option<T>) {
        self.reader.describing = true;
        let path = format!("{path}[]");
        read(&mut Section {
            path,
            reader: self.reader,
        });
        self.reader.describing = false;
    }

    fn key(&self, name: &str) -> String {
        match (self.path.as_str(), name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        }
    }
}

/// `node[3].weight` is the setting `node[].weight`.
fn without_numbers(key: &str) -> String {
    let mut pattern = String::with_capacity(key.len());
    let mut in_brackets = false;
    for c in key.chars() {
        in_brackets = (in_brackets && c != ']') || c == '[';
        if !in_brackets || c == '[' {
            pattern.push(c);
        }
    }
    pattern
}

/// Passwords and verifiers are not repeated, whatever is wrong with them; a misspelt one is still one.
fn is_secret(key: &str) -> bool {
    let plain = [".name", ".password_env"].iter().any(|end| key.ends_with(end));
    let of_a_user = key.starts_with("auth.user") && !plain;
    of_a_user || (key.contains("password") && !plain)
}
