//! The methods that are answered.

use http::Method;

/// What is answered in the tree, as `Allow` says it.
pub(super) const IN_TREE: &str =
    "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, PATCH, PROPFIND, PROPPATCH, REPORT, COPY, MOVE, LOCK, UNLOCK";
/// What is answered for an upload that goes on where it ended.
pub(super) const FOR_UPLOAD: &str = "OPTIONS, HEAD, GET, PATCH, DELETE";
/// What is answered for an upload in parts, and for its parts.
pub(super) const FOR_PARTS: &str = "OPTIONS, MKCOL, PROPFIND, PUT, MOVE, DELETE";
/// What is answered for a principal.
pub(super) const FOR_PRINCIPAL: &str = "OPTIONS, PROPFIND";

/// A method of RFC 9110 or RFC 4918.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verb {
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

impl Verb {
    /// Reads a method; none for one that is not answered.
    pub(super) fn of(method: &Method) -> Option<Self> {
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
    pub(super) fn others(this: Option<Self>) -> String {
        let is_this = |name: &&str| {
            let verb = Method::from_bytes(name.as_bytes()).ok().and_then(|method| Self::of(&method));
            this.is_some() && verb == this
        };
        IN_TREE.split(", ").filter(|name| !is_this(name)).collect::<Vec<_>>().join(", ")
    }

    /// Tells whether it may make something at the place that it names.
    pub(super) fn creates(self) -> bool {
        matches!(self, Self::Put | Self::Post | Self::Mkcol | Self::Lock)
    }
}
