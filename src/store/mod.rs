//! The store: one SQLite database, and the only module that knows SQL.
//!
//! Rows become domain values at this module's edge. Reads go through pooled read-only connections
//! and never wait for a writer (WAL); writes go one at a time through one of two connections, one
//! that syncs at every commit (`WriteDurability::Synced`: new tokens, revocations, whatever must not
//! be lost once it was answered) and one that leaves syncing to the checkpoint.
//!
//! Every write that may change what a caller may do advances the *epoch*, by triggers in the schema, so that
//! one number read with a token's row tells whether anything derived from other rows is still valid.
//! That number is also published in a file beside the database, so that it need not be read there ([`epoch`]).

mod access_references;
mod audit;
mod audit_chain;
mod audit_context;
mod audit_export;
mod audit_removed;
mod audit_trim;
mod backup;
mod ballast;
mod bans;
mod checksums;
mod clock_checkpoint;
mod columns;
#[cfg(test)]
mod crash_tests;
mod effective_access;
mod epoch;
mod error;
mod intents;
mod located_scopes;
mod locks;
mod meta;
mod migration;
mod nodes;
mod notices;
mod policy;
mod properties;
mod quota;
mod retention;
mod sqlite;
mod statistics;
mod storage_quota;
mod sync_chunks;
mod sync_journals;
#[cfg(test)]
pub(crate) mod testing;
mod token_chain;
mod token_proof;
mod tokens;
mod transactions;
mod tree_markers;
mod uploads;
mod usage_counts;
mod users;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Notify;

use crate::domain::{DurationHistogram, PropertyQuota, StateLimits};
use epoch::EpochFile;
use sqlite::{open_reader, open_writer};

pub use access_references::AccessReference;
pub(crate) use audit::AddressSeen;
pub use audit::{EventCursor, EventFilter, RecordedEvent};
pub use audit_chain::{AuditRow, ChainFault, ChainHash, ChainHead, ChainItem, ChainReport, ChainVerifier, RemovedRows};
pub use audit_context::AuditContext;
pub use audit_export::ChainPage;
pub use backup::StateSummary;
pub use ballast::DiskFault;
use ballast::{BallastFile, BallastShare};
pub use clock_checkpoint::{ClockCheckpoint, ClockJump};
pub(crate) use effective_access::{ChainToken, CredentialRow, EffectiveAccess};
pub use error::{ClientStoreError, StoreError};
pub(crate) use intents::{ChangeIntent, EntryIdentity, IntentAction};
pub use located_scopes::LocatedScope;
pub(crate) use locks::LockRow;
use migration::MigrationMode;
pub(crate) use migration::PEPPER_FILE_NAME;
pub(crate) use nodes::{CompletedMove, NodePathStep, NodeRow};
pub use notices::NoticeReceiverState;
pub(crate) use notices::QueuedNotice;
pub(crate) use properties::{PropertyRow, PropertyTotals, PropertyUpdate};
pub use statistics::{RowCounts, StoreStatistics};
pub use storage_quota::StorageQuotaTotals;
pub(crate) use storage_quota::{StorageCharge, StorageQuotaRow, StorageUse};
pub(crate) use sync_chunks::SyncChunk;
use sync_journals::JournalWriteCounters;
pub(crate) use sync_journals::{NumberedSyncEntry, SyncEntry, SyncJournal};
pub use token_proof::{SecretHash, TokenProof};
pub(crate) use tokens::TokenUse;
pub(crate) use tokens::has_dangling_scopes;
pub use tokens::{LastUseRecord, NarrowedToken, NewTokenRow, TokenFilter, TokenRecord, TokenState};
pub(crate) use tree_markers::TreeMarker;
pub(crate) use uploads::{UploadPart, UploadRow};
pub use users::{User, UserUpdate};

/// The result of a store operation.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Returns the version of the SQLite library.
pub fn sqlite_version() -> &'static str {
    rusqlite::version()
}

const DATABASE_FILE_NAME: &str = "patgate.db";
const MAX_IDLE_READERS: usize = 16;

/// Durability of a write: whether it is on disk before its call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WriteDurability {
    /// On disk when the call returns: for writes that must survive a power cut once they were answered.
    Synced,
    /// Survives the end of the process; a power cut may lose the last moments.
    Lazy,
}

