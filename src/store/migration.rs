//! Creation of the database, and its migration: after a backup where that was asked for, refused otherwise. A migration
//! that would lose rows, or leave a damaged database, is rolled back.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;
use rusqlite_migration::{HookError, M, Migrations};

use super::audit_export::chain_existing_rows;
use super::sqlite::{
    TableRowCount, check_integrity, copy_database, count_rows, open_copy, schema_version, without_foreign_keys,
};
use super::{DATABASE_FILE_NAME, Result, StoreError};

/// Name of the file with the key of the secrets' prefilters; `auth` creates and reads it.
pub(crate) const PEPPER_FILE_NAME: &str = "pepper";
/// Steps from an empty database to the latest schema. Append only: the number of steps that were applied is the schema
/// version of a database (`user_version`).
const SCHEMA_SCRIPTS: [&str; 21] = [
    include_str!("schema.sql"),
    include_str!("schema_2.sql"),
    include_str!("schema_3.sql"),
    include_str!("schema_4.sql"),
    include_str!("schema_5.sql"),
    include_str!("schema_6.sql"),
    include_str!("schema_7.sql"),
    include_str!("schema_8.sql"),
    include_str!("schema_9.sql"),
    include_str!("schema_10.sql"),
    include_str!("schema_11.sql"),
    include_str!("schema_12.sql"),
    include_str!("schema_13.sql"),
    include_str!("schema_14.sql"),
    include_str!("schema_15.sql"),
    include_str!("schema_16.sql"),
    include_str!("schema_17.sql"),
    AUDIT_CHAIN_SCRIPT,
    include_str!("schema_19.sql"),
    include_str!("schema_20.sql"),
    include_str!("schema_21.sql"),
];
/// Step after which the rows of the audit trail are chained, which SQL alone can't do.
const AUDIT_CHAIN_SCRIPT: &str = include_str!("schema_18.sql");
/// Tables from which no migration removes rows.
const COUNTED_TABLES: [&str; 11] =
    ["policy", "users", "user_roles", "grants", "tokens", "scopes", "nodes", "locks", "properties", "events", "bans"];
/// Maximum number of backups of one schema.
const MAX_BACKUPS_PER_SCHEMA: u32 = 1000;

/// Handling of a database with an older schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MigrationMode {
    /// Migrate it, after a backup of it was made beside it.
    AfterBackup,
    /// Refuse it.
    Refuse,
}

/// Creates an empty file for the database where there is none. Never opens an existing one: closing it would release
/// the locks that SQLite holds on it for another store of this process (POSIX locks belong to process and file).
///
/// # Errors
/// [`StoreError::DatabaseMissing`] where a pepper shows that there was one.
pub(super) fn create_database_file(state_dir: &Path) -> Result<PathBuf> {
    let state_dir_error = |source| StoreError::StateDirectory { path: state_dir.to_owned(), source };
    let path = state_dir.join(DATABASE_FILE_NAME);
    // SQLite would take an empty file for a new database, so it counts as a missing one here.
    let has_database = fs::metadata(&path).is_ok_and(|metadata| metadata.size() > 0);
    // Lost data, not a new installation: an empty database would accept no existing token, and hide the loss.
    if !has_database && state_dir.join(PEPPER_FILE_NAME).exists() {
        return Err(StoreError::DatabaseMissing(path));
    }
    // `create_new` never opens an existing file, and the mode is right from the start.
    match OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).map_err(state_dir_error)?;
        }
        created => drop(created.map_err(state_dir_error)?),
    }
    Ok(path)
}

/// Returns the steps from an empty database to the latest schema, as far as they were tested against no database.
#[cfg(test)]
pub(super) fn migrations() -> Migrations<'static> {
    checked_migrations(Vec::new())
}

