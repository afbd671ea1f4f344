//! Four other clients of the same user and database, which do all that a careless pooler would let leak into its neighbours.
//!
//! Started by each suite for its second round. They change settings, prepare statements under the names that drivers choose,
//! make temporary tables of the same name, fail transactions and leave without a word, and check that nobody does the same
//! to them. They touch no table that a suite looks at.

use pgladder::demo::cluster::SUPERUSER;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::{Stage, within};
use crate::wire::{Feed, Heard, Say, Speaker};

/// Names that drivers and suites give to their statements.
const NAMES: [&str; 8] = [
    "s1",
    "s2",
    "q",
    "_pg3_0",
    "_pg3_1",
    "__asyncpg_stmt_1__",
    "__asyncpg_stmt_2__",
    "",
];

/// Clients that are busy until they are stopped.
pub struct Rivals {
    stop: CancellationToken,
    busy: JoinSet<u64>,
}

impl Rivals {
    /// Starts so many.
    pub fn start(stage: &Stage, database: &str, count: usize) -> Self {
        let (stop, mut busy) = (CancellationToken::new(), JoinSet::new());
        for number in 0..count {
            busy.spawn(rival(
                stage.proxy_port(),
                database.to_owned(),
                number,
                stop.clone(),
            ));
        }
        Self { stop, busy }
    }

    /// Stops them; fails if one was disturbed, or never got anything done.
    pub async fn stop(mut self) {
        self.stop.cancel();
        while let Some(rounds) = within("rivals that stop", self.busy.join_next()).await {
            assert!(
                rounds.expect("a rival that was not disturbed") > 0,
                "a rival that did nothing"
            );
        }
    }
}

async fn rival(port: u16, database: String, number: usize, stop: CancellationToken) -> u64 {
    let mut rounds = 0;
    while !stop.is_cancelled() {
        round(port, &database, &format!("rival {number}")).await;
        rounds += 1;
    }
    rounds
}

async fn round(port: u16, database: &str, me: &str) {
    let (mut rival, _) = Speaker::start(port, database, &[("application_name", me)]).await;
    let zone = "SET timezone = 'Pacific/Chatham'; SET datestyle = 'German'; SET search_path = pg_catalog, pg_temp; \
                SET extra_float_digits = 0; SET bytea_output = escape; SET statement_timeout = '7min'";
    rival.query(zone).await;
    for name in NAMES {
        let sql = format!("SELECT '{me}'::text, $1::text");
        let parsed = [Say::Parse(name, sql), Say::DescribeStatement(name), Say::Sync];
        rival.say(&parsed, Feed::Done).await;
        expect(&mut rival, name, me).await;
    }
    rival.query("BEGIN; SELECT 1 / 0").await;
    rival.query("SELECT 1").await;
    rival.query("ROLLBACK").await;
    assert_eq!(value(&rival.query("SHOW timezone").await), "Pacific/Chatham");
    assert_eq!(value(&rival.query("SHOW application_name").await), me);
    assert_eq!(value(&rival.query("SELECT current_user").await), SUPERUSER);
    let temporary = format!("CREATE TEMP TABLE mine AS SELECT '{me}'::text AS owner");
    rival.query(&temporary).await;
    assert_eq!(value(&rival.query("SELECT owner FROM pg_temp.mine").await), me);
    for name in NAMES.into_iter().take(3) {
        expect(&mut rival, name, me).await;
    }
    // It leaves in the middle of a transaction, with all its state behind it.
    rival
        .query("BEGIN; SET LOCAL timezone = 'Asia/Tokyo'; DECLARE c CURSOR FOR SELECT 1")
        .await;
}

/// Its statement is its own.
async fn expect(rival: &mut Speaker, name: &'static str, me: &str) {
    let bind = Say::Bind("", name, vec![Some("it".to_owned())], false);
    let answers = rival
        .say(&[bind, Say::Execute("", 0), Say::Sync], Feed::Done)
        .await;
    if name.is_empty() {
        // A simple query in between drops it, and none was in between.
        assert_eq!(value(&answers), me, "{answers:?}");
    } else {
        assert_eq!(value(&answers), me, "{name}: {answers:?}");
    }
}

/// The first column of the last row.
fn value(answers: &[Heard]) -> &str {
    let row = answers.iter().rfind(|message| message.tag == b'D');
    let body = &row.unwrap_or_else(|| panic!("no row: {answers:?}")).body;
    let length = i32::from_be_bytes(body[2..6].try_into().expect("a column"));
    let end = 6 + usize::try_from(length).expect("not null");
    std::str::from_utf8(&body[6..end]).expect("text")
}