/// The open database. Clones share its connections.
#[derive(Clone)]
pub struct Store {
    inner: Arc<StoreInner>,
    audit_context: Option<Arc<AuditContext>>,
}

struct StoreInner {
    state_dir: PathBuf,
    readers: Mutex<Vec<Connection>>,
    writers: Mutex<WriterConnections>,
    /// Instant at which a write last found the database locked by another process.
    busy_at: Mutex<Option<Instant>>,
    ballast_file: BallastFile,
    property_quota: Mutex<PropertyQuota>,
    limits: Mutex<StateLimits>,
    watcher: Mutex<Connection>,
    epoch_file: EpochFile,
    write_count: AtomicU64,
    write_durations: DurationHistogram,
    /// Id of the audit event from which on events are counted again.
    recount_after_event: AtomicU64,
    /// Number of tokens that may be inserted before all of them are counted again.
    token_headroom: AtomicU64,
    changed: Notify,
    /// Whether any checksum is stored: most trees have none, and need no query then.
    has_checksums: AtomicBool,
    has_properties: AtomicBool,
    journal_writes: JournalWriteCounters,
}

/// Pages that are searched for damage when a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum IntegrityCheck {
    WholeDatabase,
    PagesInUse,
}

struct WriterConnections {
    synced: Connection,
    lazy: Connection,
}

impl Store {
    /// Opens the database in the state directory; creates both (0700, 0600) when they don't exist. A database of an
    /// older patgate is migrated, after a backup of it was made beside it.
    ///
    /// # Errors
    /// [`StoreError`] when the directory can't be created or used, or the database is damaged, was written by a newer
    /// patgate, or is missing although a pepper exists.
    pub fn open(state_dir: &Path) -> Result<Self> {
        Self::open_with(state_dir, MigrationMode::AfterBackup, IntegrityCheck::WholeDatabase)
    }

    /// Opens the database for commands that run beside a server or only read: a database of an older patgate is refused
    /// and not migrated, and damage is reported by the reads that meet it. Reading the whole database would take seconds
    /// where it is large, and a revocation must not wait for that.
    ///
    /// # Errors
    /// As [`Store::open`], and [`StoreError::SchemaTooOld`].
    pub fn open_without_migration(state_dir: &Path) -> Result<Self> {
        Self::open_with(state_dir, MigrationMode::Refuse, IntegrityCheck::PagesInUse)
    }

    /// Opens the database as [`Store::open_without_migration`] does, after it was read completely.
    ///
    /// # Errors
    /// As [`Store::open_without_migration`].
    pub fn open_for_diagnosis(state_dir: &Path) -> Result<Self> {
        Self::open_with(state_dir, MigrationMode::Refuse, IntegrityCheck::WholeDatabase)
    }

    fn open_with(state_dir: &Path, migration: MigrationMode, integrity_check: IntegrityCheck) -> Result<Self> {
        // On a full disk, opening fails because the index of the write-ahead log (`-shm`) has no space.
        let ballast = BallastFile::new(state_dir);
        loop {
            match Self::try_open(state_dir, migration, integrity_check) {
                Err(StoreError::DiskFull) if ballast.release(BallastShare::Revocation)? => {}
                outcome => return outcome,
            }
        }
    }

