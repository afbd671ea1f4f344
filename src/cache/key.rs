//! The key of an entry: everything that can change the bytes of an answer.
//!
//! Built by the session for each cacheable read. Invariant: two requests with one key get one answer; every part is
//! preceded by its length, so that no two requests run together into the same bytes. The hash only finds the place: a hit
//! compares all bytes.

use std::hash::{BuildHasher, Hash, Hasher};

use bytes::{BufMut, Bytes, BytesMut};

/// How the client asked: the two protocols frame their answers differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Simple query.
    Simple,
    /// Extended query: Parse or a prepared statement, Bind, Execute.
    Extended,
    /// Extended query with a Describe of the portal: its answer begins with a description.
    Described,
}

/// What comes before the parts that have a length.
const GENERATION_AND_FORM_BYTES: usize = 9;

/// What an answer depends on besides its text and parameters.
#[derive(Debug, Clone, Copy)]
pub struct Identity<'a> {
    /// Database name.
    pub database: &'a [u8],
    /// Effective role.
    pub role: &'a [u8],
    /// Session user: policies and privileges may look at it.
    pub session_user: &'a [u8],
    /// Effective values of the settings that can change bytes, in a fixed order: `search_path`, `TimeZone`, …
    pub settings: &'a [&'a [u8]],
}

impl Identity<'_> {
    /// The identity as a part of keys; kept by the session and rebuilt when a setting changes.
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        for part in [self.database, self.role, self.session_user]
            .into_iter()
            .chain(self.settings.iter().copied())
        {
            put(&mut out, part);
        }
        out.freeze()
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// `Identity::encode`.
    pub identity: &'a [u8],
    /// Catalog generation under which names were resolved.
    pub generation: u64,
    /// Protocol.
    pub form: Form,
    /// The exact text.
    pub sql: &'a [u8],
    /// Parameter types of Parse; empty in a simple query.
    pub types: &'a [u8],
    /// Bind after its two names: formats and values of parameters, result formats; empty in a simple query.
    pub bind: &'a [u8],
}

/// A cache key: cheap to clone, compared in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key(Bytes);

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.0);
    }
}

impl Key {
    /// The key of a request.
    pub fn of(request: &Request<'_>) -> Self {
        let parts = [request.identity, request.sql, request.types, request.bind];
        let length = parts.iter().map(|part| part.len() + 4).sum::<usize>() + GENERATION_AND_FORM_BYTES;
        let mut out = BytesMut::with_capacity(length);
        out.put_u64(request.generation);
        out.put_u8(match request.form {
            Form::Simple => b'Q',
            Form::Extended => b'E',
            Form::Described => b'D',
        });
        for part in parts {
            put(&mut out, part);
        }
        Self(out.freeze())
    }

    /// The request that it is the key of.
    pub fn request(&self) -> Request<'_> {
        let (head, mut rest) = self.0.split_at(GENERATION_AND_FORM_BYTES);
        let (generation, form) = head.split_at(GENERATION_AND_FORM_BYTES - 1);
        let mut next = || {
            let found = part(rest);
            rest = rest.get(4 + found.len()..).unwrap_or_default();
            found
        };
        Request {
            identity: next(),
            generation: generation.try_into().map_or(0, u64::from_be_bytes),
            form: match form {
                b"Q" => Form::Simple,
                b"E" => Form::Extended,
                _ => Form::Described,
            },
            sql: next(),
            types: next(),
            bind: next(),
        }
    }

    /// A hash that tells most keys apart: for admission, where a mistake costs a miss.
    pub fn fingerprint(&self) -> u64 {
        foldhash::fast::FixedState::default().hash_one(&self.0)
    }

    /// The name of the database that it is about.
    pub fn database(&self) -> &[u8] {
        // Generation and form come first, then the identity, whose first part is the database.
        part(self.request().identity)
    }

    /// The exact text.
    pub fn sql(&self) -> &[u8] {
        self.request().sql
    }

    /// Bytes that it occupies.
    pub fn size(&self) -> usize {
        self.0.len()
    }
}

/// The first part of several, each with its length.
fn part(bytes: &[u8]) -> &[u8] {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return &[];
    };
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    rest.get(..length).unwrap_or_default()
}

fn put(out: &mut BytesMut, part: &[u8]) {
    out.put_u32(u32::try_from(part.len()).expect("a message is far below 4 GiB"));
    out.put_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: Request<'_> = Request {
        identity: b"shop/bob",
        generation: 1,
        form: Form::Extended,
        sql: b"select $1",
        types: b"\0\0\0\x17",
        bind: b"\0\0",
    };

    #[test]
    fn a_key_gives_its_request_back() {
        let key = Key::of(&BASE);
        let request = key.request();
        assert_eq!(
            (request.identity, request.generation),
            (BASE.identity, BASE.generation)
        );
        assert_eq!((request.form, request.sql), (BASE.form, BASE.sql));
        assert_eq!((request.types, request.bind), (BASE.types, BASE.bind));
    }

    #[test]
    fn every_part_makes_another_key() {
        let base = Key::of(&BASE);
        assert_eq!(base, Key::of(&BASE));
        let others = [
            Request {
                identity: b"shop/eve",
                ..BASE
            },
            Request {
                generation: 2,
                ..BASE
            },
            Request {
                form: Form::Simple,
                ..BASE
            },
            Request {
                sql: b"select $2",
                ..BASE
            },
            Request {
                types: b"\0\0\0\x19",
                ..BASE
            },
            Request {
                bind: b"\0\x01",
                ..BASE
            },
        ];
        for other in others {
            assert_ne!(base, Key::of(&other), "{other:?}");
        }
    }

    #[test]
    fn parts_do_not_run_together() {
        let a = Request {
            sql: b"ab",
            types: b"c",
            ..BASE
        };
        let b = Request {
            sql: b"a",
            types: b"bc",
            ..BASE
        };
        assert_ne!(Key::of(&a), Key::of(&b));
        let bob = Identity {
            database: b"shop",
            role: b"bob",
            session_user: b"",
            settings: &[b"a", b"b"],
        };
        let key = Key::of(&Request {
            identity: &bob.encode(),
            ..BASE
        });
        assert_eq!((key.database(), key.sql()), (&b"shop"[..], BASE.sql));
        assert_ne!(
            bob.encode(),
            Identity {
                settings: &[b"ab", b""],
                ..bob
            }
            .encode()
        );
        assert_ne!(
            bob.encode(),
            Identity {
                role: b"bo",
                session_user: b"b",
                ..bob
            }
            .encode()
        );
    }
}
