//! The request that began an upload, as it is written down until the upload is complete: its path, its host, and those
//! of its headers that count then. No credential is among them: not that of `user:password@host` either.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};

use super::error::Result;
use super::method::DavMethod;
use super::request_context::RequestContext;
use crate::auth::Session;
use crate::domain::UnixMillis;
use crate::http::{PublicAddress, ServerName};
use crate::tree::Tree;

/// The headers that are kept besides `host`: conditions, locks, and what is announced of the file.
const SAVED_HEADERS: [&str; 11] = [
    "if",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "lock-token",
    "x-oc-mtime",
    "oc-checksum",
    "repr-digest",
    "digest",
    "x-patgate-tags",
    "upload-length",
];

/// The path in front of all that clients write in conditions.
const PREFIX_HEADER: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// The request that began an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedRequest {
    uri: Uri,
    headers: HeaderMap,
}

impl SavedRequest {
    /// Takes what is kept from a request.
    pub(super) fn from_context(context: &RequestContext) -> Self {
        let saved = context.headers.iter().filter(|(name, _)| SAVED_HEADERS.contains(&name.as_str()));
        let mut headers: HeaderMap = saved.map(|(name, value)| (name.clone(), value.clone())).collect();
        for name in context.server.names() {
            headers.extend(HeaderValue::try_from(name.to_string()).map(|name| (header::HOST, name)));
        }
        headers.extend(HeaderValue::try_from(context.server.prefix()).map(|prefix| (PREFIX_HEADER, prefix)));
        // What is read as a path can be written as one.
        Self { uri: Uri::try_from(context.uri.path()).unwrap_or_default(), headers }
    }

    /// Reads back what was written down.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let uri = Uri::try_from(lines.next()?).ok()?;
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let name = HeaderName::from_bytes(name).ok()?;
            headers.append(name, HeaderValue::from_bytes(value.get(1..)?).ok()?);
        }
        Some(Self { uri, headers })
    }

    /// Writes it down: the target in the first line, then the headers. No value of one can hold the end of a line.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.uri.to_string().into_bytes();
        bytes.push(b'\n');
        for (name, value) in &self.headers {
            bytes.extend_from_slice(name.as_str().as_bytes());
            bytes.push(b':');
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(b'\n');
        }
        bytes
    }

    /// Returns the headers that are kept.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Makes the request anew, in another session of the token that made it.
    ///
    /// # Errors
    /// As [`RequestContext::new`].
    pub(super) async fn restore_context(
        &self,
        tree: &Tree,
        session: Session,
        now: UnixMillis,
    ) -> Result<Arc<RequestContext>> {
        let (mut head, ()) = Request::new(()).into_parts();
        head.uri = self.uri.clone();
        head.headers = self.headers.clone();
        let names = self.headers.get_all(header::HOST).iter().filter_map(|name| ServerName::parse(name.as_bytes()));
        let prefix = self.headers.get(PREFIX_HEADER).and_then(|prefix| prefix.to_str().ok()).unwrap_or_default();
        head.extensions.insert(PublicAddress::from_parts(names.collect(), prefix.to_owned()));
        RequestContext::new(DavMethod::Put, head, tree, session, now).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_request_round_trips() {
        let mut headers = HeaderMap::new();
        headers.append("if", HeaderValue::from_static("(<urn:uuid:x> [\"a: b\"])"));
        headers.append("x-patgate-tags", HeaderValue::from_bytes(b" caf\xc3\xa9").expect("value"));
        headers.append("x-patgate-tags", HeaderValue::from_static(""));
        for target in ["/dav/a%20b", "/"] {
            let begun = SavedRequest { uri: target.parse().expect("target"), headers: headers.clone() };
            assert_eq!(SavedRequest::parse(&begun.to_bytes()), Some(begun), "{target}");
        }
        for bytes in ["", "\n", "/dav/\nno colon\n", "/dav/\nbad name:x\n", "/d av/\n"] {
            assert_eq!(SavedRequest::parse(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
