//! The control connection of a stream: what the server can do, what is published, snapshots, and what the slot holds.
//!
//! Used by `follow` and `running`, one question at a time. It changes nothing but its own publication, under a lock timeout, and
//! never waits for a replica to confirm. Invariant: what it says about a table was read in one statement. A dropped question leaves a
//! statement running at most until its timeout; the connection belongs to one stream and ends with it.

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::plan::{self, Member, Plan};
use super::snapshot::Snapshot;
use super::why_not::WhyNot;
use super::{permit, publication};
use crate::catalog::verdict::Oid;
use crate::cluster::{NodeId, in_words};
use crate::freshness::catalogs::CatalogSource;
use crate::sql::ident::quote_ident;

/// What must not depend on the defaults of role, database or server. It gives up waiting for a lock before others, with whom it might
/// be in a deadlock, look for one: after `deadlock_timeout`, a second by default.
const OPTIONS: &str = "-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed \
    -c synchronous_commit=local -c lock_timeout=500ms -c statement_timeout=20s -c search_path=pg_catalog";

/// Which publication is streamed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Publication {
    /// The proxy's own: made, altered and dropped by it.
    Own(String),
    /// The configuration's: used as it is.
    Named(String),
}

impl Publication {
    pub fn name(&self) -> &str {
        match self {
            Self::Own(name) | Self::Named(name) => name,
        }
    }
}

