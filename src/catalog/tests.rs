//! Judgement tables over a small catalog made by hand: shop schema with a view, partitions, a cascade, a trigger.
//!
//! Each test states the verdict that a text must get. The live counterpart, over a real server, is `tests/catalog.rs`.

use std::sync::Arc;

use super::effects::{Effects, Reader, Token};
use super::facts::{Facts, ForeignKey, FunctionRow, RelationRow, TypeRow};
use super::verdict::{Oid, ReadSet, Why, WriteSet};
use super::{Allowed, Catalog, Path, judge_without_catalog};
use crate::sql::statement::{Call, Doubt, Hints, Kind, Name, Script, Statement};

const DEALS: Oid = 20_001;
const ITEMS: Oid = 20_002;
const VIEW: Oid = 20_003;
const ROOT: Oid = 20_004;
const LEAF_A: Oid = 20_005;
const LEAF_B: Oid = 20_006;
const AUDITED: Oid = 20_007;
const OTHER_DEALS: Oid = 20_008;
const MATVIEW: Oid = 20_009;
const TYPED: Oid = 20_010;
const LOGGED_CHILD: Oid = 20_011;
const CITEXT: Oid = 30_001;

fn row(oid: Oid, schema: &str, name: &str, kind: char) -> RelationRow {
    RelationRow {
        oid,
        schema: schema.into(),
        name: name.into(),
        kind,
        persistence: 'p',
        row_security: false,
        triggers: name == "audited",
        row_type: oid + 50_000,
    }
}

fn foreign_keys() -> Vec<ForeignKey> {
    vec![
        ForeignKey {
            referenced: DEALS,
            referencing: ITEMS,
            on_delete: true,
            on_update: false,
        },
        ForeignKey {
            referenced: LOGGED_CHILD,
            referencing: AUDITED,
            on_delete: true,
            on_update: false,
        },
        ForeignKey {
            referenced: ITEMS,
            referencing: ROOT,
            on_delete: false,
            on_update: false,
        },
    ]
}

fn facts() -> Facts {
    let reads = |oid| Effects {
        reads: [oid].into(),
        ..Effects::default()
    };
    Facts {
        relations: vec![
            row(DEALS, "public", "deals", 'r'),
            row(ITEMS, "public", "items", 'r'),
            row(VIEW, "public", "deal_view", 'v'),
            row(ROOT, "public", "sales", 'p'),
            row(LEAF_A, "public", "sales_a", 'r'),
            row(LEAF_B, "public", "sales_b", 'r'),
            row(AUDITED, "public", "audited", 'r'),
            row(OTHER_DEALS, "tenant", "deals", 'r'),
            row(MATVIEW, "public", "daily", 'm'),
            row(TYPED, "public", "typed", 'r'),
            row(LOGGED_CHILD, "public", "audited_parent", 'r'),
            row(1259, "pg_catalog", "pg_class", 'r'),
        ],
        inherits: vec![(LEAF_A, ROOT), (LEAF_B, ROOT)],
        foreign_keys: foreign_keys(),
        views: vec![(VIEW, reads(DEALS)), (MATVIEW, reads(DEALS))],
        columns: vec![(TYPED, CITEXT)],
        types: vec![TypeRow {
            oid: CITEXT,
            schema: "public".into(),
            name: "citext".into(),
            kind: 'b',
            of: 0,
            relation: 0,
            shadows: false,
        }],
        functions: vec![
            FunctionRow {
                schema: "public".into(),
                name: "vat".into(),
                args: vec![1700],
            },
            FunctionRow {
                schema: "tenant".into(),
                name: "lower".into(),
                args: vec![25],
            },
            FunctionRow {
                schema: "public".into(),
                name: "max".into(),
                args: vec![CITEXT],
            },
        ],
        fingerprint: 7,
        ..Facts::default()
    }
}

fn name(text: &str) -> Name {
    match text.split_once('.') {
        Some((schema, name)) => Name {
            schema: Some(schema.into()),
            name: name.into(),
        },
        None => Name {
            schema: None,
            name: text.into(),
        },
    }
}

