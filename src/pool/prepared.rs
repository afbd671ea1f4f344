//! Which prepared statements exist on one server connection, under the proxy's own names.
//!
//! Called by the session before it forwards a Bind. Two statements are the same only when their whole text and all their
//! parameter types are equal; a hash alone never decides. It is bounded: what is evicted must be closed on the server, and
//! waits in [`PreparedNames::take_evicted`] until the session has sent the Close. It does no I/O.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;

/// A statement as the server knows it: its text and the types the client declared, both exactly as sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PreparedStatement {
    /// The SQL, in the client's encoding.
    pub sql: Bytes,
    /// The declared type OIDs, 0 for undeclared ones.
    pub types: Arc<[u32]>,
}

/// A name on one server connection; never given twice on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServerName(pub u64);

impl ServerName {
    /// What every name begins with.
    pub const PREFIX: &str = "pgladder_";
}

impl ServerName {
    /// Its bytes. Written for every Bind, so without `fmt`.
    pub fn text(self) -> NameText {
        const PREFIX: &[u8] = ServerName::PREFIX.as_bytes();
        let mut bytes = [0; NAME_BYTES_MAX];
        let (mut at, mut rest) = (NAME_BYTES_MAX, self.0);
        loop {
            at -= 1;
            bytes[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        at -= PREFIX.len();
        bytes[at..at + PREFIX.len()].copy_from_slice(PREFIX);
        NameText { bytes, at }
    }
}

/// The longest prefix and the longest number.
const NAME_BYTES_MAX: usize = ServerName::PREFIX.len() + 20;

/// A server name as it stands in a message.
#[derive(Clone, Copy, Debug)]
pub struct NameText {
    bytes: [u8; NAME_BYTES_MAX],
    at: usize,
}

impl Deref for NameText {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.at..]
    }
}

impl fmt::Display for ServerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Self::PREFIX, self.0)
    }
}

/// The statements of one connection, least recently used ones first out.
#[derive(Debug)]
pub struct PreparedNames {
    names: LruCache<PreparedStatement, ServerName>,
    evicted: Vec<ServerName>,
    next: u64,
    /// Of the catalog when they were parsed.
    generation: u64,
    /// From this name on they were parsed under a catalog that the open transaction may have changed.
    doubted: Option<ServerName>,
}

impl PreparedNames {
    /// No statements yet, at most `statements_max` of them at a time.
    pub fn new(statements_max: NonZeroUsize) -> Self {
        Self {
            names: LruCache::new(statements_max),
            evicted: Vec::new(),
            next: 1,
            generation: 0,
            doubted: None,
        }
    }

    /// The name under which the server already has this statement; it counts as used.
    pub fn find(&mut self, statement: &PreparedStatement) -> Option<ServerName> {
        self.names.get(statement).copied()
    }

    /// A fresh name for a statement that the caller is about to Parse. A statement it displaces must be closed on the server,
    /// after everything already sent that uses it.
    pub fn insert(&mut self, statement: PreparedStatement) -> ServerName {
        let name = ServerName(self.next);
        self.next += 1;
        if let Some((_, displaced)) = self.names.push(statement, name) {
            self.evicted.push(displaced);
        }
        name
    }

    /// Forgets a statement whose Parse the server refused, or that must be parsed anew.
    pub fn forget(&mut self, statement: &PreparedStatement) -> Option<ServerName> {
        self.names.pop(statement)
    }

    /// Forgets all: the server ran DISCARD ALL or DEALLOCATE ALL. Names are still not reused.
    pub fn clear(&mut self) {
        self.names.clear();
        self.evicted.clear();
    }

    /// Forgets all, to be closed on the server: their plans are out of date.
    pub fn evict_all(&mut self) {
        while let Some((_, name)) = self.names.pop_lru() {
            self.evicted.push(name);
        }
    }

    /// Forgets all that was parsed under another generation of the catalog, to be closed on the server: a plan whose columns are
    /// others now is refused, also to a client that was told of the new ones.
    pub fn of_generation(&mut self, generation: u64) {
        if self.generation != generation {
            self.generation = generation;
            self.evict_all();
        }
    }

    /// Forgets one, to be closed on the server.
    pub fn evict(&mut self, statement: &PreparedStatement) {
        let name = self.names.pop(statement);
        self.evicted.extend(name);
    }

