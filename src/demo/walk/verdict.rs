//! What the servers' counts and answers say about a step: whether what the step claims is true.
//!
//! Used by the steps, after they read the counts from the nodes themselves. Every judgement is a pure function whose
//! refusal carries what was found, so that a failed demo can be understood from its one line. No judgement looks at a
//! duration, and none at what the proxy says of itself.

use std::fmt;

use super::figures;

/// How often a node ran the statement that a step watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NodeCount {
    pub node: String,
    pub is_primary: bool,
    pub calls: u64,
}

/// The counts of all nodes that run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Counts(pub Vec<NodeCount>);

impl Counts {
    pub(super) fn total(&self) -> u64 {
        self.0.iter().map(|node| node.calls).sum()
    }

    pub(super) fn primary(&self) -> u64 {
        self.on(true).map(|node| node.calls).sum()
    }

    pub(super) fn of(&self, name: &str) -> u64 {
        let named = self.0.iter().filter(|node| node.node == name);
        named.map(|node| node.calls).sum()
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = &NodeCount> {
        self.on(false)
    }

    /// What was added since an earlier look at the same nodes.
    ///
    /// A node that was not looked at before counts from zero, one that is gone is left out.
    pub(super) fn since(&self, earlier: &Self) -> Self {
        let added = self.0.iter().map(|node| NodeCount {
            calls: node.calls.saturating_sub(earlier.of(&node.node)),
            ..node.clone()
        });
        Self(added.collect())
    }

    fn on(&self, primary: bool) -> impl Iterator<Item = &NodeCount> {
        self.0.iter().filter(move |node| node.is_primary == primary)
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, node) in self.0.iter().enumerate() {
            let separator = if at == 0 { "" } else { ", " };
            write!(out, "{separator}{} {}", node.node, figures::count(node.calls))?;
        }
        Ok(())
    }
}

/// Why what a step claims is not so.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refuted {
    #[error("{what}: the answer differs from the primary's own (proxy: {proxied}; primary: {direct})")]
    DiffersFromPrimary {
        what: &'static str,
        proxied: String,
        direct: String,
    },
    #[error("{reads} reads should have come from the cache, but the servers ran the query: {counts}")]
    NotFromCache { reads: u64, counts: Counts },
    #[error("the first read was answered although no server ran the query")]
    NeverRan,
    #[error("{clients} clients asked at once, and one call was due; the servers count {counts}")]
    NotOneCall { clients: u64, counts: Counts },
    #[error(
        "each replica was to serve at least {each_min} of the reads, the primary none; the servers count {counts}"
    )]
    BadlySpread { each_min: u64, counts: Counts },
    #[error("all {writes} writes were due on the primary; the servers count {counts}")]
    WritesElsewhere { writes: u64, counts: Counts },
    #[error("no replica served any of {reads} reads; the servers count {counts}")]
    NoReplica { reads: u64, counts: Counts },
    #[error("a replica served none of {reads} reads; the servers count {counts}")]
    IdleReplica { reads: u64, counts: Counts },
    #[error("the proxy never answered from memory: read {reads} of the same query still ran on {counts}")]
    NeverRemembers { reads: u64, counts: Counts },
    #[error("one deal was inserted, but the dashboard went from {before} to {after} in Toronto")]
    NotOneMore { before: u64, after: u64 },
    #[error("{node} shows the write although its replay is paused: the step would prove nothing")]
    NotPaused { node: String },
    #[error("{node} served none of the {reads} reads before it was killed; the servers count {counts}")]
    KilledOneWasIdle {
        node: String,
        reads: u64,
        counts: Counts,
    },
    #[error("{reads} reads were answered {when} the kill, but the servers ran only {counts}")]
    NotOnServers {
        when: &'static str,
        reads: u64,
        counts: Counts,
    },
}

/// Reads that must not have reached any server.
pub(super) fn from_cache(reads: u64, counts: &Counts) -> Result<(), Refuted> {
    match counts.total() {
        0 => Ok(()),
        _ => Err(Refuted::NotFromCache {
            reads,
            counts: counts.clone(),
        }),
    }
}

/// A cold read: some server must have computed it.
pub(super) fn computed(counts: &Counts) -> Result<(), Refuted> {
    match counts.total() {
        0 => Err(Refuted::NeverRan),
        _ => Ok(()),
    }
}

/// Readers of one cold key: one call, wherever.
pub(super) fn one_call(clients: u64, counts: &Counts) -> Result<(), Refuted> {
    match counts.total() {
        1 => Ok(()),
        _ => Err(Refuted::NotOneCall {
            clients,
            counts: counts.clone(),
        }),
    }
}

