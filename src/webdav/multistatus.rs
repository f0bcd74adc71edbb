//! XML of responses (RFC 4918 section 14), written directly as text.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::request_context::RequestContext;
use super::xml::{self, DAV_NAMESPACE};
use crate::domain::TreePath;
use crate::http::{ResponseBody, full};
use crate::tree::{DavLock, PATGATE_NAMESPACE, PropertyName};

/// End of every multistatus body.
pub(super) const MULTISTATUS_END: &str = "</D:multistatus>\n";

/// Size from which the first block of a streamed multistatus is sent: small, so that the client reads it while the next
/// one is written.
const FIRST_BLOCK_BYTES: usize = 32 << 10;
/// Size of each further block: it is written and sent while it is in the cache of a processor.
const BLOCK_BYTES: usize = 64 << 10;
/// Room for the entry that exceeds a block, which saves a reallocation.
const LAST_ENTRY_BYTES: usize = 4 << 10;

/// Text of the next block of a streamed multistatus.
pub(super) struct MultistatusBlock {
    /// Text written so far.
    pub(super) text: String,
    /// Size from which it is sent.
    full_bytes: usize,
}

impl MultistatusBlock {
    /// Creates the first block, with the start of the body.
    pub(super) fn first() -> Self {
        Self { text: start(), full_bytes: FIRST_BLOCK_BYTES }
    }

    /// Tells whether the block is to be sent.
    pub(super) fn is_full(&self) -> bool {
        self.text.len() >= self.full_bytes
    }

    /// Takes the block and begins the next one; `done` tells that there is none.
    pub(super) fn take(&mut self, done: bool) -> Bytes {
        self.full_bytes = BLOCK_BYTES;
        let next = if done { String::new() } else { String::with_capacity(BLOCK_BYTES + LAST_ENTRY_BYTES) };
        std::mem::replace(&mut self.text, next).into()
    }
}

/// Returns the start of every multistatus body; declares the prefixes `D` and `P`.
pub(super) fn start() -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n\
         <D:multistatus xmlns:D=\"DAV:\" xmlns:P=\"{PATGATE_NAMESPACE}\">\n"
    )
}

/// Returns a response with status 207 and this body.
pub(super) fn response(body: ResponseBody) -> Response<ResponseBody> {
    xml_response(StatusCode::MULTI_STATUS, body)
}

/// Returns a response whose body is XML.
pub(super) fn xml_response(status: StatusCode, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml; charset=utf-8"));
    response
}

/// Returns a response whose body is one `D:prop` element.
pub(super) fn prop_response(status: StatusCode, inner: &str) -> Response<ResponseBody> {
    let text = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:prop xmlns:D=\"DAV:\">{inner}</D:prop>\n");
    xml_response(status, full(text))
}

/// Appends a property without a value.
pub(super) fn write_empty_property(name: &PropertyName, out: &mut String) {
    let PropertyName { namespace, name } = name;
    if namespace == DAV_NAMESPACE {
        out.push_str(&format!("<D:{name}/>"));
    } else if namespace.is_empty() {
        // A multistatus declares no default namespace: an unprefixed name is in none.
        out.push_str(&format!("<{name}/>"));
    } else {
        // The prefix of the client is not used: it may be bound to something else here.
        out.push_str(&format!("<x:{name} xmlns:x=\""));
        xml::escape(namespace, out);
        out.push_str("\"/>");
    }
}

/// Appends a propstat of properties that share a status, and the element of the violated condition, if any.
pub(super) fn write_propstat(properties: &str, status: &str, condition: Option<&str>, out: &mut String) {
    write_described_propstat(properties, status, condition, None, out);
}

/// Does the same with a `responsedescription` for people (RFC 4918 section 14.25), if any.
pub(super) fn write_described_propstat(
    properties: &str,
    status: &str,
    condition: Option<&str>,
    description: Option<&str>,
    out: &mut String,
) {
    out.push_str("<D:propstat><D:prop>");
    out.push_str(properties);
    out.push_str("</D:prop><D:status>HTTP/1.1 ");
    out.push_str(status);
    out.push_str("</D:status>");
    if let Some(condition) = condition {
        out.push_str(&format!("<D:error><D:{condition}/></D:error>"));
    }
    if let Some(description) = description {
        out.push_str(&format!("<D:responsedescription>{description}</D:responsedescription>"));
    }
    out.push_str("</D:propstat>");
}

/// Appends `D:lockdiscovery` (section 15.8) of the locks that cover an entry. The token is shown only to the user that
/// owns the lock, and a lock root above the root of the client is shown as the latter.
pub(super) fn write_lock_discovery(
    context: &RequestContext,
    path: &TreePath,
    is_directory: bool,
    locks: &[DavLock],
    out: &mut String,
) {
    out.push_str("<D:lockdiscovery>");
    for lock in locks {
        let scope = if lock.exclusive { "exclusive" } else { "shared" };
        let depth = if lock.depth_infinity { "infinity" } else { "0" };
        out.push_str(&format!(
            "<D:activelock><D:locktype><D:write/></D:locktype><D:lockscope><D:{scope}/></D:lockscope><D:depth>{depth}</D:depth>"
        ));
        // Not escaped: it was parsed and serialized again when the lock was created.
        out.push_str(&lock.owner);
        out.push_str(&format!(
            "<D:timeout>Second-{}</D:timeout>",
            // Never more than was granted, whatever the clock says.
            lock.expires.saturating_duration_since(context.now).min(lock.timeout).as_secs()
        ));
        // Whoever knows the token can submit it: other users see only that the file is locked.
        if lock.login == *context.view.session().login() {
            out.push_str("<D:locktoken><D:href>");
            xml::escape(lock.token.as_str(), out);
            out.push_str("</D:href></D:locktoken>");
        }
        let root = context.client_root.href(&lock.root, is_directory || lock.root != *path);
        out.push_str(&format!("<D:lockroot><D:href>{root}</D:href></D:lockroot></D:activelock>"));
    }
    out.push_str("</D:lockdiscovery>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_properties_keep_their_namespace() {
        let mut out = String::new();
        for (namespace, name) in [("DAV:", "a"), ("", "b"), ("u:\"<", "c")] {
            write_empty_property(&PropertyName { namespace: namespace.into(), name: name.into() }, &mut out);
        }
        assert_eq!(out, "<D:a/><b/><x:c xmlns:x=\"u:&quot;&lt;\"/>");
    }
}