    /// The open transaction may have changed the catalog: the plans of what is parsed from now on are for it alone.
    pub fn doubt(&mut self) {
        self.doubted.get_or_insert(ServerName(self.next));
    }

    /// That transaction is over: what was parsed in it is forgotten, to be closed on the server.
    pub fn settle(&mut self) {
        let Some(from) = self.doubted.take() else {
            return;
        };
        let names = self.names.iter().filter(|(_, name)| **name >= from);
        let statements: Vec<PreparedStatement> = names.map(|(statement, _)| statement.clone()).collect();
        for statement in &statements {
            self.evict(statement);
        }
    }

    /// Does the server have this statement from before any such change?
    pub fn is_settled(&self, statement: &PreparedStatement) -> bool {
        let name = self.names.peek(statement);
        name.is_some_and(|name| self.doubted.is_none_or(|from| *name < from))
    }

    /// The names that the caller must close on the server; they are forgotten here.
    pub fn take_evicted(&mut self) -> Vec<ServerName> {
        std::mem::take(&mut self.evicted)
    }

    /// How many names wait to be closed.
    pub fn evicted(&self) -> &[ServerName] {
        &self.evicted
    }

    /// How many statements the server has.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// True when the server has none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn statement(sql: &'static str, types: &[u32]) -> PreparedStatement {
        PreparedStatement {
            sql: Bytes::from_static(sql.as_bytes()),
            types: types.into(),
        }
    }

    #[test]
    fn the_same_text_with_other_types_is_another_statement() {
        let mut names = PreparedNames::new(NonZeroUsize::new(4).expect("not zero"));
        let first = names.insert(statement("select $1", &[23]));
        assert_eq!(names.find(&statement("select $1", &[23])), Some(first));
        assert_eq!(names.find(&statement("select $1", &[25])), None);
        assert_eq!(first.to_string(), "pgladder_1");
    }

    #[test]
    fn the_least_recently_used_name_waits_to_be_closed() {
        let mut names = PreparedNames::new(NonZeroUsize::new(2).expect("not zero"));
        let a = names.insert(statement("a", &[]));
        let b = names.insert(statement("b", &[]));
        assert_eq!(names.find(&statement("a", &[])), Some(a));
        names.insert(statement("c", &[]));
        assert_eq!(names.take_evicted(), vec![b]);
        assert_eq!(names.take_evicted(), vec![]);
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn all_may_be_evicted_at_once() {
        let mut names = PreparedNames::new(NonZeroUsize::new(3).expect("positive"));
        let (a, b) = (
            names.insert(statement("a", &[])),
            names.insert(statement("b", &[])),
        );
        names.of_generation(0);
        assert_eq!(names.len(), 2, "they were parsed under it");
        names.of_generation(1);
        assert!(names.is_empty());
        assert_eq!(names.take_evicted(), [a, b]);
    }

    #[test]
    fn what_was_parsed_in_doubt_goes_with_the_transaction_and_the_rest_stays() {
        let mut names = PreparedNames::new(NonZeroUsize::new(9).expect("not zero"));
        let before = names.insert(statement("a", &[]));
        names.doubt();
        let within = names.insert(statement("b", &[]));
        names.doubt();
        assert!(names.is_settled(&statement("a", &[])));
        assert!(!names.is_settled(&statement("b", &[])));
        assert!(!names.is_settled(&statement("c", &[])), "not there");
        names.settle();
        assert_eq!(names.take_evicted(), [within]);
        names.settle();
        assert_eq!(names.find(&statement("a", &[])), Some(before));
        names.evict(&statement("a", &[]));
        assert_eq!((names.len(), names.take_evicted()), (0, vec![before]));
    }

    #[test]
    fn a_name_in_a_message_is_the_name_that_is_shown() {
        for number in [0, 7, 10, 1_234_567_890, u64::MAX] {
            let name = ServerName(number);
            assert_eq!(&*name.text(), name.to_string().as_bytes());
        }
    }

    #[test]
    fn a_statement_inserted_again_closes_its_older_name_and_names_are_not_reused() {
        let mut names = PreparedNames::new(NonZeroUsize::new(2).expect("not zero"));
        let old = names.insert(statement("a", &[]));
        let new = names.insert(statement("a", &[]));
        assert_eq!(names.take_evicted(), vec![old]);
        names.clear();
        assert!(names.insert(statement("a", &[])) > new);
    }
}
