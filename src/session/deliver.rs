//! Writing a batch to a server: the client's statement names become the connection's own, and what it lacks is parsed there.
//!
//! Called by `perform` once per attempt. Invariants: the server sees the client's messages in their order; a named statement is
//! known to it before anything uses it; each message has its place in the queue of answers, those that were put in are swallowed.
//! It waits for nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};

use super::answers::{For, Sent};
use super::effects::{Completion, forgets_statements};
use super::held::{Held, Unnamed};
use super::message::{Binding, Message, Parsing};
use super::run::Session;
use super::statements::{ClientStatement, Portal};
use crate::cache::key::{Form, Request};
use crate::catalog::verdict::Verdict;
use crate::pool::ServerName;
use crate::protocol::backend::{self, Status};
use crate::sql::statement::Kind;

/// No statement has this name on any connection: closing it is answered, and closes nothing.
const NO_STATEMENT: ServerName = ServerName(0);

impl Session {
    /// Writes the batch; returns what its executions will complete, where any of it leaves a trace in the session.
    pub(super) fn write_batch(
        &mut self,
        held: &mut Held,
        messages: &[Message],
    ) -> VecDeque<Option<Completion>> {
        let mut completes = VecDeque::new();
        held.answers.reserve(messages.len() + 1);
        held.names.clear();
        held.describing.clear();
        held.refuses = held.status == Status::Failed;
        held.lease.prepared.of_generation(self.database.generation());
        // Until the Sync that ends a failed batch, the server answers nothing.
        if !matches!(messages, [Message::Sync]) {
            for name in held.lease.prepared.take_evicted() {
                put_close(held, name);
                held.answers.sent(Sent::CloseStatement, For::Proxy);
            }
        }
        let leaves_trace = messages.iter().any(|message| match message {
            Message::Execute {
                bound: Some(bound), ..
            } => self.completed_by(bound).leaves_trace(),
            _ => false,
        });
        for message in messages {
            self.write_message(held, message);
            self.note_describing(held, message);
            if let Message::Execute { bound, .. } = message
                && bound.as_ref().is_none_or(|bound| bound.statement.own.is_none())
            {
                let completion = bound.as_ref().map(|bound| self.completion(held, bound));
                if leaves_trace {
                    completes.push_back(completion);
                }
            }
        }
        completes
    }

    fn write_message(&mut self, held: &mut Held, message: &Message) {
        match message {
            Message::Parse(parsing) => self.write_parse(held, parsing),
            Message::Bind(binding) => self.write_bind(held, binding),
            Message::DescribeStatement { name, statement, raw } => match statement {
                Some(statement) if statement.own.is_some() => self.say(held, message),
                Some(statement) if !name.is_empty() => {
                    let server = ensure(held, statement, name);
                    put_message(held, b'D', &[b"S", &server.text(), b"\0"]);
                    held.answers.sent(Sent::DescribeStatement, For::Client);
                }
                Some(statement) => {
                    ensure_unnamed(held, statement);
                    forward(held, raw, Sent::DescribeStatement);
                }
                None => {
                    let name = unknown(held, name);
                    put_message(held, b'D', &[b"S", &name, b"\0"]);
                    held.answers.sent(Sent::DescribeStatement, For::Client);
                }
            },
            Message::DescribePortal { bound, raw } => {
                if bound.as_ref().is_some_and(|bound| bound.statement.own.is_some()) {
                    self.say(held, message);
                } else {
                    forward(held, raw, Sent::DescribePortal);
                }
            }
            Message::Execute { bound, raw, .. } => {
                if bound.as_ref().is_some_and(|bound| bound.statement.own.is_some()) {
                    self.say(held, message);
                } else {
                    forward(held, raw, Sent::Execute);
                }
            }
            Message::CloseStatement { name } => {
                self.statements.close(name.clone());
                if name.is_empty() {
                    close_unnamed(held);
                } else {
                    put_close(held, NO_STATEMENT);
                }
                held.answers.sent(Sent::CloseStatement, For::Client);
            }
            Message::ClosePortal { raw, .. } => forward(held, raw, Sent::ClosePortal),
            Message::Sync => {
                held.lease.output.put_slice(b"S\0\0\0\x04");
                held.answers.sent(Sent::Sync, For::Client);
            }
            Message::Flush => held.lease.output.put_slice(b"H\0\0\0\x04"),
        }
    }

