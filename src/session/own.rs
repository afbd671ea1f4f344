//! The proxy's own statements: `SHOW pgladder.last`, and `SET`, `RESET` and `SHOW` of `pgladder.route`, `.cache`, `.freshness`.
//!
//! Recognised by the session before anything is sent to a server. Invariant: a statement that begins to speak of `pgladder.` and
//! is not understood gets an error and never silence. The values stand in the session's settings, in the layers and with the
//! rollback of any other setting. Pure.

use std::str::FromStr;

use bytes::Bytes;

use crate::freshness::level::Level;
use crate::protocol::error::Report;
use crate::protocol::sqlstate;
use crate::sql::statement::{Kind, RouteHint, Script, Statement};

use super::settings::{OWN_PREFIX, Settings};

/// One of the proxy's own settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knob {
    /// `pgladder.route`: `primary`, `replica` or `auto`.
    Route,
    /// `pgladder.cache`: `on` or `off`.
    Cache,
    /// `pgladder.freshness`: a level, or `default`.
    Freshness,
}

impl Knob {
    const ALL: [Self; 3] = [Self::Route, Self::Cache, Self::Freshness];

    /// The setting's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Route => "pgladder.route",
            Self::Cache => "pgladder.cache",
            Self::Freshness => "pgladder.freshness",
        }
    }

    /// What it is while nobody has set it.
    pub fn unset(self) -> &'static str {
        match self {
            Self::Route => "auto",
            Self::Cache => "on",
            Self::Freshness => "default",
        }
    }

    fn accepts(self, value: &str) -> bool {
        match self {
            Self::Route => matches!(value, "auto" | "primary" | "replica"),
            Self::Cache => matches!(value, "on" | "off"),
            Self::Freshness => value == "default" || Level::from_str(value).is_ok(),
        }
    }

    fn allowed(self) -> &'static str {
        match self {
            Self::Route => "Allowed are auto, primary and replica.",
            Self::Cache => "Allowed are on and off.",
            Self::Freshness => {
                "Allowed are strict, fresh, session, bounded <duration>, ttl <duration> and default, such as 'bounded 5m'."
            }
        }
    }
}

/// A statement of the proxy's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Own {
    /// SHOW pgladder.last.
    ShowLast,
    /// SHOW of a setting.
    Show(Knob),
    /// SET to a value that is allowed.
    Set {
        /// Which.
        knob: Knob,
        /// To what; `None` for DEFAULT.
        value: Option<Box<str>>,
        /// SET LOCAL.
        local: bool,
    },
    /// RESET.
    Reset(Knob),
    /// DEALLOCATE of a statement that came by Parse, whose name on the server is the proxy's own.
    Deallocate(Bytes),
    /// Not understood: the answer.
    Refused(Box<Report>),
}

impl Own {
    /// The own statement that a text is, if it is one.
    pub fn recognise(script: &Script) -> Option<Self> {
        let [statement] = script.statements.as_slice() else {
            return None;
        };
        match &statement.kind {
            Kind::Show(name) if &**name == "pgladder.last" => Some(Self::ShowLast),
            Kind::Show(name) => own(name, Self::Show),
            Kind::Reset(Some(name)) => own(name, Self::Reset),
            Kind::Set { local, name, value } => own(name, |knob| set(knob, value.as_deref(), *local)),
            _ => None,
        }
    }

    /// DEALLOCATE of a name that `is_parsed`, if that is what the text is.
    pub fn deallocation(script: &Script, is_parsed: impl FnOnce(&[u8]) -> bool) -> Option<Self> {
        match script.statements.as_slice() {
            [
                Statement {
                    kind: Kind::Deallocate(Some(name)),
                    ..
                },
            ] if is_parsed(name.as_bytes()) => {
                Some(Self::Deallocate(Bytes::copy_from_slice(name.as_bytes())))
            }
            _ => None,
        }
    }

    /// The command tag of its completion.
    pub fn tag(&self) -> &'static str {
        match self {
            Self::ShowLast | Self::Show(_) => "SHOW",
            Self::Set { .. } => "SET",
            Self::Deallocate(_) => "DEALLOCATE",
            Self::Reset(_) | Self::Refused(_) => "RESET",
        }
    }

    /// Carries out what it changes.
    pub fn apply(&self, settings: &mut Settings) {
        match self {
            Self::Set { knob, value, local } => match value {
                Some(value) if *local => settings.set_local(knob.name(), value),
                Some(value) => settings.set(knob.name(), value),
                None => settings.reset(knob.name()),
            },
            Self::Reset(knob) => settings.reset(knob.name()),
            Self::ShowLast | Self::Show(_) | Self::Deallocate(_) | Self::Refused(_) => {}
        }
    }
}

