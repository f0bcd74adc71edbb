//! The methods that are answered.

use http::{HeaderValue, Method};

/// What `Allow` says.
pub(super) const ALLOW: HeaderValue = HeaderValue::from_static(
    "OPTIONS, GET, HEAD, PUT, DELETE, MKCOL, PATCH, PROPFIND, PROPPATCH, REPORT, COPY, MOVE, LOCK, UNLOCK",
);

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

    /// Tells whether it may make something at the place that it names.
    pub(super) fn creates(self) -> bool {
        matches!(self, Self::Put | Self::Post | Self::Mkcol | Self::Lock)
    }
}
