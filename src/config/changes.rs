//! Which settings differ between two configurations, and whether a reload applies them or only a restart does.
//!
//! Called by RELOAD. The list is the one place that says what a reload applies: the reference's comments are held to it by a test,
//! and so is that no setting is missing. It compares values and applies nothing.

use super::Config;

/// When a changed setting counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counts {
    /// At a reload.
    AtReload,
    /// At a restart.
    AtRestart,
}

/// A setting, or a list of tables, as a whole.
struct Kept {
    key: &'static str,
    counts: Counts,
    differs: fn(&Config, &Config) -> bool,
    take: fn(&mut Config, &Config),
}

macro_rules! kept {
    ($($counts:ident $key:literal = $($path:ident).+;)+) => {
        &[$(Kept {
            key: $key,
            counts: Counts::$counts,
            differs: |old, new| old.$($path).+ != new.$($path).+,
            take: |old, new| old.$($path).+.clone_from(&new.$($path).+),
        },)+]
    };
}

const ALL: &[Kept] = kept! {
    AtRestart "nodes" = nodes;
    AtRestart "listen.addresses" = listen.addresses;
    AtRestart "pool.size" = pool.size;
    AtRestart "pool.node_connections_max" = pool.node_connections_max;
    AtRestart "pool.queue_max" = pool.queue_max;
    AtReload "pool.queue_timeout" = pool.queue_timeout;
    AtRestart "pool.connect_timeout" = pool.connect_timeout;
    AtRestart "pool.idle_timeout" = pool.idle_timeout;
    AtRestart "pool.lifetime" = pool.lifetime;
    AtRestart "pool.prepared_statements_max" = pool.prepared_statements_max;
    AtRestart "pool.application_name" = pool.application_name;
    AtRestart "cluster.poll_interval" = cluster.poll_interval;
    AtRestart "cluster.poll_timeout" = cluster.poll_timeout;
    AtRestart "cluster.reconnect_wait_max" = cluster.reconnect_wait_max;
    AtRestart "cluster.lag_max" = cluster.lag_max;
    AtRestart "cluster.lag_bytes_max" = cluster.lag_bytes_max;
    AtRestart "cluster.return_percent" = cluster.return_percent;
    AtRestart "cluster.return_samples" = cluster.return_samples;
    AtRestart "cluster.catalog_interval" = cluster.catalog_interval;
    AtReload "cluster.primary_wait" = cluster.primary_wait;
    AtRestart "cluster.control_user" = cluster.control_user;
    AtRestart "cluster.control_database" = cluster.control_database;
    AtReload "cache.enabled" = cache.enabled;
    AtReload "cache.bytes" = cache.bytes;
    AtReload "cache.entries" = cache.entries;
    AtReload "cache.entry_bytes_max" = cache.entry_bytes_max;
    AtReload "cache.what" = cache.what;
    AtReload "cache.ttl" = cache.ttl;
    AtRestart "cache.doorkeeper" = cache.doorkeeper;
    AtReload "cache.min_cost_ms" = cache.min_cost_ms;
    AtReload "cache.refreshes_max" = cache.refreshes_max;
    AtReload "cache.sample_every" = cache.sample_every;
    AtReload "cache.rule" = cache.rules;
    AtReload "freshness.level" = freshness.level;
    AtRestart "stream.enabled" = stream.enabled;
    AtRestart "stream.publication" = stream.publication;
    AtRestart "stream.delay_max" = stream.delay_max;
    AtRestart "stream.slot_timeout" = stream.slot_timeout;
    AtRestart "stream.retained_max" = stream.retained_max;
    AtReload "functions.safe" = functions.safe;
    AtRestart "auth.method" = auth.method;
    AtRestart "auth.query" = auth.query;
    AtRestart "auth.query_ttl" = auth.query_ttl;
    AtReload "auth.file" = auth.file;
    AtReload "auth.user" = auth.users;
    AtReload "auth.admins" = auth.admins;
    AtRestart "tls.client.mode" = tls.client.mode;
    AtReload "tls.client.cert" = tls.client.cert;
    AtReload "tls.client.key" = tls.client.key;
    AtReload "tls.client.ca" = tls.client.ca;
    AtRestart "tls.server.mode" = tls.server.mode;
    AtRestart "tls.server.root_cert" = tls.server.root_cert;
    AtRestart "admin.enabled" = admin.enabled;
    AtRestart "admin.database" = admin.database;
    AtRestart "http.listen" = http.listen;
    AtReload "log.level" = log.level;
    AtRestart "log.format" = log.format;
    AtRestart "limits.threads" = limits.threads;
    AtRestart "limits.clients_max" = limits.clients_max;
    AtRestart "limits.login_timeout" = limits.login_timeout;
    AtReload "limits.message_bytes_max" = limits.message_bytes_max;
    AtReload "limits.batch_bytes_max" = limits.batch_bytes_max;
    AtRestart "limits.drain_timeout" = limits.drain_timeout;
};

impl Config {
    /// The settings that differ in `new`, in the order of the reference. A list of tables is one of them.
    pub fn changes(&self, new: &Self) -> Vec<(&'static str, Counts)> {
        let changed = ALL.iter().filter(|kept| (kept.differs)(self, new));
        changed.map(|kept| (kept.key, kept.counts)).collect()
    }

    /// Takes the named settings over from `new`.
    pub fn take(&mut self, keys: &[&str], new: &Self) {
        for kept in ALL.iter().filter(|kept| keys.contains(&kept.key)) {
            (kept.take)(self, new);
        }
    }

    /// When a setting counts, by its key as `Config::settings` has it; `None`: there is no such setting.
    pub fn counts(key: &str) -> Option<Counts> {
        let key = key.split_once("[]").map_or(key, |(list, _)| list);
        let key = if key == "node" { "nodes" } else { key };
        let found = ALL.iter().find(|kept| kept.key == key);
        found.map(|kept| kept.counts)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_setting_is_on_the_list_and_nothing_else() {
        let settings = Config::settings();
        for setting in &settings {
            assert!(
                Config::counts(&setting.key).is_some(),
                "{} is missing",
                setting.key
            );
        }
        for kept in ALL {
            let is_setting = settings.iter().any(|setting| {
                setting.key == kept.key || setting.key.starts_with(&format!("{}[]", kept.key))
            });
            assert!(is_setting, "{} is no setting", kept.key);
        }
    }

    #[test]
    fn what_differs_is_named_and_taken() {
        let (mut old, mut new) = (Config::default(), Config::default());
        assert!(old.changes(&new).is_empty());
        new.cache.ttl = Duration::from_secs(7);
        new.pool.size = 99;
        let changes = old.changes(&new);
        let wanted = [("pool.size", Counts::AtRestart), ("cache.ttl", Counts::AtReload)];
        assert_eq!(changes, wanted);
        old.take(&["cache.ttl"], &new);
        assert_eq!(old.changes(&new), wanted[..1]);
    }
}
