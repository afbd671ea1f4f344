//! Errors and notices as messages: the one place that composes an ErrorResponse, and a view of what a server reported.
//!
//! Called by every stage that answers a client. Invariant: text from outside is cut at its first NUL, because a NUL ends
//! a field. It knows nothing of why an error arose; a stage's own error type maps itself to a `Report`.

use bytes::{BufMut, BytesMut};
use pgwire::messages::Message;
use pgwire::messages::response::{ErrorResponse, NoticeResponse};

/// How grave a report is, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The connection ends.
    Fatal,
    /// The statement or transaction failed.
    Error,
    /// A notice that asks for attention.
    Warning,
    /// A notice.
    Notice,
}

impl Severity {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fatal => "FATAL",
            Self::Error => "ERROR",
            Self::Warning => "WARNING",
            Self::Notice => "NOTICE",
        }
    }
}

/// Something that the proxy itself tells a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How grave it is.
    pub severity: Severity,
    /// SQLSTATE, one of `protocol::sqlstate`.
    pub code: &'static str,
    /// The primary message.
    pub message: String,
    /// An optional second sentence.
    pub detail: Option<String>,
    /// An optional suggestion.
    pub hint: Option<String>,
    /// The routine of PostgreSQL's that would have raised it, where drivers look at that.
    pub routine: Option<&'static str>,
}

impl Report {
    /// A report of the given severity, without detail and hint.
    pub fn new(severity: Severity, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            severity,
            code,
            message: message.into(),
            detail: None,
            hint: None,
            routine: None,
        }
    }

    /// The connection ends with this.
    pub fn fatal(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Fatal, code, message)
    }

    /// The statement fails with this.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, code, message)
    }

    /// A warning beside the answer.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Warning, code, message)
    }

    /// A notice beside the answer.
    pub fn notice(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(Severity::Notice, code, message)
    }

    /// Adds the detail field.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds the hint field.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the routine field.
    #[must_use]
    pub fn routine(mut self, routine: &'static str) -> Self {
        self.routine = Some(routine);
        self
    }

    /// Appends the message: an ErrorResponse for FATAL and ERROR, else a NoticeResponse.
    pub fn encode(&self, out: &mut BytesMut) {
        let severity = self.severity.as_str().to_owned();
        let mut fields = vec![
            (b'S', severity.clone()),
            (b'V', severity),
            (b'C', self.code.to_owned()),
        ];
        fields.push((b'M', field(&self.message)));
        fields.extend(self.detail.as_deref().map(|text| (b'D', field(text))));
        fields.extend(self.hint.as_deref().map(|text| (b'H', field(text))));
        fields.extend(self.routine.map(|routine| (b'R', routine.to_owned())));
        let written = match self.severity {
            Severity::Fatal | Severity::Error => ErrorResponse::new(fields).encode(out),
            Severity::Warning | Severity::Notice => NoticeResponse::new(fields).encode(out),
        };
        written.expect("encoding into a growing buffer cannot fail");
    }
}

fn field(text: &str) -> String {
    text.split('\0').next().unwrap_or_default().to_owned()
}

/// The fields of a server's ErrorResponse or NoticeResponse that decide something. Bytes: their encoding is the client's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorFields<'a> {
    /// Severity in English (`V`), empty where the server sent none.
    pub severity: &'a [u8],
    /// SQLSTATE.
    pub code: &'a [u8],
    /// Primary message.
    pub message: &'a [u8],
}

/// Reads the body of an ErrorResponse or NoticeResponse. A malformed one yields what was readable.
pub fn fields(mut body: &[u8]) -> ErrorFields<'_> {
    let mut found = ErrorFields::default();
    while let Some((&kind, rest)) = body.split_first() {
        let Some(end) = rest.iter().position(|&byte| byte == 0) else {
            break;
        };
        let value = &rest[..end];
        match kind {
            b'V' => found.severity = value,
            b'C' => found.code = value,
            b'M' => found.message = value,
            _ => {}
        }
        body = &rest[end + 1..];
    }
    found
}

/// A server's ErrorResponse, whole, as the end of a connection: severity FATAL in the place of its own.
pub fn as_fatal(frame: &[u8]) -> BytesMut {
    let body = frame.get(super::frame::HEADER_BYTES..).unwrap_or_default();
    let mut fatal = Vec::with_capacity(body.len());
    for field in body.split(|byte| *byte == 0) {
        match field.first() {
            Some(kind @ (b'S' | b'V')) => fatal.extend([&[*kind][..], b"FATAL\0"].concat()),
            Some(_) => fatal.extend([field, b"\0"].concat()),
            None => {}
        }
    }
    fatal.push(0);
    let mut out = BytesMut::with_capacity(fatal.len() + super::frame::HEADER_BYTES);
    relay(&fatal, &mut out);
    out
}

/// Appends a server's error as it came, with tag and length put back around its body.
pub fn relay(body: &[u8], out: &mut BytesMut) {
    out.put_u8(b'E');
    out.put_u32(u32::try_from(body.len() + 4).expect("a frame's body is bounded"));
    out.put_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{frame, sqlstate};

    #[test]
    fn a_report_reads_back_as_what_was_said() {
        let mut out = BytesMut::new();
        Report::fatal(sqlstate::TOO_MANY_CONNECTIONS, "sorry, too many clients already")
            .hint("wait")
            .encode(&mut out);
        let frame = frame::next(&out, 0, 1024).expect("valid").expect("whole");
        assert_eq!((frame.tag, frame.end()), (b'E', out.len()));
        let read = fields(frame.body(&out));
        assert_eq!(read.severity, b"FATAL");
        assert_eq!(read.code, b"53300");
        assert_eq!(read.message, b"sorry, too many clients already");
    }

    #[test]
    fn a_refused_login_is_the_end_of_the_connection() {
        let mut out = BytesMut::new();
        Report::error(sqlstate::SYNTAX_ERROR, "wrong")
            .routine("parse")
            .encode(&mut out);
        let fatal = as_fatal(&out);
        let frame = frame::next(&fatal, 0, 1024).expect("valid").expect("whole");
        assert_eq!(frame.end(), fatal.len());
        assert_eq!(frame.body(&fatal), b"SFATAL\0VFATAL\0C42601\0Mwrong\0Rparse\0\0");
    }

    #[test]
    fn a_notice_is_not_an_error() {
        let mut out = BytesMut::new();
        Report::notice("00000", "unknown hint").encode(&mut out);
        assert_eq!(out[0], b'N');
    }

    #[test]
    fn a_nul_cannot_end_the_message_early() {
        let mut out = BytesMut::new();
        Report::error(sqlstate::SYNTAX_ERROR, "a\0Cevil").encode(&mut out);
        let frame = frame::next(&out, 0, 1024).expect("valid").expect("whole");
        let read = fields(frame.body(&out));
        assert_eq!((read.code, read.message), (&b"42601"[..], &b"a"[..]));
    }

    #[test]
    fn a_malformed_body_does_not_panic() {
        assert_eq!(fields(b"C"), ErrorFields::default());
        assert_eq!(fields(b"C57014"), ErrorFields::default());
        assert_eq!(fields(b"C57014\0M").code, b"57014");
    }

    #[test]
    fn a_relayed_error_keeps_its_bytes() {
        let mut out = BytesMut::new();
        relay(b"SERROR\0C42P01\0M\xE9\0\0", &mut out);
        let frame = frame::next(&out, 0, 1024).expect("valid").expect("whole");
        assert_eq!(frame.body(&out), b"SERROR\0C42P01\0M\xE9\0\0");
    }
}