/// Point reads: every replica a fair share, the primary none.
pub(super) fn spread_over_replicas(each_min: u64, counts: &Counts) -> Result<(), Refuted> {
    let is_fair = counts.replicas().all(|replica| replica.calls >= each_min);
    if is_fair && counts.primary() == 0 && counts.replicas().count() > 0 {
        return Ok(());
    }
    Err(Refuted::BadlySpread {
        each_min,
        counts: counts.clone(),
    })
}

/// Writes: each once, on the primary.
pub(super) fn only_on_primary(writes: u64, counts: &Counts) -> Result<(), Refuted> {
    if counts.primary() == writes && counts.total() == writes {
        return Ok(());
    }
    Err(Refuted::WritesElsewhere {
        writes,
        counts: counts.clone(),
    })
}

/// Reads of which at least one was a replica's.
pub(super) fn on_some_replica(reads: u64, counts: &Counts) -> Result<(), Refuted> {
    if counts.replicas().any(|replica| replica.calls > 0) {
        return Ok(());
    }
    Err(Refuted::NoReplica {
        reads,
        counts: counts.clone(),
    })
}

/// Reads in which every replica took part.
pub(super) fn on_every_replica(reads: u64, counts: &Counts) -> Result<(), Refuted> {
    if counts.replicas().count() > 0 && counts.replicas().all(|replica| replica.calls > 0) {
        return Ok(());
    }
    Err(Refuted::IdleReplica {
        reads,
        counts: counts.clone(),
    })
}

/// A dashboard before and after one insert.
pub(super) fn one_more(before: u64, after: u64) -> Result<(), Refuted> {
    if after == before + 1 {
        return Ok(());
    }
    Err(Refuted::NotOneMore { before, after })
}

/// The killed replica must have been at work, or its death proves nothing.
pub(super) fn was_at_work(node: &str, reads: u64, counts: &Counts) -> Result<(), Refuted> {
    if counts.of(node) > 0 {
        return Ok(());
    }
    Err(Refuted::KilledOneWasIdle {
        node: node.to_owned(),
        reads,
        counts: counts.clone(),
    })
}

/// As many reads as the clients counted were really run by servers.
pub(super) fn ran_on_servers(when: &'static str, reads: u64, counts: &Counts) -> Result<(), Refuted> {
    if counts.total() >= reads {
        return Ok(());
    }
    Err(Refuted::NotOnServers {
        when,
        reads,
        counts: counts.clone(),
    })
}

/// The proxy's answer beside the one that the primary gave when it was asked directly.
pub(super) fn as_on_primary<A: PartialEq + fmt::Debug>(
    what: &'static str,
    proxied: &A,
    direct: &A,
) -> Result<(), Refuted> {
    if proxied == direct {
        return Ok(());
    }
    Err(Refuted::DiffersFromPrimary {
        what,
        proxied: excerpt(proxied),
        direct: excerpt(direct),
    })
}

/// The same for many rows: a refusal shows the first that differs.
pub(super) fn rows_as_on_primary<R: PartialEq + fmt::Debug>(
    what: &'static str,
    proxied: &[R],
    direct: &[R],
) -> Result<(), Refuted> {
    let rows = 0..proxied.len().max(direct.len());
    for (proxied, direct) in rows.map(|at| (proxied.get(at), direct.get(at))) {
        as_on_primary(what, &proxied, &direct)?;
    }
    Ok(())
}

