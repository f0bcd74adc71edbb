//! Request that created an upload, as it is stored until the upload is complete: its path, its host, and those headers
//! that matter at the commit. Credentials are never stored, not even those of `user:password@host`.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header};

use super::error::Result;
use super::method::DavMethod;
use super::request_context::RequestContext;
use crate::auth::Session;
use crate::domain::UnixMillis;
use crate::http::{PublicAddress, ServerName};
use crate::tree::Tree;

/// Headers that are stored besides `host`: conditions, lock tokens, and announced properties of the file.
// What `RequestContext::new` and `put::commit_upload` read must be listed, or the commit ignores it. Never add
// `authorization` or `cookie`: the stored request must be worthless to a thief.
const SAVED_HEADERS: [&str; 10] = [
    "if",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "lock-token",
    "x-oc-mtime",
    "oc-checksum",
    "repr-digest",
    "x-patgate-tags",
    "upload-length",
];

/// Header that stores the public path prefix, which is in front of the paths in conditions.
const PREFIX_HEADER: HeaderName = HeaderName::from_static("x-forwarded-prefix");

/// Stored request that created an upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SavedRequest {
    uri: Uri,
    headers: HeaderMap,
}

impl SavedRequest {
    /// Copies from a request what is stored.
    pub(super) fn from_context(context: &RequestContext) -> Self {
        let saved = context.headers.iter().filter(|(name, _)| SAVED_HEADERS.contains(&name.as_str()));
        let mut headers: HeaderMap = saved.map(|(name, value)| (name.clone(), value.clone())).collect();
        // All names of the server, not only `Host`: an `If` header may use any of them.
        for name in context.server.names() {
            headers.extend(HeaderValue::try_from(name.to_string()).map(|name| (header::HOST, name)));
        }
        headers.extend(HeaderValue::try_from(context.server.prefix()).map(|prefix| (PREFIX_HEADER, prefix)));
        // The path was parsed from a URI, so it can be parsed as one again.
        // Only the path: userinfo or a query could contain a password.
        Self { uri: Uri::try_from(context.uri.path()).unwrap_or_default(), headers }
    }

    /// Parses the stored form; `None` where it is malformed.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut lines = bytes.split(|byte| *byte == b'\n');
        let uri = Uri::try_from(lines.next()?).ok()?;
        let mut headers = HeaderMap::new();
        for line in lines.filter(|line| !line.is_empty()) {
            // At the first colon: a header name can't contain one, a value can.
            let (name, value) = line.split_at_checked(memchr::memchr(b':', line)?)?;
            let name = HeaderName::from_bytes(name).ok()?;
            headers.append(name, HeaderValue::from_bytes(value.get(1..)?).ok()?);
        }
        Some(Self { uri, headers })
    }

    /// Serializes the request: the target in the first line, then the headers. A header value can't contain a line
    /// feed.
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

    /// Returns the stored headers.
    pub(super) fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Restores the request, in another session of the token that sent it.
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
        // The names that were valid for the first request, whatever proxy the last one passed.
        let names = self.headers.get_all(header::HOST).iter().filter_map(|name| ServerName::parse(name.as_bytes()));
        let prefix = self.headers.get(PREFIX_HEADER).and_then(|prefix| prefix.to_str().ok()).unwrap_or_default();
        head.extensions.insert(PublicAddress::from_parts(names.collect(), prefix.to_owned()));
        // Always PUT: the commit of an upload that POST created is that of a PUT.
        RequestContext::new(DavMethod::Put, Box::new(head), tree, session, now).await
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
            let saved_request = SavedRequest { uri: target.parse().expect("target"), headers: headers.clone() };
            assert_eq!(SavedRequest::parse(&saved_request.to_bytes()), Some(saved_request), "{target}");
        }
        for bytes in ["", "\n", "/dav/\nno colon\n", "/dav/\nbad name:x\n", "/d av/\n"] {
            assert_eq!(SavedRequest::parse(bytes.as_bytes()), None, "{bytes}");
        }
    }
}
