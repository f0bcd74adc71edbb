//! A state directory that is being restored: its files are put into a directory within the one that they belong to, checked
//! there, and moved into place last.
//!
//! A restore that is killed leaves a state that no server starts with, or a complete one: the former database goes first and
//! the new one comes last, and without a database beside a pepper no server starts.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::age_program::{self, AGE_MAGIC};
use super::backup_archive::{BackupManifest, CONFIG_NAME, DATABASE_NAME, PEPPER_NAME, extract_archive, is_part_name};
use super::{CommandError, Result};

/// First bytes of a database of SQLite.
const SQLITE_MAGIC: &[u8; 16] = b"SQLite format 3\0";
/// Name of the directory in the state directory.
const STAGED_NAME: &str = "restore.draft";
/// Files that belong to a database, and that are moved with it.
const DATABASE_COMPANIONS: [&str; 3] = ["patgate.db-wal", "patgate.db-shm", "patgate.epoch"];

/// The source of a restore.
#[derive(Debug)]
pub(super) enum RestoreSource {
    /// A backup with its manifest.
    Archive(Box<BackupManifest>),
    /// A copy of a database alone, such as the one that is made before a migration. Pepper and host keys stay.
    Database,
    /// The files of a former state that a restore has replaced.
    Directory,
}

/// Directory with the files of the state to come; it is removed when this value is dropped.
#[derive(Debug)]
pub(super) struct StagedState {
    path: PathBuf,
}

impl Drop for StagedState {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

impl StagedState {
    /// Creates an empty one in a state directory, of which the caller holds the lock.
    pub(super) fn create(state: &Path) -> Result<Self> {
        let path = state.join(STAGED_NAME);
        // Left by a restore that was killed: another one that runs would hold the lock.
        let _ = fs::remove_dir_all(&path);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { path })
    }

    /// Returns the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the source into the directory, decrypted with the identity in a file if one is given. `state` is the present
    /// state directory.
    pub(super) fn fill(&self, source: &Path, age_identity: Option<&Path>, state: &Path) -> Result<RestoreSource> {
        let unreadable = |error: io::Error| {
            CommandError::new(format!("{} can't be read: {error}", source.display()))
                .with_hint("give the file that patgate admin backup has written")
        };
        if source == Path::new("-") {
            return match age_identity {
                Some(identity) => self.fill_decrypted(identity, Stdio::inherit()),
                None => self.fill_from_archive(io::stdin().lock()),
            };
        }
        if fs::metadata(source).map_err(unreadable)?.is_dir() {
            self.copy_state_files(source, |name| is_part_name(name) || name == DATABASE_COMPANIONS[0])?;
            return Ok(RestoreSource::Directory);
        }
        let mut file = File::open(source).map_err(unreadable)?;
        if let Some(identity) = age_identity {
            return self.fill_decrypted(identity, file);
        }
        let mut magic = Vec::new();
        file.by_ref().take(SQLITE_MAGIC.len() as u64).read_to_end(&mut magic).map_err(unreadable)?;
        if magic != SQLITE_MAGIC {
            return self.fill_from_archive(magic.chain(file));
        }
        copy_private(source, &self.path.join(DATABASE_NAME)).map_err(unreadable)?;
        self.copy_state_files(state, |name| is_part_name(name) && name != DATABASE_NAME)?;
        Ok(RestoreSource::Database)
    }

    fn fill_decrypted(&self, identity: &Path, input: impl Into<Stdio>) -> Result<RestoreSource> {
        age_program::decrypt(identity, input, |archive| self.fill_from_archive(archive))
    }

    fn fill_from_archive(&self, mut input: impl Read) -> Result<RestoreSource> {
        let mut magic = Vec::new();
        input.by_ref().take(AGE_MAGIC.len() as u64).read_to_end(&mut magic)?;
        if magic == AGE_MAGIC {
            return Err(CommandError::new("the backup is encrypted with age").with_hint("give --age-identity FILE"));
        }
        Ok(RestoreSource::Archive(Box::new(extract_archive(magic.chain(input), &self.path)?)))
    }

    fn copy_state_files(&self, from: &Path, is_copied: impl Fn(&str) -> bool) -> Result {
        for name in file_names(from)?.iter().filter(|name| is_copied(name)) {
            copy_private(&from.join(name), &self.path.join(name))?;
        }
        Ok(())
    }

    /// Moves the files into the state directory. Those that they replace go into a directory beside them, which is returned
    /// where there are any. The caller holds the lock of the state directory, and no store is open in either place.
    ///
    /// # Errors
    /// [`CommandError`], which says where the former files are.
    pub(super) fn install(self, state: &Path, time_text: &str) -> Result<Option<PathBuf>> {
        let new_names: Vec<_> = file_names(&self.path)?.into_iter().filter(|name| is_part_name(name)).collect();
        let is_replaced = |name: &String| is_state_name(name) || new_names.contains(name);
        let former_names: Vec<_> = file_names(state)?.into_iter().filter(is_replaced).collect();
        let replaced = if former_names.is_empty() { None } else { Some(create_replaced_directory(state, time_text)?) };
        let moved = self.move_files(state, &new_names, replaced.as_deref().map(|path| (path, &former_names[..])));
        moved.map_err(|error| {
            let error = CommandError::new(format!("the state could not be moved into place: {error}"));
            match &replaced {
                Some(replaced) => error.with_hint(format!(
                    "its former files are in {}; run the command again with --replace once that is possible",
                    replaced.display()
                )),
                None => error,
            }
        })?;
        Ok(replaced)
    }

