//! SQLite: connections and their settings, copies, integrity, and the fragments of SQL that other engines write otherwise.
//!
//! Every other file of the store keeps to what SQLite and PostgreSQL both understand (`tests/portable_sql.rs` holds that);
//! tables and triggers are in the `schema*.sql` files, which are SQLite's as well.

use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension};

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

/// Returns the highest id that a table with `AUTOINCREMENT` has ever drawn; `None` where it has drawn none.
pub(super) fn last_drawn_id(connection: &Connection, table: &str) -> Result<Option<u64>> {
    let mut select = connection.prepare_cached("SELECT seq FROM sqlite_sequence WHERE name = ?1")?;
    let mut rows = select.query([table])?;
    rows.next()?.map(|row| super::columns::get_u64(row, 0)).transpose()
}

/// Makes a table with `AUTOINCREMENT` draw only higher ids than this one, and than all that it has drawn.
pub(super) fn raise_last_drawn_id(connection: &Connection, table: &str, id: i64) -> Result<()> {
    let update = "UPDATE sqlite_sequence SET seq = max(seq, ?2) WHERE name = ?1";
    if connection.execute(update, (table, id))? == 0 {
        connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES (?1, ?2)", (table, id))?;
    }
    Ok(())
}

/// Number of rows of a table; 0 where there is no such table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TableRowCount {
    pub(super) table: &'static str,
    pub(super) rows: i64,
}

/// Counts the rows of tables.
pub(super) fn count_rows(connection: &Connection, tables: &[&'static str]) -> Result<Vec<TableRowCount>> {
    let count = |table: &&'static str| {
        let exists = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        let is_there: Option<i64> = connection.query_row(exists, [table], |row| row.get(0)).optional()?;
        let rows = match is_there {
            Some(_) => connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?,
            None => 0,
        };
        Ok(TableRowCount { table, rows })
    };
    tables.iter().map(count).collect()
}

