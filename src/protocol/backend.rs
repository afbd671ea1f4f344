//! What the proxy says in a server's place: login messages, completions, small text results.
//!
//! Called by the session and the admin console. Encoding is pgwire's for whole messages; the few that stand on the hot
//! path are constants. It never re-encodes what a server said.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::data::{FieldDescription, RowDescription};
use pgwire::messages::response::CommandComplete;
use pgwire::messages::startup::{
    Authentication, BackendKeyData, NegotiateProtocolVersion, ParameterStatus, SecretKey,
};

/// ParseComplete.
pub const PARSE_COMPLETE: &[u8] = b"1\0\0\0\x04";
/// BindComplete.
pub const BIND_COMPLETE: &[u8] = b"2\0\0\0\x04";
/// CloseComplete.
pub const CLOSE_COMPLETE: &[u8] = b"3\0\0\0\x04";
/// NoData.
pub const NO_DATA: &[u8] = b"n\0\0\0\x04";
/// EmptyQueryResponse.
pub const EMPTY_QUERY: &[u8] = b"I\0\0\0\x04";

/// `pg_type.oid` of text.
const TEXT: u32 = 25;

/// Transaction status in ReadyForQuery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not in a transaction block.
    Idle,
    /// In a transaction block.
    InTransaction,
    /// In a failed transaction block.
    Failed,
}

impl Status {
    /// Reads ReadyForQuery's one byte.
    pub fn read(body: &[u8]) -> Option<Self> {
        match body {
            b"I" => Some(Self::Idle),
            b"T" => Some(Self::InTransaction),
            b"E" => Some(Self::Failed),
            _ => None,
        }
    }
}

/// Appends ReadyForQuery.
pub fn ready_for_query(status: Status, out: &mut BytesMut) {
    let status = match status {
        Status::Idle => b'I',
        Status::InTransaction => b'T',
        Status::Failed => b'E',
    };
    out.put_slice(&[b'Z', 0, 0, 0, 5, status]);
}

/// Appends CommandComplete.
pub fn command_complete(tag: &str, out: &mut BytesMut) {
    encode(&CommandComplete::new(tag.to_owned()), out);
}

/// Appends AuthenticationOk.
pub fn authentication_ok(out: &mut BytesMut) {
    encode(&Authentication::Ok, out);
}

/// Appends ParameterStatus. Both texts must be free of NUL.
pub fn parameter_status(name: &str, value: &str, out: &mut BytesMut) {
    encode(&ParameterStatus::new(name.to_owned(), value.to_owned()), out);
}

/// Appends BackendKeyData with a key of 4 bytes (protocol 3.0) or up to 256 (3.2).
pub fn backend_key_data(process: i32, secret: &[u8], out: &mut BytesMut) {
    let key = match <[u8; 4]>::try_from(secret) {
        Ok(four) => SecretKey::I32(i32::from_be_bytes(four)),
        Err(_) => SecretKey::Bytes(secret.to_vec().into()),
    };
    encode(&BackendKeyData::new(process, key), out);
}

/// Appends NegotiateProtocolVersion: the newest version spoken here, major and minor as in a StartupMessage (the manual says
/// minor, but what PostgreSQL sends and libpq reads is both), and the `_pq_.` options not known here.
pub fn negotiate_version(newest: i32, unsupported: Vec<String>, out: &mut BytesMut) {
    encode(&NegotiateProtocolVersion::new(newest, unsupported), out);
}

/// Appends RowDescription for columns of type text, whose bytes are the same in text (0) and binary (1) format.
pub fn text_columns(names: &[&str], format: i16, out: &mut BytesMut) {
    let column = |name: &&str| FieldDescription::new((*name).to_owned(), 0, 0, TEXT, -1, -1, format);
    encode(&RowDescription::new(names.iter().map(column).collect()), out);
}

/// Appends a DataRow of texts; `None` is NULL. At most `i16::MAX` columns.
pub fn text_row(values: &[Option<&str>], out: &mut BytesMut) {
    let at = out.len();
    out.put_slice(b"D\0\0\0\0");
    out.put_i16(i16::try_from(values.len()).expect("the console's tables are narrow"));
    for value in values {
        match value {
            Some(text) => {
                out.put_i32(i32::try_from(text.len()).expect("a value is far below 2 GiB"));
                out.put_slice(text.as_bytes());
            }
            None => out.put_i32(-1),
        }
    }
    let length = u32::try_from(out.len() - at - 1).expect("a row is far below 4 GiB");
    out[at + 1..at + 5].copy_from_slice(&length.to_be_bytes());
}

fn encode(message: &impl Message, out: &mut BytesMut) {
    message
        .encode(out)
        .expect("encoding into a growing buffer cannot fail");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::frame;

    fn check(expected: &[u8], say: impl FnOnce(&mut BytesMut)) {
        let mut out = BytesMut::new();
        say(&mut out);
        assert_eq!(&out[..], expected);
        let frame = frame::next(&out, 0, 1024).expect("valid").expect("whole");
        assert_eq!(frame.end(), out.len());
    }

    #[test]
    fn bytes_are_those_of_the_manual() {
        check(b"Z\0\0\0\x05T", |out| ready_for_query(Status::InTransaction, out));
        check(b"C\0\0\0\x0aBEGIN\0", |out| command_complete("BEGIN", out));
        check(b"R\0\0\0\x08\0\0\0\0", authentication_ok);
        check(b"S\0\0\0\x0aa\0bcd\0", |out| parameter_status("a", "bcd", out));
        check(b"K\0\0\0\x0c\0\0\0\x07abcd", |out| {
            backend_key_data(7, b"abcd", out);
        });
        check(b"K\0\0\0\x0e\0\0\0\x07abcdef", |out| {
            backend_key_data(7, b"abcdef", out);
        });
        check(b"D\0\0\0\x10\0\x02\0\0\0\x02hi\xff\xff\xff\xff", |out| {
            text_row(&[Some("hi"), None], out);
        });
        let options = vec!["_pq_.x".to_owned()];
        check(b"v\0\0\0\x13\0\0\0\x02\0\0\0\x01_pq_.x\0", |out| {
            negotiate_version(2, options, out);
        });
    }

    #[test]
    fn a_text_column_says_its_type() {
        let mut out = BytesMut::new();
        text_columns(&["node"], 0, &mut out);
        assert_eq!(out[0], b'T');
        assert_eq!(&out[5..12], b"\0\x01node\0");
        assert_eq!(out[18..22], TEXT.to_be_bytes());
    }

    #[test]
    fn a_status_is_one_of_three_letters() {
        assert_eq!(Status::read(b"E"), Some(Status::Failed));
        assert_eq!(Status::read(b"X"), None);
        assert_eq!(Status::read(b""), None);
    }
}
