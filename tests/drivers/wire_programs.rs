//! Random programs of messages, run directly and through the proxy: every message of the answers must be the same.
//!
//! A program that differs is made as short as it can be before it is shown, so that what is printed is the defect and little
//! else. It proves nothing about timing, nor about what a server says to nobody in particular.

use std::fmt::Write as _;

use crate::programs::{CONTENT, Piece, RESET, program};
use crate::rivals::Rivals;
use crate::support::{Pair, Stage};
use crate::wire::{Heard, Speaker};

const SEEDS: std::ops::Range<u64> = 0..120;
const SEEDS_AMID_RIVALS: std::ops::Range<u64> = 1_000..1_040;
/// After so many the picture is clear.
const DEFECTS_MAX: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_message_is_answered_as_the_server_itself_would() {
    let stage = Stage::start(2).await;
    let pair = stage.databases("wire", CONTENT).await;
    let mut defects = compare_all(&stage, &pair, seeds(SEEDS)).await;
    let rivals = Rivals::start(&stage, &pair.proxied, 4);
    defects.extend(compare_all(&stage, &pair, seeds(SEEDS_AMID_RIVALS)).await);
    rivals.stop().await;
    stage.shut_down().await;
    assert!(
        defects.is_empty(),
        "{} defects:\n{}",
        defects.len(),
        defects.join("\n")
    );
}

/// PGLADDER_WIRE_SEEDS=from..to runs others.
fn seeds(usual: std::ops::Range<u64>) -> std::ops::Range<u64> {
    let Ok(asked) = std::env::var("PGLADDER_WIRE_SEEDS") else {
        return usual;
    };
    let (from, to) = asked.split_once("..").expect("PGLADDER_WIRE_SEEDS=from..to");
    from.parse().expect("a number")..to.parse().expect("a number")
}

async fn compare_all(stage: &Stage, pair: &Pair, seeds: std::ops::Range<u64>) -> Vec<String> {
    let mut defects = Vec::new();
    for seed in seeds {
        let whole = program(seed);
        let Some(first) = difference(stage, pair, &whole).await else {
            continue;
        };
        let short = shortened(stage, pair, whole).await;
        let shown = difference(stage, pair, &short).await;
        defects.push(format!("seed {seed}: {}", shown.unwrap_or(first)));
        if defects.len() == DEFECTS_MAX {
            break;
        }
    }
    defects
}

/// The first piece whose answers differ, with both; `None` when all are the same.
pub async fn difference(stage: &Stage, pair: &Pair, pieces: &[Piece]) -> Option<String> {
    let direct = run(stage.primary_port(), &pair.direct, pieces).await;
    let proxied = run(stage.proxy_port(), &pair.proxied, pieces).await;
    let at = (0..direct.len().min(proxied.len())).find(|at| !same(&direct[*at], &proxied[*at]))?;
    let mut shown = String::new();
    for piece in &pieces[..at.min(pieces.len())] {
        writeln!(shown, "    {:?} {:?}", piece.messages, piece.feed).expect("a string");
    }
    let (direct, proxied) = (&direct[at], &proxied[at]);
    write!(shown, "  direct  {direct:?}\n  proxied {proxied:?}").expect("a string");
    Some(format!("piece {at}\n{shown}"))
}

/// Are the answers the same? One difference is none.
fn same(direct: &[Heard], proxied: &[Heard]) -> bool {
    let has = |message: &Heard, code: &[u8]| {
        message.tag == b'E'
            && message
                .body
                .split(|byte| *byte == b'\n')
                .any(|field| field == code)
    };
    let mut both = direct.iter().zip(proxied);
    let Some((_, theirs)) = both.find(|(ours, theirs)| ours != theirs) else {
        return direct.len() == proxied.len();
    };
    // In a block that has failed, a statement that the server connection does not have cannot be brought there: it is refused as
    // everything is in such a block, before the server sees what else is wrong with it, or that describing it is harmless.
    has(theirs, b"C25P02")
        && (direct.last() == proxied.last() || direct.last().is_some_and(|last| last.tag == b'E'))
}

/// Answers to the login, then to each piece.
async fn run(port: u16, database: &str, pieces: &[Piece]) -> Vec<Vec<Heard>> {
    let (mut first, _) = Speaker::start(port, database, &[]).await;
    let reset = first.query(RESET).await;
    let failed = reset.iter().any(|message| message.tag == b'E');
    assert!(!failed, "{reset:?}");
    drop(first);
    let parameters = [("application_name", "wire"), ("TimeZone", "UTC")];
    let (mut speaker, greeting) = Speaker::start(port, database, &parameters).await;
    let mut greeting = greeting;
    // The server reports parameters in an order of its own.
    greeting.sort_by(|one, other| one.body.cmp(&other.body));
    // Up to 13 a server tells of a parameter at once, also if the transaction then takes it back; the proxy as later ones do.
    let tells_at_once = greeting
        .iter()
        .any(|message| message.body.starts_with(b"server_version\x0013."));
    let mut answers = vec![greeting];
    for piece in pieces {
        let mut heard = speaker.say(&piece.messages, piece.feed).await;
        heard.retain(|message| message.tag != b'S' || !tells_at_once);
        let ended = heard.last().is_some_and(|message| message.tag == b'!');
        answers.push(heard);
        if ended {
            break;
        }
    }
    answers
}

/// Leaves out all that the difference does not need.
async fn shortened(stage: &Stage, pair: &Pair, mut pieces: Vec<Piece>) -> Vec<Piece> {
    let mut at = pieces.len();
    while at > 0 {
        at -= 1;
        let mut without = pieces.clone();
        without.remove(at);
        if difference(stage, pair, &without).await.is_some() {
            pieces = without;
        }
    }
    for at in 0..pieces.len() {
        let mut message = pieces[at].messages.len().saturating_sub(1);
        while message > 0 {
            message -= 1;
            let mut without = pieces.clone();
            without[at].messages.remove(message);
            if difference(stage, pair, &without).await.is_some() {
                pieces = without;
            }
        }
    }
    pieces
}
