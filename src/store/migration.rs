//! Creation of the database, and its migration: after a backup where that was asked for, refused otherwise.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::sqlite::{copy_database, schema_version, without_foreign_keys};
use super::{DATABASE_FILE_NAME, MIGRATION_STEPS, MIGRATIONS, Result, StoreError};

/// Name of the file with the key of the secrets' prefilters; `auth` creates and reads it.
pub(crate) const PEPPER_FILE_NAME: &str = "pepper";
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

/// Migrates the database to the latest schema, as `migration` allows.
///
/// # Errors
/// [`StoreError::SchemaTooNew`], [`StoreError::SchemaTooOld`].
pub(super) fn migrate(connection: &mut Connection, state_dir: &Path, migration: MigrationMode) -> Result<()> {
    let (found, latest) = (schema_version(connection)?, MIGRATION_STEPS.len());
    // A new database (0), or one of a newer patgate, is left to `to_latest`, which creates or refuses it.
    if found > 0 && found < latest {
        if migration == MigrationMode::Refuse {
            return Err(StoreError::SchemaTooOld { found, latest });
        }
        let backup = back_up(connection, state_dir, found)?;
        tracing::warn!(
            "the database is migrated from schema {found} to {latest}; a copy of it as it was is {}",
            backup.display()
        );
    }
    // Step 14 replaces tables that others refer to. Its rows keep their ids, so no reference is broken; references that were
    // broken before, by an edit from outside, must not keep the server from starting, so they aren't checked either.
    without_foreign_keys(connection, |connection| Ok(MIGRATIONS.to_latest(connection)?))
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
