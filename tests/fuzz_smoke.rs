//! The fuzz targets' bodies, driven on stable by a seeded, bounded generator and by the kept corpus.
//!
//! `make fuzz` drives the same functions for as long as one likes. A failing input is printed as it has to be kept.

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::fs;
use std::panic;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

const SEED: u64 = 0x9e37_79b9_7f4a_7c15;

fn drive(name: &str, body: fn(&[u8]), inputs: impl Iterator<Item = Vec<u8>>) {
    let directory = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let kept = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
    let kept = kept.map(|entry| fs::read(entry.expect("an entry").path()).expect("a kept input"));
    let mut count = 0;
    for input in kept.chain(inputs) {
        count += 1;
        assert!(
            panic::catch_unwind(|| body(&input)).is_ok(),
            "{name} fails; keep this in fuzz/corpus/{name}: {}",
            input.escape_ascii()
        );
    }
    assert!(count > 1_000, "{name}: only {count} inputs");
}

fn bytes(random: &mut StdRng, length_max: usize) -> Vec<u8> {
    let length = random.random_range(0..=length_max);
    (0..length).map(|_| random.random()).collect()
}

/// Messages with a true length mostly, some of their bytes changed, the end cut off.
fn messages(random: &mut StdRng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.random_range(0..6) {
        let body = bytes(random, 40);
        out.push(*b"QFPBDECSHXdcfTZ12NAKGHWVsn".choose(random).expect("not empty"));
        let length = if random.random_ratio(1, 20) {
            random.random()
        } else {
            i32::try_from(body.len() + 4).expect("short")
        };
        out.extend(length.to_be_bytes());
        out.extend(body);
    }
    if random.random_ratio(1, 4) {
        out.truncate(random.random_range(0..=out.len()));
    }
    if random.random_ratio(1, 4) && !out.is_empty() {
        let at = random.random_range(0..out.len());
        out[at] = random.random();
    }
    out
}

/// CopyData of a walsender, with pieces of pgoutput in it.
fn copies(random: &mut StdRng) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..random.random_range(0..6) {
        let mut body = vec![*b"wwwwwkz".choose(random).expect("not empty")];
        body.extend(bytes(random, 4).iter().chain(&[0; 24]).take(24));
        body.push(*b"BBCCIUDTRYOMSEbP".choose(random).expect("not empty"));
        let count = random.random_range(0..3);
        body.extend(u32::to_be_bytes(count));
        body.extend(bytes(random, 40));
        out.push(if random.random_ratio(1, 20) { b'c' } else { b'd' });
        let length = if random.random_ratio(1, 20) {
            random.random()
        } else {
            i32::try_from(body.len() + 4).expect("short")
        };
        out.extend(length.to_be_bytes());
        out.extend(body);
    }
    if random.random_ratio(1, 4) {
        out.truncate(random.random_range(0..=out.len()));
    }
    out
}

fn packet(random: &mut StdRng) -> Vec<u8> {
    const CODES: [u32; 6] = [80_877_103, 80_877_104, 80_877_102, 196_608, 196_610, 131_072];
    let mut body = CODES.choose(random).expect("not empty").to_be_bytes().to_vec();
    for _ in 0..random.random_range(0..5) {
        let word = ["user", "database", "options", "-c a=b", "\\ x", "", "_pq_.x", "é"].choose(random);
        body.extend(word.expect("not empty").as_bytes());
        body.push(0);
    }
    if random.random() {
        body.push(0);
    }
    let length = if random.random_ratio(1, 10) {
        random.random()
    } else {
        u32::try_from(body.len() + 4).expect("short")
    };
    let mut out = length.to_be_bytes().to_vec();
    out.extend(body);
    out
}

fn text(random: &mut StdRng) -> Vec<u8> {
    const WORDS: [&str; 44] = [
        "select",
        "from",
        "where",
        "insert",
        "into",
        "values",
        "update",
        "set",
        "delete",
        "with",
        "as",
        "(",
        ")",
        ",",
        ";",
        "*",
        "t",
        "s.t",
        "\"q\"",
        "'x'",
        "'now'",
        "'it''s'",
        "1",
        "2.5",
        "1e9",
        "$1",
        "$$d$$",
        "E'\\n'",
        "::",
        "date",
        "only",
        "for",
        "share",
        "count",
        "now()",
        "--c\n",
        "/* pgladder: route=primary */",
        "begin",
        "commit",
        "copy",
        "stdin",
        "+",
        "é",
        "U&'x'",
    ];
    let mut out = Vec::new();
    for _ in 0..random.random_range(1..16) {
        out.extend(WORDS.choose(random).expect("not empty").as_bytes());
        if random.random_ratio(5, 6) {
            out.push(b' ');
        }
    }
    if random.random_ratio(1, 8) {
        let at = random.random_range(0..out.len());
        out[at] = random.random();
    }
    out
}

#[test]
fn frames() {
    let mut random = StdRng::seed_from_u64(SEED);
    drive(
        "frames",
        bodies::frames,
        (0..50_000).map(move |_| messages(&mut random)),
    );
}

#[test]
fn startup() {
    let mut random = StdRng::seed_from_u64(SEED);
    drive(
        "startup",
        bodies::startup,
        (0..50_000).map(move |_| packet(&mut random)),
    );
}

#[test]
fn classifier() {
    let mut random = StdRng::seed_from_u64(SEED);
    drive(
        "classifier",
        bodies::classifier,
        (0..50_000).map(move |_| text(&mut random)),
    );
}

#[test]
fn replication() {
    let mut random = StdRng::seed_from_u64(SEED);
    drive(
        "replication",
        bodies::replication,
        (0..50_000).map(move |_| copies(&mut random)),
    );
}
