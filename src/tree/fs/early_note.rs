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
const EARLY_NOTE: &[u8] = b".early";

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
    pub(crate) fn note_early(&self, place: &TreePath) -> Result<EarlyNote> {
        let staging = self.staging();
        let note =
            EntryName::new(&[self.directory_and_name().1.as_bytes(), EARLY_NOTE].concat()).map_err(|_| Errno::INVAL)?;
        let below = place.strip_prefix(staging.mounted_at()).ok_or(Errno::XDEV)?;
        let text = [identity(&self.stat()?).as_bytes(), b"/", below.as_bytes()].concat();
        staging.directory_fd().symlink(&text, &note)?;
        Ok(EarlyNote { staging: Arc::clone(staging), note })
    }
}

impl StagingDirectory {
    /// Takes back what was put early and for no operation that is done. `holder` is the directory that holds the staging.
    /// Returns the names in staging that the host refuses to put back now, and their notes: the next sweep tries again.
    pub(super) fn take_early_back(&self, holder: &DirectoryFd) -> Result<HashSet<Vec<u8>>> {
        let mut stay = HashSet::new();
        for note in read_raw_names(&open_no_symlinks(self.directory_fd(), b"", OpenMode::ReadDirectory)?)? {
            let Some(Ok(waiting)) = note.strip_suffix(EARLY_NOTE).map(EntryName::new) else { continue };
            let Ok(name) = EntryName::new(&note) else { continue };
            let text = self.directory_fd().read_link(&name)?;
            match self.take_one_back(holder, &waiting, &text) {
                Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => {}
                Err(error) => {
                    tracing::warn!(text = %String::from_utf8_lossy(&text), %error, "an unfinished upload stays in its place");
                    stay.extend([waiting.as_bytes().to_vec(), note]);
                }
            }
        }
        Ok(stay)
    }

    fn take_one_back(&self, holder: &DirectoryFd, waiting: &EntryName, text: &[u8]) -> Result<()> {
        let at = text.iter().position(|&byte| byte == b'/').ok_or(Errno::NOENT)?;
        let (of_upload, place) = (&text[..at], TreePath::parse(&text[at..]).map_err(|_| Errno::NOENT)?);
        let (parent, name) = place.split_last().ok_or(Errno::NOENT)?;
        let directory = if parent.is_root() { holder.clone() } else { holder.open_directory(&parent)? };
        let there = directory.stat_entry(&name)?;
        if identity(&there).as_bytes() != of_upload || there.link_count > 1 {
            return Ok(());
        }
        match self.directory_fd().stat_entry(waiting) {
            Ok(_) => self.directory_fd().exchange(waiting, &directory, &name),
            Err(Errno::NOENT) => directory.rename_noreplace(&name, self.directory_fd(), waiting),
            Err(error) => Err(error),
        }
    }
}

/// Returns what a file is recognised by, whatever its name.
fn identity(stat: &Stat) -> String {
    format!("{}-{}", stat.inode, stat.birth_time().unwrap_or_default())
}
