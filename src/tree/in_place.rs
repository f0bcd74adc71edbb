//! Files that are open for writing in place: writes go into the file itself, whatever happens to its names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::authorize::OpenEntry;
use super::byte_change::ByteChange;
use super::etag::{EditGuard, keep_mark};
use super::fs::FileFd;
use super::handle_access::{HandleAccess, HandleLocation, HandleLocks};
use super::view::{ChangedPlace, QuotaCheck};
use super::{AttributeChanges, EditMode, Entry, Error, FileReader, Result, View, WriteConditions};
use crate::domain::{Permission, TreePath};

/// A file that is open for writing in place, and for reading if it was opened so.
pub(super) struct InPlaceEdit {
    requested_path: TreePath,
    permission: Permission,
    mode: EditMode,
    file: Arc<FileFd>,
    edit: EditGuard,
    access: HandleAccess,
    locks: HandleLocks,
    /// Whether this handle has written content that may not be on disk.
    has_unsynced_writes: AtomicBool,
}

impl InPlaceEdit {
    /// Begins an edit of an authorized file that is open to write; `access` is for its canonical path.
    pub(super) fn begin(
        view: &View,
        requested_path: &TreePath,
        (entry, access): (OpenEntry, HandleAccess),
        mode: EditMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        if mode.append {
            // By O_APPEND the kernel finds the end atomically, also with writers beside the gateway.
            entry.file.set_append()?;
        }
        let file = Arc::new(entry.file);
        Ok(Self {
            requested_path: requested_path.clone(),
            permission: entry.permission,
            mode,
            edit: view.shared().etags.begin_edit(&file, &entry.stat),
            access,
            locks: HandleLocks::new(conditions.lock_tokens),
            file,
            has_unsynced_writes: AtomicBool::new(false),
        })
    }

    /// Continues an upload that was just committed, with the descriptor through which it was written.
    pub(super) fn after_commit(
        view: &View,
        entry: (TreePath, Permission),
        file: Arc<FileFd>,
        mode: EditMode,
    ) -> Result<Self> {
        let (path, permission) = entry;
        let needed = if mode.read { Permission::RW } else { Permission::W };
        if mode.append {
            file.set_append()?;
        }
        Ok(Self {
            requested_path: path.clone(),
            permission,
            mode,
            edit: view.shared().etags.begin_edit(&file, &file.stat()?),
            access: HandleAccess::for_open_file(view, path, needed)?,
            // A handle of SFTP, which has no way to submit lock tokens.
            locks: HandleLocks::new(&[]),
            file,
            has_unsynced_writes: AtomicBool::new(false),
        })
    }

