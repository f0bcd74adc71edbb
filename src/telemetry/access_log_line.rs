//! One line of the access log, as JSON or in the combined format of web servers.
//!
//! A line holds what a client has sent: paths and the name of its program. Secrets of tokens are struck from them, and
//! whatever could end a line or be taken for another field is escaped, so that no client can write a line of its own.

use std::net::IpAddr;
use std::time::SystemTime;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};
use serde::Serialize;

use super::operation::{FinishedOperation, HttpMethodName, OperationKind, OperationStatus, SftpRequestName};
use crate::domain::{Login, TokenId, UnixMillis, redact_tokens_in_bytes, redact_tokens_in_text};

/// Characters of a path that the combined format shows as they are.
const PLAIN_PATH_CHARACTERS: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'/').remove(b'-').remove(b'.').remove(b'_').remove(b'~');
/// Maximum number of bytes of a text that a client chose, in a line.
const MAX_TEXT_BYTES: usize = 4096;

/// Format of the lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// The combined format of web servers.
    Combined,
}

/// Result of the authentication that came with an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LoginResult {
    /// The credential was accepted.
    Accepted,
    /// A credential was sent, and refused.
    Refused,
}

/// What the access log says of an operation beside the [`FinishedOperation`].
#[derive(Clone, Debug)]
pub struct OperationDetails {
    /// Time at which it began.
    pub started_at: SystemTime,
    /// Id of the request, or of the SFTP session.
    pub request_id: String,
    /// Address of the client.
    pub address: IpAddr,
    /// User, once authenticated.
    pub user: Option<Login>,
    /// Token, once authenticated.
    pub token: Option<TokenId>,
    /// Result of its authentication, where it is known.
    pub login: Option<LoginResult>,
    /// Path, not encoded.
    pub path: Option<Vec<u8>>,
    /// Second path: of a move, a copy or a link.
    pub target: Option<Vec<u8>>,
    /// Program of the client.
    pub client: Option<String>,
    /// Version of the protocol, as the combined format shows it.
    pub version: &'static str,
}

/// Returns the bytes that a percent-encoded path stands for.
pub fn decoded_path(path: &str) -> Vec<u8> {
    percent_decode(path.as_bytes()).collect()
}

/// Tells whether an operation may change something, or is of a kind that is not known.
pub(super) fn is_change(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Http(_, method) => !matches!(
            method,
            HttpMethodName::Get
                | HttpMethodName::Head
                | HttpMethodName::Options
                | HttpMethodName::Propfind
                | HttpMethodName::Report
        ),
        OperationKind::Sftp(name) => matches!(
            name,
            SftpRequestName::Write
                | SftpRequestName::Setstat
                | SftpRequestName::Lsetstat
                | SftpRequestName::Fsetstat
                | SftpRequestName::Mkdir
                | SftpRequestName::Rmdir
                | SftpRequestName::Remove
                | SftpRequestName::Rename
                | SftpRequestName::PosixRename
                | SftpRequestName::Hardlink
                | SftpRequestName::Symlink
                | SftpRequestName::CopyData
                | SftpRequestName::Other
        ),
    }
}

/// Fields of a JSON line. Those that no client chooses come first: a filter can rely on their place.
#[derive(Serialize)]
struct JsonLine<'a> {
    time: String,
    protocol: &'a str,
    address: IpAddr,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<LoginResult>,
    request: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<String>,
    status: u32,
    bytes_in: u64,
    bytes_out: u64,
    seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
}

/// Status of a request whose client had gone, as nginx logs it.
const ABORTED_STATUS: u32 = 499;

/// Returns the line of an operation, with its line feed.
pub(super) fn format_line(
    format: AccessLogFormat,
    operation: &FinishedOperation,
    details: &OperationDetails,
) -> Vec<u8> {
    let status = match operation.status {
        OperationStatus::Http(status) => u32::from(status),
        OperationStatus::Aborted => ABORTED_STATUS,
        OperationStatus::Sftp(code) => code,
    };
    match format {
        AccessLogFormat::Json => json_line(status, operation, details),
        AccessLogFormat::Combined => combined_line(status, operation, details),
    }
}