    fn try_open(state_dir: &Path, migration: MigrationMode, integrity_check: IntegrityCheck) -> Result<Self> {
        let state_dir_error = |source| StoreError::StateDirectory { path: state_dir.to_owned(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(state_dir_error)?;
        // Also on an existing directory, which may have been created by hand or restored from a backup.
        fs::set_permissions(state_dir, fs::Permissions::from_mode(0o700)).map_err(state_dir_error)?;
        let path = migration::create_database_file(state_dir)?;
        let mut synced = open_writer(&path, WriteDurability::Synced)?;
        // Before the migration: its backup would otherwise be a copy of a damaged database.
        if integrity_check == IntegrityCheck::WholeDatabase {
            sqlite::check_integrity(&synced)?;
        }
        migration::migrate(&mut synced, state_dir, migration)?;
        let has_checksums = synced.query_row("SELECT EXISTS (SELECT 1 FROM checksums)", [], |row| row.get(0))?;
        let has_properties = synced.query_row("SELECT EXISTS (SELECT 1 FROM properties)", [], |row| row.get(0))?;
        let lazy = open_writer(&path, WriteDurability::Lazy)?;
        let watcher = Mutex::new(open_reader(&path)?);
        let epoch_file = EpochFile::open(state_dir).map_err(state_dir_error)?;
        let store = Self {
            inner: Arc::new(StoreInner {
                state_dir: state_dir.to_owned(),
                readers: Mutex::default(),
                writers: Mutex::new(WriterConnections { synced, lazy }),
                busy_at: Mutex::default(),
                ballast_file: BallastFile::new(state_dir),
                property_quota: Mutex::default(),
                limits: Mutex::default(),
                watcher,
                epoch_file,
                write_count: AtomicU64::new(0),
                write_durations: DurationHistogram::default(),
                recount_after_event: AtomicU64::new(0),
                token_headroom: AtomicU64::new(0),
                changed: Notify::new(),
                has_checksums: AtomicBool::new(has_checksums),
                has_properties: AtomicBool::new(has_properties),
                journal_writes: JournalWriteCounters::default(),
            }),
            audit_context: None,
        };
        // A write also where the row exists: its commit publishes the epoch, which repairs a lost or outdated epoch
        // file.
        store.init_meta()?;
        Ok(store)
    }

    /// Inserts the row of `meta` where there is none, and publishes the epoch.
    fn init_meta(&self) -> Result<()> {
        const INSERT: &str = "INSERT INTO meta (\"only\", epoch, etag_key) VALUES (1, 1, ?1) ON CONFLICT DO NOTHING";
        let mut etag_key = [0u8; 32];
        getrandom::fill(&mut etag_key).map_err(|e| StoreError::Random(e.to_string()))?;
        // With the whole ballast: on a full disk, a store that can't be opened could not revoke anything.
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Revocation, |t| {
            Ok(t.execute(INSERT, [etag_key]).map(drop)?)
        })
    }

    /// Returns the state directory.
    pub fn state_dir(&self) -> &Path {
        &self.inner.state_dir
    }

    /// Returns a version that differs from the previous one whenever anything was written since, by this
    /// process or another.
    pub fn data_version(&self) -> Result<(u64, i64)> {
        let own_writes = self.write_count();
        // Only commits of other connections change the number: this one is reserved for it and never writes.
        Ok((own_writes, sqlite::data_version(&self.inner.watcher.lock())?))
    }

    /// Returns the number of writes of this process, without a query.
    pub(crate) fn write_count(&self) -> u64 {
        self.inner.write_count.load(Ordering::Acquire)
    }

    /// Waits for the next write of this process after the call that publishes another epoch, even if the future is first
    /// polled later.
    pub fn changed(&self) -> impl Future<Output = ()> + Send + '_ {
        self.inner.changed.notified()
    }