    /// Ends the edit and returns a reader of the file, for an OPEN that creates or truncates it but only reads.
    ///
    /// # Errors
    /// As [`InPlaceEdit::close`].
    pub(super) fn into_reader(self) -> Result<FileReader> {
        let view = self.view().clone();
        let (file, path) = (Arc::clone(&self.file), self.access.last_location().path);
        self.close()?;
        FileReader::from_file(&view, path, file)
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &FileFd {
        &self.file
    }

    /// Returns the path of the file at the last check.
    pub(super) fn last_path(&self) -> TreePath {
        self.access.last_location().path
    }

    /// Returns the current location of the file, if the session may use it there.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(super) fn current_location(&self) -> Result<HandleLocation> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.access.last_location())
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] if it was not opened to read, [`Error::SessionEnded`].
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.authorize_use(&*self.file)?;
        if !self.mode.read {
            return Err(Error::WrongOpenMode);
        }
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Writes all of `data` at an offset, or at the end if it was opened to append. Locks and the session are checked
    /// each time.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::Replaced`], [`Error::SessionEnded`].
    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        if self.mode.append && self.view().limits_size() {
            // Serialized from stat to write, so that two appends can't exceed the size limit together.
            let _name = self.view().shared().path_locks.lock(&[&self.access.last_location().path]);
            self.view().check_size(self.file.stat()?.size.saturating_add(data.len() as u64))?;
            return self.write_counted(data, offset);
        }
        self.view().check_size(offset.saturating_add(data.len() as u64))?;
        self.write_counted(data, offset)
    }

    fn write_counted(&self, data: &[u8], offset: u64) -> Result<()> {
        let size_after = |before: u64| {
            let start = if self.mode.append { before } else { offset };
            before.max(start.saturating_add(data.len() as u64))
        };
        self.with_counted_size(size_after, || self.write_content(|| self.file.write_at(data, offset)))
    }

    /// Changes the size of the file under the storage quotas of its path, to what `size_after` returns of the present
    /// size.
    fn with_counted_size(
        &self,
        size_after: impl FnOnce(u64) -> u64,
        change: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let location = self.access.last_location();
        // A file without a name counts for nobody.
        let open = if location.linked { self.view().begin_byte_changes(&[&location.path])? } else { None };
        let Some(open) = open else { return change() };
        let before = self.file.stat()?;
        let change_to = |size| [ByteChange::file(&location.path, before.size, size).of_names(before.link_count)];
        let place = [ChangedPlace::of_file(&location.path, &self.file)];
        let wanted = change_to(size_after(before.size));
        let changed = self.view().apply_byte_changes(&open, QuotaCheck::Enforced, &place, &wanted, change);
        if changed.is_err() {
            // A write that fails may have written a part.
            let written = change_to(self.file.stat()?.size);
            self.view().apply_byte_changes(&open, QuotaCheck::Recorded, &place, &written, || Ok(()))?;
        }
        changed
    }

    /// Returns the current metadata of the file.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(super) fn stat(&self) -> Result<Entry> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.view().entry(&self.requested_path, &self.file.stat()?, self.permission))
    }

    /// Sets attributes.
    ///
    /// # Errors
    /// As [`InPlaceEdit::write_at`].
    pub(super) fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        self.check_locks()?;
        if let Some(size) = attributes.size {
            self.truncate(size)?;
        }
        if let Some(mode) = attributes.mode {
            self.file.set_mode(mode & 0o777)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            self.edit.set_times(&self.file, attributes.modified, attributes.accessed)?;
        }
        Ok(())
    }

    /// Syncs the file to disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Filesystem`], [`Error::SessionEnded`].
    pub(super) fn sync(&self) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.file.sync()?)
    }

    /// Ends the edit: the written content gets its final ETag, and is synced where durability asks for it.
    /// Dropping does the same, but only logs errors.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::Filesystem`] when written content may not be on disk.
    pub(super) fn close(self) -> Result<()> {
        self.settle_and_sync()
    }

    /// Truncates or pads the file. A file that has the size already keeps its content and its ETag; its mtime changes.
    ///
    /// # Errors
    /// As [`InPlaceEdit::write_at`].
    pub(super) fn truncate(&self, size: u64) -> Result<()> {
        let stat = self.file.stat()?;
        if size == stat.size {
            // The content stays, but mtime changes as by ftruncate(2): locks apply, and the mark of the ETag is kept.
            self.check_locks()?;
            return self.edit.with_settle_lock(|| {
                let etags = &self.view().shared().etags;
                let modified = etags.modified_time(&self.file.stat()?)?;
                self.file.clear_special_bits()?;
                self.file.truncate(size)?;
                etags.set_times(&self.file, Some(keep_mark(modified, etags.fresh_time(None))), None)
            });
        }
        // Only growth can break the limit: a file that is too large already may still be cut.
        if size > stat.size {
            self.view().check_size(size)?;
        }
        self.with_counted_size(|_| size, || self.write_content(|| self.file.truncate(size)))
    }

    fn view(&self) -> &View {
        self.access.view()
    }

    fn check_locks(&self) -> Result<()> {
        self.locks.check(&self.access, || self.file.stat())
    }

    fn write_content(&self, write: impl FnOnce() -> super::fs::Result<()>) -> Result<()> {
        // Before the write: one that fails may have changed a part of its bytes.
        self.has_unsynced_writes.store(true, Ordering::Release);
        self.edit.write_content(|| self.check_locks(), write)
    }

    fn settle_and_sync(&self) -> Result<()> {
        // All writes so far get their final ETag, also those of other handles: this client may read it now.
        self.edit.settle()?;
        // After settling, so that the sync covers the time that it has set.
        if self.has_unsynced_writes.swap(false, Ordering::AcqRel) && self.view().is_synced() {
            self.file.sync()?;
        }
        Ok(())
    }
}

impl Drop for InPlaceEdit {
    fn drop(&mut self) {
        if let Err(error) = self.settle_and_sync() {
            tracing::warn!(path = %self.requested_path, %error, "an edit in place could not be completed");
        }
    }
}
