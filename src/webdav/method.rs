//! The methods that are answered.

use http::Method;

/// What is answered in the tree, as `Allow` says it.
pub(super) const TREE_METHODS: &str =
    "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, PATCH, PROPFIND, PROPPATCH, REPORT, COPY, MOVE, LOCK, UNLOCK";
/// What is answered for an upload that goes on where it ended.
pub(super) const UPLOAD_METHODS: &str = "OPTIONS, HEAD, GET, PATCH, DELETE";
/// What is answered for an upload in parts, and for its parts.
pub(super) const CHUNK_METHODS: &str = "OPTIONS, MKCOL, PROPFIND, PUT, MOVE, DELETE";
/// What is answered for a principal.
pub(super) const PRINCIPAL_METHODS: &str = "OPTIONS, PROPFIND";

/// A method of RFC 9110 or RFC 4918.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DavMethod {
    /// What the server can.
    Options,
    /// A file's content, a folder's page.
    Get,
    /// The same without its content.
    Head,
    /// An upload.
    Put,
    /// A removal.
    Delete,
    /// A new folder.
    Mkcol,
    /// Properties of an entry and those in it.
    Propfind,
    /// A change of properties.
    Proppatch,
    /// A copy.
    Copy,
    /// A move.
    Move,
    /// A lock, or its new life.
    Lock,
    /// The end of a lock.
    Unlock,
    /// What has changed in a folder.
    Report,
    /// A part of a file, or of an upload.
    Patch,
    /// An upload that may take several requests.
    Post,
}

impl DavMethod {
    /// Reads a method; none for one that is not answered.
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

    /// Returns what is answered in the tree at a place where it is not (RFC 9110 section 15.5.6).
    pub(super) fn tree_methods_except(this: Option<Self>) -> String {
        let is_this = |name: &&str| {
            let method = Method::from_bytes(name.as_bytes()).ok().and_then(|method| Self::from_http(&method));
            this.is_some() && method == this
        };
        TREE_METHODS.split(", ").filter(|name| !is_this(name)).collect::<Vec<_>>().join(", ")
    }

    /// Tells whether it may make something at the place that it names.
    pub(super) fn may_create(self) -> bool {
        matches!(self, Self::Put | Self::Post | Self::Mkcol | Self::Lock)
    }
}
