//! Replacing where the host can't exchange two entries: what stands there is taken aside first, with a note of
//! where it was. The next sweep puts it back unless something came in its place.

use std::collections::HashSet;
use std::sync::Arc;

use super::open::{OpenMode, open_no_symlinks};
use super::staging::read_raw_names;
use super::{DirectoryFd, Errno, Result, StagedEntry, StagingDirectory};
use crate::domain::{EntryName, TreePath};

/// What the name of a note ends in; before that stands the name of what was taken aside.
const BACKUP_NOTE_SUFFIX: &[u8] = b".back";

/// What was taken aside, with a note of where it was: the next sweep puts it back there unless it is let go before.
#[derive(Debug)]
pub(crate) struct StagedBackup {
    staged: StagedEntry,
    note: EntryName,
}

impl StagedBackup {
    /// Returns the staging folder and the name in it, to reach what waits there.
    pub(crate) fn directory_and_name(&self) -> (&DirectoryFd, &EntryName) {
        self.staged.directory_and_name()
    }

    /// Lets it go: nobody wants it back.
    pub(crate) fn discard(self) -> StagedEntry {
        let Self { mut staged, note } = self;
        staged.remove_on_drop = true;
        if let Err(error) = staged.directory_and_name().0.unlink(&note) {
            tracing::warn!(%error, "a note of something replaced stays in staging until the next start");
        }
        staged
    }

    /// Moves it back to where it was. Where that fails it stays with its note.
    pub(crate) fn restore(self, folder: &DirectoryFd, name: &EntryName) -> Result<()> {
        let staging = self.staged.directory_and_name().0.clone();
        self.staged.restore_to(folder, name)?;
        staging.unlink(&self.note)
    }
}

impl StagingDirectory {
    /// Takes aside what stands at a name of a folder, which is at `place`.
    pub(crate) fn back_up(
        self: &Arc<Self>,
        folder: &DirectoryFd,
        name: &EntryName,
        place: &TreePath,
    ) -> Result<StagedBackup> {
        let slot = self.reserve_name()?;
        let note = EntryName::new(&[slot.directory_and_name().1.as_bytes(), BACKUP_NOTE_SUFFIX].concat())
            .map_err(|_| Errno::INVAL)?;
        let below = place.strip_prefix(self.mounted_at()).ok_or(Errno::XDEV)?;
        self.directory_fd().symlink(below.as_bytes(), &note)?;
        match slot.move_in(folder, name) {
            Ok(mut staged) => {
                staged.remove_on_drop = false;
                Ok(StagedBackup { staged, note })
            }
            Err(error) => {
                self.directory_fd().unlink(&note)?;
                Err(error)
            }
        }
    }

    /// Takes aside what stands at a name of a folder, which is at `place`, and lets `put` put something there.
    /// Returns what stood there; it is back where it was when `put` fails.
    pub(crate) fn replace_with_backup(
        self: &Arc<Self>,
        folder: &DirectoryFd,
        name: &EntryName,
        place: &TreePath,
        put: impl FnOnce() -> Result<()>,
    ) -> Result<StagedEntry> {
        let old = self.back_up(folder, name, place)?;
        match put() {
            Ok(()) => Ok(old.discard()),
            Err(error) => {
                old.restore(folder, name)?;
                Err(error)
            }
        }
    }

    /// Puts back what was taken aside and not replaced. `holder` is the folder that holds the staging. Returns the
    /// names in staging of what the host refuses to put back now, and of its notes: the next sweep tries again.
    pub(super) fn restore_backups(&self, holder: &DirectoryFd) -> Result<HashSet<Vec<u8>>> {
        let mut stay = HashSet::new();
        for note in read_raw_names(&open_no_symlinks(self.directory_fd(), b"", OpenMode::ReadDirectory)?)? {
            let Some(old) = note.strip_suffix(BACKUP_NOTE_SUFFIX) else { continue };
            let (Ok(old), Ok(note)) = (EntryName::new(old), EntryName::new(&note)) else { continue };
            let place = self.directory_fd().read_link(&note)?;
            let Some((parent, name)) = TreePath::parse(&place).ok().and_then(|place| place.split_last()) else {
                continue;
            };
            let folder = if parent.is_root() { Ok(holder.clone()) } else { holder.open_directory(&parent) };
            match folder.and_then(|folder| self.directory_fd().rename_noreplace(&old, &folder, &name)) {
                Ok(()) | Err(Errno::EXIST | Errno::NOENT) => {}
                Err(error) => {
                    tracing::warn!(place = %String::from_utf8_lossy(&place), %error, "what stood here can't be put back");
                    stay.extend([old, note].map(|name| name.as_bytes().to_vec()));
                }
            }
        }
        Ok(stay)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::ServedFs;
    use super::*;

    #[test]
    fn failed_restore_is_retried_at_next_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let (holder, elsewhere) = (folder.path().join("d"), folder.path().join("e"));
        let (place, at) = (holder.join("a"), TreePath::parse(b"/d/a").expect("a path"));
        let open = || {
            let host = ServedFs::open(folder.path(), Some(Box::new(|| Some(HashSet::new())))).expect("opened");
            host.lock_for_serving().expect("claimed");
            host
        };
        fs::create_dir(&holder).expect("made");
        fs::write(&place, "old").expect("written");
        let host = open();
        let d = host.open_directory(&TreePath::parse(b"/d").expect("a path")).expect("there");
        let staging = host.staging(&d, d.stat().expect("there").mount_key()).expect("staging");
        let put = || {
            fs::write(&place, "in its way").expect("written");
            Err(Errno::IO)
        };
        let name = EntryName::new(b"a").expect("a name");
        assert!(staging.replace_with_backup(&d, &name, &at, put).is_err());
        fs::remove_file(&place).expect("removed");
        fs::rename(&holder, &elsewhere).expect("renamed");
        fs::write(&holder, "no folder").expect("written");
        drop((d, staging, host));
        drop(open());
        fs::remove_file(&holder).expect("removed");
        fs::rename(&elsewhere, &holder).expect("renamed");
        open();
        assert_eq!(fs::read(&place).expect("there"), b"old");
    }
}
