//! What was done: one value for each finished operation, of which metrics and access log are made.

use std::time::Duration;

/// Declares an enum of names that are labels of metrics and fields of the access log.
macro_rules! declare_names {
    ($(#[doc = $doc:literal])+ $type:ident { $($variant:ident = $name:literal,)+ }) => {
        $(#[doc = $doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the name beside each variant says what it is")]
        pub enum $type {
            $($variant,)+
        }

        impl $type {
            /// All of them, in the order of their declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// Returns the name in metrics and in the access log.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }
        }
    };
}

declare_names! {
    /// Part of the server that answers an HTTP request, by its path.
    HttpArea { Webdav = "webdav", Api = "api", Console = "console", Other = "http", }
}

declare_names! {
    /// Method of an HTTP request. Clients can invent methods: all but these are one.
    HttpMethodName {
        Get = "GET",
        Head = "HEAD",
        Put = "PUT",
        Post = "POST",
        Patch = "PATCH",
        Delete = "DELETE",
        Options = "OPTIONS",
        Propfind = "PROPFIND",
        Proppatch = "PROPPATCH",
        Mkcol = "MKCOL",
        Copy = "COPY",
        Move = "MOVE",
        Lock = "LOCK",
        Unlock = "UNLOCK",
        Report = "REPORT",
        Other = "other",
    }
}

impl HttpMethodName {
    /// Returns the name of a method; methods are compared with case (RFC 9110 section 9.1).
    pub fn from_http(method: &str) -> Self {
        let known = || Self::ALL.iter().copied().find(|known| known.as_str() == method);
        match method {
            // First, since nearly all requests are these.
            "GET" => Self::Get,
            "PUT" => Self::Put,
            // Otherwise a method with the very name of the rest would be found.
            "other" => Self::Other,
            _ => known().unwrap_or(Self::Other),
        }
    }
}

declare_names! {
    /// Request of an SFTP client, and its login.
    SftpRequestName {
        Open = "OPEN",
        Close = "CLOSE",
        Read = "READ",
        Write = "WRITE",
        Stat = "STAT",
        Lstat = "LSTAT",
        Fstat = "FSTAT",
        Setstat = "SETSTAT",
        Lsetstat = "lsetstat",
        Fsetstat = "FSETSTAT",
        Opendir = "OPENDIR",
        Readdir = "READDIR",
        Mkdir = "MKDIR",
        Rmdir = "RMDIR",
        Remove = "REMOVE",
        Rename = "RENAME",
        PosixRename = "posix-rename",
        Hardlink = "hardlink",
        Symlink = "SYMLINK",
        Readlink = "READLINK",
        Realpath = "REALPATH",
        ExpandPath = "expand-path",
        HomeDirectory = "home-directory",
        Statvfs = "statvfs",
        Fstatvfs = "fstatvfs",
        Fsync = "fsync",
        CopyData = "copy-data",
        CheckFile = "check-file",
        Limits = "limits",
        UsersGroupsById = "users-groups-by-id",
        Login = "LOGIN",
        Other = "other",
    }
}

/// Kind of an operation: its protocol, and its method or request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// A request over HTTP.
    Http(HttpArea, HttpMethodName),
    /// A request over SFTP.
    Sftp(SftpRequestName),
}

impl OperationKind {
    /// Number of all kinds.
    pub(super) const COUNT: usize = HttpArea::ALL.len() * HttpMethodName::ALL.len() + SftpRequestName::ALL.len();

    /// Returns all kinds, in the order of their indexes.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        let of_area = |area: &HttpArea| {
            let area = *area;
            HttpMethodName::ALL.iter().map(move |method| Self::Http(area, *method))
        };
        HttpArea::ALL.iter().flat_map(of_area).chain(SftpRequestName::ALL.iter().map(|name| Self::Sftp(*name)))
    }

    /// Returns the index among all kinds.
    pub(super) fn index(self) -> usize {
        match self {
            Self::Http(area, method) => area as usize * HttpMethodName::ALL.len() + method as usize,
            Self::Sftp(name) => HttpArea::ALL.len() * HttpMethodName::ALL.len() + name as usize,
        }
    }

    /// Returns the name of the protocol.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Http(area, _) => area.as_str(),
            Self::Sftp(_) => "sftp",
        }
    }

    /// Returns the name of the method or request.
    pub fn operation(self) -> &'static str {
        match self {
            Self::Http(_, method) => method.as_str(),
            Self::Sftp(name) => name.as_str(),
        }
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationStatus {
    /// The status of the response over HTTP.
    Http(u16),
    /// The client of a request over HTTP had gone before there was a response.
    Aborted,
    /// The status code of the reply over SFTP (draft-ietf-secsh-filexfer-02 section 7).
    Sftp(u32),
}