/// A message is one line.
fn excerpt(answer: &impl fmt::Debug) -> String {
    const CHARACTERS_MAX: usize = 120;
    let whole = format!("{answer:?}");
    match whole.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &whole[..end]),
        None => whole,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(calls: [u64; 3]) -> Counts {
        let names = ["primary", "replica_1", "replica_2"];
        let nodes = names.into_iter().zip(calls).map(|(name, calls)| NodeCount {
            node: name.to_owned(),
            is_primary: name == "primary",
            calls,
        });
        Counts(nodes.collect())
    }

    #[test]
    fn judgements_over_counts() {
        type Judgement = fn(&Counts) -> Result<(), Refuted>;
        let check = |judgement: Judgement, calls: [u64; 3], wanted: bool| {
            let verdict = judgement(&counts(calls));
            assert_eq!(verdict.is_ok(), wanted, "{calls:?}: {verdict:?}");
        };
        check(|c| from_cache(200, c), [0, 0, 0], true);
        check(|c| from_cache(200, c), [0, 1, 0], false);
        check(computed, [0, 0, 1], true);
        check(computed, [0, 0, 0], false);
        check(|c| one_call(300, c), [0, 1, 0], true);
        check(|c| one_call(300, c), [1, 0, 0], true);
        check(|c| one_call(300, c), [0, 0, 0], false);
        check(|c| one_call(300, c), [1, 1, 0], false);
        check(|c| one_call(300, c), [300, 0, 0], false);
        check(|c| spread_over_replicas(300, c), [0, 500, 500], true);
        check(|c| spread_over_replicas(300, c), [0, 300, 700], true);
        check(|c| spread_over_replicas(300, c), [0, 299, 701], false);
        check(|c| spread_over_replicas(300, c), [1, 500, 499], false);
        check(|c| spread_over_replicas(300, c), [1_000, 0, 0], false);
        check(|c| only_on_primary(100, c), [100, 0, 0], true);
        check(|c| only_on_primary(100, c), [99, 0, 0], false);
        check(|c| only_on_primary(100, c), [99, 1, 0], false);
        check(|c| only_on_primary(100, c), [100, 1, 0], false);
        check(|c| only_on_primary(100, c), [200, 0, 0], false);
        check(|c| on_some_replica(100, c), [99, 1, 0], true);
        check(|c| on_some_replica(100, c), [100, 0, 0], false);
        check(|c| on_every_replica(100, c), [98, 1, 1], true);
        check(|c| on_every_replica(100, c), [98, 2, 0], false);
        check(|c| was_at_work("replica_2", 1_000, c), [0, 999, 1], true);
        check(|c| was_at_work("replica_2", 1_000, c), [500, 500, 0], false);
        check(|c| ran_on_servers("after", 1_000, c), [0, 1_000, 0], true);
        check(|c| ran_on_servers("after", 1_000, c), [400, 700, 0], true);
        check(|c| ran_on_servers("after", 1_000, c), [0, 999, 0], false);
    }

    #[test]
    fn a_cluster_without_replicas_spreads_nothing() {
        let alone = Counts(counts([0, 0, 0]).0[..1].to_vec());
        assert!(spread_over_replicas(0, &alone).is_err());
        assert!(on_every_replica(0, &alone).is_err());
        assert!(on_some_replica(0, &alone).is_err());
    }

    #[test]
    fn counts_are_compared_node_by_node() {
        let earlier = counts([10, 20, 30]);
        assert_eq!(counts([10, 25, 31]).since(&earlier), counts([0, 5, 1]));
        // A node that crashed has lost its statistics, and begins again.
        assert_eq!(counts([10, 25, 3]).since(&earlier), counts([0, 5, 0]));
        let survivors = Counts(counts([11, 22, 0]).0[..2].to_vec());
        let added = survivors.since(&earlier);
        assert_eq!((added.total(), added.primary(), added.of("replica_1")), (3, 1, 2));
        assert_eq!(added.of("replica_2"), 0);
    }

    #[test]
    fn a_refusal_says_what_was_found() {
        let refused = one_call(300, &counts([300, 0, 0])).expect_err("300 calls");
        assert_eq!(
            refused.to_string(),
            "300 clients asked at once, and one call was due; the servers count primary 300, replica_1 0, replica_2 0"
        );
        let refused = as_on_primary("the deal", &"1.00", &"2.00").expect_err("they differ");
        assert_eq!(
            refused.to_string(),
            "the deal: the answer differs from the primary's own (proxy: \"1.00\"; primary: \"2.00\")"
        );
        assert!(as_on_primary("the deal", &1, &1).is_ok());
        assert!(rows_as_on_primary("rows", &[1, 2], &[1, 2]).is_ok());
        let refused = rows_as_on_primary("rows", &[1, 2, 4], &[1, 3, 4]).expect_err("the second differs");
        assert!(
            refused.to_string().contains("(proxy: Some(2); primary: Some(3))"),
            "{refused}"
        );
        let refused = rows_as_on_primary("rows", &[1], &[1, 3]).expect_err("a row is missing");
        assert!(
            refused.to_string().contains("(proxy: None; primary: Some(3))"),
            "{refused}"
        );
        assert!(one_more(7, 8).is_ok());
        assert!(one_more(7, 7).is_err());
        assert!(one_more(7, 9).is_err());
    }

    #[test]
    fn a_long_answer_is_cut_between_characters() {
        let cut = excerpt(&"ü".repeat(500));
        assert_eq!(cut.chars().count(), 121);
        assert!(cut.ends_with("ü…"));
    }
}