fn own(name: &str, make: impl FnOnce(Knob) -> Own) -> Option<Own> {
    if !name.starts_with(OWN_PREFIX) {
        return None;
    }
    let knob = Knob::ALL.into_iter().find(|knob| knob.name() == name);
    Some(knob.map_or_else(|| unrecognised(name), make))
}

fn unrecognised(name: &str) -> Own {
    let report = Report::error(
        sqlstate::UNDEFINED_OBJECT,
        format!("unrecognized configuration parameter \"{name}\""),
    );
    Own::Refused(Box::new(report.hint(
        "pgladder knows pgladder.last, pgladder.route, pgladder.cache and pgladder.freshness.",
    )))
}

fn set(knob: Knob, value: Option<&str>, local: bool) -> Own {
    let value = value.map(str::to_ascii_lowercase);
    if let Some(wrong) = value.as_deref().filter(|value| !knob.accepts(value)) {
        let report = Report::error(
            sqlstate::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{}\": \"{wrong}\"", knob.name()),
        );
        return Own::Refused(Box::new(report.hint(knob.allowed())));
    }
    Own::Set {
        knob,
        value: value.map(Into::into),
        local,
    }
}

/// What the session has asked for by its own settings.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Asked {
    /// `pgladder.route`.
    pub route: Option<RouteHint>,
    /// `pgladder.cache` is off.
    pub cache_off: bool,
    /// `pgladder.freshness`.
    pub level: Option<Level>,
}

impl Asked {
    /// Reads the settings in force. A value that came past `set`, inside a text of several statements, may be wrong: then the
    /// strictest reading counts.
    pub fn of(settings: &Settings) -> Self {
        Self {
            route: match settings.in_force(Knob::Route.name()) {
                None | Some("auto") => None,
                Some("replica") => Some(RouteHint::Replica),
                Some(_) => Some(RouteHint::Primary),
            },
            cache_off: !matches!(settings.in_force(Knob::Cache.name()), None | Some("on")),
            level: match settings.in_force(Knob::Freshness.name()) {
                None | Some("default") => None,
                Some(level) => Some(level.parse().unwrap_or(Level::Strict)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sql::analyze;

    fn recognise(sql: &str) -> Option<Own> {
        Own::recognise(&analyze(sql.as_bytes()).expect("short"))
    }

    fn refusal(sql: &str) -> (&'static str, String) {
        match recognise(sql) {
            Some(Own::Refused(report)) => (report.code, report.message),
            other => panic!("{sql}: {other:?}"),
        }
    }

    #[test]
    fn own_statements_are_told_from_the_servers() {
        assert_eq!(recognise("SHOW pgladder.last"), Some(Own::ShowLast));
        assert_eq!(recognise("show pgladder.route;"), Some(Own::Show(Knob::Route)));
        assert_eq!(recognise("reset pgladder.cache"), Some(Own::Reset(Knob::Cache)));
        assert_eq!(recognise("show work_mem"), None);
        assert_eq!(recognise("set pgladder_like.x = 1"), None);
        assert_eq!(recognise("select 1; show pgladder.last"), None);
    }

    #[test]
    fn a_wrong_name_or_value_is_refused() {
        assert_eq!(refusal("show pgladder.lats").0, sqlstate::UNDEFINED_OBJECT);
        let (code, message) = refusal("set pgladder.freshness = 'sometimes'");
        assert_eq!(code, sqlstate::INVALID_PARAMETER_VALUE);
        assert!(message.contains("\"sometimes\""), "{message}");
        assert_eq!(
            refusal("set pgladder.route = nowhere").0,
            sqlstate::INVALID_PARAMETER_VALUE
        );
    }

    #[test]
    fn settings_follow_their_transaction() {
        let mut settings = Settings::default();
        let apply = |sql: &str, settings: &mut Settings| recognise(sql).expect("own").apply(settings);
        apply("set pgladder.freshness = 'bounded 5m'", &mut settings);
        let asked = Asked::of(&settings);
        assert_eq!(asked.level, Some(Level::Bounded(Duration::from_secs(300))));
        settings.begin();
        apply("set local pgladder.route = primary", &mut settings);
        apply("set pgladder.cache = off", &mut settings);
        assert_eq!(Asked::of(&settings).route, Some(RouteHint::Primary));
        assert!(Asked::of(&settings).cache_off);
        settings.rollback();
        assert_eq!(Asked::of(&settings), asked);
        assert!(settings.wanted().is_empty());
    }
}
