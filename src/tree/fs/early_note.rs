//! Notes of uploads that were committed before their end (SFTP: before CLOSE), because another operation needs the file
//! under its name. Where the process is killed before that operation is complete, the next start takes the upload back
//! and restores the entry that it replaced.
//!
//! A note is a symbolic link in staging whose text holds the identity of the file and its path. It is created before
//! the file is renamed into place, and deleted once the operation is complete, before the replaced entry is removed. A
//! completed operation is recognised by its effect: the file has left its path, or has a second name.

use std::collections::HashSet;
use std::sync::Arc;

use super::open::{OpenMode, open_no_symlinks};
use super::staging::read_raw_names;
use super::{DirectoryFd, Errno, Result, StagedEntry, StagingDirectory, Stat};
use crate::domain::{EntryName, TreePath};

/// Suffix of a note's name; the name in staging of the upload, or of the entry that it replaced, precedes it.
const EARLY_NOTE_SUFFIX: &[u8] = b".early";

/// Note of an upload that was committed early. Dropping it does not delete it.
#[derive(Debug)]
pub(crate) struct EarlyNote {
    staging: Arc<StagingDirectory>,
    note: EntryName,
}

impl EarlyNote {
    /// Deletes the note: the upload stays committed, or has been taken back.
    pub(crate) fn delete(self) -> Result<()> {
        self.staging.directory_fd().unlink(&self.note)
    }
}

impl StagedEntry {
    /// Creates the note of a file that is about to be renamed to `path` before its upload has ended.
    pub(crate) fn note_early(&self, path: &TreePath) -> Result<EarlyNote> {
        let staging = self.staging();
        let note = EntryName::new(&[self.directory_and_name().1.as_bytes(), EARLY_NOTE_SUFFIX].concat())
            .map_err(|_| Errno::INVAL)?;
        // Relative to the file system that holds the staging, as in a backup note.
        let path_in_mount = path.strip_prefix(staging.mounted_at()).ok_or(Errno::XDEV)?;
        // The identity keeps the next start from taking back another file that has the path by then.
        let note_text = [identity(&self.stat()?).as_bytes(), b"/", path_in_mount.as_bytes()].concat();
        staging.directory_fd().symlink(&note_text, &note)?;
        Ok(EarlyNote { staging: Arc::clone(staging), note })
    }
}

impl StagingDirectory {
    /// Takes back the uploads that were committed early for an operation that is not complete. `mount_root` is the
    /// directory that holds `.patgate`. Returns the names in staging of uploads that can't be taken back now, and of
    /// their notes: the next sweep tries again.
    pub(super) fn undo_early_commits(&self, mount_root: &DirectoryFd) -> Result<HashSet<Vec<u8>>> {
        let mut retained = HashSet::new();
        for note in read_raw_names(&open_no_symlinks(self.directory_fd(), b"", OpenMode::ReadDirectory)?)? {
            let Some(Ok(staged_name)) = note.strip_suffix(EARLY_NOTE_SUFFIX).map(EntryName::new) else { continue };
            let Ok(note_name) = EntryName::new(&note) else { continue };
            let note_text = self.directory_fd().read_link(&note_name)?;
            match self.undo_early_commit(mount_root, &staged_name, &note_text) {
                // ENOENT, ENOTDIR: a client has removed or moved the file since, so the operation was complete.
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    let text = String::from_utf8_lossy(&note_text);
                    tracing::warn!(note = %text, %error, "an unfinished upload stays: the next start tries again");
                    // Kept from the sweep: without the staged entry the replaced content would be lost.
                    retained.extend([staged_name.as_bytes().to_vec(), note]);
                }
            }
        }
        Ok(retained)
    }

    fn undo_early_commit(&self, mount_root: &DirectoryFd, staged_name: &EntryName, note_text: &[u8]) -> Result<()> {
        let separator = note_text.iter().position(|&byte| byte == b'/').ok_or(Errno::NOENT)?;
        let (upload_identity, path) =
            (&note_text[..separator], TreePath::parse(&note_text[separator..]).map_err(|_| Errno::NOENT)?);
        let (parent, name) = path.split_last().ok_or(Errno::NOENT)?;
        let directory = if parent.is_root() { mount_root.clone() } else { mount_root.open_directory(&parent)? };
        let current = directory.stat_entry(&name)?;
        // Another file has the path, or the file has the second name that the commit was made for.
        if identity(&current).as_bytes() != upload_identity || current.link_count > 1 {
            return Ok(());
        }
        match self.directory_fd().stat_entry(staged_name) {
            // The replaced entry is under the staged name, since both were exchanged: they change back.
            Ok(_) => self.directory_fd().exchange(staged_name, &directory, &name),
            // Nothing was replaced, or it waits as a backup, which is restored after this.
            Err(Errno::NOENT) => directory.rename_noreplace(&name, self.directory_fd(), staged_name),
            Err(error) => Err(error),
        }
    }
}

/// Returns the identity of a file in text form, independent of its name.
fn identity(stat: &Stat) -> String {
    // Without the device: its number may differ at the next mount, and a note is on the file system of its file.
    format!("{}-{}", stat.inode, stat.birth_time().unwrap_or_default())
}
