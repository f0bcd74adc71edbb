//! Errors of requests, and their only translation into status codes.

use std::borrow::Cow;

use crate::auth::SessionEnded;
use crate::domain::PathError;
use crate::store::ClientStoreError;
use crate::tree;

/// Result of a request.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// Status code of a STATUS reply (draft-ietf-secsh-filexfer-02 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum SftpStatus {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

impl SftpStatus {
    /// Returns the code on the wire.
    pub(super) fn code(self) -> u32 {
        self as u32
    }
}

/// Error of a request.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The tree refused the operation.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The path is invalid.
    #[error(transparent)]
    Path(#[from] PathError),
    /// No more data or entries.
    #[error("end of file")]
    Eof,
    /// No such handle is open.
    #[error("the handle is invalid or closed")]
    InvalidHandle,
    /// The handle is that of a directory where a file is needed, or the reverse.
    #[error("the request does not fit the type of the handle (file or directory)")]
    WrongHandleKind,
    /// The session is at its limit of open handles.
    #[error("too many open files and directories: close some")]
    TooManyHandles,
    /// The request would change the owner or group.
    #[error("owner and group can't be changed")]
    OwnerChange,
    /// The path ends in `.` or `..` where an entry is needed.
    #[error("`.` and `..` are not entries of a directory")]
    DotEntry,
    /// READLINK of an entry that is not a symbolic link.
    #[error("not a symbolic link")]
    NotSymlink,
    /// copy-data from a file into itself.
    #[error("source and target are the same file")]
    SameFile,
    /// None of the hash algorithms is supported.
    #[error("none of the hash algorithms is supported")]
    UnknownHashAlgorithm,
    /// check-file with blocks below the minimum size.
    #[error("the block size is below the minimum of 256 bytes")]
    HashBlockTooSmall,
    /// check-file with more hashes than fit into a reply.
    #[error("too many blocks: a reply holds {0} hashes, request larger blocks or a part of the file")]
    TooManyHashBlocks(usize),
    /// The limit of concurrent hashes is reached.
    #[error("too many concurrent hashes: try again later")]
    TooManyHashes,
    /// The home directory of another user.
    #[error("no such user")]
    NoSuchUser,
    /// The request's body is truncated or inconsistent.
    #[error("the request is malformed")]
    Malformed,
    /// A request type or an extension that is not implemented.
    #[error("the request is not supported")]
    Unsupported,
}

impl From<SessionEnded> for Error {
    fn from(ended: SessionEnded) -> Self {
        Self::Tree(ended.into())
    }
}

impl Error {
    /// Returns the status and the message for the client; errors of the host and the store are logged instead.
    pub(super) fn status(&self) -> (SftpStatus, Cow<'static, str>) {
        // Without a wildcard: a new error has to choose its status.
        let status = match self {
            Self::Tree(error) => return tree_status(error),
            // As OpenSSH maps ENAMETOOLONG.
            Self::Path(PathError::TooLong) => SftpStatus::BadMessage,
            // Names that can't exist, the reserved one above all, are answered like names that don't.
            Self::Path(
                PathError::EmptyComponent
                | PathError::DotComponent
                | PathError::Nul
                | PathError::Slash
                | PathError::Reserved,
            ) => return no_such_file(),
            Self::Eof => SftpStatus::Eof,
            Self::InvalidHandle | Self::WrongHandleKind | Self::TooManyHandles => SftpStatus::Failure,
            Self::NotSymlink | Self::DotEntry | Self::SameFile => SftpStatus::Failure,
            Self::HashBlockTooSmall | Self::TooManyHashBlocks(_) | Self::TooManyHashes => SftpStatus::Failure,
            Self::OwnerChange => SftpStatus::PermissionDenied,
            Self::NoSuchUser => SftpStatus::NoSuchFile,
            Self::Malformed => SftpStatus::BadMessage,
            Self::UnknownHashAlgorithm | Self::Unsupported => SftpStatus::OpUnsupported,
        };
        (status, Cow::Owned(self.to_string()))
    }
}

/// Returns the one reply for missing, hidden and impossible names.
fn no_such_file() -> (SftpStatus, Cow<'static, str>) {
    (SftpStatus::NoSuchFile, Cow::Borrowed("no such file or directory"))
}

