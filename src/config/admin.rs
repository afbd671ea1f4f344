//! `[admin]`: the console, a database of the proxy's own.
//!
//! Read by `Config::load`; used by the listener, which hands its clients to the console. Who may use it stands in `auth.admins`.

use super::kind::{NOT_EMPTY, Switch};
use super::reader::Section;

/// The console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminConfig {
    /// Is there a console?
    pub enabled: bool,
    /// The database that stands for it; a served database of this name cannot be reached.
    pub database: String,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            database: "pgladder".to_owned(),
        }
    }
}

impl AdminConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        section.read("enabled", &mut self.enabled, &Switch);
        section.read("database", &mut self.database, &NOT_EMPTY);
    }
}
