//! The settings changed on one server connection since its login, and what to say to bring it to another client's.
//!
//! Called by the session when it borrows a connection. Names compare without regard to case, as PostgreSQL compares them. It
//! only computes the difference: the session quotes and sends it, and reports here what the server accepted.

use std::collections::BTreeMap;

/// A step from what is applied to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SettingChange {
    /// Set to this value.
    Set {
        /// The setting's name.
        name: Box<str>,
        /// The wanted value, unquoted.
        value: Box<str>,
    },
    /// Back to what it was after login.
    Reset {
        /// The setting's name.
        name: Box<str>,
    },
}

/// Name to value of everything that differs from the login's baseline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedSettings(BTreeMap<Box<str>, Box<str>>);

impl AppliedSettings {
    /// Notes that the server accepted a value.
    pub fn set(&mut self, name: &str, value: &str) {
        self.0.insert(name.to_ascii_lowercase().into(), value.into());
    }

    /// Notes that the server took a setting back to its baseline.
    pub fn reset(&mut self, name: &str) {
        self.0.remove(name.to_ascii_lowercase().as_str());
    }

    /// Notes RESET ALL or DISCARD ALL.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// The value applied beyond the baseline.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.0.get(name.to_ascii_lowercase().as_str()).map(AsRef::as_ref)
    }

    /// True when the connection is as it was after login.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What leads from here to `wanted`; nothing when they are equal. Resets come first, so that a combination which PostgreSQL
    /// allows at no moment is not passed through by keeping an old value longer than needed.
    pub fn changes_to(&self, wanted: &AppliedSettings) -> Vec<SettingChange> {
        let resets = self.0.keys().filter(|name| !wanted.0.contains_key(*name));
        let sets = wanted
            .0
            .iter()
            .filter(|(name, value)| self.0.get(*name) != Some(value));
        resets
            .map(|name| SettingChange::Reset { name: name.clone() })
            .chain(sets.map(|(name, value)| SettingChange::Set {
                name: name.clone(),
                value: value.clone(),
            }))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_difference_is_said() {
        let mut applied = AppliedSettings::default();
        applied.set("TimeZone", "UTC");
        applied.set("search_path", "a");
        let mut wanted = AppliedSettings::default();
        wanted.set("search_path", "b");
        wanted.set("timezone", "UTC");
        assert_eq!(
            applied.changes_to(&wanted),
            vec![SettingChange::Set {
                name: "search_path".into(),
                value: "b".into()
            }]
        );
        assert_eq!(
            applied.changes_to(&AppliedSettings::default()),
            vec![
                SettingChange::Reset {
                    name: "search_path".into()
                },
                SettingChange::Reset {
                    name: "timezone".into()
                }
            ]
        );
        assert!(applied.changes_to(&applied.clone()).is_empty());
    }
}