/// A change of a publication: what is done, in one step, and to what.
#[derive(Clone, Copy)]
struct Alter<'a>(&'static [&'static str], &'a [&'a Member]);

const ADD: &[&str] = &["ADD"];
const DROP: &[&str] = &["DROP"];
const RENEW: &[&str] = &["DROP", "ADD"];

/// What became of a plan.
#[derive(Debug, Default)]
pub(super) struct Altered {
    /// Wanted tables that are published now.
    pub added: Vec<Oid>,
    /// Those that have been published anew.
    pub renewed: Vec<Oid>,
    /// Names of what was to be published, and what went wrong with them.
    pub failed: Vec<(String, String)>,
    /// The same of what is published still.
    pub kept: Vec<(String, String)>,
}

pub(super) struct Steward {
    client: Client,
}

impl Steward {
    pub async fn connect(source: &CatalogSource, node: NodeId, database: &str) -> Result<Self, WhyNot> {
        let options = Some(OPTIONS);
        let client = source.connect(node, database, "pgladder stream control", options);
        Ok(Self {
            client: client.await?,
        })
    }

    /// Drops what proxies that live no more have left here, but not what this one uses; returns how many others are in use.
    pub async fn sweep(&self, database: &str, used: &str) -> Result<usize, WhyNot> {
        let swept = publication::sweep(&self.client, used).await?;
        for publication in swept.dropped {
            tracing::info!(
                database,
                publication,
                "dropped what a proxy that is gone had left"
            );
        }
        Ok(swept.locked)
    }

    /// May a stream be opened? Returns the number of the database, for the slot's name.
    pub async fn permit(&self, publication: &Publication, replicas: i64) -> Result<Oid, WhyNot> {
        let owned = matches!(publication, Publication::Own(_));
        permit::permit(&self.client, owned, replicas).await
    }

    /// Makes the publication, empty, or sees whether the one that is named will do. Before the slot: what is decoded must find it.
    /// Returns its version.
    pub async fn prepare(&self, publication: &Publication) -> Result<i64, WhyNot> {
        if let Publication::Own(name) = publication {
            if !publication::lock(&self.client, name).await? {
                return Err(WhyNot::Answer("a lock that nobody else knows"));
            }
            let create = format!("CREATE PUBLICATION {}", quote_ident(name));
            self.client.batch_execute(&create).await?;
        }
        self.check(publication).await
    }

    /// Is the publication there, and does it publish every write? Somebody may alter or drop it while it is streamed, and since
    /// PostgreSQL 18 the walsender does not mind that it is gone. Returns its version, which every change makes another one, also a
    /// change that is taken back.
    async fn check(&self, publication: &Publication) -> Result<i64, WhyNot> {
        const WHOLE: &str = "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot, \
            hashtextextended(concat_ws(' ', p.xmin, (SELECT string_agg(r.oid::text, ' ' ORDER BY r.oid) \
                FROM pg_publication_rel r WHERE r.prpubid = p.oid)), 0) \
            FROM pg_publication p WHERE pubname = $1";
        let name = || publication.name().to_owned();
        match self.client.query_opt(WHOLE, &[&publication.name()]).await? {
            None => Err(WhyNot::NoPublication(name())),
            Some(row) if row.try_get(0)? => Ok(row.try_get(1)?),
            Some(_) => Err(WhyNot::Partial(name())),
        }
    }

    /// Ends walsenders whose slots bear our name. One that waits for transactions, to make its slot, does not notice that nobody
    /// waits for it; its slot would hold WAL until they end.
    pub async fn end_slots(&self, unique: &str) -> Result<(), WhyNot> {
        const END: &str = "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots \
            WHERE starts_with(slot_name, $1) AND active_pid IS NOT NULL";
        self.client.query(END, &[&unique]).await?;
        Ok(())
    }

    /// Drops a publication of ours. That takes no lock on its tables, so it never waits for who uses them.
    pub async fn drop_publication(&self, name: &str) -> Result<(), WhyNot> {
        Ok(self.client.batch_execute(&publication::dropping(name)).await?)
    }

    /// What has to be done for these wanted tables.
    pub async fn plan(&self, publication: &Publication, wanted: &[Oid]) -> Result<Plan, WhyNot> {
        let version = self.check(publication).await?;
        let rows = self
            .client
            .query(plan::FOUND, &[&publication.name(), &wanted])
            .await?;
        let owned = matches!(publication, Publication::Own(_));
        Ok(Plan {
            version,
            ..Plan::of(&plan::found(&rows)?, wanted, owned)
        })
    }

    /// Carries a plan out; returns the tables that are published now, and what went wrong with others.
    pub async fn alter(&self, publication: &Publication, plan: &Plan) -> Altered {
        let mut altered = Altered::default();
        let drop: Vec<&Member> = plan.drop.iter().collect();
        let drop = Alter(DROP, &drop);
        if plan.has_wanted {
            self.each(publication, drop, &mut altered.kept).await;
        } else if let Err(error) = self.together(publication, drop).await {
            // Somebody may wait for an empty publication, and there is another way to it.
            altered
                .kept
                .push((publication.name().to_owned(), in_words(&error)));
        }
        let failed = &mut altered.failed;
        altered.added = self.wanted(publication, ADD, &plan.add, failed).await;
        altered.renewed = self.wanted(publication, RENEW, &plan.renew, failed).await;
        altered
    }

    /// Does this to all of them; returns the wanted tables of those for which it succeeded.
    async fn wanted(
        &self,
        publication: &Publication,
        verbs: &'static [&'static str],
        members: &[(Member, Vec<Oid>)],
        failed: &mut Vec<(String, String)>,
    ) -> Vec<Oid> {
        let named: Vec<&Member> = members.iter().map(|(member, _)| member).collect();
        let done = self.each(publication, Alter(verbs, &named), failed).await;
        let done = members.iter().zip(done).filter(|(_, done)| *done);
        done.flat_map(|((_, wanted), _)| wanted).copied().collect()
    }

    /// All in one statement.
    async fn together(
        &self,
        publication: &Publication,
        Alter(verbs, members): Alter<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        if members.is_empty() {
            return Ok(());
        }
        let all: Vec<&str> = members.iter().map(|member| &*member.0).collect();
        let (name, all) = (quote_ident(publication.name()), all.join(", "));
        let each = verbs
            .iter()
            .map(|verb| format!("ALTER PUBLICATION {name} {verb} TABLE {all}"));
        // One simple query is one implicit transaction.
        self.client
            .batch_execute(&each.collect::<Vec<_>>().join("; "))
            .await
    }

    /// Together; where one of them fails, each by itself. Says which of them succeeded.
    async fn each(
        &self,
        publication: &Publication,
        alter: Alter<'_>,
        failed: &mut Vec<(String, String)>,
    ) -> Vec<bool> {
        let Alter(verbs, members) = alter;
        if self.together(publication, alter).await.is_ok() {
            return vec![true; members.len()];
        }
        let mut done = Vec::with_capacity(members.len());
        for member in members {
            let altered = self.together(publication, Alter(verbs, &[member])).await;
            done.push(altered.is_ok());
            if let Err(error) = altered {
                failed.push((member.name(), in_words(&error)));
            }
        }
        done
    }

    /// What the primary shows now.
    pub async fn snapshot(&self) -> Result<Snapshot, WhyNot> {
        let row = self
            .client
            .query_one("SELECT pg_current_snapshot()::text", &[])
            .await?;
        let text: String = row.try_get(0)?;
        text.parse().map_err(|_| WhyNot::Answer("its snapshot"))
    }

    /// Bytes of WAL that the slot keeps; `None`: there is no such slot.
    pub async fn retained(&self, slot: &str) -> Result<Option<u64>, WhyNot> {
        const RETAINED: &str =
            "SELECT restart_lsn, pg_current_wal_lsn() FROM pg_replication_slots WHERE slot_name = $1";
        let Some(row) = self.client.query_opt(RETAINED, &[&slot]).await? else {
            return Ok(None);
        };
        let (from, to): (Option<PgLsn>, PgLsn) = (row.try_get(0)?, row.try_get(1)?);
        Ok(from.map(|from| u64::from(to).saturating_sub(u64::from(from))))
    }
}
