//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

use rusqlite::Connection;

/// A fault of the store. Its text is for the administrator and the log, never for a client.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory can't be made or used.
    #[error("the state directory {path} can't be used: {source}", path = path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The database was written by a newer patgate.
    #[error(
        "the database was written by a newer patgate: use that version, or restore a backup made before the upgrade"
    )]
    SchemaTooNew,
    /// The database was written by an older patgate, and nothing was asked to migrate it.
    #[error(
        "the database was written by an older patgate (schema {found}, this one has {latest}): patgate serve migrates it \
         when it starts, after a copy was made"
    )]
    SchemaTooOld {
        /// Its schema.
        found: usize,
        /// That of this version.
        latest: usize,
    },
    /// The database is missing although there is a pepper.
    #[error(
        "the database {path} is missing although the pepper beside it is there: restore it from a backup, or, to begin \
         anew without any token, remove the pepper",
        path = .0.display()
    )]
    DatabaseMissing(PathBuf),
    /// The database is damaged.
    #[error("the database is damaged ({0}): restore the state directory from a backup")]
    Corrupt(String),
    /// No randomness.
    #[error("the operating system gave no random bytes: {0}")]
    Random(String),
    /// What was to be made is there already.
    #[error("{0} already exists")]
    AlreadyExists(String),
    /// What was named is not there.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The policy does not allow it.
    #[error(transparent)]
    Policy(#[from] crate::domain::PolicyViolation),
    /// A policy key or value that can't be.
    #[error("{0}")]
    InvalidSetting(String),
    /// Too many tokens made with one another.
    #[error("no more than {0} tokens may stand above one another: make this one with a token further up")]
    ChainTooLong(usize),
    /// The pepper is missing although tokens were sealed with it.
    #[error(
        "the pepper {path} is missing although tokens exist: restore it from the backup that holds this database; \
         no token can be proven without it",
        path = .0.display()
    )]
    PepperMissing(PathBuf),
    /// The pepper is another one than secrets were sealed with.
    #[error(
        "the pepper {path} is not the one that this database's tokens were made with: restore both from the same backup",
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
    #[error("the disk of the state directory is full: make room")]
    DiskFull,
    /// Another process holds the database, or too many writes wait.
    #[error("the database is held by another process, or busy: try again")]
    Busy,
    /// As much is there as may be.
    #[error("{0}")]
    QuotaExceeded(&'static str),
    /// Anything else that SQLite says.
    #[error("the database refused: {0}")]
    Sqlite(#[source] rusqlite::Error),
}

/// SQLite's code for an index of the write-ahead log that can't grow.
const SQLITE_IOERR_SHMSIZE: i32 = 10 | (19 << 8);

/// What a client may be told of a fault of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientStoreError {
    /// There is no space for it, or no more of it may be: 507.
    InsufficientStorage(&'static str),
    /// The store is held or busy: 503, and try again.
    Busy,
}

impl ClientStoreError {
    /// Says what is short.
    pub fn message(self) -> &'static str {
        match self {
            ClientStoreError::InsufficientStorage(message) => message,
            ClientStoreError::Busy => "the server's store is busy: try again",
        }
    }
}

impl StoreError {
    /// Returns what a client may be told; `None` for a fault that is for the log alone.
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
        match error.sqlite_error_code() {
            Some(DiskFull) => return StoreError::DiskFull,
            Some(DatabaseBusy | DatabaseLocked) => return StoreError::Busy,
            _ => {}
        }
        if error.sqlite_error().is_some_and(|error| error.extended_code == SQLITE_IOERR_SHMSIZE) {
            return StoreError::DiskFull;
        }
        let is_corrupt = matches!(error.sqlite_error_code(), Some(DatabaseCorrupt | NotADatabase));
        let is_unreadable =
            matches!(error, FromSqlConversionFailure(..) | IntegralValueOutOfRange(..) | InvalidColumnType(..));
        if is_corrupt || is_unreadable { StoreError::Corrupt(error.to_string()) } else { StoreError::Sqlite(error) }
    }
}

impl From<rusqlite_migration::Error> for StoreError {
    fn from(error: rusqlite_migration::Error) -> Self {
        use rusqlite_migration::{Error, MigrationDefinitionError};
        match error {
            Error::MigrationDefinition(MigrationDefinitionError::DatabaseTooFarAhead) => StoreError::SchemaTooNew,
            Error::RusqliteError { err, .. } => err.into(),
            other => StoreError::Corrupt(other.to_string()),
        }
    }
}

/// Refuses a database that SQLite itself finds unsound.
pub(super) fn check_integrity(connection: &Connection) -> Result<(), StoreError> {
    let outcome: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if outcome == "ok" { Ok(()) } else { Err(StoreError::Corrupt(outcome)) }
}
