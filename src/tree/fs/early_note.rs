//! Notes of uploads that were put in their place before they had ended, for an operation that needs them there: killed
//! before that operation was done, the next start takes the upload back and puts what it replaced in its place again.
//!
//! A note is a symbolic link in staging whose text tells which file was put where. It is made before the file is put,
//! and goes once the operation is done, before what was replaced goes. An operation that was done shows: the file has left
//! its place, or has another name.

use std::collections::HashSet;
use std::sync::Arc;

use super::open::{OpenMode, open_no_symlinks};
use super::staging::read_raw_names;
use super::{DirectoryFd, Errno, Result, StagedEntry, StagingDirectory, Stat};
use crate::domain::{EntryName, TreePath};

/// Ending of a note's name; before that stands the name in staging of the upload, or of what it has replaced.
const EARLY_NOTE_SUFFIX: &[u8] = b".early";

/// A note of an upload that was put in its place before it had ended. It stays when it is dropped.
#[derive(Debug)]
pub(crate) struct EarlyNote {
    staging: Arc<StagingDirectory>,
    note: EntryName,
}

impl EarlyNote {
    /// Deletes it: the upload stays in its place, or has been taken back.
    pub(crate) fn delete(self) -> Result<()> {
        self.staging.directory_fd().unlink(&self.note)
    }
}

impl StagedEntry {
    /// Notes that this file is about to be put at `place` before its upload has ended.
    pub(crate) fn note_early(&self, path: &TreePath) -> Result<EarlyNote> {
        let staging = self.staging();
        let note = EntryName::new(&[self.directory_and_name().1.as_bytes(), EARLY_NOTE_SUFFIX].concat())
            .map_err(|_| Errno::INVAL)?;
        let path_in_mount = path.strip_prefix(staging.mounted_at()).ok_or(Errno::XDEV)?;
        let note_text = [identity(&self.stat()?).as_bytes(), b"/", path_in_mount.as_bytes()].concat();
        staging.directory_fd().symlink(&note_text, &note)?;
        Ok(EarlyNote { staging: Arc::clone(staging), note })
    }
}

impl StagingDirectory {
    /// Takes back what was put early and for no operation that is done. `holder` is the directory that holds the staging.
    /// Returns the names in staging that the host refuses to put back now, and their notes: the next sweep tries again.
    pub(super) fn undo_early_commits(&self, mount_root: &DirectoryFd) -> Result<HashSet<Vec<u8>>> {
        let mut retained = HashSet::new();
        for note in read_raw_names(&open_no_symlinks(self.directory_fd(), b"", OpenMode::ReadDirectory)?)? {
            let Some(Ok(staged_name)) = note.strip_suffix(EARLY_NOTE_SUFFIX).map(EntryName::new) else { continue };
            let Ok(note_name) = EntryName::new(&note) else { continue };
            let note_text = self.directory_fd().read_link(&note_name)?;
            match self.undo_early_commit(mount_root, &staged_name, &note_text) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    tracing::warn!(note_text = %String::from_utf8_lossy(&note_text), %error, "an unfinished upload stays in its place");
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
        if identity(&current).as_bytes() != upload_identity || current.link_count > 1 {
            return Ok(());
        }
        match self.directory_fd().stat_entry(staged_name) {
            Ok(_) => self.directory_fd().exchange(staged_name, &directory, &name),
            Err(Errno::NOENT) => directory.rename_noreplace(&name, self.directory_fd(), staged_name),
            Err(error) => Err(error),
        }
    }
}

/// Returns what a file is recognised by, whatever its name.
fn identity(stat: &Stat) -> String {
    format!("{}-{}", stat.inode, stat.birth_time().unwrap_or_default())
}