fn json_line(status: u32, operation: &FinishedOperation, details: &OperationDetails) -> Vec<u8> {
    let path = |path: &Option<Vec<u8>>| {
        path.as_ref().map(|path| String::from_utf8_lossy(&redact_tokens_in_bytes(truncated(path))).into_owned())
    };
    let client =
        details.client.as_ref().map(|client| String::from_utf8_lossy(truncated(client.as_bytes())).into_owned());
    let line = JsonLine {
        time: details.time().format_with_millis(),
        protocol: operation.kind.protocol(),
        address: details.address,
        login: details.login,
        request: &details.request_id,
        user: details.user.as_ref().map(Login::as_str),
        token: details.token.map(|token| token.to_string()),
        operation: operation.kind.operation(),
        path: path(&details.path),
        target: path(&details.target),
        status,
        bytes_in: operation.received_bytes,
        bytes_out: operation.sent_bytes,
        seconds: (operation.duration.as_secs_f64() * 1e6).round() / 1e6,
        client: client.map(|client| redact_tokens_in_text(&client).into_owned()),
    };
    // All its fields are texts and numbers: it doesn't fail.
    let mut text = escape_line_separators(serde_json::to_string(&line).unwrap_or_default());
    text.push('\n');
    text.into_bytes()
}

/// Escapes what JSON leaves as it is and some readers take for the end of a line, or carry out: DEL, C1 controls, U+2028
/// and U+2029. They can be in texts alone.
fn escape_line_separators(json: String) -> String {
    let is_separator = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !json.contains(is_separator) {
        return json;
    }
    let mut escaped = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        match is_separator(c) {
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped
}

fn combined_line(status: u32, operation: &FinishedOperation, details: &OperationDetails) -> Vec<u8> {
    let path = details.path.as_deref().map(|path| {
        let path = redact_tokens_in_bytes(truncated(path)).into_owned();
        percent_encode(&path, PLAIN_PATH_CHARACTERS).to_string()
    });
    let client = details.client.as_deref().map(|client| {
        let client = String::from_utf8_lossy(truncated(client.as_bytes())).into_owned();
        escape_quoted(&redact_tokens_in_text(&client))
    });
    format!(
        "{} - {} [{}] \"{} {} {}\" {status} {} \"-\" \"{}\"\n",
        details.address,
        details.user.as_ref().map_or("-", Login::as_str),
        details.time().format_common_log(),
        operation.kind.operation(),
        path.as_deref().unwrap_or("-"),
        details.version,
        operation.sent_bytes,
        client.as_deref().unwrap_or("-"),
    )
    .into_bytes()
}

/// Escapes a text between quotation marks as web servers do: quotation marks, backslashes and all but visible ASCII.
fn escape_quoted(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => escaped.push_str(&format!("\\x{byte:02x}")),
            b' '..=b'~' => escaped.push(char::from(byte)),
            _ => escaped.push_str(&format!("\\x{byte:02x}")),
        }
    }
    escaped
}

fn truncated(text: &[u8]) -> &[u8] {
    text.get(..MAX_TEXT_BYTES).unwrap_or(text)
}

