//! `pgladder explain 'SQL'`: where a statement would go, whether its answer is cached, which tables count, and why.
//!
//! Without nodes it judges the text alone, as the proxy does while it has no catalog; with `--node` it reads the catalog over
//! one connection, as the user whose session it imagines. It runs nothing of the statement, not even a plan.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use super::Failure;
use super::control::{self, Login};
use super::options::ConfigOptions;
use crate::cache::rules::{Rule, Text};
use crate::catalog::verdict::{Oid, ReadSet, Verdict, WriteSet};
use crate::catalog::{Allowed, Catalog, Path, judge_without_catalog};
use crate::config::{CacheWhat, Config};
use crate::freshness::level::Level;
use crate::route::{Because, Route, SessionFacts, route};
use crate::sql::{self, Unclassified};

/// Arguments of `explain`.
#[derive(Args, Debug)]
pub(super) struct ExplainOptions {
    /// The statement, as a client would send it
    sql: String,
    /// The database that its names are looked up in [default: cluster.control_database]
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// The user whose session it is [default: the control user]
    #[arg(long, value_name = "USER")]
    user: Option<String>,
    #[command(flatten)]
    config: ConfigOptions,
}

/// The session that is imagined, and what is known of its database.
struct Scene {
    catalog: Option<Arc<Catalog>>,
    /// Where the catalog is from.
    source: String,
    path: Path,
    read_committed: bool,
    odd_strings: bool,
}

pub(super) fn run(options: &ExplainOptions, out: &mut dyn Write) -> Result<(), Failure> {
    let config = options.config.load_without_nodes()?;
    let scene = if config.nodes.is_empty() {
        Scene {
            catalog: None,
            source: "none; with --node names and functions are looked up".to_owned(),
            path: Path::default(),
            read_committed: true,
            odd_strings: false,
        }
    } else {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(look(&config, options))?
    };
    write!(out, "{}", explain(&options.sql, &config, &scene))?;
    Ok(())
}

/// Asks the first node that answers.
async fn look(config: &Config, options: &ExplainOptions) -> anyhow::Result<Scene> {
    let database = options
        .database
        .as_deref()
        .unwrap_or(&config.cluster.control_database);
    let user = options.user.as_deref().unwrap_or(&config.cluster.control_user);
    let mut drivers = JoinSet::new();
    let mut refusals = Vec::new();
    for node in config.nodes.iter().map(|node| &node.address) {
        match control::open(config, Login { node, database, user }, &mut drivers).await {
            Ok(client) => {
                let scene = read(client, user)
                    .await
                    .with_context(|| format!("{node}, {database}"))?;
                let source = format!("of database {database} on {node}, as {user}");
                return Ok(Scene { source, ..scene });
            }
            Err(error) => refusals.push(format!("{error:#}")),
        }
    }
    Err(anyhow!("no node can be asked: {}", refusals.join("; ")))
}

async fn read(mut client: Client, user: &str) -> anyhow::Result<Scene> {
    const SETTINGS: &str = "SELECT pg_catalog.current_setting('search_path'), \
        pg_catalog.current_setting('default_transaction_isolation'), \
        pg_catalog.current_setting('standard_conforming_strings')";
    let settings = client
        .query_one(SETTINGS, &[])
        .await
        .map_err(|error| control::in_words(&error))?;
    let setting = |column: usize| settings.try_get::<_, String>(column);
    Ok(Scene {
        path: Path::parse(&setting(0)?, user),
        read_committed: matches!(setting(1)?.as_str(), "read committed" | "read uncommitted"),
        odd_strings: setting(2)? == "off",
        catalog: Some(Arc::new(Catalog::load(&mut client, 1).await?)),
        source: String::new(),
    })
}

fn explain(sql: &str, config: &Config, scene: &Scene) -> String {
    let script = match sql::analyze(sql.as_bytes()) {
        Ok(script) => Arc::new(script),
        Err(error @ (Unclassified::TooLong | Unclassified::NotUtf8)) => {
            return format!("route        primary: {error}\ncache        no: {error}\n");
        }
    };
    let verdict = match &scene.catalog {
        Some(catalog) => catalog.judge(script, &scene.path, &allowed(config)),
        None => judge_without_catalog(script),
    };
    let hints = &verdict.script.hints;
    let session = SessionFacts {
        asked: hints.route,
        read_committed: scene.read_committed,
        odd_strings: scene.odd_strings,
        ..SessionFacts::default()
    };
    let (place, because) = match route(&verdict, &session) {
        Route::Primary(because) => ("primary", because),
        Route::Replica(because) => ("replica", because),
    };
    let because = match because {
        Because::Statement(why) => in_words(why),
        other => other.to_string(),
    };
    let mut text = String::new();
    let mut line = |name: &str, what: &str| {
        writeln!(text, "{name:12} {what}").expect("a string takes what is written");
    };
    let rule = rule(sql, &verdict, config, scene);
    line("route", &format!("{place}: {because}"));
    line("cache", &cacheability(&verdict, config, rule.as_deref()));
    line("reads", &reads(&verdict, scene));
    line("writes", &writes(&verdict, scene));
    line("freshness", &freshness(&verdict, config, rule.as_deref()));
    if let Some(rule) = &rule {
        line("rule", &rule.to_string());
    }
    line("fingerprint", &format!("{:016x}", sql::fingerprint(sql)));
    line("catalog", &scene.source);
    for unknown in &hints.unknown {
        line("hint", &format!("{unknown} is not known"));
    }
    text
}

