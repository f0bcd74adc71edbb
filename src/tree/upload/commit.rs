//! How an upload takes its place: at the path that a request named, or in the directory that it was begun in.
//!
//! A request of WebDAV names a path and its conditions; what stands there when its body has come is replaced. An upload
//! over SFTP belongs to a handle: it goes into its own directory, and never in the place of what somebody else has
//! finished since it began.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{CommittedUpload, FinalAttributes, ReplacedEntry, StagedUpload};
use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::authorize::EntrySlot;
use crate::tree::fs::{DirectoryFd, EarlyNote, Errno, FileFd, StagedBackup, Stat};
use crate::tree::handle_access::HandleLocation;
use crate::tree::in_place::InPlaceEdit;
use crate::tree::{EditMode, EntryKind, Error, Result, Timestamp, View, WriteConditions};

/// How many renames of its directory a commit follows before it gives up.
const MAX_DIRECTORY_RENAMES: usize = 16;

/// A commit, and how it can still be taken back: also by the next start, where this process is killed meanwhile.
pub(in crate::tree) struct EarlyCommit<T = (EarlyNote, CommitUndo)> {
    view: View,
    directory: DirectoryFd,
    replaced: Option<Stat>,
    undo: T,
    entry: (TreePath, Permission),
}

/// How a commit is taken back.
pub(in crate::tree) enum CommitUndo {
    /// Nothing stood there.
    Remove,
    /// What stood there waits under the staged file's name.
    Exchange,
    /// What stood there waits in staging, with a note.
    Restore(StagedBackup),
}

impl StagedUpload {
    /// Puts the file in its place in one step, synced as the tree's durability asks. Rights, locks and
    /// the claim's judgement are asked again just before. On an error the old content stands.
    ///
    /// # Errors
    /// As for [`View::stage`], and what the claim's judgement says; [`Error::WriteFailed`], [`Error::TypeNotAllowed`];
    /// [`Error::PreconditionFailed`] where somebody else has changed what was copied to be edited.
    pub fn commit(mut self, conditions: &WriteConditions<'_>) -> Result<CommittedUpload> {
        self.access.authorize_use(&*self.file)?;
        if self.is_unchanged_copy() {
            return Ok(CommittedUpload { entry: self.stat()?, replaced: true });
        }
        let view = self.access.view().clone();
        // What is put by a request is as old as the request, unless the client said otherwise.
        self.prepare(|upload| Ok(upload.requested_attributes.lock().modified))?;
        let (slot, _) = view.write_slot(&self.requested_path)?;
        let permission = slot.permission;
        let path_guards = view.shared().path_locks.lock(&[&slot.path]);
        let lock_freeze = view.shared().locks.freeze();
        let replaced = slot.stat()?;
        self.check_replace(&slot, replaced.as_ref(), conditions)?;
        if self.copy_source.as_ref().is_some_and(|copy_source| !copy_source.is_current(&view, replaced.as_ref())) {
            return Err(Error::PreconditionFailed);
        }
        let (staged, tags) = (&mut self.staged, self.tags.into_inner());
        let mut put = || staged.rename_to(&slot.directory, &slot.name).map_err(Error::from_target_errno);
        view.shared().etags.while_replacing(replaced.as_ref(), 0, || match tags {
            Some(tags) => view.put_with_tags(&slot, replaced.as_ref(), &tags, put),
            None => put(),
        })?;
        drop((lock_freeze, path_guards));
        view.sync_directory(&slot.directory)?;
        let replaced = replaced.is_some_and(|stat| stat.kind == Some(EntryKind::File));
        Ok(CommittedUpload { entry: view.entry(&self.requested_path, &self.file.stat()?, permission), replaced })
    }

    /// Puts the file in the directory that it was begun in, wherever that is now, unless somebody else has put another
    /// entry under its name, or has changed the one there, since it began. On an error the old content stands.
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

    /// As [`StagedUpload::commit_in_directory`], before CLOSE: what is replaced waits, so that the commit can be taken back,
    /// and on an error the upload can go on.
    ///
    /// # Errors
    /// As [`StagedUpload::commit_in_directory`].
    pub(in crate::tree) fn commit_early(&mut self) -> Result<EarlyCommit> {
        let committed = self.commit_with(1, |upload, view, slot, replaced| {
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
                // What can't be taken back stays as it was put; nobody was told that it is safe.
                let _ = self.undo(committed);
                Err(error)
            }
        }
    }

