//! Kinds of settings: how a value is read, shown, and described to somebody who wrote another one.
//!
//! Called by the sections through `Section::read`. One object knows all three, so that what is accepted, what an error calls
//! allowed, and what the reference file documents cannot drift apart. A text of the environment or a flag and a value of the
//! file go through the same kind; only a list is split at commas where it came as a text.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::endpoint::Endpoint;
use super::units::{parse_duration, parse_size, show_duration, show_size};

/// A value as its source gave it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Raw {
    /// From the file.
    Toml(toml::Value),
    /// From the environment or a flag.
    Text(String),
    /// From a flag that was repeated.
    Texts(Vec<String>),
}

impl Raw {
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Toml(value) => value.as_str(),
            Self::Text(text) => Some(text),
            Self::Texts(texts) => match texts.as_slice() {
                [text] => Some(text),
                _ => None,
            },
        }
    }

    fn whole(&self) -> Option<u64> {
        match self {
            Self::Toml(value) => value.as_integer().and_then(|number| u64::try_from(number).ok()),
            given => given.text()?.trim().replace('_', "").parse().ok(),
        }
    }

    /// As the file would spell it.
    pub(super) fn show(&self) -> String {
        match self {
            Self::Toml(value) => value.to_string(),
            Self::Text(text) => quoted(text),
            Self::Texts(texts) => texts
                .iter()
                .map(|text| quoted(text))
                .collect::<Vec<_>>()
                .join(", "),
        }
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// How a setting of one kind is read, shown and described.
pub(super) trait Kind {
    /// What it is in the program.
    type Value;
    /// `None`: not allowed.
    fn parse(&self, raw: &Raw) -> Option<Self::Value>;
    /// As the file spells it.
    fn show(&self, value: &Self::Value) -> String;
    /// What is allowed, as it stands in "allowed is ...".
    fn allowed(&self) -> String;
}

/// A whole number within limits, in the program's own integer type.
pub(super) struct Whole<T>(pub RangeInclusive<T>);

impl<T> Kind for Whole<T>
where
    T: Copy + PartialOrd + TryFrom<u64> + std::fmt::Display,
{
    type Value = T;

    fn parse(&self, raw: &Raw) -> Option<T> {
        let number = T::try_from(raw.whole()?).ok()?;
        self.0.contains(&number).then_some(number)
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0.start(), self.0.end())
    }
}

/// A duration within limits.
pub(super) struct Span(pub RangeInclusive<Duration>);

impl Span {
    /// From so many milliseconds to so many seconds.
    pub(super) fn new(milliseconds_min: u64, seconds_max: u64) -> Self {
        Self(Duration::from_millis(milliseconds_min)..=Duration::from_secs(seconds_max))
    }
}

impl Kind for Span {
    type Value = Duration;

    fn parse(&self, raw: &Raw) -> Option<Duration> {
        raw.text()
            .and_then(parse_duration)
            .filter(|duration| self.0.contains(duration))
    }

    fn show(&self, value: &Duration) -> String {
        quoted(&show_duration(*value))
    }

    fn allowed(&self) -> String {
        let (min, max) = (show_duration(*self.0.start()), show_duration(*self.0.end()));
        format!("a duration from \"{min}\" to \"{max}\", in ms, s, m, h or d")
    }
}

/// A number of bytes within limits.
pub(super) struct Bytes(pub RangeInclusive<u64>);

impl Kind for Bytes {
    type Value = u64;

    fn parse(&self, raw: &Raw) -> Option<u64> {
        let bytes = raw.text().and_then(parse_size).or_else(|| raw.whole())?;
        self.0.contains(&bytes).then_some(bytes)
    }

    fn show(&self, value: &u64) -> String {
        quoted(&show_size(*value))
    }

    fn allowed(&self) -> String {
        let (min, max) = (show_size(*self.0.start()), show_size(*self.0.end()));
        format!("a size from \"{min}\" to \"{max}\", in B, KiB, MiB, GiB or TiB")
    }
}

/// Yes or no.
pub(super) struct Switch;

impl Kind for Switch {
    type Value = bool;

    fn parse(&self, raw: &Raw) -> Option<bool> {
        match raw {
            Raw::Toml(value) => value.as_bool(),
            given => match given.text()?.to_ascii_lowercase().as_str() {
                "true" | "on" | "yes" | "1" => Some(true),
                "false" | "off" | "no" | "0" => Some(false),
                _ => None,
            },
        }
    }

    fn show(&self, value: &bool) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        "true or false".to_owned()
    }
}

