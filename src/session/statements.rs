//! The client's prepared statements and portals, by the client's own names.
//!
//! Called by `batch` for each message that names one, and by `exchange` when one is answered. Invariant: after a unit the map is
//! what a server would have: a Parse or Close that an error skipped left no trace. What a server connection has prepared is the
//! pool's knowledge, not this map's.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::names::Names;
use super::own::Own;
use super::told::Told;
use crate::catalog::remembered::Remembered;
use crate::catalog::verdict::Verdict;
use crate::pool::PreparedStatement;

/// Tells one Parse of a client from another of the same name.
pub type Serial = u64;

/// A statement that the client has parsed.
#[derive(Debug)]
pub struct ClientStatement {
    /// Unique in its session.
    pub serial: Serial,
    /// Text and declared types.
    pub parsed: PreparedStatement,
    /// The parameter types as Parse gave them, for the cache's key.
    pub types: Bytes,
    /// The proxy's own statement, which no server sees.
    pub own: Option<Own>,
    /// The last verdict on it, and the search path that it was made under.
    pub judged: Mutex<Option<(Arc<str>, Arc<Verdict>)>>,
    /// The columns that the client was told it has.
    pub told: Mutex<Option<Told>>,
    /// The first cache rule whose pattern its text matches.
    pub ruled: Remembered,
}

/// A portal: the statement that is bound to it.
pub type Portal = Arc<Bound>;

/// A statement with its verdict at the time of binding.
#[derive(Debug)]
pub struct Bound {
    /// The statement.
    pub statement: Arc<ClientStatement>,
    /// Its verdict under the search path and the catalog of that moment.
    pub verdict: Arc<Verdict>,
    /// Result formats as Bind gave them, two bytes each.
    pub result_formats: Bytes,
    /// A parameter's value holds a word that, as a date or time, reads the clock.
    pub clock_words: bool,
}

#[derive(Debug)]
struct Change {
    name: Bytes,
    before: Option<Arc<ClientStatement>>,
}

/// All of one session.
#[derive(Debug, Default)]
pub struct Statements {
    parsed: Names<Arc<ClientStatement>>,
    portals: Names<Portal>,
    unanswered: VecDeque<Change>,
    serial: Serial,
    newest: Serial,
}

impl Statements {
    /// The statement of this name, changes not yet answered included.
    pub fn find(&self, name: &[u8]) -> Option<&Arc<ClientStatement>> {
        self.parsed.get(name)
    }

    /// A serial for the next Parse.
    pub fn next_serial(&mut self) -> Serial {
        self.serial += 1;
        self.serial
    }

    /// Parse was sent.
    pub fn parse(&mut self, name: Bytes, statement: Arc<ClientStatement>) {
        // One that is parsed again has its old serial.
        self.newest = self.newest.max(statement.serial);
        let before = self.parsed.insert(name.clone(), statement);
        self.unanswered.push_back(Change { name, before });
    }

    /// Parse was sent for a name that is in use: it will fail.
    pub fn parse_again(&mut self, name: Bytes) {
        let before = self.parsed.get(&name).cloned();
        self.unanswered.push_back(Change { name, before });
    }

    /// Close of a statement was sent.
    pub fn close(&mut self, name: Bytes) {
        let before = self.parsed.remove(&name);
        self.unanswered.push_back(Change { name, before });
    }

    /// The oldest unanswered Parse or Close was answered.
    pub fn answered(&mut self) {
        self.unanswered.pop_front();
    }

    /// Nothing is unanswered.
    pub fn all_answered(&mut self) {
        self.unanswered.clear();
    }

    /// An error skipped all that is unanswered.
    pub fn undo(&mut self) {
        while let Some(change) = self.unanswered.pop_back() {
            match change.before {
                Some(before) => drop(self.parsed.insert(change.name, before)),
                None => drop(self.parsed.remove(&change.name)),
            }
        }
    }

    /// The oldest unanswered change, a Parse, failed, and all behind it was skipped.
    pub fn undo_failed_parse(&mut self) {
        let unnamed = self
            .unanswered
            .front()
            .is_some_and(|change| change.name.is_empty());
        self.undo();
        if unnamed {
            // The server drops the old one first.
            self.parsed.remove(b"");
        }
    }

    /// The newest statement that was sent to be parsed.
    pub fn newest(&self) -> Serial {
        self.newest
    }

