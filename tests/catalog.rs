//! Verdicts over a real server's catalog: views, cascades, partitions, triggers and functions as PostgreSQL has them.
//!
//! It starts PostgreSQL itself and fails loudly where PostgreSQL is not installed. One server serves all cases, because a
//! verdict reads nothing but the snapshot that was loaded once.

use std::sync::Arc;

use pgladder::catalog::verdict::{ReadSet, Why, WriteSet};
use pgladder::catalog::{Allowed, Catalog, Path};
use pgladder::demo::cluster::{Options, ThrowAwayCluster};
use pgladder::sql;

const SCHEMA: &str = "
    CREATE TABLE hotels (id int PRIMARY KEY, city text);
    CREATE TABLE deals (id int PRIMARY KEY, hotel_id int REFERENCES hotels ON DELETE CASCADE, price numeric);
    CREATE VIEW cities AS SELECT h.city, count(*) AS deals FROM hotels h JOIN deals d ON d.hotel_id = h.id GROUP BY 1;
    CREATE VIEW clock AS SELECT now() AS at, id FROM hotels;
    CREATE TABLE logs (at date) PARTITION BY RANGE (at);
    CREATE TABLE logs_1 PARTITION OF logs FOR VALUES FROM ('2026-01-01') TO ('2026-07-01');
    CREATE TABLE audited (id int);
    CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER note BEFORE INSERT ON audited FOR EACH ROW EXECUTE FUNCTION note();
    CREATE UNLOGGED TABLE scratch (id int);
    CREATE SEQUENCE numbers;
    CREATE FUNCTION quiet() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1';
";

struct Loaded(Catalog);

impl Loaded {
    fn names(&self, oids: &[u32]) -> Vec<String> {
        let name = |oid: &u32| {
            self.0
                .table_name(*oid)
                .expect("a table of the snapshot")
                .name
                .to_string()
        };
        let mut names: Vec<String> = oids.iter().map(name).collect();
        names.sort();
        names
    }

    fn judge(&self, text: &str) -> pgladder::catalog::verdict::Verdict {
        let script = Arc::new(sql::analyze(text.as_bytes()).expect("classified"));
        self.0
            .judge(script, &Path::parse("public", "postgres"), &Allowed::default())
    }

    fn read(&self, text: &str, tables: &[&str]) {
        let verdict = self.judge(text);
        let ReadSet::Tables(oids) = &verdict.reads else {
            panic!("{text}: {:?}", verdict.reads)
        };
        assert_eq!(self.names(oids), tables, "{text}");
        assert_eq!(verdict.replica, Ok(()), "{text}");
        assert_eq!(verdict.writes, WriteSet::None, "{text}");
    }

    fn written(&self, text: &str, tables: &[&str]) {
        let verdict = self.judge(text);
        let WriteSet::Tables(oids) = &verdict.writes else {
            panic!("{text}: {:?}", verdict.writes)
        };
        assert_eq!(self.names(oids), tables, "{text}");
        assert!(verdict.replica.is_err() && verdict.cache.is_err(), "{text}");
    }
}

/// The list says no more of a function than the server does, whatever its arguments.
async fn the_list_of_functions_is_no_bolder_than_the_server(client: &tokio_postgres::Client) {
    let declared = "SELECT proname::text, pronargs::int4, provolatile::text, prokind = 'w' FROM pg_proc \
                    WHERE pronamespace = 'pg_catalog'::regnamespace";
    let mut known = 0;
    for row in client.query(declared, &[]).await.expect("functions") {
        let (name, args): (&str, i32) = (row.get(0), row.get(1));
        let (volatility, window): (&str, bool) = (row.get(2), row.get(3));
        let purity = sql::purity(name, u16::try_from(args).expect("few"));
        known += usize::from(purity.is_some());
        match purity {
            Some(sql::Purity::Immutable) => {
                assert!(window || volatility == "i", "{name}({args}) is {volatility}");
            }
            Some(sql::Purity::SettingsOnly) => assert_ne!(volatility, "v", "{name}({args})"),
            _ => {}
        }
    }
    assert!(known > 1000, "the list knows {known} of the server's functions");
}

#[tokio::test(flavor = "multi_thread")]
async fn verdicts_follow_the_catalog() {
    let options = Options {
        replicas: 0,
        label: "catalog-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options).await.expect("a server");
    let mut client = cluster.connect(0, "postgres").await.expect("a connection");
    client.batch_execute(SCHEMA).await.expect("the schema");
    let catalog = Loaded(Catalog::load(&mut client, 1).await.expect("a snapshot"));

    catalog.read("SELECT city, count(*) FROM hotels GROUP BY city", &["hotels"]);
    catalog.read("SELECT * FROM cities", &["deals", "hotels"]);
    catalog.read("SELECT count(*) FROM logs_1", &["logs", "logs_1"]);
    catalog.read("SELECT 1", &[]);
    assert_eq!(catalog.judge("SELECT count(*) FROM deals").cache, Ok(()));
    assert!(
        catalog.judge("SELECT * FROM clock").cache.is_err(),
        "a view hides now()"
    );
    catalog.written("DELETE FROM hotels WHERE id = 1", &["deals", "hotels"]);
    catalog.written("INSERT INTO deals VALUES (1, 1, 1)", &["deals"]);
    let hidden = catalog.judge("INSERT INTO audited VALUES (1)").writes;
    assert_eq!(hidden, WriteSet::Unknown(Why::Trigger));
    assert_eq!(
        catalog.judge("SELECT count(*) FROM scratch").replica,
        Err(Why::Unlogged)
    );
    for text in [
        "SELECT quiet()",
        "SELECT nextval('numbers')",
        "SELECT * FROM nowhere",
        "SELECT count(*) FROM pg_class",
    ] {
        assert!(catalog.judge(text).replica.is_err(), "{text}");
    }

    the_list_of_functions_is_no_bolder_than_the_server(&client).await;
    let before = pgladder::catalog::fingerprint(&client)
        .await
        .expect("a fingerprint");
    assert_eq!(before, catalog.0.fingerprint());
    client
        .batch_execute("CREATE TEMP TABLE t (); ANALYZE hotels")
        .await
        .expect("it runs");
    assert_eq!(
        pgladder::catalog::fingerprint(&client)
            .await
            .expect("a fingerprint"),
        before
    );
    client
        .batch_execute("GRANT SELECT ON hotels TO PUBLIC")
        .await
        .expect("it runs");
    assert_ne!(
        pgladder::catalog::fingerprint(&client)
            .await
            .expect("a fingerprint"),
        before
    );
    cluster.shut_down().await.expect("it ends");
}