    fn write_bind(&mut self, held: &mut Held, binding: &Binding) {
        let Binding {
            portal,
            name,
            bound,
            suffix,
            raw,
        } = binding;
        let Some(bound) = bound else {
            let name = unknown(held, name);
            put_message(held, b'B', &[portal, b"\0", &name, b"\0", suffix]);
            return held.answers.sent(Sent::Bind, For::Client);
        };
        if bound.statement.own.is_some() {
            held.answers.say(Bytes::from_static(backend::BIND_COMPLETE));
        } else if name.is_empty() {
            ensure_unnamed(held, &bound.statement);
            forward(held, raw, Sent::Bind);
        } else {
            let server = ensure(held, &bound.statement, name);
            put_message(held, b'B', &[portal, b"\0", &server.text(), b"\0", suffix]);
            held.answers.sent(Sent::Bind, For::Client);
        }
        self.statements.bind(portal.clone(), Arc::clone(bound));
    }

    fn write_parse(&mut self, held: &mut Held, parsing: &Parsing) {
        let Parsing {
            name,
            statement,
            duplicate,
            raw,
            ..
        } = parsing;
        if *duplicate {
            // The server itself is to say so: it is asked to parse a name that it has.
            if let Some(known) = self.statements.find(name).cloned() {
                let server = ensure(held, &known, name);
                // The error names this one, whatever else the client calls the same text.
                held.names.insert(0, (server, name.clone()));
                self.statements.parse_again(name.clone());
                put_parse(held, server, statement);
                held.answers.sent(Sent::Parse, For::Client);
                held.parsing.push_back(None);
            }
            return;
        }
        self.statements.parse(name.clone(), Arc::clone(statement));
        let known = if name.is_empty() {
            None
        } else {
            if self.pending.changed().is_some() && !held.refuses {
                held.lease.prepared.evict(&statement.parsed);
            }
            held.lease.prepared.find(&statement.parsed)
        };
        if let Some(server) = known
            && held.refuses
            && !is_parsed_in_failed_block(&parsing.verdict)
        {
            // The server refuses it before it looks at the name.
            held.names.push((server, name.clone()));
            put_parse(held, server, statement);
            held.answers.sent(Sent::Parse, For::Client);
            held.parsing.push_back(None);
        } else if statement.own.is_some() || known.is_some() {
            held.answers.say(Bytes::from_static(backend::PARSE_COMPLETE));
        } else if name.is_empty() {
            forward(held, raw, Sent::Parse);
            held.parsing.push_back(None);
            held.unnamed = Unnamed::Is(statement.serial);
        } else {
            let server = held.lease.prepared.insert(statement.parsed.clone());
            held.names.push((server, name.clone()));
            put_parse(held, server, statement);
            held.answers.sent(Sent::Parse, For::Client);
            held.parsing.push_back(Some(statement.parsed.clone()));
        }
    }

    /// Notes, for a Describe that the server answers, what it is of, if that is known.
    fn note_describing(&self, held: &mut Held, message: &Message) {
        let statement = match message {
            Message::DescribeStatement { statement, .. } => statement.as_ref(),
            Message::DescribePortal { bound, .. } => bound.as_ref().map(|bound| &bound.statement),
            _ => return,
        };
        if statement.is_none_or(|statement| statement.own.is_none()) {
            let generation = self.database.generation();
            held.describing
                .push_back(statement.map(|statement| (Arc::clone(statement), generation)));
        }
    }

    fn completion(&self, held: &mut Held, bound: &Portal) -> Completion {
        let verdict = &bound.verdict;
        held.refuses &= !ends_failed_block(verdict);
        if verdict
            .single()
            .is_some_and(|statement| forgets_statements(&statement.kind))
        {
            // What the batch parses behind it must not be taken for known.
            held.lease.prepared.clear();
        }
        self.completed_by(bound)
    }

    fn completed_by(&self, bound: &Portal) -> Completion {
        Completion {
            script: Arc::clone(&bound.verdict.script),
            at: 0,
            leaves_state: bound.verdict.leaves_state,
            newest: self.statements.newest(),
        }
    }

    /// Has the proxy say, in the message's place, what it answers to it.
    fn say(&mut self, held: &mut Held, message: &Message) {
        let out = std::mem::take(&mut self.wire.out);
        self.answer_message(message);
        let said = std::mem::replace(&mut self.wire.out, out);
        held.answers.say(said.freeze());
    }
}

/// May it be parsed in a block that has failed? What ends the block, and nothing at all.
fn is_parsed_in_failed_block(verdict: &Verdict) -> bool {
    let mut statements = verdict.script.statements.iter();
    ends_failed_block(verdict) || statements.all(|statement| statement.kind == Kind::Empty)
}

/// Does it end a block that has failed?
fn ends_failed_block(verdict: &Verdict) -> bool {
    let kind = verdict.single().map(|statement| &statement.kind);
    matches!(
        kind,
        Some(Kind::Commit { .. } | Kind::Rollback { .. } | Kind::RollbackTo(_) | Kind::PrepareTransaction)
    )
}