fn allowed(config: &Config) -> Allowed {
    let functions = config.functions.safe.iter().map(|name| name.as_str().into());
    Allowed {
        functions: functions.collect(),
    }
}

/// The first cache rule about it. Without a catalog none about a table is found.
fn rule(sql: &str, verdict: &Verdict, config: &Config, scene: &Scene) -> Option<Arc<Rule>> {
    let text = Text {
        sql: sql.as_bytes(),
        verdict: &verdict.ruled,
        statement: None,
    };
    let tables = || match (&verdict.reads, &scene.catalog) {
        (ReadSet::Tables(tables), Some(catalog)) => {
            let names = tables.iter().filter_map(|oid| catalog.table_name(*oid));
            (names.cloned().collect(), true)
        }
        _ => (Vec::new(), true),
    };
    crate::serve::rules(config).find(&text, tables).cloned()
}

fn cacheability(verdict: &Verdict, config: &Config, rule: Option<&Rule>) -> String {
    let cache = &config.cache;
    if let Err(why) = verdict.cache {
        return format!("no: {}", in_words(why));
    }
    if !cache.enabled {
        return "no: cache.enabled = false".to_owned();
    }
    if verdict.script.hints.cache == Some(false) {
        return "no: asked for by hint".to_owned();
    }
    let hinted = verdict.script.hints.cache == Some(true);
    let ruled = rule.and_then(|rule| Some((rule.number, rule.decision.cache?)));
    let of = match ruled {
        _ if hinted => "asked for by hint".to_owned(),
        Some((number, false)) => return format!("no: rule {number} forbids it"),
        Some((number, true)) => format!("rule {number} asks for it"),
        None if verdict.aggregates => "it aggregates".to_owned(),
        None if cache.what == CacheWhat::AllReads => "all reads are".to_owned(),
        None => return "no: it does not aggregate, and cache.what = \"aggregates\"".to_owned(),
    };
    let (ttl, by) = ttl(config, rule);
    format!("yes: {of}; an answer is at most {} old ({by})", humane(ttl))
}

/// The longest age of an answer, and what sets it.
fn ttl(config: &Config, rule: Option<&Rule>) -> (Duration, String) {
    match rule.and_then(|rule| Some((rule.number, rule.decision.ttl?))) {
        Some((number, ttl)) => (ttl, format!("rule {number}")),
        None => (config.cache.ttl, "cache.ttl".to_owned()),
    }
}

/// Tables by name; without a catalog, as they are written.
fn reads(verdict: &Verdict, scene: &Scene) -> String {
    match &verdict.reads {
        ReadSet::Tables(tables) => names(tables, scene),
        ReadSet::Unknown(why) => {
            let statements = verdict.script.statements.iter();
            let written: Vec<_> = statements
                .flat_map(|one| &one.reads)
                .map(ToString::to_string)
                .collect();
            unknown(&in_words(*why), &written)
        }
    }
}

fn writes(verdict: &Verdict, scene: &Scene) -> String {
    match &verdict.writes {
        WriteSet::None => "nothing".to_owned(),
        WriteSet::Tables(tables) => names(tables, scene),
        WriteSet::Catalog { global: false } => {
            "the catalog of its database, which counts as everything in it".to_owned()
        }
        WriteSet::Catalog { global: true } => {
            "objects of all databases, which counts as everything".to_owned()
        }
        WriteSet::Unknown(why) => {
            let statements = verdict.script.statements.iter();
            let written: Vec<_> = statements
                .flat_map(|one| &one.writes)
                .map(ToString::to_string)
                .collect();
            format!(
                "{}; counts as the whole database",
                unknown(&in_words(*why), &written)
            )
        }
    }
}

fn unknown(why: &str, written: &[String]) -> String {
    if written.is_empty() {
        format!("cannot be told: {why}")
    } else {
        format!("cannot be told: {why}; its text names {}", written.join(", "))
    }
}

