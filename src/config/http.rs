//! `[http]`: metrics and health over HTTP.
//!
//! Read by `Config::load`; used by the HTTP side, `/metrics`, `/healthz` and `/readyz`. It has no authentication.

use super::endpoint::Endpoint;
use super::kind::{At, Optional};
use super::reader::Section;

/// The port where none is written.
const DEFAULT_PORT: u16 = 9632;

/// Metrics and health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens; `None`: nowhere.
    pub listen: Option<Endpoint>,
}

impl HttpConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let kind = Optional {
            none: "off",
            kind: At {
                default_port: DEFAULT_PORT,
                interfaces: false,
            },
        };
        section.read("listen", &mut self.listen, &kind);
    }
}
