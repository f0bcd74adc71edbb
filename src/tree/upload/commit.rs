//! Commits of uploads: to the path of a request, or into the directory in which the upload was begun.
//!
//! A WebDAV request has a path and conditions; the entry that is there when its body is complete is replaced. An SFTP
//! upload belongs to a handle: it is committed into the directory that was opened, and never replaces a file that
//! another client has finished since it began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CommittedUpload, FinalAttributes, ReplacedEntry, StagedUpload};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::byte_change::ByteChange;
use crate::tree::fs::{DirectoryFd, EarlyNote, Errno, FileFd, StagedBackup, Stat};
use crate::tree::handle_access::HandleLocation;
use crate::tree::in_place::InPlaceEdit;
use crate::tree::view::{ChangedPlace, QuotaCheck, file_bytes};
use crate::tree::{EditMode, EntryKind, Error, Result, Timestamp, View, WriteConditions};

/// Maximum number of renames of its directory that a commit follows before it fails.
const MAX_DIRECTORY_RENAMES: usize = 16;

/// A commit that can be undone; with a note in staging, also by the next start if this process is killed.
pub(in crate::tree) struct EarlyCommit<T = (EarlyNote, CommitUndo)> {
    view: View,
    directory: DirectoryFd,
    replaced: Option<Stat>,
    undo: T,
    entry: (TreePath, Permission),
}

/// The way to undo a commit.
pub(in crate::tree) enum CommitUndo {
    /// Nothing was replaced: remove the file.
    Remove,
    /// The replaced file is in staging under the name of the staged file: exchange them.
    Exchange,
    /// The replaced file is in staging as a backup with a note: restore it.
    Restore(StagedBackup),
}

impl StagedUpload {
    /// Commits the file to its path in one step, synced as the tree's durability asks. Rights, locks and
    /// conditions are checked again just before. On an error the old content is kept.
    ///
    /// # Errors
    /// As for [`View::stage`], and the errors of the conditions; [`Error::WriteFailed`], [`Error::TypeNotAllowed`];
    /// [`Error::PreconditionFailed`] when another client has changed the file that was copied to be edited.
    pub fn commit(self, conditions: &WriteConditions<'_>) -> Result<CommittedUpload> {
        if self.is_unchanged_copy() {
            return Ok(CommittedUpload { entry: self.stat()?, replaced: true });
        }
        // A PUT sets the time of the request as mtime, unless the client sent one (X-OC-Mtime).
        let stat = self.prepare(|upload| Ok(upload.requested_attributes.lock().modified))?;
        let (slot, _) = self.access.view().write_slot(&self.requested_path)?;
        self.commit_to_slot(&slot, stat, conditions)
    }

    /// Commits as [`StagedUpload::commit`] does an upload that was begun at this slot. The slot is looked up again,
    /// unless it was looked up just now: then nothing has waited for a disk since.
    ///
    /// # Errors
    /// As [`StagedUpload::commit`].
    pub(in crate::tree) fn commit_begun_at(
        self,
        slot: EntrySlot,
        conditions: &WriteConditions<'_>,
    ) -> Result<CommittedUpload> {
        let stat = self.prepare(|_| Ok(None))?;
        let view = self.access.view();
        let slot = if slot.is_fresh(view)? { slot } else { view.write_slot(&self.requested_path)?.0 };
        self.commit_to_slot(&slot, stat, conditions)
    }