    /// Runs a read on a pooled connection.
    pub(crate) fn read<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        #[cfg(test)]
        testing::count_query();
        // The pool is locked only to take a connection and to return it, so that reads run concurrently.
        let pooled = self.inner.readers.lock().pop();
        let connection = match pooled {
            Some(connection) => connection,
            None => open_reader(&self.inner.state_dir.join(DATABASE_FILE_NAME))?,
        };
        let result = query(&connection);
        let mut readers = self.inner.readers.lock();
        if readers.len() < MAX_IDLE_READERS {
            readers.push(connection);
        }
        result
    }

    /// Runs several reads in one transaction, so that all see the same state of the database.
    pub(crate) fn snapshot<T>(&self, query: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.read(|connection| {
            // DEFERRED: the snapshot begins with the first statement and, in WAL mode, blocks no writer.
            let transaction = connection.unchecked_transaction()?;
            query(&transaction)
        })
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("state", &self.inner.state_dir).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    }

    #[test]
    fn state_files_are_private_to_owner() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let state_dir = temp_dir.path().join("deep/state");
        let store = Store::open(&state_dir).expect("opens");
        store.set_policy("allow-never", "true").expect("written");
        assert_eq!(mode(&state_dir), 0o700);
        for name in ["patgate.db", "patgate.db-wal", "patgate.db-shm", "patgate.epoch"] {
            assert_eq!(mode(&state_dir.join(name)), 0o600, "{name}");
        }
        drop(store);
        fs::set_permissions(&state_dir, fs::Permissions::from_mode(0o755)).expect("widened");
        fs::set_permissions(state_dir.join(DATABASE_FILE_NAME), fs::Permissions::from_mode(0o644)).expect("widened");
        let _store = Store::open(&state_dir).expect("opens again");
        assert_eq!((mode(&state_dir), mode(&state_dir.join(DATABASE_FILE_NAME))), (0o700, 0o600));
    }

    #[test]
    fn second_store_in_process_keeps_posix_locks_of_first() {
        let (temp_dir, store) = testing::open_temp_store();
        assert!(!store.policy().expect("read").allow_never);
        let state_dir = temp_dir.path().join("state");
        let is_locked = |name: &str| {
            let inode = fs::metadata(state_dir.join(name)).expect("there").ino();
            let (process, file) = (std::process::id().to_string(), format!(":{inode}"));
            let locks = fs::read_to_string("/proc/locks").expect("Linux tells");
            locks.lines().any(|lock| lock.split(' ').any(|word| word == process) && lock.contains(&file))
        };
        drop(Store::open(&state_dir).expect("opens"));
        assert!(
            is_locked("patgate.db") && is_locked("patgate.db-shm"),
            "another process takes the journal for its own"
        );
    }

    #[test]
    fn newer_database_is_refused_with_message() {
        let (temp_dir, store) = testing::open_temp_store();
        store.write(WriteDurability::Synced, |t| sqlite::set_schema_version(t, 99)).expect("written");
        drop(store);
        let error = Store::open(&temp_dir.path().join("state")).expect_err("refused");
        assert!(matches!(error, StoreError::SchemaTooNew { found: 99, .. }), "{error:?}");
        assert!(error.to_string().contains("newer patgate"));
    }

    #[test]
    fn corrupt_database_is_refused_with_message() {
        for (offset, bytes) in [(0, 100), (4096, 8192)] {
            let (temp_dir, store) = testing::open_temp_store();
            store.create_user(&testing::login("alice"), &[], testing::now()).expect("user");
            drop(store);
            let state_dir = temp_dir.path().join("state");
            let mut content = fs::read(state_dir.join(DATABASE_FILE_NAME)).expect("read");
            content[offset..offset + bytes].fill(0xa5);
            fs::write(state_dir.join(DATABASE_FILE_NAME), content).expect("overwritten");
            for open in [Store::open, Store::open_for_diagnosis] {
                let error = open(&state_dir).expect_err("refused");
                assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
                assert!(error.to_string().contains("restore the state directory from a backup"));
            }
        }
    }

    #[test]
    fn invalid_column_value_is_reported_as_corruption() {
        let (_temp_dir, store) = testing::open_temp_store();
        store.create_user(&testing::login("alice"), &[], testing::now()).expect("user");
        store
            .write(WriteDurability::Synced, |t| Ok(t.execute("UPDATE users SET login = 'a/b'", []).map(drop)?))
            .expect("overwritten");
        let error = store.users(None, 10).expect_err("refused");
        assert!(matches!(error, StoreError::Corrupt(_)), "{error:?}");
    }

    #[test]
    fn failed_write_is_rolled_back() {
        let (_temp_dir, store) = testing::open_temp_store();
        let failed: Result<()> = store.write(WriteDurability::Synced, |t| {
            t.execute("INSERT INTO policy VALUES ('allow-never', 'true')", [])?;
            Err(StoreError::NotFound("it".to_owned()))
        });
        assert!(failed.is_err());
        assert!(!store.policy().expect("read").allow_never);
    }

    #[test]
    fn reader_is_not_blocked_by_writer() {
        let (_temp_dir, store) = testing::open_temp_store();
        store
            .write(WriteDurability::Synced, |t| {
                t.execute("INSERT INTO policy VALUES ('allow-never', 'true')", [])?;
                assert!(!store.policy()?.allow_never, "what is not committed is not seen");
                Ok(())
            })
            .expect("written");
        assert!(store.policy().expect("read").allow_never);
    }

    #[test]
    fn write_by_another_process_changes_data_version() {
        let (temp_dir, store) = testing::open_temp_store();
        let other = Store::open(&temp_dir.path().join("state")).expect("opens");
        let before = store.data_version().expect("read");
        assert_eq!(store.data_version().expect("read"), before);
        other.set_policy("allow-never", "true").expect("written");
        assert_ne!(store.data_version().expect("read"), before);
    }
}
