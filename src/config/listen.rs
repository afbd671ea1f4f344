//! `[listen]`: where clients connect.
//!
//! Read by `Config::load`; used by the listener. TLS for clients stands in `[tls.client]`.

use super::endpoint::Endpoint;
use super::kind::{At, List};
use super::reader::Section;

/// The port where none is written.
pub const DEFAULT_PORT: u16 = 6432;

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// TCP addresses and directories of Unix sockets, at least one.
    pub addresses: Vec<Endpoint>,
}

impl Default for ListenConfig {
    fn default() -> Self {
        let host = "127.0.0.1".to_owned();
        Self {
            addresses: vec![Endpoint::Tcp {
                host,
                port: DEFAULT_PORT,
            }],
        }
    }
}

impl ListenConfig {
    pub(super) fn read(&mut self, mut section: Section<'_>) {
        let kind = List {
            kind: At {
                default_port: DEFAULT_PORT,
                interfaces: true,
            },
            parts_max: 64,
        };
        section.read("addresses", &mut self.addresses, &kind);
    }
}
