//! Supported methods, and the `Allow` headers that list them.

use http::Method;

/// Methods of resources in the tree, in the form of `Allow`.
pub(super) const TREE_METHODS: &str =
    // Without POST: it is accepted only with `Upload-Complete`, as the creation of a resumable upload.
    "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, PATCH, PROPFIND, PROPPATCH, REPORT, COPY, MOVE, LOCK, UNLOCK";
/// Methods of a resumable upload.
pub(super) const UPLOAD_METHODS: &str = "OPTIONS, HEAD, GET, PATCH, DELETE";
/// Methods of a chunked upload and of its chunks.
pub(super) const CHUNK_METHODS: &str = "OPTIONS, MKCOL, PROPFIND, PUT, MOVE, DELETE";
/// Methods of a principal.
pub(super) const PRINCIPAL_METHODS: &str = "OPTIONS, PROPFIND";

/// Supported method of RFC 9110, RFC 5789 (PATCH), RFC 4918 or RFC 3253 (REPORT).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DavMethod {
    /// Capabilities of the server.
    Options,
    /// Content of a file, or the index page of a directory.
    Get,
    /// GET without the body.
    Head,
    /// Upload of a file.
    Put,
    /// Removal of a file, or of a directory with its descendants.
    Delete,
    /// Creation of a directory.
    Mkcol,
    /// Properties of a resource and its members.
    Propfind,
    /// Change of properties.
    Proppatch,
    /// Copy to the destination.
    Copy,
    /// Move to the destination.
    Move,
    /// Creation or refresh of a lock.
    Lock,
    /// Removal of a lock.
    Unlock,
    /// Changes in a directory (`sync-collection`).
    Report,
    /// Write of a part of a file, or append to an upload.
    Patch,
    /// Creation of a resumable upload.
    Post,
}

impl DavMethod {
    /// Parses a method; `None` for an unsupported one.
    pub(super) fn from_http(method: &Method) -> Option<Self> {
        Some(match method.as_str() {
            "OPTIONS" => Self::Options,
            "GET" => Self::Get,
            "HEAD" => Self::Head,
            "PUT" => Self::Put,
            "DELETE" => Self::Delete,
            "MKCOL" => Self::Mkcol,
            "PROPFIND" => Self::Propfind,
            "PROPPATCH" => Self::Proppatch,
            "COPY" => Self::Copy,
            "MOVE" => Self::Move,
            "LOCK" => Self::Lock,
            "UNLOCK" => Self::Unlock,
            "REPORT" => Self::Report,
            "PATCH" => Self::Patch,
            "POST" => Self::Post,
            _ => return None,
        })
    }

    /// Returns the value of `Allow` for a resource in the tree that does not support `this` method (RFC 9110 section
    /// 15.5.6).
    pub(super) fn tree_methods_except(this: Option<Self>) -> String {
        let is_this = |name: &&str| {
            let method = Method::from_bytes(name.as_bytes()).ok().and_then(|method| Self::from_http(&method));
            this.is_some() && method == this
        };
        TREE_METHODS.split(", ").filter(|name| !is_this(name)).collect::<Vec<_>>().join(", ")
    }

    /// Tells whether the method may create the resource that it names.
    pub(super) fn may_create(self) -> bool {
        // Not COPY and MOVE: they create at the destination, whose errors `Error::InvalidDestination` maps.
        matches!(self, Self::Put | Self::Post | Self::Mkcol | Self::Lock)
    }
}