/// Opens a copy of a database, of any schema, to read it. Nothing is created beside it.
pub(super) fn open_copy(path: &Path) -> Result<Connection> {
    Ok(Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?)
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

/// Makes a table draw its ids anew.
#[cfg(test)]
pub(super) fn forget_drawn_ids(connection: &Connection, table: &str) -> Result<()> {
    Ok(connection.execute("UPDATE sqlite_sequence SET seq = 0 WHERE name = ?1", [table]).map(drop)?)
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
    use std::fs;

    use super::super::migration::migrations;
    use super::super::testing::{id, login, now, older_state_dir, open_temp_store, secret_proof};
    use super::super::{DATABASE_FILE_NAME, Store};
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

    /// Migrates a store of schema 13 with rows; returns the texts of tables, indices and triggers before and after
    /// step 14, but for what that step is about.
    fn migrate_from_schema_13() -> (Store, [Vec<String>; 2], tempfile::TempDir) {
        let schema = "SELECT replace(replace(sql, '\"', ''), ' AUTOINCREMENT', '') FROM sqlite_schema
            WHERE name NOT IN ('intents', 'checksums', 'sqlite_sequence') AND sql IS NOT NULL ORDER BY name";
        let temp_dir = older_state_dir(13);
        let mut older = Connection::open(temp_dir.path().join(DATABASE_FILE_NAME)).expect("opens");
        older.execute_batch(ROWS_OF_SCHEMA_13).expect("filled");
        let before = texts(&older, schema);
        without_foreign_keys(&mut older, |c| Ok(migrations().to_version(c, 14)?)).expect("migrated");
        let after = texts(&older, schema);
        drop(older);
        (Store::open(temp_dir.path()).expect("migrated"), [before, after], temp_dir)
    }

    #[test]
    fn damage_that_a_command_does_not_read_does_not_delay_it() {
        let (temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        let root_page = |name: &str| {
            let select = "SELECT rootpage FROM sqlite_schema WHERE name = ?1";
            let page: u32 = store.read(|c| Ok(c.query_row(select, [name], |row| row.get(0))?)).expect("read");
            usize::try_from(page).expect("small")
        };
        let damaged_page = root_page("fine_times") - 1;
        drop(store);
        let state_dir = temp_dir.path().join("state");
        let mut content = fs::read(state_dir.join(DATABASE_FILE_NAME)).expect("read");
        content[damaged_page * 4096..][..4096].fill(0xa5);
        fs::write(state_dir.join(DATABASE_FILE_NAME), content).expect("overwritten");
        assert!(matches!(Store::open_for_diagnosis(&state_dir), Err(StoreError::Corrupt(_))));
        let store = Store::open_without_migration(&state_dir).expect("opens");
        store.disable_user(&login("alice"), now()).expect("disabled");
        let read = store.read(|c| Ok(c.query_row("SELECT count(*) FROM fine_times", [], |row| row.get::<_, i64>(0))?));
        assert!(matches!(read, Err(StoreError::Corrupt(_))), "{read:?}");
    }

    #[test]
    fn migration_to_ids_that_are_never_reused_keeps_rows_and_schema() {
        let (store, [before, after], _temp_dir) = migrate_from_schema_13();
        assert_eq!(after, before);
        for (number, rows) in [
            (1, "users WHERE id = 7 AND login = 'bob' AND created_at = 2 AND disabled_at = 3"),
            (2, "users"),
            (1, "user_roles"),
            (1, "grants"),
            (2, "tokens JOIN users ON users.id = tokens.user_id"),
            (1, "retired WHERE token = 'bbbbbbbb' AND prefilter = zeroblob(8)"),
            (1, "intents WHERE id = 5 AND source = x'61' AND target = x'62'"),
            (1, "intents WHERE is_directory = 1 AND inode = 2 AND birth_time = 3"),
            (1, "intents WHERE kind = 'swap' AND other_is_directory = 0 AND other_inode = 4 AND other_birth_time = 5"),
            (1, "checksums WHERE number = 9 AND etag = zeroblob(16) AND value = 'MD5:0'"),
            (0, "pragma_foreign_key_check"),
        ] {
            assert_eq!(count(&store, rows), number, "{rows}");
        }
    }

    #[test]
    fn triggers_and_references_work_after_migration_and_ids_are_not_reused() {
        let (store, _, _temp_dir) = migrate_from_schema_13();
        let epoch = store.epoch().expect("read");
        store.enable_user(&login("bob")).expect("enabled");
        assert!(store.epoch().expect("read") > epoch);
        store.rotate_token(id("bbbbbbbb"), &secret_proof("p", 9), None, now()).expect("rotated");
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
        migrations().to_latest(&mut connection).expect_err("refused");
        assert_eq!(texts(&connection, "SELECT login FROM users"), ["alice"]);
        without_foreign_keys(&mut connection, |c| Ok(migrations().to_latest(c)?)).expect("migrated");
        let is_enforced: bool = connection.pragma_query_value(None, "foreign_keys", |row| row.get(0)).expect("read");
        assert!(is_enforced, "they are on again");
    }

    /// Rows with each column that the migration to plain names renames.
    const ROWS_OF_SCHEMA_14: &str = "UPDATE meta SET pepper_mark = x'07070707070707070707070707070707';
        INSERT INTO tokens (id, user_id, name, phc, prefilter, old_until, created_at, hard_at, window_ms, scoped,
                expiry_noted)
            VALUES ('aaaaaaaa', 1, 'n', 'p', zeroblob(8), 4, 1, 9000, 5000, 0, 1);
        INSERT INTO nodes (id, name, folder, inode, born, namer) VALUES (zeroblob(16), x'', 1, 2, 3, 'alice');
        INSERT INTO nodes (id, parent, name, folder, namer)
            VALUES (x'01010101010101010101010101010101', zeroblob(16), x'61', 0, 'alice');
        INSERT INTO intents (source, target, folder, inode, born, how, other_folder, other_inode, other_born)
            VALUES (x'61', x'62', 1, 2, 3, 'swap', 0, 4, 5);
        INSERT INTO locks (token, path, deep, exclusive, login, owner, timeout_ms, expires_at)
            VALUES ('urn:x', x'61', 1, 0, 'alice', '', 5, 6);
        INSERT INTO journals (token, path, deep, floor, last, used_at) VALUES ('aaaaaaaa', x'61', 1, 2, 3, 4);
        INSERT INTO journal_entries (journal, path, folder, mark, number) VALUES (1, x'62', 1, x'63', 3);
        INSERT INTO uploads (token, name, touched_at) VALUES ('aaaaaaaa', x'61', 5);
        INSERT INTO upload_parts (upload, name, place, staged, size) VALUES (1, x'', x'62', x'63', 7);
        INSERT INTO clock (only, seen_at, running_ms, boot, held_ms, jumps) VALUES (1, 2, 3, 'b', 4, '[]');";

    #[test]
    fn migration_to_plain_column_names_keeps_rows() {
        let temp_dir = older_state_dir(14);
        let older = Connection::open(temp_dir.path().join(DATABASE_FILE_NAME)).expect("opens");
        older.execute_batch(ROWS_OF_SCHEMA_14).expect("filled");
        drop(older);
        let store = Store::open(temp_dir.path()).expect("migrated");
        for row in [
            "meta WHERE pepper_check_value = x'07070707070707070707070707070707'",
            "tokens WHERE old_secret_until = 4 AND hard_limit_at = 9000 AND expires_at = 5001 AND expiry_recorded = 1",
            "nodes WHERE is_directory = 1 AND inode = 2 AND birth_time = 3 AND named_by = 'alice'",
            "nodes WHERE is_directory = 0 AND name = x'61' AND named_by = 'alice'",
            "intents WHERE is_directory = 1 AND birth_time = 3 AND kind = 'swap' AND other_is_directory = 0",
            "intents WHERE other_inode = 4 AND other_birth_time = 5",
            "locks WHERE depth_infinity = 1 AND exclusive = 0",
            "journals WHERE depth_infinity = 1 AND purged_through = 2 AND last_number = 3",
            "journal_entries WHERE is_directory = 1 AND content_tag = x'63' AND number = 3",
            "uploads WHERE name = x'61' AND updated_at = 5",
            "upload_parts WHERE staging_directory = x'62' AND staged_name = x'63' AND size = 7",
            "clock WHERE wall_time = 2 AND boottime_ms = 3 AND boot_id = 'b' AND retention_wait_ms = 4",
            "usage WHERE resource = 'nodes' AND login = 'alice' AND amount = 2",
        ] {
            assert_eq!(count(&store, row), 1, "{row}");
        }
        assert_eq!(count(&store, "pragma_foreign_key_check"), 0);
    }

    #[test]
    fn triggers_constraints_and_generated_columns_follow_renamed_columns() {
        let temp_dir = older_state_dir(14);
        let store = Store::open(temp_dir.path()).expect("migrated");
        let (_new_dir, new_store) = open_temp_store();
        let schema = "SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
        let schemas = [&store, &new_store].map(|store| store.read(|c| Ok(texts(c, schema))).expect("read"));
        assert_eq!(schemas[0], schemas[1]);
        let write = |sql: &str| store.write(WriteDurability::Lazy, |t| Ok(t.execute(sql, [])?));
        let root = "INSERT INTO nodes (id, name, is_directory, named_by) VALUES (zeroblob(16), x'', 1, 'alice')";
        write(root).expect("inserted");
        write("UPDATE nodes SET named_by = 'bob'").expect("updated");
        assert_eq!(count(&store, "usage WHERE resource = 'nodes' AND login = 'bob' AND amount = 1"), 1);
        assert_eq!(count(&store, "usage WHERE login = 'alice'"), 0);
        let epoch = store.epoch().expect("read");
        write("UPDATE nodes SET birth_time = 5").expect("updated");
        assert!(store.epoch().expect("read") > epoch);
        write("UPDATE nodes SET is_directory = 2").expect_err("no flag");
        write("DELETE FROM nodes").expect("deleted");
        assert_eq!(count(&store, "usage WHERE amount > 0"), 0);
        let token = "INSERT INTO tokens (id, user_id, name, phc, prefilter, created_at, hard_limit_at, scoped)
            VALUES ('aaaaaaaa', 1, 'n', 'p', zeroblob(8), 1, 7, 0)";
        write(token).expect("inserted");
        assert_eq!(count(&store, "tokens WHERE expires_at = 7"), 1);
        let epoch = store.epoch().expect("read");
        write("UPDATE tokens SET expiry_recorded = 1").expect("updated");
        assert!(store.epoch().expect("read") > epoch);
    }

    #[test]
    fn tables_that_draw_ids_never_reuse_them() {
        let (_temp_dir, store) = open_temp_store();
        let tables = "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql LIKE '%INTEGER PRIMARY KEY%'
            AND sql NOT LIKE '%AUTOINCREMENT%' ORDER BY name";
        assert_eq!(store.read(|c| Ok(texts(c, tables))).expect("read"), ["clock", "meta"], "these have one row");
    }
}
