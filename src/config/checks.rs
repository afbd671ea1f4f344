//! What settings must be together: each was read well by itself, and contradicts another.
//!
//! Called by `Config::load` after all settings were read. A check whose settings failed already is left out: an error that only
//! follows from another one helps nobody.

use std::collections::HashSet;

use super::auth::AuthMethod;
use super::error::Problem;
use super::reader::Reader;
use super::tls::ClientTlsMode;
use super::{Config, Endpoint};

/// Adds what is wrong to the reader's errors.
pub(super) fn check(config: &Config, nodes_optional: bool, reader: &mut Reader) {
    let mut checks = Checks { config, reader };
    checks.nodes(nodes_optional);
    checks.listen();
    checks.auth();
    checks.tls();
    checks.sizes();
    checks.stream();
}

struct Checks<'a> {
    config: &'a Config,
    reader: &'a mut Reader,
}

impl Checks<'_> {
    fn conflict(&mut self, key: &str, allowed: impl Into<String>) {
        self.reader.object(
            key,
            Problem::Conflict {
                allowed: allowed.into(),
            },
        );
    }

    fn missing(&mut self, key: &str, allowed: impl Into<String>) {
        self.reader.object(
            key,
            Problem::Missing {
                allowed: allowed.into(),
            },
        );
    }

    fn nodes(&mut self, optional: bool) {
        if self.reader.has_failed("node") {
            return;
        }
        if self.reader.is_given("nodes") && self.reader.is_given("node") {
            self.conflict("nodes", "give either nodes or [[node]], not both");
            return;
        }
        if self.config.nodes.is_empty() && !optional {
            let allowed =
                "give at least one: --node host:port, PGLADDER_NODES=host:port,..., or [[node]] in the file";
            self.missing("nodes", allowed);
        }
        let mut seen = HashSet::new();
        for (at, node) in self.config.nodes.iter().enumerate() {
            if !seen.insert(&node.address) {
                let key = self.key_of_node(at);
                self.conflict(
                    &key,
                    format!("{} is named twice; each node counts once", node.address),
                );
            }
        }
    }

    fn key_of_node(&self, at: usize) -> String {
        let long = format!("node[{at}].address");
        if self.reader.is_given(&long) {
            long
        } else {
            "nodes".to_owned()
        }
    }

    fn listen(&mut self) {
        let config = self.config;
        if self.reader.has_failed("listen") {
            return;
        }
        if config.listen.addresses.is_empty() {
            self.missing("listen.addresses", "give at least one address");
        }
        let mut taken = HashSet::new();
        for address in &config.listen.addresses {
            if !taken.insert(address) {
                self.conflict("listen.addresses", format!("{address} is named twice"));
            }
            if config.nodes.iter().any(|node| node.address == *address) {
                self.conflict(
                    "listen.addresses",
                    format!("{address} is also a node: the proxy would connect to itself"),
                );
            }
        }
        let http = config.http.listen.as_ref();
        if let Some(http) = http.filter(|http| taken.contains(http)) {
            self.conflict("http.listen", format!("{http} is taken by listen.addresses"));
        }
    }

    fn auth(&mut self) {
        let config = self.config;
        if config.cluster.control_user.is_empty() && !self.reader.has_failed("cluster.control_user") {
            let allowed =
                "give --control-user, PGUSER or cluster.control_user: this process's user has no name";
            self.missing("cluster.control_user", allowed);
        }
        if !self.reader.has_failed("auth.user") {
            self.users();
        }
        match config.auth.method {
            _ if self.reader.has_failed("auth.method") => {}
            AuthMethod::Trust => self.trust(),
            AuthMethod::Cert => self.certificates(),
            AuthMethod::Scram => self.scram(),
        }
    }

    fn users(&mut self) {
        let config = self.config;
        let mut names = HashSet::new();
        for (at, user) in config.auth.users.iter().enumerate() {
            if !names.insert(&user.name) {
                self.conflict(&format!("auth.user[{at}].name"), "this user is named twice");
            }
        }
    }

    fn scram(&mut self) {
        let auth = &self.config.auth;
        let mut sources = ["auth.user", "auth.query", "auth.file"].iter();
        let nobody = auth.users.is_empty() && auth.query.is_none() && auth.file.is_none();
        if nobody && !sources.any(|key| self.reader.has_failed(key)) {
            self.missing(
                "auth.user",
                "nobody could log in: give [[auth.user]], auth.query or auth.file",
            );
        }
    }

    fn trust(&mut self) {
        if self.reader.has_failed("listen") {
            return;
        }
        let open: Vec<String> = self
            .config
            .listen
            .addresses
            .iter()
            .filter(|address| !address.is_local())
            .map(Endpoint::to_string)
            .collect();
        if !open.is_empty() {
            let open = open.join(", ");
            self.conflict(
                "auth.method",
                format!("trust is allowed only where every listen address is loopback or a Unix socket, and {open} is not"),
            );
        }
    }

    fn certificates(&mut self) {
        let client = &self.config.tls.client;
        if self.reader.has_failed("tls.client") {
            return;
        }
        if client.ca.is_none() {
            self.missing(
                "tls.client.ca",
                "auth.method = \"cert\" needs the certificates that sign clients' ones",
            );
        }
        if client.mode != ClientTlsMode::Require {
            self.conflict("tls.client.mode", "auth.method = \"cert\" needs \"require\"");
        }
    }

    fn tls(&mut self) {
        let client = &self.config.tls.client;
        if self.reader.has_failed("tls.client") {
            return;
        }
        match (&client.cert, &client.key) {
            (Some(_), None) => self.missing("tls.client.key", "tls.client.cert needs its private key"),
            (None, Some(_)) => self.missing("tls.client.cert", "tls.client.key needs its certificate"),
            (None, None) if client.mode == ClientTlsMode::Require => {
                self.missing(
                    "tls.client.cert",
                    "tls.client.mode = \"require\" needs a certificate and its key",
                );
            }
            _ => {}
        }
    }

    fn stream(&mut self) {
        let keys = ["stream.delay_max", "cluster.poll_interval"];
        let failed = keys.iter().any(|key| self.reader.has_failed(key));
        let (delay, poll) = (self.config.stream.delay_max, self.config.cluster.poll_interval);
        if delay < poll * 2 && !failed {
            self.conflict(
                "stream.delay_max",
                "at least twice cluster.poll_interval: by polls it is known how late the stream is",
            );
        }
    }

    fn sizes(&mut self) {
        let (cache, pool) = (&self.config.cache, &self.config.pool);
        let cache_failed = ["cache.bytes", "cache.entry_bytes_max"]
            .iter()
            .any(|key| self.reader.has_failed(key));
        if cache.entry_bytes_max > cache.bytes && !cache_failed {
            self.conflict(
                "cache.entry_bytes_max",
                "one entry may be at most as large as cache.bytes",
            );
        }
        let pool_failed = ["pool.size", "pool.node_connections_max"]
            .iter()
            .any(|key| self.reader.has_failed(key));
        if usize::try_from(pool.size).is_ok_and(|size| size > pool.node_connections_max) && !pool_failed {
            self.conflict(
                "pool.size",
                "one pool may have at most pool.node_connections_max connections",
            );
        }
    }
}
