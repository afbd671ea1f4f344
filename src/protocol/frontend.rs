//! The parts of a client's messages that the proxy reads: names, texts and counts, as views into the frame's body.
//!
//! Called by the session for each message of the simple and extended protocol. Invariant: a view is made only from a
//! body whose layout was checked to its last byte, so that what the proxy understood is what the server will understand.
//! Values of parameters are never decoded.

/// A body that does not have its type's layout; PostgreSQL answers 08P01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("invalid message format")]
pub struct Malformed;

/// Query: the text without its terminator.
pub fn query(body: &[u8]) -> Result<&[u8], Malformed> {
    let mut rest = body;
    let text = string(&mut rest)?;
    finished(rest, text)
}

/// Parse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parse<'a> {
    /// Statement name; empty for the unnamed one.
    pub name: &'a [u8],
    /// Text.
    pub sql: &'a [u8],
    /// Parameter type OIDs, four bytes each.
    pub types: &'a [u8],
}

impl<'a> Parse<'a> {
    /// Reads a Parse message's body.
    pub fn read(mut body: &'a [u8]) -> Result<Self, Malformed> {
        let name = string(&mut body)?;
        let sql = string(&mut body)?;
        let count = count(&mut body)?;
        let types = bytes(&mut body, count * 4)?;
        finished(body, Self { name, sql, types })
    }
}

/// Bind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// Portal name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// Statement name; empty for the unnamed one.
    pub statement: &'a [u8],
    /// All after the two names: formats and values of parameters, result formats. Part of a cache key as it stands.
    pub suffix: &'a [u8],
    /// The parameters' values with their lengths, inside the suffix.
    pub values: &'a [u8],
    /// Result format codes, two bytes each.
    pub result_formats: &'a [u8],
}

impl<'a> Bind<'a> {
    /// Reads a Bind message's body.
    pub fn read(mut body: &'a [u8]) -> Result<Self, Malformed> {
        let portal = string(&mut body)?;
        let statement = string(&mut body)?;
        let suffix = body;
        let formats = count(&mut body)?;
        bytes(&mut body, formats * 2)?;
        let parameters = count(&mut body)?;
        let before = body;
        for _ in 0..parameters {
            let length = bytes(&mut body, 4)?;
            let length = i32::from_be_bytes(length.try_into().map_err(|_| Malformed)?);
            match usize::try_from(length) {
                Ok(length) => drop(bytes(&mut body, length)?),
                Err(_) if length == -1 => {}
                Err(_) => return Err(Malformed),
            }
        }
        let values = &before[..before.len() - body.len()];
        let results = count(&mut body)?;
        let result_formats = bytes(&mut body, results * 2)?;
        finished(
            body,
            Self {
                portal,
                statement,
                suffix,
                values,
                result_formats,
            },
        )
    }
}

/// What a Describe or Close message names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

impl<'a> Target<'a> {
    /// Reads a Describe or Close message's body.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let (&kind, mut rest) = body.split_first().ok_or(Malformed)?;
        let name = string(&mut rest)?;
        match kind {
            b'S' => finished(rest, Self::Statement(name)),
            b'P' => finished(rest, Self::Portal(name)),
            _ => Err(Malformed),
        }
    }
}

/// Execute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Execute<'a> {
    /// Portal name; empty for the unnamed one.
    pub portal: &'a [u8],
    /// Most rows to return; 0 or less for all.
    pub rows_max: i32,
}

impl<'a> Execute<'a> {
    /// Reads an Execute message's body.
    pub fn read(mut body: &'a [u8]) -> Result<Self, Malformed> {
        let portal = string(&mut body)?;
        let rows = bytes(&mut body, 4)?;
        let rows_max = i32::from_be_bytes(rows.try_into().map_err(|_| Malformed)?);
        finished(body, Self { portal, rows_max })
    }
}

fn string<'a>(body: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let end = memchr::memchr(0, body).ok_or(Malformed)?;
    let (text, rest) = (&body[..end], &body[end + 1..]);
    *body = rest;
    Ok(text)
}

/// A count of 16 bits. PostgreSQL reads it as signed where it counts formats, as unsigned where it counts parameters;
/// taking all as unsigned only makes a body with a negative count too short, which both refuse.
fn count(body: &mut &[u8]) -> Result<usize, Malformed> {
    let two = bytes(body, 2)?;
    Ok(usize::from(u16::from_be_bytes(
        two.try_into().map_err(|_| Malformed)?,
    )))
}

fn bytes<'a>(body: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = body.split_at_checked(length).ok_or(Malformed)?;
    *body = rest;
    Ok(taken)
}

fn finished<T>(rest: &[u8], value: T) -> Result<T, Malformed> {
    if rest.is_empty() {
        Ok(value)
    } else {
        Err(Malformed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_ends_at_its_only_nul() {
        assert_eq!(query(b"select 1\0"), Ok(&b"select 1"[..]));
        assert_eq!(query(b"select 1"), Err(Malformed));
        assert_eq!(query(b"select 1\0delete\0"), Err(Malformed));
    }

    #[test]
    fn a_parse_names_text_and_types() {
        let parse = Parse::read(b"s1\0select $1\0\0\x01\0\0\0\x17").expect("valid");
        assert_eq!(
            (parse.name, parse.sql, parse.types),
            (&b"s1"[..], &b"select $1"[..], &b"\0\0\0\x17"[..])
        );
        assert_eq!(Parse::read(b"s1\0select $1\0\0\x02\0\0\0\x17"), Err(Malformed));
    }

    #[test]
    fn a_bind_is_checked_to_its_last_byte() {
        let body = b"p\0s\0\0\x01\0\x01\0\x02\0\0\0\x02hi\xff\xff\xff\xff\0\x01\0\x00";
        let bind = Bind::read(body).expect("valid");
        assert_eq!((bind.portal, bind.statement), (&b"p"[..], &b"s"[..]));
        assert_eq!(bind.values, b"\0\0\0\x02hi\xff\xff\xff\xff");
        assert_eq!(bind.result_formats, b"\0\0");
        assert_eq!(bind.suffix, &body[4..]);
        for cut in 0..body.len() {
            assert_eq!(Bind::read(&body[..cut]), Err(Malformed), "cut at {cut}");
        }
        assert_eq!(Bind::read(b"\0\0\0\0\0\x01\xff\xff\xff\xfe\0\0"), Err(Malformed));
    }

    #[test]
    fn describe_close_and_execute() {
        assert_eq!(Target::read(b"Ss\0"), Ok(Target::Statement(b"s")));
        assert_eq!(Target::read(b"P\0"), Ok(Target::Portal(b"")));
        assert_eq!(Target::read(b"X\0"), Err(Malformed));
        assert_eq!(Target::read(b""), Err(Malformed));
        assert_eq!(
            Execute::read(b"p\0\0\0\0\x05"),
            Ok(Execute {
                portal: b"p",
                rows_max: 5
            })
        );
        assert_eq!(Execute::read(b"p\0\0\0\x05"), Err(Malformed));
    }

    proptest! {
        #[test]
        fn hostile_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = query(&body);
            let _ = Parse::read(&body);
            let _ = Target::read(&body);
            let _ = Execute::read(&body);
            if let Ok(bind) = Bind::read(&body) {
                prop_assert!(bind.suffix.len() <= body.len());
            }
        }
    }
}
