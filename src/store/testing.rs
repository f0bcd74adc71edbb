//! Fixtures for tests of this module and of those above it.

use std::cell::{Cell, RefCell};
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};
use tempfile::TempDir;

use super::{
    DATABASE_FILE_NAME, NewTokenRow, Result, SecretHash, Store, StoreError, TokenProof, WriteDurability, migration,
    sqlite,
};
use crate::domain::{
    ForeignRoles, Login, NodeId, Permission, Roles, Scope, TokenExpiry, TokenId, TokenLimits, UnixMillis,
};

/// Returns the time at which tests start.
pub(crate) fn now() -> UnixMillis {
    UnixMillis::from_millis(1_777_968_000_000)
}

/// Opens a new store in a directory that is removed when it is dropped.
pub(crate) fn open_temp_store() -> (TempDir, Store) {
    let temp_dir = tempfile::tempdir().expect("directory");
    let store = Store::open(&temp_dir.path().join("state")).expect("opens");
    (temp_dir, store)
}

/// Creates a state directory of an older schema, with the user alice.
pub(crate) fn older_state_dir(schema: usize) -> TempDir {
    let temp_dir = tempfile::tempdir().expect("directory");
    let mut connection = rusqlite::Connection::open(temp_dir.path().join(DATABASE_FILE_NAME)).expect("opens");
    // Step 14 is refused under foreign keys.
    sqlite::without_foreign_keys(&mut connection, |c| Ok(migration::migrations().to_version(c, schema)?))
        .expect("created");
    let meta = "INSERT INTO meta (\"only\", epoch, etag_key) VALUES (1, 1, ?1)";
    connection.execute(meta, [[0u8; 32]]).expect("created");
    connection.execute("INSERT INTO users (login, created_at) VALUES ('alice', 1)", []).expect("created");
    temp_dir
}

pub(crate) fn login(text: &str) -> Login {
    text.parse().expect("login")
}

pub(crate) fn id(text: &str) -> TokenId {
    text.parse().expect("id")
}

/// Returns the node id of a number.
pub(crate) fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 16])
}

pub(crate) fn scope(number: u8, permission: Permission) -> Scope {
    Scope { node: node(number), permission }
}

/// Inserts a directory's node: its inode is its number, its birth time ten times that. Number 0 is the root.
pub(crate) fn insert_directory(store: &Store, number: u8, parent: u8, name: &str) {
    let parent_id = (number != 0).then(|| node(parent));
    let row = params![node(number), parent_id, name.as_bytes(), number, i64::from(number) * 10];
    let insert = "INSERT INTO nodes (id, parent, name, is_directory, inode, birth_time) VALUES (?1, ?2, ?3, 1, ?4, ?5)";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(insert, row).map(drop)?)).expect("directory");
}

/// Inserts a file's node.
pub(crate) fn insert_file(store: &Store, number: u8, parent: u8, name: &str) {
    let row = params![node(number), node(parent), name.as_bytes()];
    let insert = "INSERT INTO nodes (id, parent, name, is_directory) VALUES (?1, ?2, ?3, 0)";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(insert, row).map(drop)?)).expect("file");
}

/// Renames or moves a node.
pub(crate) fn move_node(store: &Store, number: u8, parent: u8, name: &str) {
    let row = params![node(number), node(parent), name.as_bytes()];
    let update = "UPDATE nodes SET parent = ?2, name = ?3 WHERE id = ?1";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(update, row).map(drop)?)).expect("rename");
}

/// Removes the parent of a node.
pub(crate) fn detach_node(store: &Store, number: u8) {
    let update = "UPDATE nodes SET parent = NULL WHERE id = ?1";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(update, [node(number)]).map(drop)?)).expect("cut off");
}

/// Deletes a node and all below it.
pub(crate) fn delete_node(store: &Store, number: u8) {
    let delete = "DELETE FROM nodes WHERE id = ?1";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(delete, [node(number)]).map(drop)?)).expect("remove");
}

/// Returns the proof of a secret that nobody knows.
pub(crate) fn secret_proof(phc: &str, number: u8) -> TokenProof {
    TokenProof::Secret(SecretHash { phc: phc.to_owned(), prefilter: [number; 8] })
}

/// Returns a token with an expiration and a secret that nobody knows.
pub(crate) fn new_token(text: &str, owner: &str, expiry: TokenExpiry) -> NewTokenRow {
    NewTokenRow {
        id: id(text),
        login: login(owner),
        parent: None,
        name: "test".to_owned(),
        description: String::new(),
        proof: secret_proof("phc", 1),
        created_at: now(),
        expiry,
        scopes: None,
        limits: TokenLimits::default(),
        roles: Roles::none(),
        foreign_roles: ForeignRoles::default(),
    }
}

/// Sets the limits of a stored token.
pub(crate) fn set_limits(store: &Store, text: TokenId, limits: &TokenLimits) {
    let update = "UPDATE tokens SET limits = ?2 WHERE id = ?1";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(update, params![text, limits]).map(drop)?)).expect("limited");
}

