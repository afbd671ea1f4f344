//! Flags that configure, the same for every command: where the file is, and the settings that flags override.
//!
//! Flattened into the commands' arguments. It turns what was written into sources for `Config::load` and judges nothing: an
//! address that is none is an error of the configuration, reported together with all the others.

use std::path::PathBuf;

use clap::Args;

use crate::config::{Config, ConfigErrors, Flag, Sources};

/// What configures a command.
#[derive(Args, Clone, Debug, Default)]
pub struct ConfigOptions {
    /// The configuration file; proxy.toml of the sources documents every setting
    #[arg(long, value_name = "FILE", env = "PGLADDER_CONFIG")]
    config: Option<PathBuf>,
    /// Where clients connect: host:port, or the directory of a Unix socket; may be repeated [default: 127.0.0.1:6432]
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// A PostgreSQL server: host:port, or the directory of its Unix socket; repeat it for each
    #[arg(long, value_name = "ADDRESS")]
    node: Vec<String>,
    /// Where metrics and health are served over HTTP [default: nowhere]
    #[arg(long, value_name = "ADDRESS")]
    http: Option<String>,
    /// How clients prove who they are: scram, cert, or trust (on loopback only) [default: scram]
    #[arg(long, value_name = "METHOD")]
    auth: Option<String>,
    /// The user that the proxy itself logs in as [default: PGUSER, else the operating system's user]
    #[arg(long, value_name = "USER")]
    control_user: Option<String>,
    /// What is logged: error, warn, info, debug, trace, or levels by module [default: info]
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// Any setting of the file, as in pool.size=32; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_and_value)]
    set: Vec<(String, String)>,
}

fn key_and_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl ConfigOptions {
    /// Loads the configuration that these flags, the environment and the file make.
    pub fn load(&self) -> Result<Config, ConfigErrors> {
        Config::load(&self.sources())
    }

    /// The same for a command that can do without nodes.
    pub fn load_without_nodes(&self) -> Result<Config, ConfigErrors> {
        Config::load(&Sources {
            nodes_optional: true,
            ..self.sources()
        })
    }

    /// Where the configuration of these flags comes from.
    pub fn sources(&self) -> Sources {
        let file = self.config.clone().filter(|path| !path.as_os_str().is_empty());
        Sources::of_process(file, self.flags())
    }

    /// `--set` first: the flag made for a setting says it more plainly.
    fn flags(&self) -> Vec<Flag> {
        let flag = |key: &str, name: &str, values: Vec<String>| Flag {
            key: key.to_owned(),
            name: name.to_owned(),
            values,
        };
        let set = self
            .set
            .iter()
            .map(|(key, value)| flag(key, "--set", vec![value.clone()]));
        let one = |value: &Option<String>| value.iter().cloned().collect();
        let named = [
            flag("listen.addresses", "--listen", self.listen.clone()),
            flag("nodes", "--node", self.node.clone()),
            flag("http.listen", "--http", one(&self.http)),
            flag("auth.method", "--auth", one(&self.auth)),
            flag("cluster.control_user", "--control-user", one(&self.control_user)),
            flag("log.level", "--log-level", one(&self.log_level)),
        ];
        let given = named.into_iter().filter(|flag| !flag.values.is_empty());
        set.chain(given).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_flags_become_sources() {
        assert!(ConfigOptions::default().flags().is_empty());
        let options = ConfigOptions {
            node: vec!["a".to_owned(), "b".to_owned()],
            auth: Some("trust".to_owned()),
            set: vec![key_and_value("pool.size = 3").expect("a pair")],
            ..ConfigOptions::default()
        };
        let found = options.flags();
        let keys: Vec<_> = found
            .iter()
            .map(|flag| (flag.key.as_str(), flag.values.len()))
            .collect();
        assert_eq!(keys, [("pool.size", 1), ("nodes", 2), ("auth.method", 1)]);
        assert_eq!(found[0].values, ["3"]);
        assert!(key_and_value("pool.size").is_err());
    }
}