fn statement(kind: Kind, reads: &[&str], writes: &[&str], calls: &[&str]) -> Statement {
    Statement {
        kind,
        reads: reads.iter().map(|text| name(text)).collect(),
        writes: writes.iter().map(|text| name(text)).collect(),
        calls: calls
            .iter()
            .map(|text| Call {
                name: name(text),
                args: 1,
            })
            .collect(),
        types: Vec::new(),
        operators: Vec::new(),
        aggregates: false,
        time_columns: Vec::new(),
        doubts: Vec::new(),
    }
}

fn script(statements: Vec<Statement>) -> Arc<Script> {
    Arc::new(Script {
        statements,
        hints: Hints::default(),
    })
}

fn judge_in(facts: Facts, path: &str, statement: Statement) -> super::verdict::Verdict {
    let catalog = Catalog::build(facts, 3);
    catalog.judge(
        script(vec![statement]),
        &Path::parse(path, "ann"),
        &Allowed::default(),
    )
}

fn judge(statement: Statement) -> super::verdict::Verdict {
    judge_in(facts(), "public", statement)
}

fn select(reads: &[&str], calls: &[&str]) -> Statement {
    statement(Kind::Select, reads, &[], calls)
}

fn tables(oids: &[Oid]) -> ReadSet {
    ReadSet::Tables(oids.into())
}

fn written(oids: &[Oid]) -> WriteSet {
    WriteSet::Tables(oids.into())
}

#[test]
fn reads_are_closed_over_views_and_partitions() {
    let table: &[(&str, &[Oid])] = &[
        ("deals", &[DEALS]),
        ("public.deals", &[DEALS]),
        ("deal_view", &[DEALS]),
        ("daily", &[MATVIEW]),
        ("sales", &[ROOT, LEAF_A, LEAF_B]),
        ("sales_a", &[ROOT, LEAF_A]),
    ];
    for (relation, expected) in table {
        let verdict = judge(select(&[relation], &["count"]));
        assert_eq!(verdict.reads, tables(expected), "{relation}");
        assert_eq!((verdict.replica, verdict.cache), (Ok(()), Ok(())), "{relation}");
        assert_eq!(verdict.writes, WriteSet::None, "{relation}");
        assert_eq!(verdict.generation, 3);
    }
}

#[test]
fn a_name_in_two_schemas_of_the_path_is_both() {
    let verdict = judge_in(facts(), "tenant, public", select(&["deals"], &[]));
    assert_eq!(verdict.reads, tables(&[DEALS, OTHER_DEALS]));
    let catalog = Catalog::build(facts(), 1);
    assert_eq!(
        catalog.find(None, "deals", &Path::parse("tenant, public", "ann")),
        Some(OTHER_DEALS)
    );
    assert_eq!(
        catalog.find(None, "pg_class", &Path::parse("public", "ann")),
        Some(1259)
    );
    assert_eq!(catalog.find(None, "deals", &Path::parse("nowhere", "ann")), None);
    assert_eq!(
        catalog.table_name(DEALS).map(ToString::to_string).as_deref(),
        Some("public.deals")
    );
    assert!(catalog.tables().all(|(oid, _)| oid != 1259));
    assert_eq!(catalog.fingerprint(), 7);
}

#[test]
fn writes_are_closed_over_partitions_and_cascades() {
    let table: &[(Kind, &str, WriteSet)] = &[
        (Kind::Delete, "deals", written(&[DEALS, ITEMS])),
        (Kind::Delete, "deal_view", written(&[DEALS, ITEMS])),
        // Its key is followed ON DELETE only, and new rows have no followers.
        (Kind::Update, "deal_view", written(&[DEALS])),
        (Kind::Insert, "deals", written(&[DEALS])),
        (Kind::Insert, "items", written(&[ITEMS])),
        // TRUNCATE … CASCADE follows any foreign key, and then the partitions.
        (Kind::Truncate, "items", written(&[ITEMS, ROOT, LEAF_A, LEAF_B])),
        (Kind::Insert, "sales_a", written(&[ROOT, LEAF_A])),
        (Kind::Update, "sales", written(&[ROOT, LEAF_A, LEAF_B])),
        (Kind::RefreshView, "daily", written(&[MATVIEW])),
        (Kind::Update, "audited", WriteSet::Unknown(Why::Trigger)),
        (Kind::Delete, "audited_parent", WriteSet::Unknown(Why::Trigger)),
        (Kind::Delete, "missing", WriteSet::Unknown(Why::UnknownRelation)),
    ];
    for (kind, relation, expected) in table {
        let verdict = judge(statement(kind.clone(), &[], &[relation], &[]));
        assert_eq!(&verdict.writes, expected, "{kind:?} {relation}");
        assert_eq!(
            (verdict.replica, verdict.cache),
            (Err(Why::Writes), Err(Why::Writes))
        );
    }
}

