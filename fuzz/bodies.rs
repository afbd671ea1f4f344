//! What the fuzz targets do with their input: plain functions, driven by libFuzzer (`make fuzz`) and, with a seeded generator and
//! the kept corpus, by `tests/fuzz_smoke.rs` in every test run.
//!
//! A body panics when an invariant is broken, and returns otherwise. Inputs that once failed are kept in `fuzz/corpus`.

use pgladder::protocol::frame::{self, Frame, HEADER_BYTES};
use pgladder::protocol::frontend;
use pgladder::protocol::scanner::{Scanner, Step};
use pgladder::protocol::startup::{self, First};
use pgladder::session::unit::{self, End, Limits, Unit};
use pgladder::sql;
use pgladder::stream::pgoutput::Transactions;
use pgladder::stream::replication;

const LIMITS: Limits = Limits {
    message_bytes_max: 4_096,
    batch_bytes_max: 1_024,
};

/// The frame decoder, the grouping into units, the readers of bodies, and the walk over a server's bytes.
pub fn frames(data: &[u8]) {
    let mut at = 0;
    while let Ok(Some(unit)) = unit::next(&data[at..], LIMITS) {
        let rest = &data[at..];
        assert!(unit.bytes() <= rest.len(), "a unit ends inside the buffer");
        match &unit {
            Unit::Query(frame) | Unit::Function(frame) | Unit::Stray(frame) => read(rest, *frame),
            Unit::Batch(frames, end) => {
                assert!(!frames.is_empty());
                assert!(*end != End::Sync || frames.last().is_some_and(|frame| frame.tag == b'S'));
                for pair in frames.windows(2) {
                    assert_eq!(pair[0].end(), pair[1].start, "frames follow each other");
                }
                for frame in frames {
                    read(rest, *frame);
                }
            }
            Unit::Terminate => break,
        }
        assert!(unit.bytes() >= HEADER_BYTES);
        at += unit.bytes();
    }
    scan(data);
}

fn read(buffer: &[u8], frame: Frame) {
    assert!(frame.len >= HEADER_BYTES && frame.len <= LIMITS.message_bytes_max + 1);
    let body = frame.body(buffer);
    let _ = frontend::query(body);
    let _ = frontend::Parse::read(body);
    let _ = frontend::Execute::read(body);
    let _ = frontend::Target::read(body);
    if let Ok(bind) = frontend::Bind::read(body) {
        assert!(bind.values.len() <= bind.suffix.len());
    }
}

/// However the stream is cut, each byte is in exactly one step, in order.
fn scan(data: &[u8]) {
    let walk = |cut: usize| {
        let (mut scanner, mut at, mut seen) = (Scanner::default(), 0, Vec::new());
        for end in [cut, data.len()] {
            loop {
                match scanner.step(&data[..end], at) {
                    Ok(Step::Message(message)) => {
                        assert_eq!(message.start, at);
                        seen.push((message.tag, message.end()));
                        at = message.end();
                    }
                    Ok(Step::Rows { start, end, tag }) => {
                        assert!(start == at && end > start, "rows go on");
                        match seen.last_mut() {
                            Some((last, until)) if *last == tag && *until == start => *until = end,
                            _ => seen.push((tag, end)),
                        }
                        at = end;
                    }
                    Ok(Step::Incomplete) | Err(_) => break,
                }
            }
        }
        at
    };
    let whole = walk(data.len());
    assert_eq!(whole, walk(data.len() / 2), "a cut changes nothing");
}

/// The first packet of a connection.
pub fn startup(data: &[u8]) {
    if let Ok(Some((first, length))) = startup::first(data) {
        assert!((8..=startup::STARTUP_BYTES_MAX).contains(&length) && length <= data.len());
        match first {
            First::Startup(startup) => {
                assert_eq!(startup.major, 3);
                for (name, value) in &startup.parameters {
                    assert!(!name.is_empty() && !name.contains(&0) && !value.contains(&0));
                }
            }
            First::Cancel { secret, .. } => assert!(secret.len() <= startup::CANCEL_KEY_BYTES_MAX),
            First::Ssl | First::GssEnc => assert_eq!(length, 8),
        }
    }
    for word in startup::split_options(data) {
        assert!(word.len() <= data.len());
    }
}

/// The classifier: a text, its template, its fingerprint.
pub fn classifier(data: &[u8]) {
    let script = sql::analyze(data);
    if let (Some(template), Ok(script)) = (sql::template(data), &script) {
        let of_template = sql::analyze(&template);
        assert_eq!(
            of_template.as_ref(),
            Ok(script),
            "a text and its template have the same facts"
        );
    }
    if let Ok(text) = std::str::from_utf8(data) {
        assert_eq!(sql::fingerprint(text), sql::fingerprint(text));
        assert!(script.is_ok() || text.len() > sql::CLASSIFIED_BYTES_MAX);
        let quoted = sql::ident::quote_ident(text);
        assert!(quoted.starts_with('"') && quoted.ends_with('"'));
    }
    let _ = frame::header(data, 0);
}

/// What a walsender sends: messages, pieces of the stream, transactions.
pub fn replication(data: &[u8]) {
    let (mut at, mut transactions) = (0, Transactions::default());
    while let Ok(replication::Step::Message { body, len, .. }) = replication::next(&data[at..]) {
        assert!(
            body.len() < len && body.len() <= data.len() - at,
            "a body lies in its message"
        );
        if let Ok(replication::Sent::Data(piece)) = replication::sent(body)
            && let Ok(Some(committed)) = transactions.take(piece)
        {
            assert!(committed.tables.is_sorted() && committed.tables.len() <= data.len());
        }
        at += len;
        if at > data.len() {
            break;
        }
    }
}
