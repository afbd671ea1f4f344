//! Which tables a publication is to hold: what the server says of the wanted ones, and what follows from it.
//!
//! Asked for by `steward`, which carries the plan out; the judgement is pure. Invariants: never published is a table whose UPDATE or
//! DELETE would then be refused, now or when a partition is added; what is published and must not be, leaves first. A
//! publication of somebody else's is never altered.

use std::collections::{BTreeMap, BTreeSet};

use tokio_postgres::Row;

use crate::catalog::verdict::Oid;

/// Asks about a publication, by name, and the wanted tables: of each its root and what that is like, and the published ones that nobody
/// wants. A table that is published with a filter or a list of columns counts as not published; so does one of whose partitions
/// one has a filter of its own, which holds for its rows whatever the root says.
pub(super) const FOUND: &str = "
WITH member AS (
    SELECT r.prrelid AS oid, to_jsonb(r) ->> 'prqual' IS NOT NULL AS filtered, to_jsonb(r) ->> 'prattrs' IS NOT NULL AS cut
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1
), published AS (
    SELECT oid FROM member WHERE NOT filtered AND NOT cut
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
                WHEN 'i' THEN i.indisreplident ELSE false END)) AS identified, bool_or(l.generated) AS generated,
        bool_or(EXISTS (SELECT FROM member m WHERE m.oid = l.oid AND m.filtered)) AS filtered
    FROM leaf l GROUP BY l.root
)
SELECT root.wanted, c.oid, format('%I.%I', n.nspname, c.relname), c.relkind = 'v', c.relkind = 'p',
    COALESCE(v.permanent, true) AND c.oid >= 16384 AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p',
    COALESCE(v.identified, true), c.relkind <> 'p' OR EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
        AND i.indisprimary AND i.indisvalid AND i.indimmediate),
    COALESCE(v.generated, false), pg_has_role(c.relowner, 'USAGE'),
    NOT COALESCE(v.filtered, false) AND (EXISTS (SELECT FROM published p WHERE p.oid = c.oid)
        OR EXISTS (SELECT FROM pg_publication WHERE pubname = $1 AND puballtables))
FROM root JOIN pg_class c ON c.oid = root.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN verdict v ON v.root = root.oid
UNION ALL
SELECT NULL, p.oid, format('%I.%I', n.nspname, c.relname), false, c.relkind = 'p', true, true, true, false, true, true
FROM published p JOIN pg_class c ON c.oid = p.oid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE p.oid NOT IN (SELECT oid FROM root)
ORDER BY 2, 1";

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
pub(super) struct Member(pub String);

impl Member {
    /// An heir is published by itself; ONLY is no word for a partitioned table, whose leaves are meant.
    pub fn of(name: &str, is_partitioned: bool) -> Self {
        Self(format!("{}{name}", if is_partitioned { "" } else { "ONLY " }))
    }

    pub fn name(&self) -> String {
        self.0.trim_start_matches("ONLY ").to_owned()
    }
}

/// What is to be done so that the publication holds what is wanted, and nothing that it must not.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Wanted tables that are published already, each by its root; or that need not be, by none.
    pub carried: BTreeMap<Oid, Option<Member>>,
    /// To be published: the root, and the wanted tables that it stands for.
    pub add: Vec<(Member, Vec<Oid>)>,
    /// To be published anew, in one step, since the walsender may hold on to what was before.
    pub renew: Vec<(Member, Vec<Oid>)>,
    /// To be published no more.
    pub drop: Vec<Member>,
    /// Wanted tables that are gone.
    pub gone: Vec<Oid>,
    /// What cannot be carried, by name.
    pub refused: Vec<(String, NotCarried)>,
    /// Were any tables wanted when it was made?
    pub has_wanted: bool,
    /// The publication as it was then.
    pub version: i64,
}

/// Reads the answer.
pub(super) fn found(rows: &[Row]) -> Result<Vec<Found>, tokio_postgres::Error> {
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
    rows.collect()
}

/// What the server says of a wanted table and of its root, or of a published one that nobody wants.
#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a row of facts")]
pub(super) struct Found {
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
    pub fn of(found: &[Found], wanted: &[Oid], owned: bool) -> Self {
        let mut plan = Self {
            has_wanted: !wanted.is_empty(),
            ..Self::default()
        };
        for one in found {
            let member = Member::of(&one.name, one.is_partitioned);
            match (one.wanted, one.refused(owned)) {
                // Its tables are wanted by themselves, and it changes by DDL only.
                (Some(oid), _) if one.is_view => {
                    plan.carried.insert(oid, None);
                }
                (Some(oid), None) if one.is_published => {
                    plan.carried.insert(oid, Some(member));
                }
                (Some(oid), None) => join(&mut plan.add, member, oid),
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

    /// These are to be published anew, as far as they are published.
    pub fn renew(&mut self, tables: impl Iterator<Item = Oid>) {
        for oid in tables {
            if let Some(Some(member)) = self.carried.get(&oid) {
                join(&mut self.renew, member.clone(), oid);
            }
        }
    }

    /// Is there anything to alter?
    pub fn alters(&self) -> bool {
        !self.add.is_empty() || !self.renew.is_empty() || !self.drop.is_empty()
    }
}

/// Puts a table to the root that it is published by.
fn join(members: &mut Vec<(Member, Vec<Oid>)>, member: Member, oid: Oid) {
    match members.iter_mut().find(|(known, _)| *known == member) {
        Some((_, oids)) => oids.push(oid),
        None => members.push((member, vec![oid])),
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
        assert!(plan.carried.keys().eq([&6]) && plan.drop.is_empty());
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
        assert!(plan.carried.keys().eq([&1]) && plan.alters());
        // A publication of somebody else's is never altered.
        let mut plan = Plan::of(&found, &[1, 2], false);
        assert!(!plan.alters() && plan.carried.keys().eq([&1]));
        plan.renew([1, 2].into_iter());
        assert_eq!(plan.renew, [(only("s.deals"), vec![1])]);
        let plan = Plan::of(&[table(1, "s.deals")], &[1], false);
        assert_eq!(plan.refused, [("s.deals".to_owned(), NotCarried::NotNamed)]);
    }
}
