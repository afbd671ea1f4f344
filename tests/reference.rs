//! Holds `proxy.toml`, the reference, to what the program really has: every setting, its default, and what it allows.
//!
//! The file is read twice: as the program reads it, and line by line as people do, commented settings included. So a setting
//! without documentation, documentation without a setting, and a default or limit that has changed are each a failure.

use std::collections::BTreeMap;
use std::path::PathBuf;

use pgladder::config::{Config, Counts, Endpoint, NodeConfig, Setting, Sources};

/// Its default is the machine's.
const OF_THE_MACHINE: &str = "cluster.control_user";

const RELOAD: &str = "A reload applies it.";

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("proxy.toml")
}

fn text() -> String {
    std::fs::read_to_string(path()).expect("proxy.toml is there")
}

/// A setting as the file shows it.
#[derive(Debug, Default)]
struct Shown {
    value: String,
    is_commented: bool,
    /// The comment above it, in one line.
    about: String,
}

/// `key = value` of a line that looks like a setting.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once(" = ")?;
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    name.chars().all(is_name).then_some((name, value))
}

/// All settings of the file by key, commented ones too; the first place of each counts.
fn shown(text: &str) -> BTreeMap<String, Shown> {
    let mut found = BTreeMap::new();
    let (mut section, mut about) = (String::new(), String::new());
    for line in text.lines() {
        let is_commented = line.starts_with("# ");
        let bare = line.strip_prefix("# ").unwrap_or(line);
        if let Some(list) = bare.strip_prefix("[[").and_then(|rest| rest.strip_suffix("]]")) {
            section = format!("{list}[].");
        } else if let Some(table) = bare.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = format!("{table}.");
        } else if let Some((name, value)) = assignment(bare) {
            let shown = Shown {
                value: value.to_owned(),
                is_commented,
                about: std::mem::take(&mut about),
            };
            found.entry(format!("{section}{name}")).or_insert(shown);
            continue;
        }
        if is_commented {
            about.push_str(bare);
            about.push(' ');
        } else {
            about.clear();
        }
    }
    found
}

fn problems(shown: &BTreeMap<String, Shown>, settings: &[Setting]) -> Vec<String> {
    let mut problems = Vec::new();
    for setting in settings {
        let key = &setting.key;
        let Some(shown) = shown.get(key) else {
            problems.push(format!("{key} is not in the file"));
            continue;
        };
        if !shown.about.ends_with(&format!("Allowed: {}. ", setting.allowed)) {
            problems.push(format!(
                "{key}: the comment must end with `Allowed: {}.`",
                setting.allowed
            ));
        }
        if shown.about.starts_with("Allowed: ") {
            problems.push(format!("{key}: the comment does not say what it is"));
        }
        let says_so = shown.about.contains(RELOAD);
        if says_so != (Config::counts(key) == Some(Counts::AtReload)) {
            problems.push(format!(
                "{key}: `{RELOAD}` must be said where it is so, and only there"
            ));
        }
        // An example stands behind a comment sign; what counts is the default itself.
        let is_example =
            shown.is_commented && (key == "nodes" || key == OF_THE_MACHINE || key.contains("[]"));
        if let Some(default) = setting.default.as_ref().filter(|_| !is_example)
            && shown.value != *default
        {
            problems.push(format!(
                "{key}: the default is {default}, the file shows {}",
                shown.value
            ));
        }
    }
    let strangers = shown
        .keys()
        .filter(|key| settings.iter().all(|setting| setting.key != **key));
    problems.extend(strangers.map(|key| format!("{key} is in the file, and is no setting")));
    problems
}

#[test]
fn the_reference_shows_every_setting_with_its_default_and_what_it_allows() {
    let settings = Config::settings();
    assert!(settings.len() > 50, "the schema was walked: {}", settings.len());
    let problems = problems(&shown(&text()), &settings);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn the_reference_is_the_default_and_its_nodes() {
    let sources = Sources {
        file: Some(path()),
        ..Sources::default()
    };
    let node = |port| NodeConfig {
        address: Endpoint::Tcp {
            host: "127.0.0.1".to_owned(),
            port,
        },
        weight: 1,
    };
    let wanted = Config {
        nodes: vec![node(5432), node(5433)],
        ..Config::default()
    };
    assert_eq!(Config::load(&sources), Ok(wanted));
}

#[test]
fn what_the_reference_comments_out_can_be_used() {
    let uncomment = |line: &str| {
        let bare = line.strip_prefix("# ").unwrap_or(line);
        let is_header = bare.starts_with('[') && bare.ends_with(']');
        let is_setting = is_header || assignment(bare).is_some();
        // Of what excludes each other the first stays.
        let excluded = [
            "nodes = ",
            "fingerprint = ",
            "pattern = ",
            "password_env = ",
            "verifier = ",
        ];
        let keep = is_setting && !excluded.iter().any(|start| bare.starts_with(start));
        (if keep { bare } else { "" }).to_owned()
    };
    let text: Vec<String> = text().lines().map(uncomment).collect();
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), text.join("\n")).expect("written");
    let sources = Sources {
        file: Some(file.path().to_owned()),
        ..Sources::default()
    };
    let config = Config::load(&sources).expect("a good configuration");
    assert_eq!(config.auth.users.len(), 1);
    assert_eq!(config.cache.rules.len(), 1);
    assert_eq!(config.cluster.control_user, "pgladder");
}

#[test]
fn a_reference_that_drifts_is_noticed() {
    let settings = [Setting {
        key: "pool.size".to_owned(),
        default: Some("16".to_owned()),
        allowed: "a whole number".to_owned(),
    }];
    let check = |text: &str, wanted: Option<&str>| {
        let found = problems(&shown(text), &settings);
        assert_eq!(found.first().map(String::as_str), wanted, "{text}");
    };
    let about = "[pool]\n# Connections.\n# Allowed: a whole number.\n";
    check(&format!("{about}size = 16"), None);
    check(&format!("{about}# size = 16"), None);
    check(
        &format!("{about}size = 8"),
        Some("pool.size: the default is 16, the file shows 8"),
    );
    check("[pool]", Some("pool.size is not in the file"));
    check(
        &format!("{about}size = 16\nsise = 1"),
        Some("pool.sise is in the file, and is no setting"),
    );
    let undocumented = "pool.size: the comment must end with `Allowed: a whole number.`";
    check("[pool]\nsize = 16", Some(undocumented));
    check("[pool]\n# Connections.\n\nsize = 16", Some(undocumented));
    let reloaded = about.replace("Allowed", "A reload applies it.\n# Allowed");
    check(
        &format!("{reloaded}size = 16"),
        Some("pool.size: `A reload applies it.` must be said where it is so, and only there"),
    );
    let nothing_said = "[pool]\n# Allowed: a whole number.\nsize = 16";
    check(
        nothing_said,
        Some("pool.size: the comment does not say what it is"),
    );
}
