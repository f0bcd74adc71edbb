//! SQLite: connections and their settings, copies, and integrity.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags};

use super::{Result, StoreError, WriteDurability};

/// Maximum time that opening and migrating wait for another process.
const OPEN_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time that a read waits for a process that locks readers out, as WAL recovery does.
const READ_BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// Number of prepared statements that a connection keeps.
const STATEMENT_CACHE_CAPACITY: usize = 64;

/// Opens a connection whose commits have a durability.
pub(super) fn open_writer(path: &Path, durability: WriteDurability) -> Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // For opening and migrating only: each write sets a time-out of its own (`lock_writers`).
    connection.busy_timeout(OPEN_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let synchronous = match durability {
        WriteDurability::Synced => "FULL",
        WriteDurability::Lazy => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", synchronous)?;
    // Off by default in SQLite; deleting users, tokens and nodes relies on ON DELETE CASCADE.
    connection.pragma_update(None, "foreign_keys", true)?;
    // In memory: a temporary file could not be written on a full disk.
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    Ok(connection)
}

/// Opens a connection that refuses changes.
pub(super) fn open_reader(path: &Path) -> Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // Not SQLITE_OPEN_READ_ONLY: the first connection after a crash has to recover the write-ahead log, which writes.
    // `query_only` refuses changes by statements.
    connection.busy_timeout(READ_BUSY_TIMEOUT)?;
    connection.pragma_update(None, "query_only", true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE_CAPACITY);
    Ok(connection)
}

/// Refuses a database that SQLite's `quick_check` finds damaged.
pub(super) fn check_integrity(connection: &Connection) -> Result<()> {
    // Unlike `integrity_check`, it does not compare indexes with tables, which would take too long at each start.
    let outcome: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if outcome == "ok" { Ok(()) } else { Err(StoreError::Corrupt(outcome)) }
}

/// Returns a number that commits of other connections change, of this process or another.
pub(super) fn data_version(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "data_version", |row| row.get(0))?)
}

/// Returns the number of migrations that were applied to a database.
pub(super) fn schema_version(connection: &Connection) -> Result<usize> {
    let version: u32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(usize::try_from(version).unwrap_or(usize::MAX))
}

/// Copies a database to an empty file, with the content of the write-ahead log, which a copy of the file alone would
/// lack. The copy is consistent, and not synced.
pub(super) fn copy_database(connection: &Connection, target: &Path) -> Result<()> {
    connection.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
    Ok(())
}

/// Returns `PRAGMA synchronous` of a connection.
#[cfg(test)]
pub(super) fn synchronous_mode(connection: &Connection) -> Result<i64> {
    Ok(connection.pragma_query_value(None, "synchronous", |row| row.get(0))?)
}

/// Makes a database look as if this number of migrations had been applied.
#[cfg(test)]
pub(super) fn set_schema_version(connection: &Connection, version: u32) -> Result<()> {
    Ok(connection.pragma_update(None, "user_version", version)?)
}