    /// Commits the file, prepared and with the metadata `stat`, to the slot that its path has now.
    fn commit_to_slot(
        mut self,
        slot: &EntrySlot,
        stat: Stat,
        conditions: &WriteConditions<'_>,
    ) -> Result<CommittedUpload> {
        let view = self.access.view().clone();
        // In this order everywhere: the path, the freeze of locks, then the index.
        let path_guards = view.shared().path_locks.lock(&[&slot.path]);
        let lock_freeze = view.shared().locks.freeze();
        let replaced = slot.stat()?;
        // All that was checked before the body arrived is checked again under the locks, just before the rename.
        let mode = self.check_replace(slot, replaced.as_ref(), &stat, conditions)?;
        if self.copy_source.as_ref().is_some_and(|copy_source| !copy_source.is_current(&view, replaced.as_ref())) {
            return Err(Error::PreconditionFailed);
        }
        let (staged, tags) = (&mut self.staged, self.tags.into_inner());
        let mut put = || staged.rename_to(&slot.directory, &slot.name).map_err(Error::from_target_errno);
        let bytes = || Ok(vec![ByteChange::file(&slot.path, file_bytes(slot.stat()?.as_ref()), stat.size)]);
        view.with_byte_changes(QuotaCheck::Enforced, &[slot.place()], bytes, || {
            view.shared().etags.while_replacing(replaced.as_ref(), 0, || match tags {
                Some(tags) => view.put_with_tags(slot, replaced.as_ref(), &tags, put),
                None => put(),
            })
        })?;
        // Released before the sync: other commits must not wait for this disk.
        drop((lock_freeze, path_guards));
        view.sync_directory(&slot.directory)?;
        let replaced = replaced.is_some_and(|stat| stat.kind == Some(EntryKind::File));
        // As it was put in place: its name may have other content by now.
        let entry = view.entry(&self.requested_path, &Stat { mode, ..stat }, slot.permission);
        Ok(CommittedUpload { entry, replaced })
    }

    /// Commits the file into the directory in which it was begun, wherever that is now, unless another client has put
    /// another entry under its name, or has changed the one there, since it began. On an error the old content is kept.
    ///
    /// # Errors
    /// [`Error::Replaced`]; [`Error::NoParent`] where the directory is gone; else as [`StagedUpload::commit`].
    pub(in crate::tree) fn commit_in_directory(mut self) -> Result<()> {
        if self.is_unchanged_copy() {
            self.access.authorize_use(&*self.file)?;
            self.apply_final_mode();
            return Ok(());
        }
        let committed = self.commit_with(0, |upload, _, slot, replaced| {
            let put = match replaced {
                Some(_) => upload.staged.rename_to(&slot.directory, &slot.name),
                None => upload.staged.rename_to_new(&slot.directory, &slot.name),
            };
            put.map_err(error_from_create_new)
        })?;
        committed.view.sync_directory(&committed.directory)
    }

    /// Commits as [`StagedUpload::commit_in_directory`] does, but before CLOSE: the replaced file is kept, so that the
    /// commit can be undone, and on an error the upload stays staged.
    ///
    /// # Errors
    /// As [`StagedUpload::commit_in_directory`].
    pub(in crate::tree) fn commit_early(&mut self) -> Result<EarlyCommit> {
        let committed = self.commit_with(1, |upload, view, slot, replaced| {
            // The note before the rename: after a kill between the two, it has nothing to undo and is swept.
            let note = upload.staged.note_early(&slot.path)?;
            let put = match replaced {
                Some(_) => upload.replace_reversibly(view, slot),
                None => upload
                    .staged
                    .rename_to_new(&slot.directory, &slot.name)
                    .map(|()| CommitUndo::Remove)
                    .map_err(error_from_create_new),
            };
            match put {
                Ok(undo) => Ok((note, undo)),
                Err(error) => note.delete().map_err(Error::from).and(Err(error)),
            }
        })?;
        match committed.view.sync_directory(&committed.directory) {
            Ok(()) => Ok(committed),
            Err(error) => {
                // If it can't be undone either, the file stays committed: the client was not told that it is on disk.
                let _ = self.undo(committed);
                Err(error)
            }
        }
    }

