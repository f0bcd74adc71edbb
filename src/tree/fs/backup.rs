//! Replacement on file systems that can't exchange two entries (RENAME_EXCHANGE): the old entry is moved into staging
//! first, with a note of its path. The next sweep moves it back unless something took its place.

use std::collections::HashSet;
use std::sync::Arc;

use super::open::{OpenMode, open_no_symlinks};
use super::staging::read_raw_names;
use super::{DirectoryFd, Errno, Result, StagedEntry, StagingDirectory};
use crate::domain::{EntryName, TreePath};

/// Suffix of a note's name; the name of the staged entry precedes it.
const BACKUP_NOTE_SUFFIX: &[u8] = b".back";

/// Entry that was moved into staging with a note of its path. The next sweep restores it unless it is discarded before.
#[derive(Debug)]
pub(crate) struct StagedBackup {
    staged: StagedEntry,
    note: EntryName,
}

impl StagedBackup {
    /// Returns the staging directory and the name of the entry in it.
    pub(crate) fn directory_and_name(&self) -> (&DirectoryFd, &EntryName) {
        self.staged.directory_and_name()
    }

    /// Deletes the note, so that no sweep restores the entry, and returns the entry, which is removed when it is
    /// dropped.
    pub(crate) fn discard(self) -> StagedEntry {
        let Self { mut staged, note } = self;
        staged.remove_on_drop = true;
        // The note goes before the entry: if it were left, a start after the new entry was deleted would restore the
        // old one.
        if let Err(error) = staged.directory_and_name().0.unlink(&note) {
            tracing::warn!(%error, "a backup note can't be deleted: it stays in staging until the next start");
        }
        staged
    }

    /// Moves the entry back to its name. On an error it stays in staging with its note, for the next sweep.
    pub(crate) fn restore(self, directory: &DirectoryFd, name: &EntryName) -> Result<()> {
        let staging_directory = self.staged.directory_and_name().0.clone();
        self.staged.restore_to(directory, name)?;
        // The note goes last: until the entry is back it is the only record of its path.
        staging_directory.unlink(&self.note)
    }
}

impl StagingDirectory {
    /// Moves the entry `name` of a directory into staging, and notes `path`, its path in the tree.
    pub(crate) fn back_up(
        self: &Arc<Self>,
        directory: &DirectoryFd,
        name: &EntryName,
        path: &TreePath,
    ) -> Result<StagedBackup> {
        let reserved = self.reserve_name()?;
        let note = EntryName::new(&[reserved.directory_and_name().1.as_bytes(), BACKUP_NOTE_SUFFIX].concat())
            .map_err(|_| Errno::INVAL)?;
        // Relative to the file system that holds the staging: the note stays right wherever that is mounted in the
        // tree.
        let path_in_mount = path.strip_prefix(self.mounted_at()).ok_or(Errno::XDEV)?;
        // The note before the rename: a crash between both leaves a note without an entry, which is harmless. The other
        // way round the sweep would remove the entry.
        self.directory_fd().symlink(path_in_mount.as_bytes(), &note)?;
        match reserved.move_in(directory, name) {
            Ok(mut staged) => {
                staged.remove_on_drop = false;
                Ok(StagedBackup { staged, note })
            }
            Err(error) => {
                // Nothing was moved: the note would wait for an entry that never comes.
                self.directory_fd().unlink(&note)?;
                Err(error)
            }
        }
    }

    /// Moves the entry `name` of a directory into staging and calls `put`, which puts another entry under the name.
    /// Returns the old entry. Where `put` fails, the old entry is moved back.
    pub(crate) fn replace_with_backup(
        self: &Arc<Self>,
        directory: &DirectoryFd,
        name: &EntryName,
        path: &TreePath,
        put: impl FnOnce() -> Result<()>,
    ) -> Result<StagedEntry> {
        let backup = self.back_up(directory, name, path)?;
        match put() {
            // From here on no start restores the old entry, whether it is removed now or as debris.
            Ok(()) => Ok(backup.discard()),
            Err(error) => {
                backup.restore(directory, name)?;
                Err(error)
            }
        }
    }

    /// Moves entries back that were backed up and not replaced. `mount_root` is the directory that holds `.patgate`.
    /// Returns the names in staging of entries that can't be moved back now, and of their notes: the next sweep tries
    /// again.
    pub(super) fn restore_backups(&self, mount_root: &DirectoryFd) -> Result<HashSet<Vec<u8>>> {
        let mut retained = HashSet::new();
        for note in read_raw_names(&open_no_symlinks(self.directory_fd(), b"", OpenMode::ReadDirectory)?)? {
            let Some(staged_name) = note.strip_suffix(BACKUP_NOTE_SUFFIX) else { continue };
            let (Ok(staged_name), Ok(note)) = (EntryName::new(staged_name), EntryName::new(&note)) else { continue };
            let original_path = self.directory_fd().read_link(&note)?;
            // Parsed like a client's path, though the reserved directory is the server's alone: no note with `..` is
            // followed.
            let Some((parent, name)) =
                TreePath::parse(&original_path).ok().and_then(|original_path| original_path.split_last())
            else {
                continue;
            };
            let directory = if parent.is_root() { Ok(mount_root.clone()) } else { mount_root.open_directory(&parent) };
            match directory.and_then(|directory| self.directory_fd().rename_noreplace(&staged_name, &directory, &name))
            {
                // EEXIST: the new entry is in place, and wins. ENOENT: the entry was restored before, or its directory
                // is gone. Whatever is left in staging counts as debris then.
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                Err(error) => {
                    let path = String::from_utf8_lossy(&original_path);
                    tracing::warn!(%path, %error, "a replaced entry can't be restored: the next start tries again");
                    // Both stay out of the sweep: on a file system that is read-only for now the entry would be lost.
                    retained.extend([staged_name, note].map(|name| name.as_bytes().to_vec()));
                }
            }
        }
        Ok(retained)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::ServedFs;
    use super::*;

    #[test]
    fn failed_restore_is_retried_at_next_start() {
        let temporary = tempfile::tempdir().expect("temporary directory");
        let (directory_path, moved_path) = (temporary.path().join("d"), temporary.path().join("e"));
        let (file_path, tree_path) = (directory_path.join("a"), TreePath::parse(b"/d/a").expect("a path"));
        let open = || {
            let served = ServedFs::open(temporary.path(), Some(Box::new(|| Some(HashSet::new())))).expect("opened");
            served.lock_for_serving().expect("claimed");
            served
        };
        fs::create_dir(&directory_path).expect("created");
        fs::write(&file_path, "old").expect("written");
        let served = open();
        let directory = served.open_directory(&TreePath::parse(b"/d").expect("a path")).expect("there");
        let staging = served.staging(&directory, directory.stat().expect("there").mount_key()).expect("staging");
        let put = || {
            fs::write(&file_path, "in its way").expect("written");
            Err(Errno::IO)
        };
        let name = EntryName::new(b"a").expect("a name");
        assert!(staging.replace_with_backup(&directory, &name, &tree_path, put).is_err());
        fs::remove_file(&file_path).expect("removed");
        fs::rename(&directory_path, &moved_path).expect("renamed");
        fs::write(&directory_path, "in its way").expect("written");
        drop((directory, staging, served));
        drop(open());
        fs::remove_file(&directory_path).expect("removed");
        fs::rename(&moved_path, &directory_path).expect("renamed");
        open();
        assert_eq!(fs::read(&file_path).expect("there"), b"old");
    }
}
