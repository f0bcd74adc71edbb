//! A file open for writing in place: what is written goes into the file itself, whatever happens to its names.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::check::Found;
use super::handle_access::{HandleAccess, HandleLocks, Place};
use super::host::File;
use super::tag::{Edit, keep};
use super::{Attributes, Claim, EditMode, Entry, Error, Reader, Result, View};
use crate::domain::{Permission, TreePath};

/// A file open for writing in place (and for reading, where it was opened so).
pub(super) struct InPlace {
    asked: TreePath,
    permission: Permission,
    mode: EditMode,
    file: Arc<File>,
    edit: Edit,
    access: HandleAccess,
    locks: HandleLocks,
    /// Whether anything was written through this handle that may not be on disk.
    wrote: AtomicBool,
}

impl InPlace {
    /// Edits a file that the check let through and that is open to be written, at the path that `access` is of.
    pub(super) fn begin(
        view: &View,
        asked: &TreePath,
        (found, access): (Found, HandleAccess),
        mode: EditMode,
        claim: &Claim<'_>,
    ) -> Result<Self> {
        if mode.append {
            found.file.append()?;
        }
        let file = Arc::new(found.file);
        Ok(Self {
            asked: asked.clone(),
            permission: found.permission,
            mode,
            edit: view.shared().tags.edit(&file, &found.stat),
            access,
            locks: HandleLocks::new(claim.tokens),
            file,
            wrote: AtomicBool::new(false),
        })
    }

    /// Goes on with an upload that has just been put in place, by the descriptor that it was written through.
    pub(super) fn after_commit(
        view: &View,
        entry: (TreePath, Permission),
        file: Arc<File>,
        mode: EditMode,
    ) -> Result<Self> {
        let (path, permission) = entry;
        let needed = if mode.read { Permission::RW } else { Permission::W };
        if mode.append {
            file.append()?;
        }
        Ok(Self {
            asked: path.clone(),
            permission,
            mode,
            edit: view.shared().tags.edit(&file, &file.stat()?),
            access: HandleAccess::of_open_file(view, path, needed)?,
            locks: HandleLocks::new(&[]),
            file,
            wrote: AtomicBool::new(false),
        })
    }

    /// Returns the file, for one who opened it to be made or emptied and then only reads it; the edit ends.
    ///
    /// # Errors
    /// As [`InPlace::close`].
    pub(super) fn into_reader(self) -> Result<Reader> {
        let view = self.view().clone();
        let (file, path) = (Arc::clone(&self.file), self.access.place().path);
        self.close()?;
        Reader::of_file(&view, path, file)
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Returns where the file is now, if the session may go on with it there.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(super) fn place(&self) -> Result<Place> {
        self.access.check(&*self.file)?;
        Ok(self.access.place())
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// [`Error::WrongMode`] where it was not opened to be read, [`Error::SessionEnded`].
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.check(&*self.file)?;
        if !self.mode.read {
            return Err(Error::WrongMode);
        }
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Writes all of `data` at an offset, or at the end where it was opened to append. Locks and the
    /// token's life are checked each time.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::Replaced`], [`Error::SessionEnded`].
    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.access.check(&*self.file)?;
        if self.mode.append && self.view().limits_size() {
            // One at a time, so that two can't pass the limit together.
            let _name = self.view().shared().names.hold(&[&self.access.place().path]);
            self.view().may_hold(self.file.stat()?.size.saturating_add(data.len() as u64))?;
            return self.change(|| self.file.write_at(data, offset));
        }
        self.view().may_hold(offset.saturating_add(data.len() as u64))?;
        self.change(|| self.file.write_at(data, offset))
    }

    /// Returns what the file is now.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(super) fn stat(&self) -> Result<Entry> {
        self.access.check(&*self.file)?;
        Ok(self.view().entry(&self.asked, &self.file.stat()?, self.permission))
    }

    /// Sets attributes.
    ///
    /// # Errors
    /// As [`InPlace::write_at`].
    pub(super) fn set_attributes(&self, attributes: &Attributes) -> Result<()> {
        self.access.check(&*self.file)?;
        self.unlocked()?;
        if let Some(size) = attributes.size {
            self.cut(size)?;
        }
        if let Some(mode) = attributes.mode {
            self.file.set_mode(mode & 0o777)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            self.edit.set_times(&self.file, attributes.modified, attributes.accessed)?;
        }
        Ok(())
    }

    /// Writes to disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Host`], [`Error::SessionEnded`].
    pub(super) fn sync(&self) -> Result<()> {
        self.access.check(&*self.file)?;
        Ok(self.file.sync()?)
    }

    /// Ends the edit: a new tag for what was written, and a sync where durability asks for it.
    /// Dropping does the same without telling of errors.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::Host`] when what was written may not be on disk.
    pub(super) fn close(self) -> Result<()> {
        self.finish()
    }

    /// Cuts or pads the file. One that has the size already keeps its content and its tag; its time moves.
    ///
    /// # Errors
    /// As [`InPlace::write_at`].
    pub(super) fn cut(&self, size: u64) -> Result<()> {
        let now = self.file.stat()?;
        if size == now.size {
            self.unlocked()?;
            return self.edit.change_times(|| {
                let tags = &self.view().shared().tags;
                let modified = tags.modified(&self.file.stat()?)?;
                self.file.clear_special_bits()?;
                self.file.truncate(size)?;
                tags.set_times(&self.file, Some(keep(modified, tags.fresh(None))), None)
            });
        }
        if size > now.size {
            self.view().may_hold(size)?;
        }
        self.change(|| self.file.truncate(size))
    }

    fn view(&self) -> &View {
        self.access.view()
    }

    fn unlocked(&self) -> Result<()> {
        self.locks.check(&self.access, || self.file.stat())
    }

    fn change(&self, write: impl FnOnce() -> super::host::Result<()>) -> Result<()> {
        self.wrote.store(true, Ordering::Release);
        self.edit.change(|| self.unlocked(), write)
    }

    fn finish(&self) -> Result<()> {
        // Whoever wrote: what is closed now has its tag.
        self.edit.settle()?;
        if self.wrote.swap(false, Ordering::AcqRel) && self.view().is_full() {
            self.file.sync()?;
        }
        Ok(())
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(path = %self.asked, %error, "an edit in place could not be ended");
        }
    }
}