    /// DEALLOCATE ALL, or DISCARD ALL, sent when this one was the newest; those that a pipeline parsed behind it stay, and so does
    /// the one without a name.
    pub fn forget_up_to(&mut self, newest: Serial) {
        self.parsed.retain_named(|statement| statement.serial > newest);
    }

    /// A simple query drops the unnamed statement.
    pub fn drop_unnamed(&mut self) {
        self.parsed.remove(b"");
        self.portals.remove(b"");
    }

    /// Bind was sent.
    pub fn bind(&mut self, portal: Bytes, bound: Portal) {
        self.portals.insert(portal, bound);
    }

    /// The portal of this name.
    pub fn portal(&self, name: &[u8]) -> Option<&Portal> {
        self.portals.get(name)
    }

    /// The transaction ended, and all portals with it.
    pub fn end_transaction(&mut self) {
        self.portals.clear();
        self.unanswered.clear();
    }

    /// How many statements there are.
    pub fn len(&self) -> usize {
        self.parsed.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Words that, bound to a date or time, read the clock.
pub(super) fn mentions_clock(values: &[u8]) -> bool {
    const WORDS: [&[u8]; 4] = [b"now", b"today", b"tomorrow", b"yesterday"];
    (0..values.len()).any(|at| {
        let begins = |word: &&[u8]| {
            let here = values.get(at..at + word.len());
            here.is_some_and(|here| here.eq_ignore_ascii_case(word))
        };
        matches!(values[at] | 0x20, b'n' | b't' | b'y') && WORDS.iter().any(begins)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(statements: &mut Statements, sql: &'static str) -> Arc<ClientStatement> {
        Arc::new(ClientStatement {
            serial: statements.next_serial(),
            parsed: PreparedStatement {
                sql: Bytes::from_static(sql.as_bytes()),
                types: [].into(),
            },
            types: Bytes::new(),
            own: None,
            judged: Mutex::default(),
            told: Mutex::default(),
            ruled: Remembered::default(),
        })
    }

    fn parse(statements: &mut Statements, name: &'static str, sql: &'static str) {
        let statement = statement(statements, sql);
        statements.parse(Bytes::from_static(name.as_bytes()), statement);
    }

    fn text<'a>(statements: &'a Statements, name: &str) -> Option<&'a [u8]> {
        statements
            .find(name.as_bytes())
            .map(|statement| &statement.parsed.sql[..])
    }

    #[test]
    fn what_was_answered_before_the_error_stays_and_the_rest_is_undone() {
        let mut statements = Statements::default();
        parse(&mut statements, "a", "select 1");
        parse(&mut statements, "b", "select 2");
        statements.close(Bytes::from_static(b"a"));
        statements.answered();
        statements.undo();
        assert_eq!(text(&statements, "a"), Some(&b"select 1"[..]));
        assert_eq!(text(&statements, "b"), None);
    }

    #[test]
    fn a_failed_parse_leaves_no_unnamed_statement() {
        let mut statements = Statements::default();
        parse(&mut statements, "", "select 1");
        statements.answered();
        parse(&mut statements, "", "selec 2");
        statements.undo_failed_parse();
        assert_eq!(text(&statements, ""), None);
    }

    #[test]
    fn to_forget_all_leaves_what_has_no_name_and_what_is_newer() {
        let mut statements = Statements::default();
        parse(&mut statements, "s1", "select 1");
        parse(&mut statements, "", "deallocate all");
        let newest = statements.newest();
        parse(&mut statements, "s2", "select 2");
        statements.all_answered();
        statements.forget_up_to(newest);
        assert_eq!(text(&statements, "s1"), None);
        assert_eq!(text(&statements, ""), Some(&b"deallocate all"[..]));
        assert_eq!(text(&statements, "s2"), Some(&b"select 2"[..]));
    }

    #[test]
    fn a_skipped_parse_leaves_the_unnamed_statement_as_it_was() {
        let mut statements = Statements::default();
        parse(&mut statements, "", "select 1");
        statements.answered();
        parse(&mut statements, "", "select 2");
        statements.undo();
        assert_eq!(text(&statements, ""), Some(&b"select 1"[..]));
    }

    #[test]
    fn a_clock_word_is_found_in_any_case() {
        assert!(mentions_clock(b"\0\0\0\x05ToDay"));
        assert!(mentions_clock(b"..yesterday.."));
        assert!(!mentions_clock(b"toda"));
        assert!(!mentions_clock(b""));
    }
}
