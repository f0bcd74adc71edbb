//! Moves to another file system: a complete copy replaces the target, then the source is removed.

use std::cell::Cell;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::copy::{CopyJob, MoveByCopy};
use super::moved_source::CopiedEntries;
use super::storage_changes::{QuotaCheck, file_bytes};
use super::{OverwriteMode, View, WriteConditions};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::byte_change::ByteChange;
use crate::tree::fs::{DirectoryFd, OpenMode, StagedEntry, StagingDirectory, Stat};
use crate::tree::handle_access::HandleAccess;
use crate::tree::{EntryKind, Error, Result};

/// Copy in staging of an entry that is to be moved.
pub(super) struct CrossDeviceCopy {
    staged: StagedEntry,
    /// Metadata of the source when it was copied.
    stat: Stat,
    fingerprint: u64,
}

/// Outcome of removing the source.
enum SourceRemoval {
    /// It is in staging, to be removed, and its copy has these entries.
    Removed(StagedEntry, CopiedEntries),
    /// It is at its path as before.
    Restored(Error),
}

impl View {
    /// Moves an entry to another file system, after every check but those of the commit.
    pub(super) fn move_cross_device(
        &self,
        source: &EntrySlot,
        stat: &Stat,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<bool> {
        // A mount point can't be removed: the move could not complete.
        if stat.is_directory() && self.fs().contains_mounts(&source.path)? {
            return Err(Error::Forbidden);
        }
        if stat.is_directory() {
            // A staged upload can't follow its directory to another file system.
            self.shared().upload_registry.check_no_uploads(self.fs(), &source.path)?;
        }
        let copied = self.copy_cross_device(source, stat, target)?;
        self.commit_cross_device(copied, source, target, overwrite, conditions)
    }

    /// Commits a copy to its target and removes the source, if that has not changed since it was copied.
    pub(super) fn commit_cross_device(
        &self,
        copied: CrossDeviceCopy,
        source: &EntrySlot,
        target: &EntrySlot,
        overwrite: OverwriteMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<bool> {
        let CrossDeviceCopy { staged, stat, fingerprint } = copied;
        let source_staging = self.staging(source)?;
        // Before the locks: it takes long in a large directory, and everybody would wait.
        if self.subtree_fingerprint(source, &stat)? != fingerprint {
            return Err(Error::PreconditionFailed);
        }
        // Lock order: names, locks, index, link moves (see `link_moves`).
        let path_guards = self.shared().path_locks.lock(&[&source.path, &target.path]);
        let lock_freeze = self.shared().locks.freeze();
        let checked_move = self.check_move(source, target, overwrite, conditions)?;
        // Of the top entry alone: a walk would take too long under the locks. `remove_source` compares a directory once
        // more.
        if self.entry_fingerprint(&TreePath::root(), &checked_move.moved)
            != self.entry_fingerprint(&TreePath::root(), &stat)
        {
            return Err(Error::PreconditionFailed);
        }
        // Before the change begins: no node can be named while it is under way.
        self.shared().index.prepare_move(&source.path, &target.path, self.session().login())?;
        // On disk before the first effect: by it the next start completes or undoes a move that was killed between its
        // steps.
        let change = self.shared().index.begin_copy(&source.path, &target.path, staged.stat()?.entry_identity())?;
        let move_guard = self.shared().link_moves.lock_exclusive();
        // The links of the copy were checked for this path.
        if self.fs().path_of_fd(&target.directory).as_ref() != Some(&target.directory_path()) {
            return Err(Error::NoParent);
        }
        // Both count until the source is gone: a kill in between may leave both.
        let (arrived, left) = self.cross_device_changes(&staged, (&source.path, &target.path))?;
        // The old target is kept: a source that can't be removed brings it back.
        let put = || match &checked_move.replaced {
            Some(old) => self.replace_with_backup(staged, stat.is_directory(), target, old, overwrite),
            None => self.commit_staged(staged, stat.is_directory(), target, None, overwrite),
        };
        let old = self.with_byte_changes(QuotaCheck::Recorded, &[target.place()], || Ok(vec![arrived]), put)?;
        move_guard.mark_arrival(&target.path);
        // The replaced entry may be restored, and its links with it: until then no directory above it may be moved.
        let pinned = move_guard.pin(&target.path);
        // Released before the source is compared again, so that other moves go on.
        drop(move_guard);
        // The copy is on disk under its name before the source loses its own.
        self.sync_directory(&target.directory)?;
        let (removed, copied_entries) = match self.remove_source(&source_staging, source, &stat, fingerprint)? {
            SourceRemoval::Removed(removed, entries) => (removed, entries),
            SourceRemoval::Restored(error) => {
                // The source is as it was: without this there would be two entries, and the client would be told of a
                // failure.
                self.restore_target(target, old)?;
                self.record_bytes(target, arrived.reversed())?;
                return Err(error);
            }
        };
        self.record_bytes(source, left)?;
        old.as_ref().map_or(Ok(()), |old| self.count_replaced(target, old))?;
        self.sync_directory(&source.directory)?;
        drop(pinned);
        change.finish()?;
        old.into_iter().for_each(|staged| self.shared().background_deletes.enqueue(staged));
        // Locks do not move with the entry (RFC 4918 section 7.6).
        self.shared().locks.remove_subtree(&source.path);
        self.shared().locks.remove_below(&target.path);
        drop((lock_freeze, path_guards));
        // After the locks: it takes long in a large directory.
        self.remove_moved_source(removed, &copied_entries, source);
        Ok(checked_move.replaced.is_some())
    }

    /// Returns the changes of the bytes at the target, when the copy arrives, and at the source, when it is removed.
    fn cross_device_changes<'p>(
        &self,
        copy: &StagedEntry,
        (from, to): (&'p TreePath, &'p TreePath),
    ) -> Result<(ByteChange<'p>, ByteChange<'p>)> {
        let stat = copy.stat()?;
        if !stat.is_directory() {
            let bytes = file_bytes(Some(&stat));
            return Ok((ByteChange::file(to, 0, bytes), ByteChange::file(from, bytes, 0)));
        }
        let (staging, name) = copy.directory_and_name();
        let directory = staging.open_directory(&TreePath::root().child(name))?;
        // Nothing is added up where neither path counts.
        let bytes = self.counted_bytes(from, &directory)?.max(self.counted_bytes(to, &directory)?);
        Ok((ByteChange::added_directory(to, bytes), ByteChange::removed_directory(from, bytes)))
    }

    /// Replaces the target by the copy, as `overwrite` demands, and returns the replaced entry, which is kept until the
    /// source is removed.
    fn replace_with_backup(
        &self,
        staged: StagedEntry,
        is_directory: bool,
        target: &EntrySlot,
        replaced: &Stat,
        overwrite: OverwriteMode,
    ) -> Result<Option<StagedEntry>> {
        if overwrite != OverwriteMode::Posix {
            return self.exchange_staged(staged, target);
        }
        let child_path = |name| TreePath::root().child(name);
        // rename(2) would check these POSIX rules itself; an exchange does not.
        match (is_directory, replaced.is_directory()) {
            (false, true) => return Err(Error::IsADirectory),
            (true, false) => return Err(Error::NotADirectory),
            (true, true) if !target.directory.open_directory(&child_path(&target.name))?.is_empty()? => {
                return Err(Error::DirectoryNotEmpty);
            }
            (true, true) | (false, false) => {}
        }
        let old = self.exchange_staged(staged, target)?;
        // Something may have been created in an empty directory since.
        if is_directory && let Some(staged) = &old {
            let (staging, name) = staged.directory_and_name();
            if !staging.open_directory(&child_path(name))?.is_empty()? {
                self.restore_target(target, old)?;
                return Err(Error::DirectoryNotEmpty);
            }
        }
        Ok(old)
    }

    /// Removes the source of a committed copy: it is moved into staging, where no path leads any longer, and compared
    /// once more; it is moved back if it has changed. Returns an error where that fails.
    fn remove_source(
        &self,
        source_staging: &Arc<StagingDirectory>,
        source: &EntrySlot,
        stat: &Stat,
        fingerprint: u64,
    ) -> Result<SourceRemoval> {
        if !stat.is_directory() {
            return self.remove_source_file(source_staging, source, fingerprint);
        }
        // With a note: a kill during the comparison must bring the directory back.
        let backup = match source_staging.back_up(&source.directory, &source.name, &source.path) {
            Ok(backup) => backup,
            Err(error) => return Ok(SourceRemoval::Restored(error.into())),
        };
        let (directory, name) = backup.directory_and_name();
        let mut entries = CopiedEntries::default();
        let compared = self.subtree_fingerprint_at(directory, name, stat, |path, stat| entries.add(path, stat));
        let error = match compared {
            Ok(now) if now == fingerprint => return Ok(SourceRemoval::Removed(backup.discard(), entries.sorted())),
            outcome => outcome.err().unwrap_or(Error::PreconditionFailed),
        };
        backup.restore(&source.directory, &source.name)?;
        Ok(SourceRemoval::Restored(error))
    }

    /// Removes a file as [`View::remove_source`] does, without a note: the comparison is over at once, and the next start
    /// tells by the file's change time whether an interrupted move may complete, which a move back would change.
    fn remove_source_file(
        &self,
        source_staging: &Arc<StagingDirectory>,
        source: &EntrySlot,
        fingerprint: u64,
    ) -> Result<SourceRemoval> {
        let mut staged = match source_staging.move_in(&source.directory, &source.name) {
            Ok(staged) => staged,
            Err(error) => return Ok(SourceRemoval::Restored(error.into())),
        };
        // It may have been replaced since it was compared under the locks.
        match staged.stat() {
            Ok(now) if self.entry_fingerprint(&TreePath::root(), &now) == fingerprint => {
                return Ok(SourceRemoval::Removed(staged, CopiedEntries::default()));
            }
            Ok(_) | Err(_) => {}
        }
        if let Err(error) = staged.rename_to_new(&source.directory, &source.name) {
            tracing::error!(path = %source.path, %error, "a file that replaced a moved one stays in staging");
            staged.persist();
        }
        Ok(SourceRemoval::Restored(Error::PreconditionFailed))
    }

    /// Copies the source into staging, with its times and links.
    pub(super) fn copy_cross_device(
        &self,
        source: &EntrySlot,
        stat: &Stat,
        target: &EntrySlot,
    ) -> Result<CrossDeviceCopy> {
        // Before the copying, so that no change during it goes unnoticed.
        let fingerprint = self.subtree_fingerprint(source, stat)?;
        // `w` is enough to move: a drop box's content is copied here without being shown to anybody.
        let access = HandleAccess::new(self, source.path.clone(), Permission::W)?;
        let link_boundary = self.link_boundary(target)?;
        if stat.kind == Some(EntryKind::Symlink) {
            self.check_link_move(source, &target.path, &link_boundary)?;
        }
        let move_by_copy = Some(MoveByCopy {
            from: source.path.clone(),
            to: target.path.clone(),
            link_boundary,
            copied_fingerprint: Cell::default(),
        });
        let job = CopyJob {
            view: self,
            access,
            target: target.path.clone(),
            is_move: true,
            move_by_copy,
            skips_limits: !source.permission.allows(Permission::R),
            syncs_at_once: false,
        };
        let staging = self.staging(target)?;
        let mut copied_fingerprint = self.entry_fingerprint(&TreePath::root(), stat);
        let staged = match stat.kind {
            Some(EntryKind::Directory) => {
                let staged = staging.create_directory()?;
                let directory = source.directory.open_directory(&TreePath::root().child(&source.name))?;
                let copy = job.copy_directory(&directory, stat, &staged, true)?;
                copied_fingerprint = copied_fingerprint.wrapping_add(job.copied_fingerprint());
                if self.is_synced() {
                    self.sync_tree(&copy)?;
                }
                staged
            }
            // Synced with the directory that it is renamed into.
            Some(EntryKind::Symlink) => staging.create_symlink(&source.directory.read_link(&source.name)?)?,
            Some(EntryKind::File) => {
                let (copy, staged) = staging.create_file()?;
                let file = source.directory.open(&source.name, OpenMode::Read)?;
                // Of the open file, whose size is copied: the name may have had another one before.
                let stat = file.stat()?;
                copied_fingerprint = self.entry_fingerprint(&TreePath::root(), &stat);
                job.copy_file(&file, &stat, &copy, &target.name)?;
                if self.is_synced() {
                    copy.sync()?;
                }
                staged
            }
            None => return Err(Error::Unsupported),
        };
        // An entry that had another name only while its directory was read was not copied. It is back now, and the
        // comparisons of the source before and after would not notice.
        if copied_fingerprint != fingerprint {
            return Err(Error::PreconditionFailed);
        }
        Ok(CrossDeviceCopy { staged, stat: stat.clone(), fingerprint })
    }

    /// Returns a hash over an entry and everything below it that changes with each path, inode and content.
    fn subtree_fingerprint(&self, source: &EntrySlot, stat: &Stat) -> Result<u64> {
        self.subtree_fingerprint_at(&source.directory, &source.name, stat, |_, _| ())
    }

    /// Returns the hash, and calls `visit` with the path and metadata of each entry below.
    fn subtree_fingerprint_at(
        &self,
        directory: &DirectoryFd,
        name: &EntryName,
        stat: &Stat,
        mut visit: impl FnMut(&TreePath, &Stat),
    ) -> Result<u64> {
        let mut fingerprint = self.entry_fingerprint(&TreePath::root(), stat);
        if stat.is_directory() {
            let subtree = directory.open_directory(&TreePath::root().child(name))?;
            self.walk_subtree(&subtree, |_, parent_path, name, stat| {
                // A sum, since a directory lists its entries in no fixed order.
                let path = parent_path.child(name);
                fingerprint = fingerprint.wrapping_add(self.entry_fingerprint(&path, stat));
                visit(&path, stat);
                Ok(())
            })?;
        }
        Ok(fingerprint)
    }

    /// Returns a hash that changes with the path, inode and content of an entry.
    pub(super) fn entry_fingerprint(&self, path: &TreePath, stat: &Stat) -> u64 {
        let mut hasher = DefaultHasher::new();
        // The tag also counts writes under way, which may leave size and time as they were.
        let etag = (stat.kind == Some(EntryKind::File)).then(|| self.shared().etags.etag_of(stat).to_bytes());
        (path.as_bytes(), stat.inode, etag).hash(&mut hasher);
        hasher.finish()
    }

    /// Removes a committed copy from its target, and restores the entry that it replaced.
    fn restore_target(&self, target: &EntrySlot, old: Option<StagedEntry>) -> Result<()> {
        let copy = match old {
            Some(old) => self.exchange_staged(old, target)?,
            None => Some(self.staging(target)?.move_in(&target.directory, &target.name)?),
        };
        copy.into_iter().for_each(|copy| self.shared().background_deletes.enqueue(copy));
        self.sync_directory(&target.directory)
    }
}