/// The name under which the connection has a statement; it is parsed there first where it is missing.
fn ensure(held: &mut Held, statement: &Arc<ClientStatement>, name: &Bytes) -> ServerName {
    let server = held.lease.prepared.find(&statement.parsed).unwrap_or_else(|| {
        let server = held.lease.prepared.insert(statement.parsed.clone());
        put_parse(held, server, statement);
        held.answers.sent(Sent::Parse, For::Proxy);
        held.parsing.push_back(Some(statement.parsed.clone()));
        server
    });
    held.names.push((server, name.clone()));
    server
}

/// Sees to it that the server's unnamed statement is the client's.
fn ensure_unnamed(held: &mut Held, statement: &Arc<ClientStatement>) {
    if held.unnamed == Unnamed::Is(statement.serial) {
        return;
    }
    put_message(
        held,
        b'P',
        &[b"\0", &statement.parsed.sql, b"\0", &types(statement)],
    );
    held.answers.sent(Sent::Parse, For::Proxy);
    held.parsing.push_back(None);
    held.unnamed = Unnamed::Is(statement.serial);
}

/// The name to ask for where the client has no statement of that name. The server may know it from SQL, by PREPARE; but what other
/// clients have left there, named or not, is not this one's.
fn unknown(held: &mut Held, name: &Bytes) -> Bytes {
    if name.is_empty() {
        if held.unnamed == Unnamed::Absent {
            return name.clone();
        }
        close_unnamed(held);
        held.answers.sent(Sent::CloseStatement, For::Proxy);
    } else if name.starts_with(ServerName::PREFIX.as_bytes()) {
        held.names.push((NO_STATEMENT, name.clone()));
        return Bytes::from(NO_STATEMENT.to_string());
    }
    name.clone()
}

fn close_unnamed(held: &mut Held) {
    held.unnamed = Unnamed::Absent;
    put_message(held, b'C', &[b"S\0"]);
}

fn put_parse(held: &mut Held, server: ServerName, statement: &ClientStatement) {
    put_message(
        held,
        b'P',
        &[
            &server.text(),
            b"\0",
            &statement.parsed.sql,
            b"\0",
            &types(statement),
        ],
    );
}

/// Parses the statement under no name and asks for its columns, in a unit of their own.
pub(super) fn put_description(held: &mut Held, statement: &ClientStatement) {
    put_message(
        held,
        b'P',
        &[b"\0", &statement.parsed.sql, b"\0", &types(statement)],
    );
    put_message(held, b'D', &[b"S\0"]);
    put_message(held, b'S', &[]);
}

/// Parses a BEGIN, binds and executes it, all without a name, in a unit of its own.
pub(super) fn put_begin(held: &mut Held, begin: &[u8]) {
    put_message(held, b'P', &[b"\0", begin, b"\0", &[0; 2]]);
    put_message(held, b'B', &[b"\0\0", &[0; 6]]);
    put_message(held, b'E', &[b"\0", &[0; 4]]);
    put_message(held, b'S', &[]);
}

/// What an entry's key asks, in a unit of its own and without names.
pub(super) fn put_request(held: &mut Held, request: &Request<'_>) {
    held.unnamed = Unnamed::Unknown;
    if request.form == Form::Simple {
        return held.put_query(request.sql);
    }
    put_message(held, b'P', &[b"\0", request.sql, b"\0", &counted(request.types)]);
    put_message(held, b'B', &[b"\0\0", request.bind]);
    if request.form == Form::Described {
        put_message(held, b'D', &[b"P\0"]);
    }
    put_message(held, b'E', &[b"\0", &[0; 4]]);
    put_message(held, b'S', &[]);
}

fn types(statement: &ClientStatement) -> BytesMut {
    counted(&statement.types)
}

/// The count of parameter types and the types, as Parse has them.
fn counted(types: &[u8]) -> BytesMut {
    let mut out = BytesMut::with_capacity(types.len() + 2);
    out.put_u16(u16::try_from(types.len() / 4).expect("read from a Parse, whose count has 16 bits"));
    out.put_slice(types);
    out
}

fn put_close(held: &mut Held, name: ServerName) {
    put_message(held, b'C', &[b"S", &name.text(), b"\0"]);
}

fn put_message(held: &mut Held, tag: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    held.lease.output.put_u8(tag);
    held.lease
        .output
        .put_u32(u32::try_from(length + 4).expect("a message that was read within its limit"));
    for part in parts {
        held.lease.output.put_slice(part);
    }
}

fn forward(held: &mut Held, raw: &Bytes, sent: Sent) {
    held.lease.output.put_slice(raw);
    held.answers.sent(sent, For::Client);
}
