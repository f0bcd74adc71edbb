//! Errors of operations on the tree. Each protocol translates them into its own statuses.

use std::io;

use super::{LockToken, TreeOutage};
use crate::auth::SessionEnded;
use crate::domain::{ByteSize, FileTag, StorageAccount, TreePath};
use crate::store::StoreError;

/// A refused operation, or a failure of the file system or the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The entry does not exist, or the session may not learn that it does.
    // Must read the same as the texts of webdav and sftp for a missing path: hidden can't be told from missing.
    #[error("no such file or directory")]
    Absent,
    /// The parent directory does not exist, or the session may not learn that it does.
    #[error("the parent directory does not exist")]
    NoParent,
    /// The entry is visible to the session, but the operation is not allowed on it: by its permissions, by the kind of the
    /// entry (sockets and devices are never changed), by a link or a mount in it, or by the host for another reason than
    /// [`Error::RefusedByHost`].
    #[error("not allowed here")]
    Forbidden,
    /// The session may do it, but the user that the server runs as may not, or the file system is read-only.
    #[error(
        "the server itself may not do this: its user lacks the permission on the file system, or that is read-only"
    )]
    RefusedByHost(#[source] io::Error),
    /// The target exists.
    #[error("it already exists")]
    AlreadyExists,
    /// The entry, or one of its ancestors, is not a directory.
    #[error("not a directory")]
    NotADirectory,
    /// The entry is a directory where a file is required.
    #[error("it is a directory")]
    IsADirectory,
    /// The directory to remove has entries.
    #[error("the directory is not empty")]
    DirectoryNotEmpty,
    /// Source and target of a copy or move are the same entry, or one is an ancestor of the other.
    #[error("source and target overlap")]
    Overlap,
    /// A WebDAV lock excludes the operation, and its token was not submitted.
    #[error("locked at {root}")]
    Locked {
        /// Root of the lock, or the requested path when the session may not see the root.
        root: TreePath,
        /// Token of the lock, if the session's user owns it.
        token: Option<LockToken>,
    },
    /// A condition of the request is not met.
    #[error("a condition of the request is not met")]
    PreconditionFailed,
    /// The file would be larger than the token allows.
    #[error("larger than the token's limit of {0}")]
    TooLarge(ByteSize),
    /// The media type of the file, by content or by name, is not allowed for the token.
    #[error("the token's limits allow no file of the type {0}")]
    TypeNotAllowed(&'static str),
    /// The token may not set this tag.
    #[error("the token's limits don't allow the tag {0}")]
    TagNotAllowed(FileTag),
    /// A write of the upload was refused, so that its content is incomplete and is not committed.
    #[error("a write was refused: the upload is incomplete, and the old content is kept")]
    WriteFailed,
    /// Another client has replaced the file since it was opened to be written.
    #[error(
        "another client has replaced this file since it was opened: its content is kept; open it again to change it"
    )]
    Replaced,
    /// A later upload of the same session is for the same name.
    #[error("a later upload of this session to the same name has superseded this one")]
    Superseded,
    /// An upload into the directory, or into one below it, is not finished.
    #[error("an upload into this directory is under way: try again when it has ended")]
    UploadInProgress,
    /// The operation does not fit the mode in which the file was opened: only for reading, or only for writing.
    #[error("the file was not opened for this operation")]
    WrongOpenMode,
    /// The user, or all users together, have reached the limit of open files and directories.
    #[error("too many open files and directories: close some, and try again")]
    TooManyOpenFiles,
    /// The storage quota of the session's user, of its token or of one above it would be exceeded.
    #[error("the storage quota of the {} ({max}) is used up: remove files, or ask for a larger quota", .account.kind())]
    StorageQuotaExceeded {
        /// The account whose quota it is.
        account: StorageAccount,
        /// The quota.
        max: ByteSize,
    },
    /// The disk is full.
    #[error("no space left")]
    NoSpace,
    /// The name is invalid or reserved for the gateway.
    #[error("the name can't be used")]
    InvalidName,
    /// An entry below a directory would get a path that is longer than a request can name.
    #[error("the path of an entry in the directory would be too long: 4095 bytes at most")]
    PathTooLong,
    /// The file system or the gateway does not support the operation.
    #[error("not supported")]
    Unsupported,
    /// The served directory is not the one in which node ids were assigned.
    #[error(
        "it is not the directory that grants and scopes were made for: its file system may not be mounted, or it was \
         restored or copied"
    )]
    TreeMismatch,
    /// The tree, or the file system that holds the entry, is not served at present; it is again, without a restart,
    /// when it is back.
    #[error("not available at present: {0}")]
    Unavailable(#[from] TreeOutage),
    /// The session's token expired, was revoked or lost its access meanwhile.
    #[error(transparent)]
    SessionEnded(#[from] SessionEnded),
    /// The file system failed; the text is for the log.
    #[error("the file system failed: {0}")]
    Filesystem(#[source] io::Error),
    /// The store failed; the text is for the log.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

impl Error {
    /// Tells whether the tree is not served at present, whatever the operation was.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TreeMismatch)
    }
}