#[test]
fn calls_are_judged_by_list_and_by_what_may_shadow_them() {
    let table: &[(&str, &str, Option<Why>)] = &[
        ("public", "count", None),
        ("public", "vat", Some(Why::UnknownFunction)),
        ("public", "pg_catalog.lower", None),
        ("public", "lower", None),
        ("public, tenant", "lower", Some(Why::UnknownFunction)),
        ("public", "public.count", Some(Why::UnknownFunction)),
        ("public", "not_a_function", Some(Why::UnknownFunction)),
        // public.max(citext) cannot be meant where nothing is a citext.
        ("public", "max", None),
    ];
    for (path, call, unknown) in table {
        let verdict = judge_in(facts(), path, select(&["items"], &[call]));
        match unknown {
            Some(why) => {
                assert_eq!(verdict.reads, ReadSet::Unknown(*why), "{call} in {path}");
                assert_eq!(verdict.writes, WriteSet::Unknown(*why), "{call} in {path}");
                assert!(verdict.leaves_state, "{call} in {path}");
            }
            None => assert_eq!(verdict.cache, Ok(()), "{call} in {path}"),
        }
    }
    assert_eq!(
        judge(select(&["typed"], &["max"])).cache,
        Err(Why::UnknownFunction)
    );
}

#[test]
fn a_function_declared_safe_is_believed() {
    let catalog = Catalog::build(facts(), 1);
    let path = Path::parse("public", "ann");
    let judge = |declared: &str| {
        let allowed = Allowed {
            functions: [declared.into()].into(),
        };
        catalog
            .judge(script(vec![select(&["deals"], &["vat"])]), &path, &allowed)
            .cache
    };
    assert_eq!(judge("vat"), Ok(()));
    assert_eq!(judge("public.vat"), Ok(()));
    assert_eq!(judge("tenant.vat"), Err(Why::UnknownFunction));
}

#[test]
fn doubts_of_the_text_have_their_reasons() {
    let table = [
        (Doubt::LocksRows, Err(Why::Locks), Err(Why::Locks)),
        (Doubt::SelectsInto, Err(Why::SelectsInto), Err(Why::SelectsInto)),
        (Doubt::WritesInCte, Err(Why::WritesInCte), Err(Why::WritesInCte)),
        (Doubt::ClockWord, Ok(()), Err(Why::ReadsClock)),
        (
            Doubt::SystemColumn,
            Err(Why::SystemColumn),
            Err(Why::SystemColumn),
        ),
        (Doubt::Sample, Ok(()), Err(Why::Volatile)),
        (Doubt::OnlyName, Err(Why::OnlyName), Err(Why::OnlyName)),
        (Doubt::Opaque, Err(Why::Opaque), Err(Why::Opaque)),
    ];
    for (doubt, replica, cache) in table {
        let mut statement = select(&["deals"], &[]);
        statement.doubts.push(doubt);
        let verdict = judge(statement);
        assert_eq!((verdict.replica, verdict.cache), (replica, cache), "{doubt:?}");
    }
}

