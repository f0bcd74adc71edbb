//! Why a request was refused, and the status that says so: translated here and nowhere else.

use std::borrow::Cow;

use crate::auth::SessionEnded;
use crate::domain::PathError;
use crate::store::ClientStoreError;
use crate::tree;

/// The result of a request.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// A status code (draft-ietf-secsh-filexfer-02 section 7).
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
    /// Returns the code as it is sent.
    pub(super) fn code(self) -> u32 {
        self as u32
    }
}

/// A refusal.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The tree refused.
    #[error(transparent)]
    Tree(#[from] tree::Error),
    /// The bytes are no path.
    #[error(transparent)]
    Path(#[from] PathError),
    /// Nothing more to read.
    #[error("end of file")]
    Eof,
    /// The handle names nothing.
    #[error("the handle is not open")]
    InvalidHandle,
    /// The handle is open, but not for this.
    #[error("the handle was not opened for that")]
    WrongHandleKind,
    /// The session has as many handles as it may.
    #[error("too many open files and folders")]
    TooManyHandles,
    /// Another owner or group than the one that is shown.
    #[error("owners can't be changed")]
    OwnerChange,
    /// `.` or `..` where an entry of a directory was needed.
    #[error("`.` and `..` are not entries of a directory")]
    DotEntry,
    /// A link was needed.
    #[error("not a symbolic link")]
    NotSymlink,
    /// copy-data within one file.
    #[error("source and target are the same file")]
    SameFile,
    /// No hash algorithm that is known.
    #[error("none of these hash algorithms is known")]
    UnknownHashAlgorithm,
    /// Hashes of blocks that are too small.
    #[error("a block is 256 bytes at least")]
    HashBlockTooSmall,
    /// More hashes than fit into an answer.
    #[error("too many blocks: an answer holds {0}, ask for larger ones or a part of the file")]
    TooManyHashBlocks(usize),
    /// More files are hashed than may be.
    #[error("too many files are hashed at once: try again")]
    TooManyHashes,
    /// Another user's home.
    #[error("no such user")]
    NoSuchUser,
    /// The body can't be read.
    #[error("the request is malformed")]
    Malformed,
    /// A request that isn't known.
    #[error("the request is not supported")]
    Unsupported,
}

impl From<SessionEnded> for Error {
    fn from(ended: SessionEnded) -> Self {
        Self::Tree(ended.into())
    }
}

impl Error {
    /// Returns the status and the sentence that the client is told; what is for the log goes there.
    pub(super) fn status(&self) -> (SftpStatus, Cow<'static, str>) {
        let status = match self {
            Self::Tree(error) => return tree_status(error),
            Self::Path(PathError::TooLong) => SftpStatus::BadMessage,
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

/// What is missing, hidden and can't be: one answer.
fn no_such_file() -> (SftpStatus, Cow<'static, str>) {
    (SftpStatus::NoSuchFile, Cow::Borrowed("no such file or folder"))
}

fn tree_status(error: &tree::Error) -> (SftpStatus, Cow<'static, str>) {
    use tree::Error as E;
    let status = match error {
        E::Absent | E::NoParent | E::InvalidName => return no_such_file(),
        E::NotADirectory => SftpStatus::NoSuchFile,
        E::Locked { root, .. } => {
            return (SftpStatus::PermissionDenied, Cow::Owned(format!("a WebDAV lock on {root} holds it")));
        }
        E::Forbidden | E::SessionEnded(_) | E::TypeNotAllowed(_) | E::TagNotAllowed(_) => SftpStatus::PermissionDenied,
        E::AlreadyExists | E::IsADirectory | E::DirectoryNotEmpty | E::Overlap | E::PreconditionFailed => {
            SftpStatus::Failure
        }
        E::TooLarge(_) | E::NoSpace | E::WriteFailed | E::PathTooLong => SftpStatus::Failure,
        E::Replaced | E::Superseded | E::UploadInProgress | E::WrongOpenMode | E::TooManyOpenFiles => {
            SftpStatus::Failure
        }
        E::Unsupported => SftpStatus::OpUnsupported,
        E::Unavailable(_) | E::TreeMismatch => SftpStatus::Failure,
        E::Filesystem(error) => {
            tracing::warn!(error = %error, "the host failed");
            return (SftpStatus::Failure, Cow::Borrowed("the server has a fault"));
        }
        E::Store(error) if error.client_error().is_some() => {
            let text = error.client_error().map_or("", ClientStoreError::message);
            tracing::warn!(error = %error, "a request was refused");
            return (SftpStatus::Failure, Cow::Borrowed(text));
        }
        E::Store(error) => {
            tracing::error!(error = %error, "the store failed");
            return (SftpStatus::Failure, Cow::Borrowed("the server has a fault"));
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
