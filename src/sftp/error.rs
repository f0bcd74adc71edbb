//! Why a request was refused, and the status that says so: translated here and nowhere else.

use std::borrow::Cow;

use crate::auth::Ended;
use crate::domain::PathError;
use crate::store::Shortage;
use crate::tree;

/// The result of a request.
pub(super) type Result<T> = std::result::Result<T, Error>;

/// A status code (draft-ietf-secsh-filexfer-02 section 7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Status {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

impl Status {
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
    NoHandle,
    /// The handle is open, but not for this.
    #[error("the handle was not opened for that")]
    WrongHandle,
    /// The session has as many handles as it may.
    #[error("too many open files and folders")]
    TooManyHandles,
    /// Another owner or group than the one that is shown.
    #[error("owners can't be changed")]
    Owner,
    /// `.` or `..` where an entry of a directory was needed.
    #[error("`.` and `..` are not entries of a directory")]
    Dots,
    /// A link was needed.
    #[error("not a symbolic link")]
    NotLink,
    /// copy-data within one file.
    #[error("source and target are the same file")]
    SameFile,
    /// No hash algorithm that is known.
    #[error("none of these hash algorithms is known")]
    NoHash,
    /// Hashes of blocks that are too small.
    #[error("a block is 256 bytes at least")]
    SmallBlock,
    /// More hashes than fit into an answer.
    #[error("too many blocks: an answer holds {0}, ask for larger ones or a part of the file")]
    ManyBlocks(usize),
    /// More files are hashed than may be.
    #[error("too many files are hashed at once: try again")]
    ManyHashes,
    /// Another user's home.
    #[error("no such user")]
    NoUser,
    /// The body can't be read.
    #[error("the request is malformed")]
    Malformed,
    /// A request that isn't known.
    #[error("the request is not supported")]
    Unsupported,
}

impl From<Ended> for Error {
    fn from(ended: Ended) -> Self {
        Self::Tree(ended.into())
    }
}

impl Error {
    /// Returns the status and the sentence that the client is told; what is for the log goes there.
    pub(super) fn status(&self) -> (Status, Cow<'static, str>) {
        let status = match self {
            Self::Tree(error) => return tree_status(error),
            Self::Path(PathError::TooLong) => Status::BadMessage,
            Self::Path(
                PathError::EmptyPart | PathError::Dots | PathError::Nul | PathError::Slash | PathError::Reserved,
            ) => return absent(),
            Self::Eof => Status::Eof,
            Self::NoHandle | Self::WrongHandle | Self::TooManyHandles => Status::Failure,
            Self::NotLink | Self::Dots | Self::SameFile => Status::Failure,
            Self::SmallBlock | Self::ManyBlocks(_) | Self::ManyHashes => Status::Failure,
            Self::Owner => Status::PermissionDenied,
            Self::NoUser => Status::NoSuchFile,
            Self::Malformed => Status::BadMessage,
            Self::NoHash | Self::Unsupported => Status::OpUnsupported,
        };
        (status, Cow::Owned(self.to_string()))
    }
}

/// What is missing, hidden and can't be: one answer.
fn absent() -> (Status, Cow<'static, str>) {
    (Status::NoSuchFile, Cow::Borrowed("no such file or folder"))
}

fn tree_status(error: &tree::Error) -> (Status, Cow<'static, str>) {
    use tree::Error as E;
    let status = match error {
        E::Absent | E::NoParent | E::BadName => return absent(),
        E::NotFolder => Status::NoSuchFile,
        E::Locked { root, .. } => {
            return (Status::PermissionDenied, Cow::Owned(format!("a WebDAV lock on {root} holds it")));
        }
        E::Forbidden | E::Ended(_) | E::WrongType(_) | E::WrongTag(_) => Status::PermissionDenied,
        E::Exists | E::IsFolder | E::NotEmpty | E::Overlap | E::Precondition => Status::Failure,
        E::TooLarge(_) | E::NoSpace | E::Spoilt | E::PathTooLong => Status::Failure,
        E::Replaced | E::Superseded | E::UploadUnderWay | E::WrongMode | E::TooManyOpenFiles => Status::Failure,
        E::Unsupported => Status::OpUnsupported,
        E::Unavailable(_) | E::OtherTree => Status::Failure,
        E::Host(fault) => {
            tracing::warn!(error = %fault, "the host failed");
            return (Status::Failure, Cow::Borrowed("the server has a fault"));
        }
        E::Store(fault) if fault.shortage().is_some() => {
            let text = fault.shortage().map_or("", Shortage::text);
            tracing::warn!(error = %fault, "a request was refused");
            return (Status::Failure, Cow::Borrowed(text));
        }
        E::Store(fault) => {
            tracing::error!(error = %fault, "the store failed");
            return (Status::Failure, Cow::Borrowed("the server has a fault"));
        }
    };
    (status, Cow::Owned(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_hidden_reads_as_what_is_missing() {
        let missing = Error::Tree(tree::Error::Absent).status();
        for other in [Error::Tree(tree::Error::NoParent), Error::Path(PathError::Reserved), PathError::Nul.into()] {
            assert_eq!(other.status(), missing);
        }
    }

    #[test]
    fn what_the_host_says_stays_in_the_log() {
        let fault = std::io::Error::other("/srv/secret is on fire");
        let (status, message) = Error::Tree(tree::Error::Host(fault)).status();
        assert_eq!(status, Status::Failure);
        assert!(!message.contains("secret"), "{message}");
    }

    #[test]
    fn shortage_of_the_store_is_a_failure_with_its_reason() {
        use crate::store::StoreError;
        for (fault, told) in [
            (StoreError::Full, "the disk that holds the server's state is full"),
            (StoreError::Busy, "the server's store is busy: try again"),
            (StoreError::Budget("as many as may be"), "as many as may be"),
        ] {
            assert_eq!(Error::Tree(fault.into()).status(), (Status::Failure, Cow::Borrowed(told)));
        }
    }

    #[test]
    fn refusals_have_the_codes_that_openssh_gives_them() {
        use tree::Error as E;
        let cases: [(Error, Status); 8] = [
            (E::Forbidden.into(), Status::PermissionDenied),
            (E::Exists.into(), Status::Failure),
            (E::NotEmpty.into(), Status::Failure),
            (E::NotFolder.into(), Status::NoSuchFile),
            (E::NoSpace.into(), Status::Failure),
            (E::Unsupported.into(), Status::OpUnsupported),
            (Error::Malformed, Status::BadMessage),
            (Error::NoHandle, Status::Failure),
        ];
        for (error, status) in cases {
            assert_eq!(error.status().0, status, "{error}");
        }
    }
}
