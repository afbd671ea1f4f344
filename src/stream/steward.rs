//! The control connection of a stream: what the server can do, what is published, snapshots, and what the slot holds.
//!
//! Used by `follow`, one question at a time. It changes nothing but its own publication, under a lock timeout, and never waits for a
//! replica to confirm. Invariant: what it says about a table was read in one statement. A dropped question leaves a statement
//! running at most until its timeout; the connection belongs to one stream and ends with it.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::types::PgLsn;

use super::publication;
use super::snapshot::Snapshot;
use super::why_not::WhyNot;
use crate::catalog::verdict::Oid;
use crate::cluster::{NodeId, in_words};
use crate::freshness::catalogs::CatalogSource;
use crate::sql::ident::quote_ident;

/// What must not depend on the defaults of role, database or server.
const OPTIONS: &str = "-c default_transaction_read_only=off -c default_transaction_isolation=read\\ committed \
    -c synchronous_commit=local -c lock_timeout=1s -c statement_timeout=20s -c search_path=pg_catalog";
/// Beyond these the walsenders of the replicas need some room, to come back while their old ones linger.
const SENDERS_SPARE: i64 = 2;

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

/// Why a table cannot be carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotCarried {
    /// No primary key, or another REPLICA IDENTITY that gives none, of the table or of one of its partitions.
    NoIdentity,
    /// Partitioned, without a primary key of its own: partitions to come would be published without an identity.
    NoKey,
    /// Since PostgreSQL 18 its UPDATEs would fail.
    Generated,
    /// A materialized view, a foreign or unlogged table, or a partition that is one.
    Kind,
    /// It belongs to somebody else.
    NotOwner,
    /// It is not in the publication of the configuration.
    NotNamed,
}

impl std::fmt::Display for NotCarried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NoIdentity => "no replica identity",
            Self::NoKey => "partitioned without a primary key",
            Self::Generated => "a generated column in its replica identity",
            Self::Kind => "not a permanent table",
            Self::NotOwner => "owned by another role",
            Self::NotNamed => "not in the publication",
        })
    }
}

/// A table as ALTER PUBLICATION names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member(String);

impl Member {
    /// An heir is published by itself; ONLY is no word for a partitioned table, whose leaves are meant.
    fn of(name: &str, is_partitioned: bool) -> Self {
        Self(format!("{}{name}", if is_partitioned { "" } else { "ONLY " }))
    }

    fn name(&self) -> String {
        self.0.trim_start_matches("ONLY ").to_owned()
    }
}

/// What is to be done so that the publication holds what is wanted, and nothing that it must not.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Wanted tables that are published already, or need not be.
    pub carried: BTreeSet<Oid>,
    /// To be published: the root, and the wanted tables that it stands for.
    pub add: Vec<(Member, Vec<Oid>)>,
    /// To be published no more.
    pub drop: Vec<Member>,
    /// Wanted tables that are gone.
    pub gone: Vec<Oid>,
    /// What cannot be carried, by name.
    pub refused: Vec<(String, NotCarried)>,
    /// Were any tables wanted when it was made?
    pub has_wanted: bool,
}

/// A change of a publication: ADD or DROP, and of what.
#[derive(Clone, Copy)]
struct Alter<'a>(&'static str, &'a [&'a Member]);

/// What became of a plan.
#[derive(Debug)]
pub(super) struct Altered {
    /// Wanted tables that are published now.
    pub added: Vec<Oid>,
    /// Names, and what went wrong with them.
    pub failed: Vec<(String, String)>,
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