fn tree_status(error: &tree::Error) -> (SftpStatus, Cow<'static, str>) {
    use tree::Error as E;
    let status = match error {
        E::Absent | E::NoParent | E::InvalidName => return no_such_file(),
        // As OpenSSH maps ENOTDIR.
        E::NotADirectory => SftpStatus::NoSuchFile,
        E::Locked { root, .. } => {
            return (SftpStatus::PermissionDenied, Cow::Owned(format!("{root} is locked by a WebDAV client")));
        }
        E::Forbidden | E::RefusedByHost(_) | E::SessionEnded(_) | E::TypeNotAllowed(_) | E::TagNotAllowed(_) => {
            SftpStatus::PermissionDenied
        }
        // Version 3 has no codes for these. Clients that create all directories of a path take FAILURE for "exists".
        E::AlreadyExists | E::IsADirectory | E::DirectoryNotEmpty | E::Overlap | E::PreconditionFailed => {
            SftpStatus::Failure
        }
        E::TooLarge(_) | E::StorageQuotaExceeded { .. } | E::NoSpace | E::WriteFailed | E::PathTooLong => {
            SftpStatus::Failure
        }
        E::Replaced | E::Superseded | E::UploadInProgress | E::WrongOpenMode | E::TooManyOpenFiles => {
            SftpStatus::Failure
        }
        E::Unsupported => SftpStatus::OpUnsupported,
        E::Unavailable(_) | E::TreeMismatch => SftpStatus::Failure,
        // The text may contain paths of the host: it goes to the log only.
        E::Filesystem(error) => {
            tracing::warn!(error = %error, "a file system operation failed");
            return (SftpStatus::Failure, Cow::Borrowed("internal server error"));
        }
        // Quota, disk full, busy: the store has a message that is meant for clients.
        E::Store(error) if error.client_error().is_some() => {
            let text = error.client_error().map_or("", ClientStoreError::message);
            tracing::warn!(error = %error, "the store refused a request");
            return (SftpStatus::Failure, Cow::Borrowed(text));
        }
        E::Store(error) => {
            tracing::error!(error = %error, "the store failed");
            return (SftpStatus::Failure, Cow::Borrowed("internal server error"));
        }
    };
    (status, Cow::Owned(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_and_missing_entries_get_same_status() {
        let missing = Error::Tree(tree::Error::Absent).status();
        for other in [Error::Tree(tree::Error::NoParent), Error::Path(PathError::Reserved), PathError::Nul.into()] {
            assert_eq!(other.status(), missing);
        }
    }

    #[test]
    fn host_errors_are_not_disclosed_to_client() {
        let error = std::io::Error::other("/srv/secret is on fire");
        let (status, message) = Error::Tree(tree::Error::Filesystem(error)).status();
        assert_eq!(status, SftpStatus::Failure);
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn refusal_by_host_names_the_server_and_not_the_token() {
        let error = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let (status, message) = Error::Tree(tree::Error::RefusedByHost(error)).status();
        assert_eq!(status, SftpStatus::PermissionDenied);
        assert!(message.starts_with("the server itself may not do this"), "{message}");
    }

    #[test]
    fn store_shortage_is_failure_with_reason() {
        use crate::store::StoreError;
        for (error, message) in [
            (StoreError::DiskFull, "the disk that holds the server's state is full"),
            (StoreError::Busy, "the server's store is busy: try again"),
            (StoreError::QuotaExceeded("as many as may be"), "as many as may be"),
        ] {
            assert_eq!(Error::Tree(error.into()).status(), (SftpStatus::Failure, Cow::Borrowed(message)));
        }
    }

    #[test]
    fn error_statuses_match_openssh() {
        use tree::Error as E;
        let cases: [(Error, SftpStatus); 8] = [
            (E::Forbidden.into(), SftpStatus::PermissionDenied),
            (E::AlreadyExists.into(), SftpStatus::Failure),
            (E::DirectoryNotEmpty.into(), SftpStatus::Failure),
            (E::NotADirectory.into(), SftpStatus::NoSuchFile),
            (E::NoSpace.into(), SftpStatus::Failure),
            (E::Unsupported.into(), SftpStatus::OpUnsupported),
            (Error::Malformed, SftpStatus::BadMessage),
            (Error::InvalidHandle, SftpStatus::Failure),
        ];
        for (error, status) in cases {
            assert_eq!(error.status().0, status, "{error}");
        }
    }
}