impl OperationDetails {
    fn time(&self) -> UnixMillis {
        let elapsed = self.started_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixMillis::from_millis(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::HttpArea;

    fn details(path: &[u8]) -> OperationDetails {
        OperationDetails {
            started_at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_777_968_000_123),
            request_id: "6f1d".to_owned(),
            address: [192, 0, 2, 1].into(),
            user: Some("alice".parse().expect("a login")),
            token: None,
            login: Some(LoginResult::Accepted),
            path: Some(path.to_vec()),
            target: None,
            client: Some("curl/8 \"x\\".to_owned()),
            version: "HTTP/1.1",
        }
    }

    fn line(format: AccessLogFormat, details: &OperationDetails) -> String {
        let operation = FinishedOperation {
            kind: OperationKind::Http(HttpArea::Webdav, HttpMethodName::Get),
            status: OperationStatus::Http(200),
            received_bytes: 0,
            sent_bytes: 5,
            duration: Duration::from_micros(1500),
        };
        String::from_utf8(format_line(format, &operation, details)).expect("text")
    }

    #[test]
    fn lines_have_all_fields_in_order() {
        let details = details(b"/dav/a b");
        assert_eq!(
            line(AccessLogFormat::Json, &details),
            "{\"time\":\"2026-05-05T08:00:00.123Z\",\"protocol\":\"webdav\",\"address\":\"192.0.2.1\",\
             \"login\":\"accepted\",\"request\":\"6f1d\",\"user\":\"alice\",\"operation\":\"GET\",\"path\":\"/dav/a b\",\
             \"status\":200,\"bytes_in\":0,\"bytes_out\":5,\"seconds\":0.0015,\"client\":\"curl/8 \\\"x\\\\\"}\n"
        );
        assert_eq!(
            line(AccessLogFormat::Combined, &details),
            "192.0.2.1 - alice [05/May/2026:08:00:00 +0000] \"GET /dav/a%20b HTTP/1.1\" 200 5 \"-\" \
             \"curl/8 \\x22x\\x5c\"\n"
        );
    }

    #[test]
    fn no_path_or_program_forges_a_line_or_shows_a_secret() {
        let token = "pgt_JhxND7ci.0123456789ABCDEFGHIJKLMNOPQRSTUV123456";
        for hostile in [
            "/a\n192.0.2.9 - bob [x] \"GET / HTTP/1.1\" 200 1",
            "/a\r\n{\"time\":\"x\"}",
            "/a\",\"login\":\"refused\",\"x\":\"",
            "/a\u{85}b\u{2028}c\u{2029}d\u{7f}e\u{1b}[31m\0",
            "/a\" 200 1 \"-\" \"x",
            token,
        ] {
            let mut details = details(hostile.as_bytes());
            details.target = Some(hostile.as_bytes().to_vec());
            details.client = Some(hostile.to_owned());
            for format in [AccessLogFormat::Json, AccessLogFormat::Combined] {
                let line = line(format, &details);
                let body = line.strip_suffix('\n').expect("a line");
                assert!(!body.contains(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}')), "{line:?}");
                assert!(!line.contains("0123456789ABCDEF"), "{line}");
            }
            let parsed: serde_json::Value = serde_json::from_str(&line(AccessLogFormat::Json, &details)).expect("JSON");
            assert_eq!(parsed["login"], "accepted", "{hostile}");
            if hostile != token {
                assert_eq!((parsed["path"].as_str(), parsed["client"].as_str()), (Some(hostile), Some(hostile)));
            }
            let combined = line(AccessLogFormat::Combined, &details);
            assert_eq!(combined.matches('"').count(), 6, "{combined}");
        }
        let mut invalid = details(b"/\xff\xfe");
        invalid.client = None;
        assert!(line(AccessLogFormat::Json, &invalid).contains("\"path\":\"/\u{fffd}\u{fffd}\""));
        assert!(line(AccessLogFormat::Combined, &invalid).contains("GET /%FF%FE HTTP/1.1"));
    }

    #[test]
    fn token_that_is_percent_encoded_in_a_path_is_struck() {
        let path = decoded_path("/dav/pgt%5FJhxND7ci%2E0123456789ABCDEFGHIJKLMNOPQRSTUV1234%35%36");
        assert!(line(AccessLogFormat::Json, &details(&path)).contains("\"path\":\"/dav/pgt_JhxND7ci.***\""));
    }
}