    /// Runs `put` under the commit lock of the path, in the target directory of the upload. The replaced file keeps
    /// `kept_names` names in staging.
    fn commit_with<T>(
        &mut self,
        kept_names: u32,
        put: impl FnOnce(&mut Self, &View, &EntrySlot, Option<&Stat>) -> Result<T>,
    ) -> Result<EarlyCommit<T>> {
        let stat = self.prepare(|upload| Ok(Some(upload.file.stat()?.modified)))?;
        let view = self.access.view().clone();
        // Another client may rename the directory between the look-up of its path and the lock of the path.
        for _ in 0..MAX_DIRECTORY_RENAMES {
            let location = self.current_location()?;
            let (slot, _) = view.write_slot(&location.path)?;
            let _path_guards = view.shared().path_locks.lock(&[&slot.path]);
            let _lock_freeze = view.shared().locks.freeze();
            // A symbolic link was put at the name: an upload of a handle must not follow it elsewhere.
            if slot.path != location.path {
                return Err(Error::Replaced);
            }
            if !slot.directory_stat.is_same_file(&self.directory.stat()?) {
                continue;
            }
            let replaced = slot.stat()?;
            self.check_replace(&slot, replaced.as_ref(), &stat, &WriteConditions::none())?;
            // Under the settle lock, no client writes into the replaced file between this check and the rename.
            let bytes = || Ok(vec![ByteChange::file(&slot.path, file_bytes(slot.stat()?.as_ref()), stat.size)]);
            let undo = view.with_byte_changes(QuotaCheck::Enforced, &[slot.place()], bytes, || {
                view.shared().etags.while_replacing(replaced.as_ref(), kept_names, || {
                    self.check_unchanged(slot.stat()?.as_ref())?;
                    put(self, &view, &slot, replaced.as_ref())
                })
            })?;
            let (directory, entry) = (slot.directory, (slot.path, slot.permission));
            return Ok(EarlyCommit { view: view.clone(), directory, replaced, undo, entry });
        }
        Err(Error::NoParent)
    }

