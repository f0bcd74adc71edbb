//! Why an operation on the tree was refused. Each protocol turns these into its own statuses.

use std::io;

use super::{LockToken, TreeOutage};
use crate::auth::SessionEnded;
use crate::domain::{ByteSize, FileTag, TreePath};
use crate::store::StoreError;

/// A refusal, or a fault of host or store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nothing is there, or it is as if nothing were.
    #[error("no such file or folder")]
    Absent,
    /// The folder that would hold it is absent (or as if).
    #[error("the folder that would hold it does not exist")]
    NoParent,
    /// It can be seen, but not this done with it.
    #[error("not allowed here")]
    Forbidden,
    /// Something is there already.
    #[error("it already exists")]
    AlreadyExists,
    /// A folder was needed.
    #[error("not a folder")]
    NotADirectory,
    /// A file was needed.
    #[error("it is a folder")]
    IsADirectory,
    /// The folder holds something.
    #[error("the folder is not empty")]
    DirectoryNotEmpty,
    /// A folder into itself or onto one above it, or a thing onto itself.
    #[error("source and target overlap")]
    Overlap,
    /// Somebody's lock stands in the way.
    #[error("locked at {root}")]
    Locked {
        /// Where the lock was taken, as far as the session may see it.
        root: TreePath,
        /// Its token, for the owner's own locks.
        token: Option<LockToken>,
    },
    /// A condition that the request made does not hold.
    #[error("a condition does not hold")]
    PreconditionFailed,
    /// Larger than the token may make files.
    #[error("larger than the token's limit of {0}")]
    TooLarge(ByteSize),
    /// Of a type that the token may not make files of, by content or by name.
    #[error("the token's limits allow no file of the type {0}")]
    TypeNotAllowed(&'static str),
    /// A tag that the token may not give.
    #[error("the token's limits don't allow the tag {0}")]
    TagNotAllowed(FileTag),
    /// An upload of which a part was refused: what is left of it is not what the client meant.
    #[error("a part of the content was refused: the old content stands")]
    WriteFailed,
    /// Somebody else has put another file in the place of what was opened to be written.
    #[error(
        "somebody else has put another file here since this one was opened: theirs stands; open it again to change it"
    )]
    Replaced,
    /// A later upload of the same session took the name that this one was for.
    #[error("a later upload of this session has taken this one's place")]
    Superseded,
    /// Somebody's upload into the directory, or into one below it, is not finished.
    #[error("an upload into this directory is under way: try again when it has ended")]
    UploadInProgress,
    /// The file was opened for something else: only to be read, or only to be written.
    #[error("the file was not opened for that")]
    WrongOpenMode,
    /// The user, or all together, have as many files and directories open as may be.
    #[error("too many open files and directories: close some, and try again")]
    TooManyOpenFiles,
    /// The disk is full.
    #[error("no space left")]
    NoSpace,
    /// A name that can't be, or is the gateway's own.
    #[error("the name can't be used")]
    InvalidName,
    /// Something in a directory would have a path by which nobody could name it.
    #[error("the path of something in the directory would be too long: 4095 bytes at most")]
    PathTooLong,
    /// The file system or the gateway can't do that.
    #[error("not supported")]
    Unsupported,
    /// The served folder is another one than nodes were named in.
    #[error(
        "it is not the folder that grants and scopes were made for: its file system may not be mounted, or it was restored \
         or copied"
    )]
    TreeMismatch,
    /// The tree, or the file system that holds the entry, is not served now; it will be again without a restart.
    #[error("not available at present: {0}")]
    Unavailable(#[from] TreeOutage),
    /// The token died meanwhile.
    #[error(transparent)]
    SessionEnded(#[from] SessionEnded),
    /// The host failed; the text is for the log.
    #[error("the host failed: {0}")]
    Filesystem(#[source] io::Error),
    /// The store failed; the text is for the log.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

impl Error {
    /// Tells whether the tree is not there now, whatever was asked of it.
    pub fn is_outage(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::TreeMismatch)
    }
}
