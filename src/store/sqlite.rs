//! SQLite: connections and their settings, copies, integrity, and the fragments of SQL that other engines write otherwise.
//!
//! Every other file of the store keeps to what SQLite and PostgreSQL both understand (`tests/portable_sql.rs` holds that);
//! tables and triggers are in the `schema*.sql` files, which are SQLite's as well.

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

/// Runs a change of the schema during which tables may be replaced that others refer to.
pub(super) fn without_foreign_keys<T>(
    connection: &mut Connection,
    change: impl FnOnce(&mut Connection) -> Result<T>,
) -> Result<T> {
    // Before the transaction of the change: the pragma has no effect within one.
    connection.pragma_update(None, "foreign_keys", false)?;
    let outcome = change(connection);
    // Also after a failure: rows below deleted ones would otherwise stay.
    connection.pragma_update(None, "foreign_keys", true)?;
    outcome
}

/// Copies a database to an empty file, with the content of the write-ahead log, which a copy of the file alone would
/// lack. The copy is consistent, and not synced.
pub(super) fn copy_database(connection: &Connection, target: &Path) -> Result<()> {
    connection.execute("VACUUM INTO ?1", [target.to_string_lossy()])?;
    Ok(())
}

/// Returns a condition that is true where a text is a part of another.
pub(super) fn contains_sql(text: &str, part: &str) -> String {
    format!("instr({text}, {part}) > 0")
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

/// Moves all commits from the write-ahead log into the database.
#[cfg(test)]
pub(super) fn empty_write_ahead_log(store: &super::Store) {
    super::testing::execute_externally(store, "PRAGMA wal_checkpoint(TRUNCATE)");
}

/// Returns the steps by which SQLite carries out a query, one in a line.
#[cfg(test)]
pub(super) fn query_plan(c: &Connection, query: &str, params: impl rusqlite::Params) -> Result<String> {
    let mut select = c.prepare(&format!("EXPLAIN QUERY PLAN {query}"))?;
    let steps = select.query_map(params, |row| row.get::<_, String>(3))?;
    Ok(steps.collect::<rusqlite::Result<Vec<_>>>()?.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{id, login, now, older_state_dir, open_temp_store};
    use super::super::{DATABASE_FILE_NAME, MIGRATIONS, SecretHash, Store};
    use super::*;

    fn texts(connection: &Connection, query: &str) -> Vec<String> {
        let mut select = connection.prepare(query).expect("a query");
        let rows = select.query_map([], |row| row.get(0)).expect("read");
        rows.collect::<rusqlite::Result<_>>().expect("text")
    }

    fn count(store: &Store, rows: &str) -> i64 {
        let query = format!("SELECT count(*) FROM {rows}");
        store.read(|c| Ok(c.query_row(&query, [], |row| row.get(0))?)).expect("read")
    }

    /// Rows of each table that the migration to ids that are never reused replaces, and of those that refer to them.
    const ROWS_OF_SCHEMA_13: &str = "INSERT INTO users (id, login, created_at, disabled_at) VALUES (7, 'bob', 2, 3);
        INSERT INTO user_roles (user_id, role) VALUES (1, 'admin');
        INSERT INTO grants (user_id, node, permission, created_at) VALUES (7, zeroblob(16), 1, 1);
        INSERT INTO tokens (id, user_id, name, phc, prefilter, created_at, scoped)
            VALUES ('aaaaaaaa', 1, 'n', 'p', zeroblob(8), 1, 0), ('bbbbbbbb', 7, 'n', 'p', zeroblob(8), 1, 0);
        UPDATE tokens SET prefilter = x'0102030405060708' WHERE id = 'bbbbbbbb';
        INSERT INTO intents (id, source, target, folder, inode, born, how, other_folder, other_inode, other_born)
            VALUES (5, x'61', x'62', 1, 2, 3, 'swap', 0, 4, 5);
        INSERT INTO checksums (number, etag, value) VALUES (9, zeroblob(16), 'MD5:0');";

    /// Opens a store of schema 13 with rows, and so migrates it; returns the former texts of tables, indices and triggers,
    /// and the present ones, but for what the migration is about.
    fn migrate_from_schema_13() -> (tempfile::TempDir, Store, [Vec<String>; 2]) {
        let schema = "SELECT replace(replace(sql, '\"', ''), ' AUTOINCREMENT', '') FROM sqlite_schema
            WHERE name NOT IN ('intents', 'checksums', 'sqlite_sequence') AND sql IS NOT NULL ORDER BY name";
        let temp_dir = older_state_dir(13);
        let older = Connection::open(temp_dir.path().join(DATABASE_FILE_NAME)).expect("opens");
        older.execute_batch(ROWS_OF_SCHEMA_13).expect("filled");
        let before = texts(&older, schema);
        drop(older);
        let store = Store::open(temp_dir.path()).expect("migrated");
        let after = store.read(|c| Ok(texts(c, schema))).expect("read");
        (temp_dir, store, [before, after])
    }

    #[test]
    fn migration_to_ids_that_are_never_reused_keeps_rows_and_schema() {
        let (_temp_dir, store, [before, after]) = migrate_from_schema_13();
        assert_eq!(after, before);
        for (number, rows) in [
            (1, "users WHERE id = 7 AND login = 'bob' AND created_at = 2 AND disabled_at = 3"),
            (2, "users"),
            (1, "user_roles"),
            (1, "grants"),
            (2, "tokens JOIN users ON users.id = tokens.user_id"),
            (1, "retired WHERE token = 'bbbbbbbb' AND prefilter = zeroblob(8)"),
            (1, "intents WHERE id = 5 AND source = x'61' AND target = x'62' AND folder = 1 AND inode = 2 AND born = 3"),
            (1, "intents WHERE how = 'swap' AND other_folder = 0 AND other_inode = 4 AND other_born = 5"),
            (1, "checksums WHERE number = 9 AND etag = zeroblob(16) AND value = 'MD5:0'"),
            (0, "pragma_foreign_key_check"),
        ] {
            assert_eq!(count(&store, rows), number, "{rows}");
        }
    }

    #[test]
    fn triggers_and_references_work_after_migration_and_ids_are_not_reused() {
        let (_temp_dir, store, _) = migrate_from_schema_13();
        let epoch = store.epoch().expect("read");
        store.enable_user(&login("bob")).expect("enabled");
        assert!(store.epoch().expect("read") > epoch);
        let secret_hash = SecretHash { phc: "p".to_owned(), prefilter: [9; 8] };
        store.rotate_token(id("bbbbbbbb"), &secret_hash, None).expect("rotated");
        assert_eq!(count(&store, "retired WHERE token = 'bbbbbbbb'"), 2);
        store.delete_user(&login("bob")).expect("deleted");
        assert_eq!(["tokens", "retired", "grants"].map(|table| count(&store, table)), [1, 0, 0]);
        store.create_user(&login("carol"), &[], now()).expect("user");
        assert_eq!(count(&store, "users WHERE login = 'carol' AND id = 8"), 1, "7 was that of bob");
    }

    #[test]
    fn migration_under_foreign_keys_is_refused_before_rows_are_lost() {
        let temp_dir = older_state_dir(13);
        let path = temp_dir.path().join(DATABASE_FILE_NAME);
        let mut connection = open_writer(&path, WriteDurability::Lazy).expect("opens");
        MIGRATIONS.to_latest(&mut connection).expect_err("refused");
        assert_eq!(texts(&connection, "SELECT login FROM users"), ["alice"]);
        without_foreign_keys(&mut connection, |c| Ok(MIGRATIONS.to_latest(c)?)).expect("migrated");
        let is_enforced: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).expect("read");
        assert!(is_enforced, "they are on again");
    }

    #[test]
    fn tables_that_draw_ids_never_reuse_them() {
        let (_temp_dir, store) = open_temp_store();
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%INTEGER PRIMARY KEY%'
            AND sql NOT LIKE '%AUTOINCREMENT%' ORDER BY name";
        assert_eq!(store.read(|c| Ok(texts(c, tables))).expect("read"), ["clock", "meta"], "these have one row");
    }
}