#[test]
fn kinds_that_hide_or_change_more_are_wide() {
    let table = [
        (Kind::Do, WriteSet::Unknown(Why::HiddenBody)),
        (Kind::Call, WriteSet::Unknown(Why::HiddenBody)),
        (Kind::Execute("q".into()), WriteSet::Unknown(Why::HiddenBody)),
        (Kind::CommitPrepared, WriteSet::Unknown(Why::ControlsTransaction)),
        (Kind::Other("load".into()), WriteSet::Unknown(Why::Unparsed)),
        (Kind::Ddl { global: true }, WriteSet::Catalog { global: true }),
        (
            Kind::Begin(crate::sql::statement::TransactionModes::default()),
            WriteSet::None,
        ),
        (Kind::Fetch, WriteSet::None),
        (Kind::Show("timezone".into()), WriteSet::None),
    ];
    for (kind, writes) in table {
        let verdict = judge(statement(kind.clone(), &[], &[], &[]));
        assert_eq!(verdict.writes, writes, "{kind:?}");
        assert!(verdict.replica.is_err() && verdict.cache.is_err(), "{kind:?}");
    }
    let verdict = judge(select(&[], &[]));
    assert_eq!((verdict.replica, verdict.cache), (Ok(()), Err(Why::Trivial)));
}

#[test]
fn many_statements_unite_their_writes() {
    let catalog = Catalog::build(facts(), 1);
    let text = script(vec![
        select(&["deals"], &[]),
        statement(Kind::Insert, &[], &["items"], &[]),
        statement(Kind::Insert, &[], &["sales_b"], &[]),
    ]);
    let verdict = catalog.judge(text, &Path::parse("public", "ann"), &Allowed::default());
    assert_eq!(verdict.writes, written(&[ITEMS, ROOT, LEAF_B]));
    assert_eq!(
        (verdict.replica, verdict.cache),
        (Err(Why::ManyStatements), Err(Why::ManyStatements))
    );
    assert!(verdict.single().is_none());
}

#[test]
fn without_a_catalog_no_table_is_known() {
    let verdict = judge_without_catalog(script(vec![select(&["deals"], &[])]));
    assert_eq!(verdict.reads, ReadSet::Unknown(Why::NoCatalog));
    assert_eq!(verdict.replica, Err(Why::NoCatalog));
    let verdict = judge_without_catalog(script(vec![select(&[], &["now"])]));
    assert_eq!((verdict.replica, verdict.cache), (Ok(()), Err(Why::ReadsClock)));
    let verdict = judge_without_catalog(script(vec![select(&[], &["vat"])]));
    assert_eq!(verdict.writes, WriteSet::Unknown(Why::UnknownFunction));
}

#[test]
fn loose_operators_rows_and_types_are_doubted() {
    let mut with_operator = facts();
    with_operator.loose.push((23, 23));
    assert_eq!(
        judge_in(with_operator, "public", select(&["deals"], &[])).cache,
        Err(Why::UnknownOperator)
    );

    let mut with_type = facts();
    with_type.loose.push((CITEXT, 25));
    assert_eq!(
        judge_in(with_type, "public", select(&["typed"], &[])).replica,
        Err(Why::UnknownOperator)
    );

    let mut with_row_function = facts();
    let args = vec![DEALS + 50_000];
    with_row_function.functions.push(FunctionRow {
        schema: "public".into(),
        name: "total".into(),
        args,
    });
    assert_eq!(
        judge_in(with_row_function, "public", select(&["deals"], &[])).cache,
        Err(Why::UnknownFunction)
    );

    let mut cast = select(&["deals"], &[]);
    cast.types.push(name("citext"));
    assert_eq!(judge(cast).cache, Err(Why::UnknownOperator));
}

#[test]
fn row_security_counts_only_where_it_is_on() {
    let policy = Effects {
        primary: Some(Why::ReadsSession),
        uncached: Some(Why::ReadsSession),
        ..Effects::default()
    };
    let mut off = facts();
    off.policies.push((DEALS, policy.clone()));
    assert_eq!(judge_in(off, "public", select(&["deals"], &[])).cache, Ok(()));
    let mut on = facts();
    on.policies.push((DEALS, policy));
    on.relations[0].row_security = true;
    assert_eq!(
        judge_in(on, "public", select(&["deal_view"], &[])).cache,
        Err(Why::RowSecurity)
    );
}