/// Number of classes that the statuses of one protocol fall into, at most.
pub(super) const STATUS_CLASSES: usize = 7;
const HTTP_STATUS_CLASSES: [&str; STATUS_CLASSES] = ["1xx", "2xx", "3xx", "4xx", "5xx", "aborted", ""];
const SFTP_STATUS_CLASSES: [&str; STATUS_CLASSES] =
    ["ok", "eof", "no_such_file", "permission_denied", "failure", "bad_message", "op_unsupported"];

impl OperationStatus {
    /// Returns the index of the status class.
    pub(super) fn class_index(self) -> usize {
        match self {
            Self::Http(status) => match status / 100 {
                1..=4 => usize::from(status / 100 - 1),
                _ => 4,
            },
            Self::Aborted => 5,
            // The code of an operation that is not supported is 8; 6 and 7 are for clients alone.
            Self::Sftp(8) => 6,
            Self::Sftp(code) => usize::try_from(code).map_or(4, |code| if code <= 5 { code } else { 4 }),
        }
    }
}

/// Returns the name of the status class with an index, for operations of a kind.
pub(super) fn status_class_name(kind: OperationKind, index: usize) -> &'static str {
    let names = match kind {
        OperationKind::Http(..) => &HTTP_STATUS_CLASSES,
        OperationKind::Sftp(_) => &SFTP_STATUS_CLASSES,
    };
    names.get(index).copied().unwrap_or_default()
}

/// An operation that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FinishedOperation {
    /// Protocol, and method or request.
    pub kind: OperationKind,
    /// How it ended.
    pub status: OperationStatus,
    /// Number of bytes of content that were received and read.
    pub received_bytes: u64,
    /// Number of bytes of content that were sent.
    pub sent_bytes: u64,
    /// Time from its first byte to the end of its response.
    pub duration: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_distinct_indexes_in_order() {
        let indexes: Vec<_> = OperationKind::all().map(OperationKind::index).collect();
        assert_eq!(indexes, (0..OperationKind::COUNT).collect::<Vec<_>>());
    }

    #[test]
    fn unknown_methods_are_one_name() {
        for method in ["get", "BREW", "other", "", "PROPFINDX"] {
            assert_eq!(HttpMethodName::from_http(method), HttpMethodName::Other, "{method}");
        }
        for name in HttpMethodName::ALL {
            assert_eq!(HttpMethodName::from_http(name.as_str()), *name);
        }
    }

    #[test]
    fn every_status_has_a_class() {
        let http = OperationKind::Http(HttpArea::Webdav, HttpMethodName::Get);
        let name = |status: OperationStatus| status_class_name(http, status.class_index());
        for (status, class) in
            [(100, "1xx"), (207, "2xx"), (304, "3xx"), (499, "4xx"), (507, "5xx"), (999, "5xx"), (0, "5xx")]
        {
            assert_eq!(name(OperationStatus::Http(status)), class, "{status}");
        }
        assert_eq!(name(OperationStatus::Aborted), "aborted");
        let sftp = OperationKind::Sftp(SftpRequestName::Open);
        for (code, class) in [
            (0, "ok"),
            (1, "eof"),
            (3, "permission_denied"),
            (8, "op_unsupported"),
            (7, "failure"),
            (u32::MAX, "failure"),
        ] {
            assert_eq!(status_class_name(sftp, OperationStatus::Sftp(code).class_index()), class, "{code}");
        }
    }
}