/// Returns the steps to the latest schema. The last one is followed by a check in the same transaction: `before` is the
/// number of rows of each table before the first step.
fn checked_migrations(before: Vec<TableRowCount>) -> Migrations<'static> {
    let mut before = Some(before);
    let steps = SCHEMA_SCRIPTS.iter().enumerate().map(|(number, script)| {
        let is_audit_chain = *script == AUDIT_CHAIN_SCRIPT;
        let to_check = if number + 1 == SCHEMA_SCRIPTS.len() { before.take() } else { None };
        if !is_audit_chain && to_check.is_none() {
            return M::up(script);
        }
        M::up_with_hook(script, move |transaction: &rusqlite::Transaction<'_>| {
            let failed = |error: StoreError| HookError::Hook(error.to_string());
            if is_audit_chain {
                chain_existing_rows(transaction).map_err(failed)?;
            }
            to_check.as_ref().map_or(Ok(()), |before| check_migrated(transaction, before)).map_err(failed)
        })
    });
    Migrations::new(steps.collect())
}

/// Refuses a migrated database that is damaged, or lacks rows that were there before.
fn check_migrated(connection: &Connection, before: &[TableRowCount]) -> Result<()> {
    let names: Vec<_> = before.iter().map(|count| count.table).collect();
    let after = count_rows(connection, &names)?;
    match before.iter().zip(&after).find(|(before, after)| before != after) {
        None if before.is_empty() => Ok(()),
        None => check_integrity(connection),
        Some((before, after)) => Err(StoreError::Corrupt(format!(
            "the migration would have changed the number of rows of {} from {} to {}",
            before.table, before.rows, after.rows
        ))),
    }
}

/// Migrates the database to the latest schema, as `migration` allows.
///
/// # Errors
/// [`StoreError::SchemaTooNew`], [`StoreError::SchemaTooOld`].
pub(super) fn migrate(connection: &mut Connection, state_dir: &Path, migration: MigrationMode) -> Result<()> {
    let (found, latest) = (schema_version(connection)?, SCHEMA_SCRIPTS.len());
    if found > latest {
        return Err(StoreError::SchemaTooNew { found, latest, copy: latest_usable_copy(state_dir, latest) });
    }
    let mut before = Vec::new();
    // A new database (0) has nothing to copy or to lose.
    if found > 0 && found < latest {
        if migration == MigrationMode::Refuse {
            return Err(StoreError::SchemaTooOld { found, latest });
        }
        let backup = back_up(connection, state_dir, found)?;
        before = count_rows(connection, &COUNTED_TABLES)?;
        check_copy(&backup, found, &before)?;
        tracing::warn!(
            "the database is migrated from schema {found} to {latest}; a copy of it as it was is {}",
            backup.display()
        );
    }
    // Step 14 replaces tables that others refer to. Its rows keep their ids, so no reference is broken; references that were
    // broken before, by an edit from outside, must not keep the server from starting, so they aren't checked either.
    without_foreign_keys(connection, |connection| Ok(checked_migrations(before).to_latest(connection)?))
}

/// Refuses a backup that is damaged, or lacks rows: the migration must not begin without a way back.
fn check_copy(backup: &Path, schema: usize, rows: &[TableRowCount]) -> Result<()> {
    let copy = open_copy(backup)?;
    check_integrity(&copy)?;
    let names: Vec<_> = rows.iter().map(|count| count.table).collect();
    if schema_version(&copy)? == schema && count_rows(&copy, &names)? == rows {
        return Ok(());
    }
    Err(StoreError::Corrupt(format!("the copy {} does not hold what the database does", backup.display())))
}

/// Returns the latest backup that this version can use, of the highest schema.
fn latest_usable_copy(state_dir: &Path, latest: usize) -> Option<PathBuf> {
    let schema_and_number = |name: &str| -> Option<(usize, u32)> {
        let middle = name.strip_prefix(DATABASE_FILE_NAME)?.strip_prefix(".schema-")?.strip_suffix(".backup")?;
        let (schema, number) = middle.split_once('-').unwrap_or((middle, "1"));
        Some((schema.parse().ok()?, number.parse().ok()?))
    };
    let names = fs::read_dir(state_dir).ok()?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let copies = names.filter_map(|name| Some((schema_and_number(&name)?, name)));
    let (_, name) = copies.filter(|((schema, _), _)| *schema <= latest).max()?;
    Some(state_dir.join(name))
}

