//! Errors of the store.

use std::io;
use std::path::{Path, PathBuf};

/// An error of the store. Its text is for the administrator and the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory can't be created or used.
    #[error("the state directory {path} can't be used: {source}", path = path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The database was written by a newer patgate.
    #[error(
        "the database was written by a newer patgate (schema {found}, this one has {latest}): use that version, or restore \
         {copy}",
        copy = describe_copy(copy.as_deref())
    )]
    SchemaTooNew {
        /// Schema version of the database.
        found: usize,
        /// Schema version of this patgate.
        latest: usize,
        /// The latest copy beside the database that this patgate can use.
        copy: Option<PathBuf>,
    },
    /// The database was written by an older patgate, and the caller did not ask for a migration.
    #[error(
        "the database was written by an older patgate (schema {found}, this one has {latest}): patgate serve migrates it \
         when it starts, after a copy was made"
    )]
    SchemaTooOld {
        /// Schema version of the database.
        found: usize,
        /// Schema version of this patgate.
        latest: usize,
    },
    /// The database is missing although there is a pepper.
    #[error(
        "the database {path} is missing although the pepper beside it exists: restore it from a backup, or, to start \
         over without any token, remove the pepper",
        path = .0.display()
    )]
    DatabaseMissing(PathBuf),
    /// The database is damaged.
    #[error("the database is damaged ({0}): restore the state directory from a backup")]
    Corrupt(String),
    /// The operating system returned no random bytes.
    #[error("the operating system returned no random bytes: {0}")]
    Random(String),
    /// The item to be created already exists.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// The named item does not exist.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The policy does not allow the operation.
    #[error(transparent)]
    Policy(#[from] crate::domain::PolicyViolation),
    /// A policy key or value is invalid.
    #[error("{0}")]
    InvalidSetting(String),
    /// The chain of tokens above a new one would be too long.
    #[error("a token can have at most {0} tokens above it: create this one with a token further up the chain")]
    ChainTooLong(usize),
    /// The SSH key proves another live token of the same user.
    #[error("this SSH key proves the token {0} of the user already")]
    KeyInUse(crate::domain::TokenId),
    /// The pepper is missing although secrets were hashed with it.
    #[error(
        "the pepper {path} is missing although tokens exist: restore it from the backup that holds this database; \
         no token can be verified without it",
        path = .0.display()
    )]
    PepperMissing(PathBuf),
    /// The pepper is not the one that secrets were hashed with.
    #[error(
        "the pepper {path} is not the one that this database's tokens were created with: restore both from the same backup",
        path = .0.display()
    )]
    PepperMismatch(PathBuf),
    /// The pepper's file does not hold a pepper.
    #[error(
        "the pepper {path} is damaged (it must hold 32 bytes): restore it from the backup that holds this database",
        path = .0.display()
    )]
    PepperCorrupt(PathBuf),
    /// A secret can't be hashed.
    #[error("a secret can't be hashed: {0}")]
    Hash(String),
    /// A thread can't be started.
    #[error("no thread can be started: {0}")]
    Thread(#[source] io::Error),
    /// The disk of the state directory is full.
    #[error("the disk of the state directory is full: free some space")]
    DiskFull,
    /// Another process has locked the database, or too many writes wait.
    #[error("the database is locked by another process, or busy: try again")]
    Busy,
    /// A quota is used up.
    #[error("{0}")]
    QuotaExceeded(&'static str),
    /// Any other error of SQLite.
    #[error("the database refused: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

/// Describes what an older patgate can go back to.
fn describe_copy(copy: Option<&Path>) -> String {
    match copy {
        Some(copy) => format!("the copy from before the upgrade, {}", copy.display()),
        None => "a backup made before the upgrade".to_owned(),
    }
}

/// SQLite's extended error code for an index of the write-ahead log (`-shm`) that can't grow.
const SQLITE_IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// The part of a store error that a client may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientStoreError {
    /// The disk is full or a quota is used up: 507.
    InsufficientStorage(&'static str),
    /// The store is locked or busy: 503, and the client may try again.
    Busy,
}

impl ClientStoreError {
    /// Returns the message for the client.
    pub fn message(self) -> &'static str {
        match self {
            ClientStoreError::InsufficientStorage(message) => message,
            ClientStoreError::Busy => "the server's store is busy: try again",
        }
    }
}

impl StoreError {
    /// Returns the part that a client may see; `None` for an error that is for the log alone.
    pub fn client_error(&self) -> Option<ClientStoreError> {
        match self {
            StoreError::DiskFull => {
                Some(ClientStoreError::InsufficientStorage("the disk that holds the server's state is full"))
            }
            StoreError::QuotaExceeded(message) => Some(ClientStoreError::InsufficientStorage(message)),
            StoreError::Busy => Some(ClientStoreError::Busy),
            _ => None,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::Error::{FromSqlConversionFailure, IntegralValueOutOfRange, InvalidColumnType};
        use rusqlite::ErrorCode::{DatabaseBusy, DatabaseCorrupt, DatabaseLocked, DiskFull, NotADatabase};
        // Told apart from other errors, since callers react: a full disk may be answered by the ballast, a lock by a
        // retry.
        match error.sqlite_error_code() {
            Some(DiskFull) => return StoreError::DiskFull,
            Some(DatabaseBusy | DatabaseLocked) => return StoreError::Busy,
            _ => {}
        }
        // A `-shm` file that can't grow on a full disk is an I/O error for SQLite, not SQLITE_FULL.
        if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE) {
            return StoreError::DiskFull;
        }
        let is_corrupt = matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
        // patgate stores only values that its domain types accept: any other one counts as damage.
        let is_unreadable =
            matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..));
        if is_corrupt || is_unreadable { StoreError::Corrupt(error.to_string()) } else { StoreError::Sqlite(error) }
    }
}

impl From<rusqlite_migration::Error> for StoreError {
    fn from(error: rusqlite_migration::Error) -> Self {
        match error {
            rusqlite_migration::Error::RusqliteError { err, .. } => err.into(),
            other => StoreError::Corrupt(other.to_string()),
        }
    }
}
