//! The settings of a session, in the layers that PostgreSQL gives them: startup, session, transaction, LOCAL.
//!
//! Called by the session after the server has accepted a SET or RESET, and at each turn of a transaction. Invariant: what
//! is in force here is what one PostgreSQL session would show; a change that a transaction rolled back is gone.
//! Pure. It does not judge names or values: only accepted ones come here, with the value that the server shows for them.

use std::collections::BTreeMap;

/// Values by the setting's name in lower case, as `current_setting` shows them.
pub type Values = BTreeMap<Box<str>, Box<str>>;

/// What the names of the proxy's own settings begin with.
pub const OWN_PREFIX: &str = "pgladder.";

/// The settings of one session.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    startup: Values,
    now: State,
    open: Vec<Savepoint>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct State {
    session: Values,
    local: Values,
}

/// The state at the beginning of a transaction (without a name) or at a savepoint.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Savepoint {
    name: Option<Box<str>>,
    before: State,
}

impl Settings {
    /// The settings of a session that has just logged in with these startup parameters.
    pub fn new(startup: Values) -> Self {
        Self {
            startup,
            now: State::default(),
            open: Vec::new(),
        }
    }

    /// SET, accepted: until the session ends, if the transaction commits.
    pub fn set(&mut self, name: &str, value: &str) {
        self.now.local.remove(name);
        self.now.session.insert(name.into(), value.into());
    }

    /// SET LOCAL, accepted: until the transaction ends. Outside a transaction it has no effect.
    pub fn set_local(&mut self, name: &str, value: &str) {
        if !self.open.is_empty() {
            self.now.local.insert(name.into(), value.into());
        }
    }

    /// RESET of one setting: back to its startup value.
    pub fn reset(&mut self, name: &str) {
        self.now.local.remove(name);
        self.now.session.remove(name);
    }

    /// RESET ALL. Role and session user are no part of it, as in PostgreSQL.
    pub fn reset_all(&mut self) {
        let kept = |name: &str| matches!(name, "role" | "session_authorization");
        self.now.local.retain(|name, _| kept(name));
        self.now.session.retain(|name, _| kept(name));
    }

    /// DISCARD ALL: everything, role and session user included.
    pub fn discard_all(&mut self) {
        self.now = State::default();
    }

    /// A transaction is open, explicit or implicit.
    pub fn in_transaction(&self) -> bool {
        !self.open.is_empty()
    }

    /// BEGIN.
    pub fn begin(&mut self) {
        if self.open.is_empty() {
            self.open.push(Savepoint {
                name: None,
                before: self.now.clone(),
            });
        }
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: &str) {
        if !self.open.is_empty() {
            self.open.push(Savepoint {
                name: Some(name.into()),
                before: self.now.clone(),
            });
        }
    }

    /// RELEASE: the savepoint and those after it are forgotten, what was set since stays.
    pub fn release(&mut self, name: &str) {
        if let Some(at) = self.find(name) {
            self.open.truncate(at);
        }
    }

    /// ROLLBACK TO: back to the savepoint, which stays.
    pub fn rollback_to(&mut self, name: &str) {
        if let Some(at) = self.find(name) {
            self.now = self.open[at].before.clone();
            self.open.truncate(at + 1);
        }
    }

    /// COMMIT.
    pub fn commit(&mut self) {
        self.open.clear();
        self.now.local.clear();
    }

    /// ROLLBACK, or the end of a failed transaction.
    pub fn rollback(&mut self) {
        if let Some(first) = self.open.drain(..).next() {
            self.now = first.before;
        }
        self.now.local.clear();
    }

    /// The value in force, where startup, session or transaction gave one.
    pub fn in_force(&self, name: &str) -> Option<&str> {
        let layers = [&self.now.local, &self.now.session, &self.startup];
        layers
            .into_iter()
            .find_map(|values| values.get(name))
            .map(|value| &**value)
    }

    /// What a server connection must be set to, beyond its own login values, before it serves this session outside a
    /// transaction. The proxy's own settings are none of a server's.
    pub fn wanted(&self) -> Values {
        let layers = [&self.startup, &self.now.session];
        let all = layers.into_iter().flatten();
        all.filter(|(name, _)| !name.starts_with(OWN_PREFIX))
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }

    /// The startup values that neither session nor transaction has replaced.
    pub fn startup_in_force(&self) -> impl Iterator<Item = (&str, &str)> {
        let replaced = |name: &str| self.now.local.contains_key(name) || self.now.session.contains_key(name);
        let startup = self.startup.iter().filter(move |(name, _)| !replaced(name));
        startup.map(|(name, value)| (&**name, &**value))
    }

    /// What SET has left, the proxy's own settings left out.
    pub fn set_by_session(&self) -> impl Iterator<Item = (&Box<str>, &Box<str>)> {
        let set = self.now.session.iter();
        set.filter(|(name, _)| !name.starts_with(OWN_PREFIX))
    }

    /// The names that startup, session or transaction gave a value.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let layers = [&self.startup, &self.now.session, &self.now.local];
        layers
            .into_iter()
            .flat_map(|values| values.keys().map(|name| &**name))
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.open
            .iter()
            .rposition(|savepoint| savepoint.name.as_deref() == Some(name))
    }
}

/// One step in bringing a server connection from what is applied on it to what is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Apply<'a> {
    /// Set to this value.
    Set(&'a str, &'a str),
    /// Back to the connection's login value.
    Reset(&'a str),
}

/// The steps from `applied` to `wanted`, in an order that the server accepts: an assumed role is left before anything
/// else is set, because it may lack the right, and taken on last, after the session user, which would reset it.
pub fn difference<'a>(applied: &'a Values, wanted: &'a Values) -> Vec<Apply<'a>> {
    const IDENTITY: [&str; 2] = ["session_authorization", "role"];
    let plain = |name: &str| !IDENTITY.contains(&name);
    let changes = |name: &str| applied.get(name) != wanted.get(name);
    let mut steps = Vec::new();
    let anything = applied.keys().chain(wanted.keys()).any(|name| changes(name));
    if !anything {
        return steps;
    }
    let assumed = IDENTITY.iter().rev().filter(|name| applied.contains_key(**name));
    steps.extend(assumed.map(|name| Apply::Reset(name)));
    let gone = applied
        .keys()
        .filter(|name| plain(name) && !wanted.contains_key(*name));
    steps.extend(gone.map(|name| Apply::Reset(name)));
    let set = wanted.iter().filter(|(name, _)| plain(name) && changes(name));
    steps.extend(set.map(|(name, value)| Apply::Set(name, value)));
    let taken = IDENTITY.iter().filter_map(|name| wanted.get_key_value(*name));
    steps.extend(taken.map(|(name, value)| Apply::Set(name, value)));
    steps
}

#[cfg(test)]
mod tests;