/// Copies the database, complete and synced, to a backup file beside it.
fn back_up(connection: &Connection, state_dir: &Path, schema: usize) -> Result<PathBuf> {
    let draft = state_dir.join(format!("{DATABASE_FILE_NAME}.schema-{schema}.draft"));
    let state_dir_error = |source| StoreError::StateDirectory { path: draft.clone(), source };
    // Left by a process that was killed during a backup.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(state_dir_error(error)),
        _ => {}
    }
    // SQLite accepts an existing empty file as the target: created here, nobody else can read it at any moment.
    let file = OpenOptions::new().create_new(true).write(true).mode(0o600).open(&draft).map_err(state_dir_error)?;
    let copied = copy_database(connection, &draft)
        .and_then(|()| file.sync_all().map_err(state_dir_error))
        .and_then(|()| publish_backup(state_dir, &draft, schema));
    if copied.is_err() {
        let _ = fs::remove_file(&draft);
    }
    copied
}

/// Gives a finished backup its name, without replacing an existing one.
fn publish_backup(state_dir: &Path, draft: &Path, schema: usize) -> Result<PathBuf> {
    let state_dir_error = |source| StoreError::StateDirectory { path: draft.to_owned(), source };
    for number in 1..=MAX_BACKUPS_PER_SCHEMA {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = state_dir.join(format!("{DATABASE_FILE_NAME}.schema-{schema}{suffix}.backup"));
        // Unlike a rename, a hard link fails where the name exists: backups of former attempts are kept.
        match fs::hard_link(draft, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(state_dir_error(error)),
            Ok(()) => {
                // The sync of the directory makes the backup durable before the migration begins.
                let synced = fs::remove_file(draft).and_then(|()| fs::File::open(state_dir)).and_then(|f| f.sync_all());
                return synced.map_err(state_dir_error).map(|()| path);
            }
        }
    }
    Err(state_dir_error(io::Error::other("there are too many backups of this schema already")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;
    use crate::store::testing::{login, now, older_state_dir};

    fn backup_names(state_dir: &Path) -> Vec<String> {
        let names = fs::read_dir(state_dir).expect("directory").flatten().map(|entry| entry.file_name());
        let mut names: Vec<_> = names.filter_map(|name| name.into_string().ok()).collect();
        names.retain(|name| name.contains("schema") && !name.ends_with("-wal") && !name.ends_with("-shm"));
        names.sort();
        names
    }

    #[test]
    fn older_database_is_backed_up_before_migration() {
        for schema in [1, 5, 8] {
            let temp_dir = older_state_dir(schema);
            let state_dir = temp_dir.path();
            fs::write(state_dir.join(format!("patgate.db.schema-{schema}.backup")), "an older one").expect("written");
            fs::write(state_dir.join(format!("patgate.db.schema-{schema}.draft")), "a killed one").expect("written");
            let store = Store::open(state_dir).expect("migrated");
            assert!(store.user(&login("alice")).expect("read").is_some());
            let name = format!("patgate.db.schema-{schema}-2.backup");
            assert_eq!(backup_names(state_dir), [name.clone(), format!("patgate.db.schema-{schema}.backup")]);
            let backup = state_dir.join(&name);
            assert_eq!(fs::metadata(&backup).expect("there").permissions().mode() & 0o777, 0o600);
            let backup = Connection::open(&backup).expect("opens");
            let found = schema_version(&backup).expect("read");
            let users: i64 = backup.query_row("SELECT count(*) FROM users", [], |row| row.get(0)).expect("read");
            assert_eq!((found, users), (schema, 1));
            drop(store);
            Store::open(state_dir).expect("opens");
            assert_eq!(backup_names(state_dir).len(), 2, "once");
        }
    }

    #[test]
    fn migration_that_loses_rows_is_rolled_back() {
        let temp_dir = older_state_dir(16);
        let path = temp_dir.path().join(DATABASE_FILE_NAME);
        let mut connection = Connection::open(&path).expect("opens");
        let before = vec![TableRowCount { table: "users", rows: 2 }];
        let error = checked_migrations(before).to_latest(&mut connection).expect_err("refused");
        assert!(error.to_string().contains("rows of users from 2 to 1"), "{error}");
        assert_eq!(schema_version(&connection).expect("read"), 16);
        check_migrated(&connection, &[TableRowCount { table: "users", rows: 1 }]).expect("as it was");
        let copy = temp_dir.path().join("copy");
        fs::copy(&path, &copy).expect("copied");
        let copied = vec![TableRowCount { table: "users", rows: 1 }];
        check_copy(&copy, 16, &copied).expect("complete");
        check_copy(&copy, 15, &copied).expect_err("another schema");
        check_copy(&copy, 16, &[TableRowCount { table: "users", rows: 2 }]).expect_err("incomplete");
    }

    #[test]
    fn newer_database_is_refused_with_the_copy_to_go_back_to() {
        let temp_dir = older_state_dir(SCHEMA_SCRIPTS.len());
        let state_dir = temp_dir.path();
        let connection = Connection::open(state_dir.join(DATABASE_FILE_NAME)).expect("opens");
        crate::store::sqlite::set_schema_version(&connection, 99).expect("set");
        drop(connection);
        let refusal = || match Store::open(state_dir).expect_err("refused") {
            StoreError::SchemaTooNew { found: 99, latest, copy } if latest == SCHEMA_SCRIPTS.len() => copy,
            other => panic!("{other:?}"),
        };
        assert_eq!(refusal(), None);
        let latest = SCHEMA_SCRIPTS.len();
        let newer = latest + 1;
        for schema in
            ["4", &format!("{latest}"), &format!("{latest}-2"), &format!("{latest}-10"), &format!("{newer}"), "x"]
        {
            fs::write(state_dir.join(format!("patgate.db.schema-{schema}.backup")), "").expect("written");
        }
        assert_eq!(refusal(), Some(state_dir.join(format!("patgate.db.schema-{latest}-10.backup"))));
    }

    #[test]
    fn older_database_is_not_migrated_unless_requested() {
        let temp_dir = older_state_dir(8);
        let before = fs::read(temp_dir.path().join(DATABASE_FILE_NAME)).expect("read");
        let error = Store::open_without_migration(temp_dir.path()).expect_err("refused");
        assert!(matches!(error, StoreError::SchemaTooOld { found: 8, .. }), "{error:?}");
        assert!(error.to_string().contains("patgate serve migrates it"), "{error}");
        assert!(backup_names(temp_dir.path()).is_empty());
        let connection = Connection::open(temp_dir.path().join(DATABASE_FILE_NAME)).expect("opens");
        let found = schema_version(&connection).expect("read");
        assert_eq!((found, before.len()), (8, fs::read(temp_dir.path().join(DATABASE_FILE_NAME)).expect("read").len()));
    }

    #[test]
    fn new_state_is_created_without_backup() {
        let temp_dir = tempfile::tempdir().expect("directory");
        let store = Store::open_without_migration(temp_dir.path()).expect("created");
        store.create_user(&login("alice"), &[], now()).expect("user");
        assert!(backup_names(temp_dir.path()).is_empty());
    }

    #[test]
    fn missing_database_beside_pepper_is_not_recreated() {
        for content in [None, Some("")] {
            let temp_dir = tempfile::tempdir().expect("directory");
            fs::write(temp_dir.path().join(PEPPER_FILE_NAME), [7; 32]).expect("written");
            if let Some(content) = content {
                fs::write(temp_dir.path().join(DATABASE_FILE_NAME), content).expect("written");
            }
            for open in [Store::open, Store::open_without_migration] {
                let error = open(temp_dir.path()).expect_err("refused");
                assert!(matches!(error, StoreError::DatabaseMissing(_)), "{error:?}");
                assert!(error.to_string().contains("restore it from a backup"), "{error}");
            }
            assert_eq!(temp_dir.path().join(DATABASE_FILE_NAME).exists(), content.is_some());
        }
    }
}