/// One of some words.
pub(super) struct Words<T: 'static>(pub &'static [(&'static str, T)]);

impl<T: Copy + PartialEq> Kind for Words<T> {
    type Value = T;

    fn parse(&self, raw: &Raw) -> Option<T> {
        let text = raw.text()?;
        let mut words = self.0.iter();
        words.find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn show(&self, value: &T) -> String {
        let word = self.0.iter().find(|(_, known)| known == value);
        quoted(word.map_or("", |(word, _)| word))
    }

    fn allowed(&self) -> String {
        let words: Vec<_> = self.0.iter().map(|(word, _)| quoted(word)).collect();
        format!("one of {}", words.join(", "))
    }
}

/// A text that a function accepts.
pub(super) struct Text {
    /// What is allowed.
    pub allowed: &'static str,
    /// Is this text?
    pub accepts: fn(&str) -> bool,
}

impl Kind for Text {
    type Value = String;

    fn parse(&self, raw: &Raw) -> Option<String> {
        raw.text().filter(|text| (self.accepts)(text)).map(str::to_owned)
    }

    fn show(&self, value: &String) -> String {
        quoted(value)
    }

    fn allowed(&self) -> String {
        self.allowed.to_owned()
    }
}

/// A text that is not empty.
pub(super) const NOT_EMPTY: Text = Text {
    allowed: "a text that is not empty",
    accepts: |text| !text.trim().is_empty(),
};

/// The path of a file that can be read now.
pub(super) struct ReadableFile;

impl Kind for ReadableFile {
    type Value = PathBuf;

    fn parse(&self, raw: &Raw) -> Option<PathBuf> {
        let path = PathBuf::from(raw.text()?);
        let readable = path.is_file() && std::fs::File::open(&path).is_ok();
        readable.then_some(path)
    }

    fn show(&self, value: &PathBuf) -> String {
        quoted(&value.display().to_string())
    }

    fn allowed(&self) -> String {
        "the path of a file that can be read".to_owned()
    }
}

/// An endpoint, with the port that is meant where none is written.
pub(super) struct At {
    /// That port.
    pub default_port: u16,
    /// May the host be `*`, every interface?
    pub interfaces: bool,
}

impl Kind for At {
    type Value = Endpoint;

    fn parse(&self, raw: &Raw) -> Option<Endpoint> {
        let text = raw.text()?.trim();
        match text.strip_prefix('*') {
            Some(rest) if self.interfaces => Endpoint::every_interface(rest, self.default_port),
            _ => Endpoint::parse(text, self.default_port),
        }
    }

    fn show(&self, value: &Endpoint) -> String {
        quoted(&value.to_string())
    }

    fn allowed(&self) -> String {
        let port = self.default_port;
        let every = if self.interfaces {
            "\"*:port\" for every interface, "
        } else {
            ""
        };
        format!(
            "\"host:port\", \"[v6]:port\", {every}or \"/directory:port\" of a Unix socket; the port may be left out and is then {port}"
        )
    }
}

/// A value, or a word that stands for none.
pub(super) struct Optional<K> {
    /// That word.
    pub none: &'static str,
    /// The kind of a value.
    pub kind: K,
}

impl<K: Kind> Kind for Optional<K> {
    type Value = Option<K::Value>;

    fn parse(&self, raw: &Raw) -> Option<Self::Value> {
        if raw.text() == Some(self.none) {
            return Some(None);
        }
        self.kind.parse(raw).map(Some)
    }

    fn show(&self, value: &Self::Value) -> String {
        value
            .as_ref()
            .map_or_else(|| quoted(self.none), |value| self.kind.show(value))
    }

    fn allowed(&self) -> String {
        format!("{}, or {} for none", self.kind.allowed(), quoted(self.none))
    }
}

/// A list; as a text its parts stand between commas.
pub(super) struct List<K> {
    /// The kind of a part.
    pub kind: K,
    /// The longest list.
    pub parts_max: usize,
}

impl<K: Kind> Kind for List<K> {
    type Value = Vec<K::Value>;

    fn parse(&self, raw: &Raw) -> Option<Self::Value> {
        let split = |text: &String| -> Vec<Raw> {
            let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
            parts.map(|part| Raw::Text(part.to_owned())).collect()
        };
        let parts: Vec<Raw> = match raw {
            Raw::Toml(value) => value.as_array()?.iter().cloned().map(Raw::Toml).collect(),
            Raw::Text(text) => split(text),
            Raw::Texts(texts) => texts.iter().flat_map(split).collect(),
        };
        if parts.len() > self.parts_max {
            return None;
        }
        parts.iter().map(|part| self.kind.parse(part)).collect()
    }

    fn show(&self, value: &Self::Value) -> String {
        let parts: Vec<_> = value.iter().map(|part| self.kind.show(part)).collect();
        format!("[{}]", parts.join(", "))
    }

    fn allowed(&self) -> String {
        format!(
            "a list of at most {}, each {}",
            self.parts_max,
            self.kind.allowed()
        )
    }
}