    /// Replaces a file so that it can be restored.
    fn replace_reversibly(&mut self, view: &View, slot: &EntrySlot) -> Result<CommitUndo> {
        match self.staged.exchange(&slot.directory, &slot.name) {
            Ok(()) => Ok(CommitUndo::Exchange),
            // The file system lacks RENAME_EXCHANGE: two renames, between which the name is missing for a moment.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let backup = view.staging(slot)?.back_up(&slot.directory, &slot.name, &slot.path)?;
                match self.staged.rename_to_new(&slot.directory, &slot.name) {
                    Ok(()) => Ok(CommitUndo::Restore(backup)),
                    Err(error) => {
                        backup.restore(&slot.directory, &slot.name)?;
                        Err(Error::from_target_errno(error))
                    }
                }
            }
            Err(error) => Err(Error::from_target_errno(error)),
        }
    }

    /// Undoes an early commit, unless another client has put another entry under the name since.
    ///
    /// # Errors
    /// The commit, if it can't be undone: the file stays committed, and the upload is no longer staged.
    pub(in crate::tree) fn undo(&mut self, commit: EarlyCommit) -> std::result::Result<(), Box<EarlyCommit>> {
        let view = commit.view.clone();
        let _path_guards = view.shared().path_locks.lock(&[&commit.entry.0]);
        let _lock_freeze = view.shared().locks.freeze();
        let ours = self.file.stat().and_then(|staged| Ok((commit.directory.stat_entry(&self.name)?, staged)));
        let Some((now, _)) = ours.ok().filter(|(now, staged)| now.is_same_file(staged)) else {
            return Err(Box::new(commit));
        };
        let (directory, name, staged) = (&commit.directory, &self.name, &mut self.staged);
        let path = &commit.entry.0;
        let bytes = || Ok(vec![ByteChange::file(path, now.size, file_bytes(commit.replaced.as_ref()))]);
        let place = ChangedPlace::in_directory(path, directory);
        let undone = view.with_byte_changes(QuotaCheck::Recorded, &[place], bytes, || {
            Ok(match &commit.undo.1 {
                CommitUndo::Exchange => staged.exchange(directory, name),
                CommitUndo::Remove | CommitUndo::Restore(_) => staged.move_back(directory, name),
            }?)
        });
        if let Err(error) = undone {
            tracing::warn!(path = %self.requested_path, %error, "an upload that was committed early stays committed");
            return Err(Box::new(commit));
        }
        let (note, undo) = commit.undo;
        if let CommitUndo::Restore(old) = undo
            && let Err(error) = old.restore(directory, name)
        {
            tracing::warn!(path = %self.requested_path, %error, "the replaced file is restored at the next start");
        }
        // The note is deleted last: if the process is killed before, the next start undoes the commit likewise.
        if let Err(error) = note.delete() {
            tracing::error!(path = %self.requested_path, %error, "the note of an undone commit can't be deleted");
            // With the note in place, the next start would undo a commit that the client was told of.
            self.write_failed.store(true, Ordering::Release);
        }
        if let Some(old) = &commit.replaced {
            view.shared().etags.clear_replaced(old);
        }
        Ok(())
    }

    /// Makes an early commit final and continues in place with the same descriptor; the replaced file is deleted.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; the file stays committed.
    pub(in crate::tree) fn into_in_place(self, commit: EarlyCommit, mode: EditMode) -> Result<InPlaceEdit> {
        let EarlyCommit { view, undo: (note, undo), entry, .. } = commit;
        let (file, staged) = (self.file, self.staged);
        // The note is deleted first: from here on nothing is undone, also not by the next start.
        if let Err(error) = note.delete() {
            tracing::error!(path = %self.requested_path, %error, "the next start may undo the commit of an upload");
        }
        match undo {
            // The replaced file is under the name of the staged one, and is deleted with it.
            CommitUndo::Exchange => drop(staged),
            CommitUndo::Restore(old) => drop(old.discard()),
            CommitUndo::Remove => staged.persist(),
        }
        InPlaceEdit::after_commit(&view, entry, file, mode)
    }

    /// Returns the copied file, open to write, if it still has its name.
    ///
    /// # Errors
    /// [`Error::Replaced`] when another entry has the name now.
    pub(in crate::tree) fn original_file(&self) -> Result<Arc<FileFd>> {
        self.access.authorize_use(&*self.file)?;
        let original =
            self.copy_source.as_ref().and_then(|copy_source| copy_source.original.clone()).ok_or(Error::Replaced)?;
        let current = self.directory.stat_entry(&self.name)?;
        let is_unchanged = self.replaced_entry.is_some_and(|old| old.is_same_entry(&current));
        if is_unchanged { Ok(original) } else { Err(Error::Replaced) }
    }

    /// Continues in place in the copied file.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(in crate::tree) fn into_original(self, original: Arc<FileFd>, mode: EditMode) -> Result<InPlaceEdit> {
        self.apply_final_mode();
        let (view, path) = (self.access.view(), self.last_path());
        let permission = view.permissions_at(&path)?.permission();
        InPlaceEdit::after_commit(view, (path, permission), original, mode)
    }

    /// Detaches the upload from its name: it is never committed, and locks on the name do not apply to it.
    pub(in crate::tree) fn detach(&mut self) {
        (self.detached, self.registration) = (true, None);
        self.apply_final_mode();
    }

    /// Sets the final mode of a staged file that is not committed, so that handles that still read it show that mode
    /// and not the one of staging.
    fn apply_final_mode(&self) {
        let requested = *self.requested_attributes.lock();
        let applied = self.file.stat().map_err(Error::from);
        let applied = applied.and_then(|now| self.final_attributes.apply(&self.file, &now, &requested));
        if let Err(error) = applied {
            tracing::debug!(%error, "an upload without a name keeps the mode that it was staged with");
        }
    }

    /// Does all that needs no lock of the path: checks limits, sets attributes, syncs. Returns the metadata.
    fn prepare(&self, modified: impl FnOnce(&Self) -> Result<Option<Timestamp>>) -> Result<Stat> {
        self.access.authorize_use(&*self.file)?;
        let (view, modified) = (self.access.view(), modified(self)?);
        view.check_file(&self.name, &self.file)?;
        let requested = *self.requested_attributes.lock();
        let etags = &view.shared().etags;
        let modified = modified.map_or_else(|| etags.fresh_time(None), |time| etags.fresh_time_at(time));
        let stat = etags.set_times_and_stat(&self.file, modified, requested.accessed)?;
        let mode = self.final_attributes.apply(&self.file, &stat, &requested)?;
        if view.is_synced() {
            self.file.sync()?;
        }
        Ok(Stat { mode, ..stat })
    }

    /// Checks that the file, with the metadata `stat`, may replace the entry at a slot: called under the commit lock of
    /// the path, just before the rename. Returns its permission bits.
    fn check_replace(
        &self,
        slot: &EntrySlot,
        replaced: Option<&Stat>,
        stat: &Stat,
        conditions: &WriteConditions<'_>,
    ) -> Result<u32> {
        let view = self.access.view();
        view.check_create_or_replace(slot, replaced, conditions)?;
        if self.has_failed_write() {
            return Err(Error::WriteFailed);
        }
        view.check_file(&slot.name, &self.file)?;
        // If the replaced file was removed meanwhile, its mode is still used: a private file must not become readable.
        let final_attributes =
            replaced.map_or(self.final_attributes, |replaced| FinalAttributes::for_slot(view, slot, Some(replaced)));
        if final_attributes == self.final_attributes {
            return Ok(stat.mode);
        }
        // Read anew: owner and group were set since.
        final_attributes.apply(&self.file, &self.file.stat()?, &self.requested_attributes.lock())
    }

    /// Refuses to replace an entry that another client has finished since the upload began. If the name is free now,
    /// nothing can be lost.
    fn check_unchanged(&self, now: Option<&Stat>) -> Result<()> {
        let view = self.access.view();
        let same =
            now.is_none_or(|now| self.replaced_entry.is_some_and(|old| old == ReplacedEntry::from_stat(view, now)));
        if same { Ok(()) } else { Err(Error::Replaced) }
    }

    /// Tells whether an entry was under its name when the upload began.
    pub(in crate::tree) fn replaces_file(&self) -> bool {
        self.replaced_entry.is_some()
    }

    /// Tells whether this entry was under its name when the upload began.
    pub(in crate::tree) fn replaces_entry(&self, entry: &Stat) -> bool {
        self.replaced_entry.is_some_and(|old| old.is_same_entry(entry))
    }

    /// Tells whether its name still holds the entry, or nothing, that it held when the upload began.
    pub(in crate::tree) fn is_visible_over(&self, now: Option<&Stat>) -> bool {
        match (&self.replaced_entry, now) {
            (None, None) => true,
            (Some(old), Some(now)) => old.is_same_entry(now),
            (None, Some(_)) | (Some(_), None) => false,
        }
    }

    /// Checks before CLOSE whether a commit to the name would succeed: for fsync@openssh.com, whose success promises
    /// that the file is safe.
    ///
    /// # Errors
    /// [`Error::Replaced`], [`Error::NoParent`], [`Error::WriteFailed`], [`Error::SessionEnded`].
    pub(in crate::tree) fn check_committable(&self) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        self.current_location()?;
        if self.has_failed_write() {
            return Err(Error::WriteFailed);
        }
        match self.directory.stat_entry(&self.name) {
            Ok(now) => self.check_unchanged(Some(&now)),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Returns the current path of its slot.
    fn current_location(&self) -> Result<HandleLocation> {
        self.access.authorize_use(&*self.file)?;
        Some(self.access.last_location()).filter(|location| location.linked).ok_or(Error::NoParent)
    }

    /// Returns the path of its slot at the last check.
    pub(in crate::tree) fn last_path(&self) -> TreePath {
        self.access.last_location().path
    }

    /// Returns the target directory and the name in it.
    pub(in crate::tree) fn directory_and_name(&self) -> (&DirectoryFd, &EntryName) {
        (&self.directory, &self.name)
    }

    /// Returns the staged file, for readers that outlive the upload.
    pub(in crate::tree) fn file(&self) -> &Arc<FileFd> {
        &self.file
    }

    /// Tells whether every write goes to the end.
    pub(in crate::tree) fn appends(&self) -> bool {
        self.copy_source.as_ref().is_some_and(|copy_source| copy_source.append)
    }
}

/// Translates the error of a rename to a free name: an entry that exists there now is another client's.
fn error_from_create_new(error: Errno) -> Error {
    if error == Errno::EXIST { Error::Replaced } else { Error::from_target_errno(error) }
}