    /// Lets `put` do its work under the lock of the name, in the directory that the upload is for; what it replaces keeps
    /// so many names in staging.
    fn commit_with<T>(
        &mut self,
        kept_names: u32,
        put: impl FnOnce(&mut Self, &View, &EntrySlot, Option<&Stat>) -> Result<T>,
    ) -> Result<EarlyCommit<T>> {
        self.prepare(|upload| Ok(Some(upload.file.stat()?.modified)))?;
        let view = self.access.view().clone();
        // The directory may be renamed between the look at where it is and the lock on the name there.
        for _ in 0..MAX_DIRECTORY_RENAMES {
            let location = self.current_location()?;
            let (slot, _) = view.write_slot(&location.path)?;
            let _path_guards = view.shared().path_locks.lock(&[&slot.path]);
            let _lock_freeze = view.shared().locks.freeze();
            // Somebody has put a link there.
            if slot.path != location.path {
                return Err(Error::Replaced);
            }
            if !slot.directory_stat.is_same_file(&self.directory.stat()?) {
                continue;
            }
            let replaced = slot.stat()?;
            self.check_replace(&slot, replaced.as_ref(), &WriteConditions::none())?;
            // Nobody writes into what is replaced between the look at it and its end.
            let undo = view.shared().etags.while_replacing(replaced.as_ref(), kept_names, || {
                self.check_unchanged(slot.stat()?.as_ref())?;
                put(self, &view, &slot, replaced.as_ref())
            })?;
            let (directory, entry) = (slot.directory, (slot.path, slot.permission));
            return Ok(EarlyCommit { view: view.clone(), directory, replaced, undo, entry });
        }
        Err(Error::NoParent)
    }

    /// Puts the file in the place of another so that that one can be had back.
    fn replace_reversibly(&mut self, view: &View, slot: &EntrySlot) -> Result<CommitUndo> {
        match self.staged.exchange(&slot.directory, &slot.name) {
            Ok(()) => Ok(CommitUndo::Exchange),
            // The file system has no such rename: the next best is two.
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

    /// Takes an early commit back, where nobody has put anything else under the name since.
    ///
    /// # Errors
    /// The commit, where it can't be taken back: it stands, and the upload is staged no more.
    pub(in crate::tree) fn undo(&mut self, commit: EarlyCommit) -> std::result::Result<(), Box<EarlyCommit>> {
        let view = commit.view.clone();
        let _path_guards = view.shared().path_locks.lock(&[&commit.entry.0]);
        let _lock_freeze = view.shared().locks.freeze();
        let is_ours =
            self.file.stat().and_then(|staged| Ok(commit.directory.stat_entry(&self.name)?.is_same_file(&staged)));
        if !is_ours.unwrap_or(false) {
            return Err(Box::new(commit));
        }
        let (directory, name) = (&commit.directory, &self.name);
        let undone = match &commit.undo.1 {
            CommitUndo::Exchange => self.staged.exchange(directory, name),
            CommitUndo::Remove | CommitUndo::Restore(_) => self.staged.move_back(directory, name),
        };
        if let Err(error) = undone {
            tracing::warn!(path = %self.requested_path, %error, "an upload that was committed early stays committed");
            return Err(Box::new(commit));
        }
        let (note, undo) = commit.undo;
        if let CommitUndo::Restore(old) = undo
            && let Err(error) = old.restore(directory, name)
        {
            tracing::warn!(path = %self.requested_path, %error, "what an upload had replaced comes back at the next start");
        }
        // Last: until then the next start would do the same.
        if let Err(error) = note.delete() {
            tracing::error!(path = %self.requested_path, %error, "an upload can't be committed any more: its note stays");
            // The next start would take it back.
            self.write_failed.store(true, Ordering::Release);
        }
        if let Some(old) = &commit.replaced {
            view.shared().etags.clear_replaced(old);
        }
        Ok(())
    }

    /// Ends the staging of an upload that was committed early for good, and goes on in place by the same descriptor: what
    /// it replaced goes.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; it stays committed.
    pub(in crate::tree) fn into_in_place(self, commit: EarlyCommit, mode: EditMode) -> Result<InPlaceEdit> {
        let EarlyCommit { view, undo: (note, undo), entry, .. } = commit;
        let (file, staged) = (self.file, self.staged);
        // First: from here on nothing is taken back, also by the next start.
        if let Err(error) = note.delete() {
            tracing::error!(path = %self.requested_path, %error, "the next start may take an upload back that is in its place");
        }
        match undo {
            // What was replaced waits in the place of the staged file and goes with it.
            CommitUndo::Exchange => drop(staged),
            CommitUndo::Restore(old) => drop(old.discard()),
            CommitUndo::Remove => staged.persist(),
        }
        InPlaceEdit::after_commit(&view, entry, file, mode)
    }

    /// Returns what was copied, open to be edited, where it still has its name.
    ///
    /// # Errors
    /// [`Error::Replaced`] where something else stands there now.
    pub(in crate::tree) fn original_file(&self) -> Result<Arc<FileFd>> {
        self.access.authorize_use(&*self.file)?;
        let original =
            self.copy_source.as_ref().and_then(|copy_source| copy_source.original.clone()).ok_or(Error::Replaced)?;
        let current = self.directory.stat_entry(&self.name)?;
        let is_unchanged = self.replaced_entry.is_some_and(|old| old.is_same_entry(&current));
        if is_unchanged { Ok(original) } else { Err(Error::Replaced) }
    }

    /// Goes on in place in what was copied.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(in crate::tree) fn into_original(self, original: Arc<FileFd>, mode: EditMode) -> Result<InPlaceEdit> {
        self.apply_final_mode();
        let (view, path) = (self.access.view(), self.last_path());
        let permission = view.permissions_at(&path)?.permission();
        InPlaceEdit::after_commit(view, (path, permission), original, mode)
    }

    /// Lets go of the name that it was for: it is never put in place, and locks on the name do not bind it.
    pub(in crate::tree) fn detach(&mut self) {
        (self.detached, self.registration) = (true, None);
        self.apply_final_mode();
    }

    /// Gives a staged file that is not put in place the mode that it would have: handles that go on reading it show what
    /// it is, and not how it was staged.
    fn apply_final_mode(&self) {
        if let Err(error) = self.final_attributes.apply(&self.file, &self.requested_attributes.lock()) {
            tracing::debug!(%error, "an upload without a name keeps the mode that it was staged with");
        }
    }

    /// Does what can be done before the name is locked: limits, attributes, sync.
    fn prepare(&self, modified: impl FnOnce(&Self) -> Result<Option<Timestamp>>) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        let (view, modified) = (self.access.view(), modified(self)?);
        view.check_file(&self.name, &self.file)?;
        let requested = *self.requested_attributes.lock();
        self.final_attributes.apply(&self.file, &requested)?;
        let etags = &view.shared().etags;
        let modified = modified.map_or_else(|| etags.fresh_time(None), |time| etags.fresh_time_at(time));
        etags.set_times(&self.file, Some(modified), requested.accessed)?;
        if view.is_synced() {
            self.file.sync()?;
        }
        Ok(())
    }

