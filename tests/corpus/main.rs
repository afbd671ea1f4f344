//! Checks the classifier, the judgement and the route against labelled statements, and the labels against PostgreSQL.
//!
//! A label is written by hand from PostgreSQL's manual, never from the code's answer. `facts.txt` holds what the text alone
//! tells; `statements.txt` what is known under the catalog of `schema.sql`. What the servers say of a label wins over it:
//! a statement for replicas runs on a standby, a write changes no table that its label leaves out.

mod facts;
mod judged;
mod row;
mod servers;

use pgladder::catalog::Catalog;
use pgladder::demo::cluster::{Options, ThrowAwayCluster};

const SCHEMA: &str = include_str!("schema.sql");

#[tokio::test(flavor = "multi_thread")]
async fn statements_are_judged_as_labelled_and_postgresql_agrees() {
    let options = Options {
        replicas: 1,
        label: "corpus-".to_owned(),
        ..Options::default()
    };
    let cluster = ThrowAwayCluster::start(options)
        .await
        .expect("a primary and a replica");
    let mut client = cluster.connect(0, "postgres").await.expect("a connection");
    client.batch_execute(SCHEMA).await.expect("the schema");
    cluster.wait_caught_up().await.expect("the replica streams");
    let catalog = Catalog::load(&mut client, 1).await.expect("a snapshot");

    let rows = row::rows();
    assert!(rows.len() >= 400, "the corpus holds {} statements", rows.len());
    let mut wrong = judged::disagreements(&catalog, &rows);
    wrong.extend(servers::disagreements(&cluster, &rows).await);
    assert!(wrong.is_empty(), "{} labels:\n{}", wrong.len(), wrong.join("\n"));
    cluster.shut_down().await.expect("nothing stays");
}