    fn move_files(&self, state: &Path, new_names: &[String], former: Option<(&Path, &[String])>) -> io::Result<()> {
        let has_pepper = new_names.iter().any(|name| name == PEPPER_NAME);
        if let Some((replaced, former_names)) = former {
            // The database before all else: from here on no server starts, until the new one is complete.
            let (pepper, others): (Vec<_>, Vec<_>) = former_names.iter().partition(|name| *name == PEPPER_NAME);
            let (database, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|name| is_of_database(name));
            for name in database.into_iter().chain(others) {
                fs::rename(state.join(name), replaced.join(name))?;
            }
            for name in pepper {
                fs::hard_link(state.join(name), replaced.join(name))?;
            }
            sync_directory(replaced)?;
            sync_directory(state)?;
        }
        let (database, others): (Vec<_>, Vec<_>) = new_names.iter().partition(|name| *name == DATABASE_NAME);
        for name in others {
            fs::rename(self.path.join(name), state.join(name))?;
        }
        sync_directory(state)?;
        for name in database {
            fs::rename(self.path.join(name), state.join(name))?;
        }
        // A state that has created no token yet has no pepper, and would refuse that of another.
        if former.is_some() && !has_pepper {
            fs::remove_file(state.join(PEPPER_NAME)).or_else(ignore_missing)?;
        }
        sync_directory(state)
    }
}

/// Tells whether a state directory has files that a restore would replace.
pub(super) fn holds_state(state: &Path) -> bool {
    file_names(state).unwrap_or_default().iter().any(|name| is_state_name(name))
}

fn is_of_database(name: &str) -> bool {
    name == DATABASE_NAME || DATABASE_COMPANIONS.contains(&name)
}

fn is_state_name(name: &str) -> bool {
    // A configuration file in the state directory is none of its parts unless a restore put it there, and stays.
    (is_part_name(name) && name != CONFIG_NAME) || is_of_database(name)
}

fn create_replaced_directory(state: &Path, time_text: &str) -> Result<PathBuf> {
    let plain: String = time_text.chars().filter(char::is_ascii_alphanumeric).collect();
    for number in 1..100 {
        let suffix = if number == 1 { String::new() } else { format!("-{number}") };
        let path = state.join(format!("replaced-{plain}{suffix}"));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            created => return Ok(created.map(|()| path)?),
        }
    }
    Err(CommandError::new(format!("{} has too many replaced states", state.display())))
}

fn file_names(directory: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    names.sort();
    Ok(names)
}

fn copy_private(from: &Path, to: &Path) -> io::Result<()> {
    let mut target = OpenOptions::new().create_new(true).write(true).mode(0o600).open(to)?;
    io::copy(&mut File::open(from)?, &mut target)?;
    target.sync_all()
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

fn ignore_missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(directory: &Path, files: &[(&str, &str)]) {
        for (name, content) in files {
            fs::write(directory.join(name), content).expect("written");
        }
    }

    fn read(directory: &Path, name: &str) -> Option<String> {
        fs::read_to_string(directory.join(name)).ok()
    }

    #[test]
    fn former_files_are_kept_and_foreign_ones_stay() {
        let folder = tempfile::tempdir().expect("directory");
        let state = folder.path();
        write(state, &[("patgate.db", "old"), ("patgate.db-wal", "w"), ("pepper", "old"), ("ssh_host_rsa_key", "old")]);
        write(state, &[("patgate.toml", "mine"), ("notes", "mine"), ("serve.lock", "")]);
        let staged = StagedState::create(state).expect("created");
        write(staged.path(), &[("patgate.db", "new"), ("pepper", "new"), ("ssh_host_ed25519_key", "new")]);
        write(staged.path(), &[("patgate.db.schema-4.backup", "copy"), ("patgate.epoch", "new")]);
        let replaced = staged.install(state, "2026-05-05T08:00:00Z").expect("installed").expect("replaced");
        assert_eq!(replaced, state.join("replaced-20260505T080000Z"));
        for name in ["patgate.db", "pepper", "ssh_host_ed25519_key"] {
            assert_eq!(read(state, name).as_deref(), Some("new"), "{name}");
        }
        for name in ["patgate.db", "pepper", "ssh_host_rsa_key"] {
            assert_eq!(read(&replaced, name).as_deref(), Some("old"), "{name}");
        }
        assert_eq!((read(state, "ssh_host_rsa_key"), read(state, "patgate.db-wal")), (None, None));
        assert_eq!(
            (read(state, "patgate.toml").as_deref(), read(state, "notes").as_deref()),
            (Some("mine"), Some("mine"))
        );
        assert!(
            !fs::read_dir(state)
                .expect("read")
                .flatten()
                .any(|e| e.file_name().to_string_lossy().starts_with("restore"))
        );
    }

    #[test]
    fn install_into_an_empty_directory_replaces_nothing() {
        let folder = tempfile::tempdir().expect("directory");
        assert!(!holds_state(folder.path()));
        let staged = StagedState::create(folder.path()).expect("created");
        write(staged.path(), &[("patgate.db", "new")]);
        assert_eq!(staged.install(folder.path(), "now").expect("installed"), None);
        assert!(holds_state(folder.path()));
    }
}