    /// Lets the file take the place of what stands at a spot: asked under the name's commit lock, just before.
    fn check_replace(&self, slot: &EntrySlot, replaced: Option<&Stat>, conditions: &WriteConditions<'_>) -> Result<()> {
        let view = self.access.view();
        view.check_create(slot, replaced, conditions)?;
        if self.has_failed_write() {
            return Err(Error::WriteFailed);
        }
        view.check_file(&slot.name, &self.file)?;
        // Where what it replaces has gone meanwhile, it still becomes what that was: no more is shown to others.
        let final_attributes =
            replaced.map_or(self.final_attributes, |replaced| FinalAttributes::for_slot(view, slot, Some(replaced)));
        if final_attributes != self.final_attributes {
            final_attributes.apply(&self.file, &self.requested_attributes.lock())?;
        }
        Ok(())
    }

    /// Refuses what would replace something that somebody else has finished since the upload began. Where nothing
    /// stands any more, nothing is lost.
    fn check_unchanged(&self, now: Option<&Stat>) -> Result<()> {
        let view = self.access.view();
        let same =
            now.is_none_or(|now| self.replaced_entry.is_some_and(|old| old == ReplacedEntry::from_stat(view, now)));
        if same { Ok(()) } else { Err(Error::Replaced) }
    }

    /// Tells whether something stood under its name when it began.
    pub(in crate::tree) fn replaces_file(&self) -> bool {
        self.replaced_entry.is_some()
    }

    /// Tells whether this is what stood under its name when it began.
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

    /// Asks before CLOSE what its commit would say of the name: for FSYNC, whose success says that the file is safe.
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

    /// Returns the path that it is for now.
    fn current_location(&self) -> Result<HandleLocation> {
        self.access.authorize_use(&*self.file)?;
        Some(self.access.last_location()).filter(|location| location.linked).ok_or(Error::NoParent)
    }

    /// Returns the path that it was for when that was last looked at.
    pub(in crate::tree) fn last_path(&self) -> TreePath {
        self.access.last_location().path
    }

    /// Returns the directory that it is for, and the name there.
    pub(in crate::tree) fn directory_and_name(&self) -> (&DirectoryFd, &EntryName) {
        (&self.directory, &self.name)
    }

    /// Returns the staged file, for one who reads it whatever becomes of the upload.
    pub(in crate::tree) fn file(&self) -> &Arc<FileFd> {
        &self.file
    }

    /// Tells whether writes go to its end.
    pub(in crate::tree) fn appends(&self) -> bool {
        self.copy_source.as_ref().is_some_and(|copy_source| copy_source.append)
    }
}

/// Says what went wrong when something was put where nothing stood: what stands there now is somebody else's.
fn error_from_create_new(error: Errno) -> Error {
    if error == Errno::EXIST { Error::Replaced } else { Error::from_target_errno(error) }
}