    /// Drops what proxies that live no more have left here; returns how many are in use.
    pub async fn sweep(&self, database: &str) -> Result<usize, WhyNot> {
        let swept = publication::sweep(&self.client).await?;
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
        const FACTS: &str = "SELECT current_setting('wal_level'), \
            (SELECT rolreplication OR rolsuper FROM pg_roles WHERE rolname = current_user), \
            has_database_privilege(current_database(), 'CREATE'), \
            current_setting('max_wal_senders')::int8, (SELECT count(*) FROM pg_stat_replication), \
            current_setting('max_replication_slots')::int8, (SELECT count(*) FROM pg_replication_slots), \
            (SELECT oid FROM pg_database WHERE datname = current_database())";
        let row = self.client.query_one(FACTS, &[]).await?;
        let wal_level: String = row.try_get(0)?;
        if wal_level != "logical" {
            return Err(WhyNot::WalLevel(wal_level));
        }
        if !row.try_get::<_, bool>(1)? {
            return Err(WhyNot::NoReplication);
        }
        if matches!(publication, Publication::Own(_)) && !row.try_get::<_, bool>(2)? {
            return Err(WhyNot::NoCreate);
        }
        let (max, used): (i64, i64) = (row.try_get(3)?, row.try_get(4)?);
        if max < used.max(replicas) + 1 + SENDERS_SPARE {
            return Err(WhyNot::Senders { max, used });
        }
        let (slots, taken): (i64, i64) = (row.try_get(5)?, row.try_get(6)?);
        if taken >= slots {
            return Err(WhyNot::Slots(slots));
        }
        Ok(row.try_get(7)?)
    }

    /// Makes the publication, empty, or sees whether the one that is named will do. Before the slot: what is decoded must find it.
    pub async fn prepare(&self, publication: &Publication) -> Result<(), WhyNot> {
        if let Publication::Own(name) = publication {
            publication::lock(&self.client, name).await?;
            let create = format!("CREATE PUBLICATION {}", quote_ident(name));
            self.client.batch_execute(&create).await?;
        }
        self.check(publication).await
    }

    /// Is the publication there, and does it publish every write? Somebody may alter or drop it while it is streamed, and since
    /// PostgreSQL 18 the walsender does not mind that it is gone.
    async fn check(&self, publication: &Publication) -> Result<(), WhyNot> {
        const WHOLE: &str = "SELECT pubinsert AND pubupdate AND pubdelete AND pubtruncate AND NOT pubviaroot \
            FROM pg_publication WHERE pubname = $1";
        let name = || publication.name().to_owned();
        match self.client.query_opt(WHOLE, &[&publication.name()]).await? {
            None => Err(WhyNot::NoPublication(name())),
            Some(row) if row.try_get(0)? => Ok(()),
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
        // The published tables, those with a filter or a list of columns left out, and the roots of the wanted ones.
        const PLAN: &str = "
WITH published AS (
    SELECT r.prrelid AS oid FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = $1 AND to_jsonb(r) ->> 'prqual' IS NULL AND to_jsonb(r) ->> 'prattrs' IS NULL
), root AS (
    SELECT w.oid AS wanted, COALESCE(pg_partition_root(w.oid), w.oid) AS oid FROM unnest($2::oid[]) AS w (oid)
), leaf AS (
    SELECT r.oid AS root, c.oid, c.relkind, c.relpersistence, c.relreplident,
        EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            AND a.attgenerated <> '' AND current_setting('server_version_num')::int4 >= 180000
            AND (c.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
                AND a.attnum = ANY (i.indkey) AND (i.indisprimary OR i.indisreplident)))) AS generated
    FROM (
        SELECT DISTINCT r.oid, COALESCE(t.relid::oid, r.oid) AS leaf
        FROM (SELECT DISTINCT oid FROM root) r LEFT JOIN LATERAL pg_partition_tree(r.oid) t ON true
        WHERE COALESCE(t.isleaf, true)) r
    JOIN pg_class c ON c.oid = r.leaf
), verdict AS (
    SELECT l.root, bool_and(l.relpersistence = 'p' AND l.relkind IN ('r', 'p')) AS permanent,
        bool_and(l.relkind = 'p' OR l.relreplident = 'f' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = l.oid
            AND i.indisvalid AND i.indimmediate AND CASE l.relreplident WHEN 'd' THEN i.indisprimary
                WHEN 'i' THEN i.indisreplident ELSE false END)) AS identified, bool_or(l.generated) AS generated
    FROM leaf l GROUP BY l.root
)
SELECT root.wanted, c.oid, format('%I.%I', n.nspname, c.relname), c.relkind = 'v', c.relkind = 'p',
    COALESCE(v.permanent, true) AND c.oid >= 16384 AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p',
    COALESCE(v.identified, true), c.relkind <> 'p' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
        AND i.indisprimary AND i.indisvalid AND i.indimmediate),
    COALESCE(v.generated, false), pg_has_role(c.relowner, 'USAGE'),
    EXISTS (SELECT FROM published p WHERE p.oid = c.oid)
        OR EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND puballtables)
