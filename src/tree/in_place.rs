//! A file open for writing in place.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::check::Found;
use super::handles::{Hold, LockWatch};
use super::host::File;
use super::tag::{Edit, keep};
use super::{Attributes, Claim, EditMode, Entry, Error, Result, Timestamp, View};
use crate::domain::{Permission, TreePath};

/// A file open for writing in place (and for reading, where it was opened so).
pub(super) struct InPlace {
    asked: TreePath,
    path: TreePath,
    permission: Permission,
    mode: EditMode,
    file: File,
    edit: Edit,
    hold: Hold,
    watch: LockWatch,
    dirty: AtomicBool,
    time: Mutex<Option<Timestamp>>,
}

impl InPlace {
    /// Edits a file that the check let through and that is open to be written.
    pub(super) fn begin(
        view: &View,
        asked: &TreePath,
        found: Found,
        mode: EditMode,
        claim: &Claim<'_>,
    ) -> Result<Self> {
        let needed = if mode.read { Permission::RW } else { Permission::W };
        if mode.append {
            found.file.append()?;
        }
        Ok(Self {
            asked: asked.clone(),
            path: found.path.clone(),
            permission: found.permission,
            mode,
            edit: view.shared().tags.edit(&found.stat),
            hold: Hold::new(view, found.path.clone(), needed)?,
            watch: LockWatch::new(found.path, claim.tokens),
            file: found.file,
            dirty: AtomicBool::new(false),
            time: Mutex::default(),
        })
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// [`Error::Forbidden`] where it was not opened to be read, [`Error::Ended`].
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.hold.check(&self.file)?;
        if !self.mode.read {
            return Err(Error::Forbidden);
        }
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Writes all of `data` at an offset, or at the end where it was opened to append. Locks and the
    /// token's life are checked each time.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::NoSpace`], [`Error::Locked`], [`Error::Ended`].
    pub(super) fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        self.ready()?;
        if self.mode.append && self.view().limits_size() {
            // One at a time, so that two can't pass the limit together.
            let _name = self.view().shared().names.hold(&[&self.path]);
            self.view().may_hold(self.file.stat()?.size.saturating_add(data.len() as u64))?;
            return self.change(|| self.file.write_at(data, offset));
        }
        self.view().may_hold(offset.saturating_add(data.len() as u64))?;
        self.change(|| self.file.write_at(data, offset))
    }

    /// Returns what the file is now.
    ///
    /// # Errors
    /// [`Error::Ended`].
    pub(super) fn stat(&self) -> Result<Entry> {
        self.hold.check(&self.file)?;
        Ok(self.view().entry(&self.asked, &self.file.stat()?, self.permission))
    }

    /// Sets attributes.
    ///
    /// # Errors
    /// As [`InPlace::write_at`].
    pub(super) fn set_attributes(&self, attributes: &Attributes) -> Result<()> {
        self.ready()?;
        if let Some(size) = attributes.size {
            self.cut(size)?;
        }
        if let Some(mode) = attributes.mode {
            self.file.set_mode(mode & 0o777)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            let now = self.file.stat()?.modified;
            self.file.set_times(attributes.modified.map(|wanted| keep(now, wanted)), attributes.accessed)?;
        }
        if attributes.modified.is_some() {
            *self.time.lock() = attributes.modified;
        }
        Ok(())
    }

    /// Writes to disk.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Host`], [`Error::Ended`].
    pub(super) fn sync(&self) -> Result<()> {
        self.hold.check(&self.file)?;
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

    /// Tells whether the file holds nothing.
    pub(super) fn is_empty(&self) -> Result<bool> {
        Ok(self.file.stat()?.size == 0)
    }

    /// Cuts or pads the file.
    pub(super) fn cut(&self, size: u64) -> Result<()> {
        if size > self.file.stat()?.size {
            self.view().may_hold(size)?;
        }
        self.change(|| self.file.truncate(size))
    }

    fn view(&self) -> &View {
        self.hold.view()
    }

    fn ready(&self) -> Result<()> {
        self.hold.check(&self.file)?;
        self.watch.check(self.view())
    }

    /// The tag moves before the content does and after: one that was read with the old content never
    /// stands for the new.
    fn change(&self, write: impl FnOnce() -> super::host::Result<()>) -> Result<()> {
        self.dirty.store(true, Ordering::Release);
        *self.time.lock() = None;
        self.edit.wrote();
        let result = write();
        self.edit.wrote();
        Ok(result?)
    }

    fn finish(&self) -> Result<()> {
        if !self.dirty.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let time = self.view().shared().tags.fresh(*self.time.lock());
        self.file.set_times(Some(time), None)?;
        if self.view().is_full() { Ok(self.file.sync()?) } else { Ok(()) }
    }
}

impl Drop for InPlace {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!(path = %self.asked, %error, "an edit in place could not be ended");
        }
    }
}
