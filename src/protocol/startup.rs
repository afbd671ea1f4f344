//! The first packets of a connection, which have a length but no tag: requests for encryption, cancel requests, startup.
//!
//! Called by the session's startup phase with the bytes that arrived, and by nobody else. Invariant: at most
//! `STARTUP_BYTES_MAX` are ever waited for, and a packet is read only inside its own length. It decides nothing: which
//! options are supported and who may log in is the session's.

use std::collections::BTreeMap;

/// Longest first packet that is accepted, as PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`.
pub const STARTUP_BYTES_MAX: usize = 10_000;
/// Longest cancel key: protocol 3.2 allows up to 256 bytes.
pub const CANCEL_KEY_BYTES_MAX: usize = 256;

const SSL_REQUEST: u32 = 80_877_103;
const GSSENC_REQUEST: u32 = 80_877_104;
const CANCEL_REQUEST: u32 = 80_877_102;

/// A connection's first packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum First {
    /// SSLRequest: answer `S` or `N`.
    Ssl,
    /// GSSENCRequest: answer `N`.
    GssEnc,
    /// CancelRequest: no answer, the connection is closed.
    Cancel {
        /// Process number from BackendKeyData.
        process: i32,
        /// Secret: 4 bytes in protocol 3.0, 4 to 256 in 3.2.
        secret: Vec<u8>,
    },
    /// StartupMessage.
    Startup(Startup),
}

/// A StartupMessage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Startup {
    /// Major protocol version.
    pub major: u16,
    /// Minor protocol version.
    pub minor: u16,
    /// Parameters by name. Bytes: nothing is known of their encoding yet. A repeated name keeps its last value.
    pub parameters: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// The first packet is none of PostgreSQL's: the connection must be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StartupError {
    /// The length is under 8 or over the limit.
    #[error("invalid length of startup packet")]
    Length,
    /// The body does not have the form that its code promises.
    #[error("invalid startup packet layout: expected terminator as last byte")]
    Layout,
    /// A protocol other than 3.x.
    #[error("unsupported frontend protocol {0}.{1}: server supports 3.0 to 3.2")]
    Version(u16, u16),
}

/// Reads the packet at the head of `buffer`: itself and its length in bytes, or `None` until all of it has arrived.
pub fn first(buffer: &[u8]) -> Result<Option<(First, usize)>, StartupError> {
    let Some(declared) = buffer.first_chunk().map(|bytes| u32::from_be_bytes(*bytes)) else {
        return Ok(None);
    };
    let length = usize::try_from(declared).map_err(|_| StartupError::Length)?;
    if !(8..=STARTUP_BYTES_MAX).contains(&length) {
        return Err(StartupError::Length);
    }
    let Some(packet) = buffer.get(4..length) else {
        return Ok(None);
    };
    let (code, body) = packet.split_first_chunk().ok_or(StartupError::Length)?;
    let first = match u32::from_be_bytes(*code) {
        SSL_REQUEST => empty(body, First::Ssl)?,
        GSSENC_REQUEST => empty(body, First::GssEnc)?,
        CANCEL_REQUEST => cancel(body)?,
        version => startup(version, body)?,
    };
    Ok(Some((first, length)))
}

fn empty(body: &[u8], first: First) -> Result<First, StartupError> {
    if body.is_empty() {
        Ok(first)
    } else {
        Err(StartupError::Length)
    }
}

fn cancel(body: &[u8]) -> Result<First, StartupError> {
    let (process, secret) = body.split_first_chunk().ok_or(StartupError::Length)?;
    if !(4..=CANCEL_KEY_BYTES_MAX).contains(&secret.len()) {
        return Err(StartupError::Length);
    }
    Ok(First::Cancel {
        process: i32::from_be_bytes(*process),
        secret: secret.to_vec(),
    })
}

fn startup(version: u32, mut body: &[u8]) -> Result<First, StartupError> {
    let [a, b, c, d] = version.to_be_bytes();
    let (major, minor) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
    if major != 3 {
        return Err(StartupError::Version(major, minor));
    }
    let mut parameters = BTreeMap::new();
    loop {
        let name = take_string(&mut body).ok_or(StartupError::Layout)?;
        if name.is_empty() {
            break;
        }
        let value = take_string(&mut body).ok_or(StartupError::Layout)?;
        parameters.insert(name.to_vec(), value.to_vec());
    }
    if !body.is_empty() {
        return Err(StartupError::Layout);
    }
    Ok(First::Startup(Startup {
        major,
        minor,
        parameters,
    }))
}

