//! Programs of protocol messages, drawn from a seed: what any client might send, sensible or not.
//!
//! Used by the wire test. Invariants: the same seed gives the same program; nothing in a program has an answer that depends on
//! the clock, on chance or on other clients, so that two runs from the same beginning must give the same messages.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use crate::wire::{Feed, Say};

/// Messages sent in one piece, and what is fed to a COPY.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    pub messages: Vec<Say>,
    pub feed: Feed,
}

/// What a program's tables hold at its beginning; run before each.
pub const RESET: &str = "TRUNCATE items; ALTER SEQUENCE counter RESTART; \
     INSERT INTO items SELECT n, 'item ' || n, n % 7 FROM generate_series(1, 40) n";

/// The tables and functions that programs use.
pub const CONTENT: &str = "
    CREATE TABLE items (id int PRIMARY KEY, name text, quantity int DEFAULT 0);
    CREATE SEQUENCE counter;
    CREATE SCHEMA other;
    CREATE TABLE other.elsewhere AS SELECT 7 AS seven;
    CREATE FUNCTION remark(word text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN RAISE NOTICE 'remark: %', word; RETURN length(word); END $$;
    CREATE FUNCTION remember(word text) RETURNS text LANGUAGE plpgsql AS
        $$ BEGIN RETURN set_config('app.word', word, false); END $$;
    CREATE PROCEDURE commit_twice() LANGUAGE plpgsql AS
        $$ BEGIN UPDATE items SET quantity = quantity + 1 WHERE id = 1; COMMIT;
                 UPDATE items SET quantity = quantity + 1 WHERE id = 2; END $$;
";

const NAMES: [&str; 3] = ["", "s1", "s2"];
const PORTALS: [&str; 3] = ["", "p1", "p2"];

// A setting that was made up is empty after DISCARD ALL, and absent on a new connection: to programs both are the same.

/// Texts for Parse, with what their parameters may be; a second set is as often wrong as not.
const PREPARED: [(&str, &[&str]); 40] = [
    ("SELECT $1::int + 1", &["41", "x"]),
    (
        "SELECT id, name FROM items WHERE id <= $1 ORDER BY id",
        &["5", "0", "12"],
    ),
    ("SELECT count(*), sum(quantity) FROM items", &[]),
    (
        "SELECT quantity, count(*) FROM items WHERE id < $1 GROUP BY quantity ORDER BY 1",
        &["20", "x"],
    ),
    (
        "INSERT INTO items (id, name) VALUES ($1, 'new') RETURNING id, name",
        &["100", "101", "1"],
    ),
    (
        "UPDATE items SET quantity = quantity + 1 WHERE id <= $1 RETURNING id, quantity",
        &["3", "0"],
    ),
    ("DELETE FROM items WHERE id = $1", &["2", "77"]),
    ("SELECT 1 / $1::int", &["0", "1"]),
    ("SELECT * FROM missing", &[]),
    ("selec 1", &[]),
    ("", &[]),
    ("SELECT remark($1)", &["aha", "oh"]),
    ("SELECT remember($1)", &["one", "two"]),
    ("SELECT coalesce(current_setting('app.word', true), '')", &[]),
    ("SELECT nextval('counter')", &[]),
    ("BEGIN", &[]),
    ("BEGIN ISOLATION LEVEL REPEATABLE READ", &[]),
    ("COMMIT", &[]),
    ("ROLLBACK", &[]),
    ("SAVEPOINT a", &[]),
    ("ROLLBACK TO a", &[]),
    ("RELEASE a", &[]),
    ("SET timezone = 'Europe/Rome'", &[]),
    ("SET LOCAL timezone = 'Asia/Tokyo'", &[]),
    ("RESET timezone", &[]),
    ("SHOW timezone", &[]),
    ("SELECT '2024-07-01 12:00+00'::timestamptz", &[]),
    ("SET application_name = 'programs'", &[]),
    ("SHOW application_name", &[]),
    ("SET search_path = other, public", &[]),
    ("SELECT seven FROM elsewhere", &[]),
    ("DECLARE c CURSOR FOR SELECT id FROM items ORDER BY id", &[]),
    ("FETCH 3 FROM c", &[]),
    ("COPY items TO STDOUT", &[]),
    ("DEALLOCATE ALL", &[]),
    ("SELECT repeat('x', 70000), generate_series(1, 3)", &[]),
    ("VALUES (1, 'a'), (2, 'b')", &[]),
    ("SELECT pg_advisory_xact_lock(7)", &[]),
    ("SHOW pgladder_unknown.x", &[]),
    ("SELECT $1::text, $2::int", &["a"]),
];

/// Texts for simple queries.
const SIMPLE: [&str; 57] = [
    "SELECT 1",
    "SELECT 1; SELECT 2 AS two",
    "SELECT count(*) FROM items",
    "SELECT count(*), sum(quantity) FROM items",
    "SELECT id FROM items WHERE id < 4 ORDER BY id",
    "BEGIN",
    "START TRANSACTION",
    "BEGIN READ ONLY",
    "BEGIN; SELECT 1; COMMIT",
    "COMMIT",
    "ROLLBACK",
    "COMMIT AND CHAIN",
    "ROLLBACK AND CHAIN",
    "SAVEPOINT a",
    "ROLLBACK TO a",
    "RELEASE a",
    "SAVEPOINT b; SELECT 1 / 0",
    "INSERT INTO items VALUES (200, 'x', 1)",
    "INSERT INTO items VALUES (201, 'x', 1); SELECT 1 / 0; INSERT INTO items VALUES (202, 'x', 1)",
    "UPDATE items SET quantity = 9 WHERE id = 3 RETURNING *",
    "INSERT INTO items VALUES (1, 'again', 0)",
    "SELECT 1 / 0",
    "SELECT * FROM missing",
    "selec 1",
    "",
    "-- nothing",
    ";",
    "SELECT remark('simple')",
    "SELECT remark('a'); SELECT remark('b')",
    "SELECT remember('simple')",
    "SELECT coalesce(current_setting('app.word', true), '')",
    "SET timezone = 'Europe/Rome'",
    "SET timezone = 'Europe/Rome'; SELECT 1 / 0",
    "SET LOCAL timezone = 'Asia/Tokyo'",
    "SET timezone = 'Nowhere/Land'",
    "SHOW timezone",
    "RESET ALL",
    "SET client_encoding = 'LATIN1'",
    "SET client_encoding = 'UTF8'",
    "SELECT 'é', length('é')",
    "SHOW client_encoding",
    "SET datestyle = 'German'",
    "SELECT '2024-07-01'::date, '2024-07-01 12:00+00'::timestamptz",
    "SET standard_conforming_strings = off",
    "SELECT 'a\\\\b'",
    "CREATE TEMP TABLE mine (x int); INSERT INTO mine VALUES (1), (2)",
    "SELECT count(*) FROM mine",
    "PREPARE q (int) AS SELECT $1 + 1",
    "EXECUTE q (1)",
    "DEALLOCATE q",
    "DEALLOCATE s1",
    "DISCARD ALL",
    "LISTEN news; NOTIFY news, 'fresh'",
    "COPY items TO STDOUT",
    "COPY items (id, name) FROM STDIN",
    "DECLARE h CURSOR WITH HOLD FOR SELECT id FROM items ORDER BY id; FETCH 2 FROM h",
    "CALL commit_twice()",
];

/// Functions for calls by their numbers, which are PostgreSQL's own, with their arguments: int4pl, int4div, upper, set_config and
/// nextval, one with too few arguments, and one that there is not.
const FUNCTIONS: [(u32, &[&str]); 8] = [
    (177, &["40", "2"]),
    (177, &["x", "2"]),
    (154, &["1", "0"]),
    (871, &["word"]),
    (2078, &["app.word", "called", "false"]),
    (1574, &["counter"]),
    (177, &["1"]),
    (999_999, &[]),
];

/// The program of a seed.
pub fn program(seed: u64) -> Vec<Piece> {
    let mut draw = Draw(StdRng::seed_from_u64(seed));
    let pieces = draw.0.random_range(4..24);
    (0..pieces).map(|_| draw.piece()).collect()
}

struct Draw(StdRng);

impl Draw {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        *of.choose(&mut self.0).expect("not empty")
    }

    fn piece(&mut self) -> Piece {
        let mut messages = Vec::new();
        match self.0.random_range(0..11) {
            10 => messages.push(self.function()),
            0..=3 => messages.push(Say::Query(self.one(&SIMPLE).to_owned())),
            4 => {
                // Nothing may stand behind it: while data is awaited, the next message ends the connection.
                messages.push(Say::Parse("", "COPY items (id, name) FROM STDIN".to_owned()));
                messages.push(Say::Bind("", "", Vec::new(), false));
                messages.push(Say::Execute("", 0));
                messages.push(Say::Sync);
            }
            5..=6 => {
                self.whole(&mut messages);
                messages.push(Say::Sync);
            }
            7 => {
                for _ in 0..self.0.random_range(2..5) {
                    self.whole(&mut messages);
                    if self.0.random_bool(0.5) {
                        messages.push(Say::Sync);
                    }
                }
                messages.push(Say::Sync);
            }
            _ => {
                for _ in 0..self.0.random_range(1..6) {
                    self.any(&mut messages);
                }
                let end = if self.0.random_bool(0.6) {
                    Say::Sync
                } else {
                    Say::Flush
                };
                messages.push(end);
            }
        }
        let feed = self.one(&[Feed::Done, Feed::Done, Feed::Nothing, Feed::Malformed, Feed::Fail]);
        Piece { messages, feed }
    }

    /// Parse, Bind, Describe and Execute as a driver would send them.
    fn whole(&mut self, messages: &mut Vec<Say>) {
        let (sql, values) = self.one(&PREPARED);
        let (name, portal) = (self.one(&NAMES), self.one(&PORTALS));
        if !name.is_empty() {
            messages.push(Say::CloseStatement(name));
        }
        messages.push(Say::Parse(name, sql.to_owned()));
        if self.0.random_bool(0.3) {
            messages.push(Say::DescribeStatement(name));
        }
        if self.0.random_bool(0.2) {
            messages.push(Say::Flush);
        }
        let values = if values.is_empty() {
            Vec::new()
        } else {
            vec![Some(self.one(values).to_owned())]
        };
        messages.push(Say::Bind(portal, name, values, false));
        if self.0.random_bool(0.5) {
            messages.push(Say::DescribePortal(portal));
        }
        let rows = self.one(&[0, 0, 0, 1, 2]);
        messages.push(Say::Execute(portal, rows));
        if rows > 0 && self.0.random_bool(0.7) {
            messages.push(Say::Execute(portal, self.one(&[0, 1, 3])));
        }
        if self.0.random_bool(0.2) {
            messages.push(Say::ClosePortal(portal));
        }
    }

    fn function(&mut self) -> Say {
        let (function, arguments) = self.one(&FUNCTIONS);
        Say::Function(function, arguments)
    }

    fn any(&mut self, messages: &mut Vec<Say>) {
        let (name, portal) = (self.one(&NAMES), self.one(&PORTALS));
        let (sql, values) = self.one(&PREPARED);
        messages.push(match self.0.random_range(0..10) {
            9 => self.function(),
            0 | 1 => Say::Parse(name, sql.to_owned()),
            2 | 3 => {
                let count = self.0.random_range(0..2).min(values.len());
                let values = (0..count).map(|_| Some(self.one(values).to_owned()));
                Say::Bind(portal, name, values.collect(), self.0.random_bool(0.3))
            }
            4 => Say::DescribeStatement(name),
            5 => Say::DescribePortal(portal),
            // PostgreSQL 15 crashes when the unnamed portal that a failed simple query left is executed.
            6 | 7 if portal.is_empty() => Say::Execute("p1", self.one(&[0, 0, 1, 2])),
            6 | 7 => Say::Execute(portal, self.one(&[0, 0, 1, 2])),
            _ if self.0.random_bool(0.5) => Say::CloseStatement(name),
            _ => Say::ClosePortal(portal),
        });
    }
}