fn names(tables: &[Oid], scene: &Scene) -> String {
    let name = |oid: &Oid| {
        let known = scene
            .catalog
            .as_ref()
            .and_then(|catalog| catalog.table_name(*oid));
        known.map_or_else(|| format!("oid {oid}"), ToString::to_string)
    };
    let mut names: Vec<_> = tables.iter().map(name).collect();
    names.sort_unstable();
    if names.is_empty() {
        "nothing".to_owned()
    } else {
        names.join(", ")
    }
}

/// The level, and what bounds a write that the proxy does not see.
fn freshness(verdict: &Verdict, config: &Config, rule: Option<&Rule>) -> String {
    let ruled = rule.and_then(|rule| {
        Some((
            rule.decision.level?.to_string(),
            format!("by rule {}", rule.number),
        ))
    });
    let (configured, from) = ruled.unwrap_or_else(|| {
        (
            config.freshness.level.to_string(),
            "by freshness.level".to_owned(),
        )
    });
    let (level, by) = match verdict.script.hints.freshness.as_deref() {
        Some(hint) if hint.parse::<Level>().is_ok() => (hint, "by hint".to_owned()),
        Some(_) => (configured.as_str(), format!("{from}; the hint names no level")),
        None => (configured.as_str(), from),
    };
    if level.parse() == Ok(Level::Strict) {
        return format!("{level}, {by}; nothing is missed, also of what is written past the proxy");
    }
    let (cached, bound) = ttl(config, rule);
    let (cached, lag) = (humane(cached), humane(config.cluster.lag_max));
    format!(
        "{level}, {by}; a write made past the proxy may stay unseen for {cached} in the cache ({bound}), \
         {lag} on a replica (cluster.lag_max)"
    )
}

fn humane(duration: Duration) -> String {
    crate::config::show_duration(duration)
}

/// `UnknownFunction` is "unknown function": the words of a variant say what it means.
fn in_words(reason: impl std::fmt::Debug) -> String {
    let mut words = String::new();
    for c in format!("{reason:?}").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CacheRule, Freshness, RuleSubject};

    fn without_catalog(sql: &str) -> String {
        with_rules(sql, Vec::new())
    }

    fn with_rules(sql: &str, rules: Vec<CacheRule>) -> String {
        let mut config = Config::default();
        config.cache.rules = rules;
        let scene = Scene {
            catalog: None,
            source: "none".to_owned(),
            path: Path::default(),
            read_committed: true,
            odd_strings: false,
        };
        explain(sql, &config, &scene)
    }

    fn check(sql: &str, lines: &[&str]) {
        let text = without_catalog(sql);
        for line in lines {
            assert!(
                text.lines().any(|found| found.starts_with(line)),
                "{sql}\nwanted {line}\nfound\n{text}"
            );
        }
    }

    #[test]
    fn a_text_is_judged_without_a_catalog() {
        check(
            "SELECT 1",
            &[
                "route        replica: plain read",
                "cache        no: trivial",
                "reads        nothing",
            ],
        );
        check(
            "SELECT count(*) FROM deals",
            &[
                "route        primary: no catalog",
                "reads        cannot be told: no catalog; its text names deals",
                "writes       cannot be told",
                "catalog      none",
            ],
        );
        check(
            "SELECT 1 /* pgladder: freshness=strict colour=red */",
            &[
                "freshness    strict, by hint; nothing is missed",
                "hint         colour=red is not known",
            ],
        );
        check("CREATE TABLE t ()", &["writes       the catalog of its database"]);
        check(
            &"x".repeat(40_000),
            &["route        primary: the statement is longer"],
        );
    }

    #[test]
    fn the_rule_about_a_text_is_told() {
        let rule = CacheRule {
            subject: RuleSubject::Pattern("select count(*)*".to_owned()),
            ttl: Some(Duration::from_secs(30)),
            freshness: Some(Freshness::Bounded(Duration::from_secs(300))),
            cache: Some(false),
        };
        let text = with_rules("SELECT count(*) FROM deals", vec![rule]);
        for wanted in [
            "cache        no: no catalog",
            "freshness    bounded 300s, by rule 1; a write made past the proxy may stay unseen for 30s in the cache (rule 1)",
            "rule         1: pattern select count(*)*",
        ] {
            assert!(text.contains(wanted), "wanted {wanted}\nfound\n{text}");
        }
    }

    #[test]
    fn a_variant_is_words() {
        assert_eq!(
            in_words(crate::catalog::verdict::Why::UnknownFunction),
            "unknown function"
        );
    }
}
