//! A file open for reading.

use std::sync::Arc;

use super::authorize::OpenEntry;
use super::fs::FileFd;
use super::handle_access::{HandleAccess, HandleAnchor, HandleLocks};
use super::{AttributeChanges, Entry, Error, Result, StagedUpload, View};
use crate::domain::{Permission, TreePath};

/// A file open for reading. A file that shrinks while it is read cuts what is read, never pads it.
pub struct FileReader {
    file: Arc<FileFd>,
    entry: Entry,
    access: HandleAccess,
    locks: HandleLocks,
}

impl FileReader {
    /// Reads a file that the check let through, asked for by `asked`.
    pub(super) fn new(view: &View, requested_path: &TreePath, source: OpenEntry) -> Result<Self> {
        let entry = view.entry(requested_path, &source.stat, source.permission);
        let access = HandleAccess::new(view, source.path, Permission::R)?;
        Ok(Self { file: Arc::new(source.file), entry, access, locks: HandleLocks::new(&[]) })
    }

    /// Reads a file that is open already, at a canonical path where it may be read.
    pub(super) fn from_file(view: &View, path: TreePath, file: Arc<FileFd>) -> Result<Self> {
        let permission = view.permissions_at(&path)?.permission();
        let entry = view.entry(&path, &file.stat()?, permission);
        let access = HandleAccess::for_open_file(view, path, Permission::R)?;
        Ok(Self { file, entry, access, locks: HandleLocks::new(&[]) })
    }

    /// Reads what an upload has staged, and goes on reading it whatever becomes of the upload.
    pub(super) fn from_upload(view: &View, upload: &StagedUpload) -> Result<Self> {
        let (entry, (directory, name)) = (upload.stat()?, upload.directory_and_name());
        if !entry.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        let (path, anchor) = (upload.last_path(), HandleAnchor::SlotThenFile(directory.clone(), name.clone()));
        let access = HandleAccess::with_anchor(view, path, Permission::R, anchor)?;
        Ok(Self { file: Arc::clone(upload.file()), entry, access, locks: HandleLocks::new(&[]) })
    }

    /// Returns what the file was when it was opened.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Returns what the file is now.
    ///
    /// # Errors
    /// As [`FileReader::read_at`].
    pub fn stat(&self) -> Result<Entry> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.access.view().entry_named(&self.entry.name, &self.file.stat()?, self.entry.permission))
    }

    /// Reads at an offset into the buffer; fewer bytes than it holds only at the end of the file.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`] once the session's token is dead or no longer reaches the file where it is now.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// As [`FileReader::read_at`] for bytes that the file has, if they are in memory: it never waits for a
    /// disk, so that a runtime may call it.
    ///
    /// # Errors
    /// As [`FileReader::read_at`]; [`super::Error::Filesystem`] with [`std::io::ErrorKind::WouldBlock`] when they are not.
    pub fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.file.read_cached_at(buffer, offset)?)
    }

    /// Sets mode and times of the file, where the session may write it.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] for a size, which is content; [`Error::Forbidden`], [`Error::Locked`], [`Error::SessionEnded`].
    pub(super) fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        if attributes.size.is_some() {
            return Err(Error::WrongOpenMode);
        }
        let view = self.access.view();
        if !view.permissions_at(&self.access.last_location().path)?.permission().allows(Permission::W) {
            return Err(Error::Forbidden);
        }
        let _lock_freeze = view.shared().locks.freeze();
        self.locks.check(&self.access, || self.file.stat())?;
        if let Some(mode) = attributes.mode {
            self.file.set_mode(mode & 0o777)?;
        }
        if attributes.modified.is_some() || attributes.accessed.is_some() {
            let edit = view.shared().etags.begin_edit(&self.file, &self.file.stat()?);
            edit.set_times(&self.file, attributes.modified, attributes.accessed)?;
        }
        Ok(())
    }

    /// Returns the file.
    pub(super) fn file(&self) -> &FileFd {
        &self.file
    }
}
