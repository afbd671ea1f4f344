//! Is the proxy ready to serve? For `/readyz`, and for the metric of the same name.
//!
//! Called by `http` and `metrics`. Ready means: not draining, a primary is known, and of the databases that clients have opened the
//! catalog of at least one could be read, so that a database whose right is missing does not take the whole proxy out of service.
//! All that is wrong is named, whether it makes a difference or not.

use serde::Serialize;

use crate::session::Proxy;

/// What `/readyz` answers.
#[derive(Debug, Serialize)]
pub(super) struct Readiness {
    pub ready: bool,
    /// Why it is not ready.
    pub reasons: Vec<String>,
    pub primary: Option<String>,
    /// Nodes that are not used.
    pub down: Vec<Down>,
    /// Databases without a catalog.
    pub catalogs: Vec<Missing>,
}

/// A node that is not used.
#[derive(Debug, Serialize)]
pub(super) struct Down {
    pub node: String,
    pub why: String,
}

/// A database whose catalog could not be read.
#[derive(Debug, Serialize)]
pub(super) struct Missing {
    pub database: String,
    pub why: String,
}

impl Readiness {
    /// How it stands now.
    pub fn of(proxy: &Proxy, is_draining: bool) -> Self {
        let view = proxy.cluster.view();
        let databases = proxy.databases.all();
        let missing = databases.iter().filter_map(|database| {
            let (database, why) = (database.name.to_string(), database.problem()?);
            Some(Missing { database, why })
        });
        let mut catalogs: Vec<Missing> = missing.collect();
        catalogs.sort_by(|a, b| a.database.cmp(&b.database));
        let down = view.nodes.iter().filter_map(|node| {
            let why = node.why_not.as_ref()?;
            Some(Down {
                node: node.address.to_string(),
                why: why.to_string(),
            })
        });
        let mut reasons = Vec::new();
        if is_draining {
            reasons.push("the proxy is draining".to_owned());
        }
        if view.primary.is_none() {
            reasons.push(
                view.conflict
                    .clone()
                    .unwrap_or_else(|| "no primary is known".to_owned()),
            );
        }
        if !databases.is_empty() && catalogs.len() == databases.len() {
            reasons.push("the catalog of no database can be read".to_owned());
        }
        Self {
            ready: reasons.is_empty(),
            reasons,
            primary: view.primary_node().map(|node| node.address.to_string()),
            down: down.collect(),
            catalogs,
        }
    }
}