FROM root JOIN pg_class c ON c.oid = root.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN verdict v ON v.root = root.oid
UNION ALL
SELECT NULL, p.oid, format('%I.%I', n.nspname, c.relname), false, c.relkind = 'p', true, true, true, false, true, true
FROM published p JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.oid NOT IN (SELECT oid FROM root)
ORDER BY 2, 1";
        self.check(publication).await?;
        let rows = self.client.query(PLAN, &[&publication.name(), &wanted]).await?;
        let rows = rows.iter().map(|row| {
            Ok(Found {
                wanted: row.try_get(0)?,
                name: row.try_get(2)?,
                is_view: row.try_get(3)?,
                is_partitioned: row.try_get(4)?,
                is_permanent: row.try_get(5)?,
                is_identified: row.try_get(6)?,
                has_key: row.try_get(7)?,
                is_generated: row.try_get(8)?,
                is_owned: row.try_get(9)?,
                is_published: row.try_get(10)?,
            })
        });
        let found = rows.collect::<Result<Vec<_>, tokio_postgres::Error>>()?;
        Ok(Plan::of(
            &found,
            wanted,
            matches!(publication, Publication::Own(_)),
        ))
    }

    /// Carries a plan out; returns the tables that are published now, and what went wrong with others.
    pub async fn alter(&self, publication: &Publication, plan: &Plan) -> Altered {
        let mut failed = Vec::new();
        let drop: Vec<&Member> = plan.drop.iter().collect();
        let drop = Alter("DROP", &drop);
        if plan.has_wanted {
            self.each(publication, drop, &mut failed).await;
        } else if let Err(error) = self.together(publication, drop).await {
            // Somebody may wait for an empty publication, and there is another way to it.
            failed.push((publication.name().to_owned(), in_words(&error)));
        }
        let add: Vec<&Member> = plan.add.iter().map(|(member, _)| member).collect();
        let done = self.each(publication, Alter("ADD", &add), &mut failed).await;
        let added = plan.add.iter().zip(done).filter(|(_, done)| *done);
        let added = added.flat_map(|((_, wanted), _)| wanted).copied().collect();
        Altered { added, failed }
    }

    /// All in one statement.
    async fn together(
        &self,
        publication: &Publication,
        Alter(verb, members): Alter<'_>,
    ) -> Result<(), tokio_postgres::Error> {
        if members.is_empty() {
            return Ok(());
        }
        let all: Vec<&str> = members.iter().map(|member| &*member.0).collect();
        let (name, all) = (quote_ident(publication.name()), all.join(", "));
        let alter = format!("ALTER PUBLICATION {name} {verb} TABLE {all}");
        self.client.batch_execute(&alter).await
    }

    /// Together; where one of them fails, each by itself. Says which of them succeeded.
    async fn each(
        &self,
        publication: &Publication,
        alter: Alter<'_>,
        failed: &mut Vec<(String, String)>,
    ) -> Vec<bool> {
        let Alter(verb, members) = alter;
        if self.together(publication, alter).await.is_ok() {
            return vec![true; members.len()];
        }
        let mut done = Vec::with_capacity(members.len());
        for member in members {
            let altered = self.together(publication, Alter(verb, &[member])).await;
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

/// What the server says of a wanted table and of its root, or of a published one that nobody wants.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a row of facts")]
struct Found {
    wanted: Option<Oid>,
    name: String,
    is_view: bool,
    is_partitioned: bool,
    is_permanent: bool,
    is_identified: bool,
    has_key: bool,
    is_generated: bool,
    is_owned: bool,
    is_published: bool,
}

impl Found {
    /// Why it must not be carried, by a publication of ours (`owned`) or by another.
    fn refused(&self, owned: bool) -> Option<NotCarried> {
        if !self.is_permanent {
            Some(NotCarried::Kind)
        } else if !self.is_identified {
            Some(NotCarried::NoIdentity)
        } else if owned && !self.has_key {
            Some(NotCarried::NoKey)
        } else if owned && self.is_generated {
            Some(NotCarried::Generated)
        } else if !owned && !self.is_published {
            Some(NotCarried::NotNamed)
        } else {
            (owned && !self.is_owned && !self.is_published).then_some(NotCarried::NotOwner)
        }
    }
}

impl Plan {
    fn of(found: &[Found], wanted: &[Oid], owned: bool) -> Self {
        let mut plan = Self {
            has_wanted: !wanted.is_empty(),
            ..Self::default()
        };
        for one in found {
            let member = Member::of(&one.name, one.is_partitioned);
            match (one.wanted, one.refused(owned)) {
                // Its tables are wanted by themselves, and it changes by DDL only.
                (Some(oid), _) if one.is_view => {
                    plan.carried.insert(oid);
                }
                (Some(oid), None) if one.is_published => {
                    plan.carried.insert(oid);
                }
                (Some(oid), None) => match plan.add.last_mut() {
                    Some((last, oids)) if *last == member => oids.push(oid),
                    _ => plan.add.push((member, vec![oid])),
                },
                (Some(_), Some(why)) => {
                    if plan.refused.last().is_none_or(|(last, _)| *last != one.name) {
                        plan.refused.push((one.name.clone(), why));
                        if owned && one.is_published {
                            plan.drop.push(member);
                        }
                    }
                }
                (None, _) if owned => plan.drop.push(member),
                (None, _) => {}
            }
        }
        let known: BTreeSet<Oid> = found.iter().filter_map(|one| one.wanted).collect();
        plan.gone = wanted.to_vec();
        plan.gone.retain(|oid| !known.contains(oid));
        plan
    }

    /// Is there anything to alter?
    pub fn alters(&self) -> bool {
        !self.add.is_empty() || !self.drop.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(oid: Oid, name: &str) -> Found {
        Found {
            wanted: Some(oid),
            name: name.to_owned(),
            is_permanent: true,
            is_identified: true,
            has_key: true,
            is_owned: true,
            ..Found::default()
        }
    }

    #[test]
    fn only_what_can_be_carried_is_published_a_family_by_its_root() {
        let partition = |oid| Found {
            is_partitioned: true,
            ..table(oid, "s.events")
        };
        let found = [
            table(1, "s.deals"),
            partition(2),
            partition(3),
            Found {
                is_identified: false,
                ..table(4, "s.audit")
            },
            Found {
                is_permanent: false,
                ..table(5, "s.daily")
            },
            Found {
                is_view: true,
                is_permanent: false,
                ..table(6, "s.view")
            },
            Found {
                is_owned: false,
                ..table(7, "s.theirs")
            },
            Found {
                has_key: false,
                ..partition(9)
            },
            Found {
                is_generated: true,
                ..table(10, "s.made")
            },
        ];
        let plan = Plan::of(&found, &[1, 2, 3, 4, 5, 6, 7, 8], true);
        let add = [("ONLY s.deals", vec![1]), ("s.events", vec![2, 3])];
        assert_eq!(plan.add, add.map(|(name, oids)| (Member(name.to_owned()), oids)));
        assert!(plan.carried.iter().eq([&6]) && plan.drop.is_empty());
        assert_eq!(plan.gone, [8]);
        let refused = [
            ("s.audit", NotCarried::NoIdentity),
            ("s.daily", NotCarried::Kind),
            ("s.theirs", NotCarried::NotOwner),
            ("s.events", NotCarried::NoKey),
            ("s.made", NotCarried::Generated),
        ];
        assert_eq!(plan.refused, refused.map(|(name, why)| (name.to_owned(), why)));
    }

    #[test]
    fn what_lost_its_identity_or_is_wanted_no_more_leaves_the_publication() {
        let published = |one: Found| Found {
            is_published: true,
            ..one
        };
        let found = [
            published(table(1, "s.deals")),
            published(Found {
                is_identified: false,
                ..table(2, "s.bare")
            }),
            published(Found {
                wanted: None,
                ..table(0, "s.old")
            }),
        ];
        let plan = Plan::of(&found, &[1, 2], true);
        let only = |name| Member::of(name, false);
        assert_eq!(plan.drop, [only("s.bare"), only("s.old")]);
        assert!(plan.carried.iter().eq([&1]) && plan.alters());
        // A publication of somebody else's is never altered.
        let plan = Plan::of(&found, &[1, 2], false);
        assert!(!plan.alters() && plan.carried.iter().eq([&1]));
        let plan = Plan::of(&[table(1, "s.deals")], &[1], false);
        assert_eq!(plan.refused, [("s.deals".to_owned(), NotCarried::NotNamed)]);
    }
}