fn take_string<'a>(body: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = body.iter().position(|&byte| byte == 0)?;
    let (text, rest) = (&body[..end], &body[end + 1..]);
    *body = rest;
    Some(text)
}

/// Splits the value of the `options` parameter as PostgreSQL does: at white space, where a backslash keeps the next
/// byte as it is.
pub fn split_options(options: &[u8]) -> Vec<Vec<u8>> {
    let (mut words, mut word, mut inside) = (Vec::new(), Vec::new(), false);
    let mut bytes = options.iter().copied();
    while let Some(byte) = bytes.next() {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0b' | b'\x0c') {
            if std::mem::take(&mut inside) {
                words.push(std::mem::take(&mut word));
            }
            continue;
        }
        inside = true;
        if byte == b'\\' {
            word.extend(bytes.next());
        } else {
            word.push(byte);
        }
    }
    if inside {
        words.push(word);
    }
    words
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("test bodies are small");
        [&length.to_be_bytes()[..], body].concat()
    }

    fn startup_packet(minor: u16, parameters: &[u8]) -> Vec<u8> {
        packet(&[&3_u16.to_be_bytes()[..], &minor.to_be_bytes(), parameters].concat())
    }

    #[test]
    fn every_kind_of_first_packet_is_known() {
        let whole = |bytes: &[u8]| first(bytes).expect("valid").expect("whole");
        assert_eq!(whole(&packet(&SSL_REQUEST.to_be_bytes())), (First::Ssl, 8));
        assert_eq!(whole(&packet(&GSSENC_REQUEST.to_be_bytes())), (First::GssEnc, 8));
        let cancel = packet(&[&CANCEL_REQUEST.to_be_bytes()[..], &7_i32.to_be_bytes(), b"abcd"].concat());
        assert_eq!(
            whole(&cancel),
            (
                First::Cancel {
                    process: 7,
                    secret: b"abcd".to_vec()
                },
                16
            )
        );
        let bytes = startup_packet(2, b"user\0bob\0database\0shop\0\0");
        let (First::Startup(startup), length) = whole(&bytes) else {
            panic!("a startup packet")
        };
        assert_eq!((startup.major, startup.minor, length), (3, 2, bytes.len()));
        assert_eq!(startup.parameters[&b"user"[..]], b"bob");
        assert_eq!(startup.parameters[&b"database"[..]], b"shop");
    }

    #[test]
    fn a_packet_that_cannot_be_is_refused() {
        assert_eq!(first(&7_u32.to_be_bytes()), Err(StartupError::Length));
        assert_eq!(first(&10_001_u32.to_be_bytes()), Err(StartupError::Length));
        assert_eq!(first(&u32::MAX.to_be_bytes()), Err(StartupError::Length));
        assert_eq!(first(b"GET / HTTP/1.1\r\n\r\n"), Err(StartupError::Length));
        assert_eq!(first(&packet(&[0, 2, 0, 0, 0])), Err(StartupError::Version(2, 0)));
        assert_eq!(first(&startup_packet(0, b"user\0bob")), Err(StartupError::Layout));
        assert_eq!(
            first(&startup_packet(0, b"user\0bob\0\0x")),
            Err(StartupError::Layout)
        );
        assert_eq!(
            first(&packet(&[&SSL_REQUEST.to_be_bytes()[..], b"x"].concat())),
            Err(StartupError::Length)
        );
    }

    #[test]
    fn a_cut_packet_is_waited_for() {
        let bytes = startup_packet(0, b"user\0bob\0\0");
        for cut in 0..bytes.len() {
            assert_eq!(first(&bytes[..cut]), Ok(None), "cut at {cut}");
        }
    }

    #[test]
    fn options_are_split_as_postgresql_does() {
        let split = |text: &str| -> Vec<String> {
            let words = split_options(text.as_bytes()).into_iter();
            words
                .map(|word| String::from_utf8(word).expect("ASCII in, ASCII out"))
                .collect()
        };
        assert_eq!(split("-c geqo=off  -c\tx=y "), ["-c", "geqo=off", "-c", "x=y"]);
        assert_eq!(split(r"-c search_path=a,\ b\\c"), ["-c", r"search_path=a, b\c"]);
        assert_eq!(split(r"a\"), ["a"]);
        assert!(split("  ").is_empty());
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = first(&bytes);
            let _ = split_options(&bytes);
        }
    }
}