#[test]
fn what_may_draw_is_known() {
    let draws = Effects {
        draws: true,
        ..Effects::default()
    };
    let mut facts = facts();
    facts.defaults.push((DEALS, draws.clone()));
    facts.write_expressions.push((TYPED, draws.clone()));
    facts.views[1].1.add(&draws);
    let catalog = Catalog::build(facts, 3);
    let draws = |statement: Statement| {
        let path = Path::parse("public", "ann");
        let verdict = catalog.judge(script(vec![statement]), &path, &Allowed::default());
        verdict.may_draw
    };
    let writes = |kind: Kind, table: &str| statement(kind, &[], &[table], &[]);
    for kind in [Kind::Insert, Kind::Merge, Kind::CopyIn] {
        assert!(draws(writes(kind.clone(), "deals")), "{kind:?}");
        assert!(
            draws(writes(kind.clone(), "deal_view")),
            "{kind:?} through a view"
        );
        assert!(!draws(writes(kind.clone(), "items")), "{kind:?} without defaults");
    }
    for kind in [Kind::Update, Kind::Delete, Kind::Truncate] {
        assert!(!draws(writes(kind.clone(), "deals")), "{kind:?} calls no default");
        assert!(draws(writes(kind.clone(), "audited")), "{kind:?} with a trigger");
    }
    for doubt in [Doubt::SetsDefault, Doubt::WritesInCte] {
        let mut update = writes(Kind::Update, "deals");
        update.doubts.push(doubt);
        assert!(draws(update), "{doubt:?}");
    }
    assert!(draws(writes(Kind::Update, "typed")), "not by a default");
    assert!(draws(writes(Kind::RefreshView, "daily")));
    assert!(
        draws(writes(Kind::Delete, "audited_parent")),
        "a cascade to a trigger"
    );
    for (call, expected) in [
        ("nextval", true),
        ("setval", true),
        ("currval", false),
        ("count", false),
        ("vat", true),
        ("unheard_of", true),
    ] {
        assert_eq!(draws(select(&["items"], &[call])), expected, "{call}");
    }
    for kind in [
        Kind::Call,
        Kind::Do,
        Kind::Execute("s".into()),
        Kind::Ddl { global: false },
    ] {
        assert!(draws(statement(kind.clone(), &[], &[], &[])), "{kind:?}");
    }
    let commit = Kind::Commit { chain: false };
    for kind in [
        Kind::Empty,
        commit,
        Kind::Lock,
        Kind::Fetch,
        Kind::Show("x".into()),
    ] {
        assert!(!draws(statement(kind.clone(), &[], &[], &[])), "{kind:?}");
    }
    let unjudged = |statement| judge_without_catalog(script(vec![statement])).may_draw;
    assert!(unjudged(writes(Kind::Insert, "items")) && unjudged(select(&["items"], &[])));
    assert!(!unjudged(select(&[], &["count"])));
}

#[test]
fn node_trees_are_read_with_doubt() {
    let builtin = |name, immutable, operator| Token::Function {
        name,
        builtin: true,
        args: 0,
        immutable,
        operator,
    };
    let check = |tokens: &[Token<'_>]| {
        let mut reader = Reader::default();
        for token in tokens {
            reader.take(token);
        }
        let effects = reader.finish();
        (effects.unknown, effects.uncached)
    };
    for name in ["nextval", "currval", "lastval"] {
        let mut reader = Reader::default();
        reader.take(&builtin(name, false, false));
        assert!(reader.finish().draws, "{name}");
    }
    assert_eq!(
        check(&[Token::Node("QUERY"), builtin("int4eq", true, true)]),
        (None, None)
    );
    assert_eq!(
        check(&[builtin("now", false, false)]),
        (None, Some(Why::ReadsClock))
    );
    assert_eq!(check(&[Token::Keyword(3)]), (None, Some(Why::ReadsClock)));
    assert_eq!(check(&[Token::Keyword(10)]), (None, Some(Why::ReadsSession)));
    assert_eq!(
        check(&[builtin("timestamptz_pl_interval", false, true)]),
        (None, None)
    );
    assert_eq!(
        check(&[Token::Node("COERCEVIAIO"), Token::ResultType(25)]),
        (None, None)
    );
    assert_eq!(
        check(&[Token::Node("COERCEVIAIO"), Token::ResultType(1184)]),
        (None, Some(Why::ReadsClock))
    );
    assert_eq!(
        check(&[Token::Node("NEWTHING")]),
        (Some(Why::Opaque), Some(Why::Opaque))
    );
}