/// Makes reading the epoch fail after a change by this process.
pub(crate) fn break_epoch(store: &Store) {
    execute_externally(store, "DROP TABLE meta");
    store.inner.write_count.fetch_add(1, Ordering::Release);
    store.inner.changed.notify_waiters();
}

/// Changes the database as another program would, without publishing the epoch.
pub(super) fn execute_externally(store: &Store, statement: &str) {
    let connection = rusqlite::Connection::open(store.state_dir().join("patgate.db")).expect("opens");
    connection.execute_batch(statement).expect("changed");
}

/// Revokes all tokens as another program would, without publishing the epoch.
pub(crate) fn revoke_all_externally(store: &Store) {
    execute_externally(store, "UPDATE tokens SET revoked_at = 1");
}

/// Makes reading and writing a table fail, until [`restore_table`].
pub(crate) fn break_table(store: &Store, table: &str) {
    execute_externally(store, &format!("ALTER TABLE {table} RENAME TO broken_{table}"));
}

/// Undoes [`break_table`].
pub(crate) fn restore_table(store: &Store, table: &str) {
    execute_externally(store, &format!("ALTER TABLE broken_{table} RENAME TO {table}"));
}

/// Makes writing the last use of a token fail, until [`accept_last_uses`].
pub(crate) fn refuse_last_uses(store: &Store) {
    execute_externally(
        store,
        "CREATE TRIGGER refuse BEFORE UPDATE OF last_used_at ON tokens BEGIN SELECT RAISE(ABORT, 'refused'); END",
    );
}

/// Undoes [`refuse_last_uses`].
pub(crate) fn accept_last_uses(store: &Store) {
    execute_externally(store, "DROP TRIGGER refuse");
}

/// Sets the counted number of named nodes.
pub(crate) fn count_nodes(store: &Store, rows: i64) {
    let update = "UPDATE usage SET amount = ?1 WHERE resource = 'nodes'";
    store.write(WriteDurability::Synced, |t| Ok(t.execute(update, [rows]).map(drop)?)).expect("counted");
}

thread_local! {
    static COMMIT_SYNC_MODES: RefCell<Vec<i64>> = const { RefCell::new(Vec::new()) };
    static QUERY_COUNT: Cell<u32> = const { Cell::new(0) };
    static FULL_COMMITS: Cell<u32> = const { Cell::new(0) };
    static COMMITS_UNTIL_PANIC: Cell<Option<u32>> = const { Cell::new(None) };
    static CRASH_POINTS_LEFT: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Value of `PRAGMA synchronous` where each commit is on disk before it returns.
pub(crate) const FULL: i64 = 2;
/// Value of `PRAGMA synchronous` where the next checkpoint syncs a commit.
pub(crate) const NORMAL: i64 = 1;

/// Records the sync mode of a transaction that is about to be committed.
///
/// # Errors
/// [`StoreError::DiskFull`] for the commits of [`fill_disk`].
///
/// # Panics
/// At the commit of [`panic_after_commits`].
pub(super) fn before_commit(connection: &Connection) -> Result<()> {
    let allowed = COMMITS_UNTIL_PANIC.get();
    COMMITS_UNTIL_PANIC.set(allowed.and_then(|commits| commits.checked_sub(1)));
    assert!(allowed != Some(0), "as the test asked for");
    let synchronous = sqlite::synchronous_mode(connection)?;
    COMMIT_SYNC_MODES.with_borrow_mut(|commits| commits.push(synchronous));
    crash_point();
    match FULL_COMMITS.get() {
        0 => Ok(()),
        remaining => {
            FULL_COMMITS.set(remaining - 1);
            Err(StoreError::DiskFull)
        }
    }
}

/// Returns `PRAGMA synchronous` of each commit of this thread since the last call.
pub(crate) fn take_commits() -> Vec<i64> {
    COMMIT_SYNC_MODES.take()
}

/// Counts a read of the database.
pub(super) fn count_query() {
    QUERY_COUNT.set(QUERY_COUNT.get() + 1);
}

/// Returns the number of reads of the database by this thread since the last call.
pub(crate) fn take_query_count() -> u32 {
    QUERY_COUNT.take()
}

/// Makes one commit of this thread panic after `commits` more. Returns whether one has panicked since the last call.
pub(crate) fn panic_after_commits(commits: Option<u32>) -> bool {
    COMMITS_UNTIL_PANIC.replace(commits).is_none()
}

/// Makes the next commits of this thread find the disk full.
pub(crate) fn fill_disk(commits: u32) {
    FULL_COMMITS.set(commits);
}

/// Kills this process, as by `kill -9`, at the crash point after the next `crash_points` of this thread.
pub(super) fn kill_after(crash_points: u32) {
    CRASH_POINTS_LEFT.set(Some(crash_points));
}

/// Marks a point at which [`kill_after`] may kill the process.
pub(super) fn crash_point() {
    match CRASH_POINTS_LEFT.get() {
        None => {}
        Some(0) => {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).expect("killed");
            loop {
                std::thread::park();
            }
        }
        Some(crash_points) => CRASH_POINTS_LEFT.set(Some(crash_points - 1)),
    }
}
