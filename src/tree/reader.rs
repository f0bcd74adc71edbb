//! Files that are open for reading.

use std::os::fd::AsFd;
use std::sync::Arc;

use super::authorize::OpenEntry;
use super::fs::FileFd;
use super::handle_access::{HandleAccess, HandleAnchor, HandleLocks};
use super::{AttributeChanges, Entry, Error, Result, StagedUpload, View};
use crate::domain::{Permission, TreePath};

/// Distance of the bytes by which it is judged whether a range is in the page cache; the system reads ahead further.
const CACHE_SAMPLE_BYTES: usize = 64 * 1024;

/// A file that is open for reading. If the file shrinks meanwhile, reads end early; they are never padded.
pub struct FileReader {
    file: Arc<FileFd>,
    entry: Entry,
    access: HandleAccess,
    locks: HandleLocks,
}

impl FileReader {
    /// Creates a reader of an authorized file; its entry is named after `requested_path`.
    pub(super) fn new(view: &View, requested_path: &TreePath, source: OpenEntry) -> Result<Self> {
        let entry = view.entry(requested_path, &source.stat, source.permission);
        Self::with_entry(view, source, entry)
    }

    /// Creates a reader of an authorized file whose metadata is known.
    pub(super) fn with_entry(view: &View, source: OpenEntry, entry: Entry) -> Result<Self> {
        let access = HandleAccess::new(view, source.path, Permission::R)?;
        Ok(Self { file: Arc::new(source.file), entry, access, locks: HandleLocks::new(&[]) })
    }

    /// Creates a reader of a file that is open already, at a canonical path where it may be read.
    pub(super) fn from_file(view: &View, path: TreePath, file: Arc<FileFd>) -> Result<Self> {
        let permission = view.permissions_at(&path)?.permission();
        let entry = view.entry(&path, &file.stat()?, permission);
        let access = HandleAccess::for_open_file(view, path, Permission::R)?;
        Ok(Self { file, entry, access, locks: HandleLocks::new(&[]) })
    }

    /// Creates a reader of a staged file, which can be read whatever becomes of the upload.
    pub(super) fn from_upload(view: &View, upload: &StagedUpload) -> Result<Self> {
        let (entry, (directory, name)) = (upload.stat()?, upload.directory_and_name());
        if !entry.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        // A staged file has no path in the tree: its slot is authorized, and after the commit the file itself.
        let (path, anchor) = (upload.last_path(), HandleAnchor::SlotThenFile(directory.clone(), name.clone()));
        let access = HandleAccess::with_anchor(view, path, Permission::R, anchor)?;
        Ok(Self { file: Arc::clone(upload.file()), entry, access, locks: HandleLocks::new(&[]) })
    }

    /// Returns the path of the file at the last check.
    pub(super) fn last_path(&self) -> TreePath {
        self.access.last_location().path
    }

    /// Returns the metadata of the file when it was opened.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Returns the current metadata of the file.
    ///
    /// # Errors
    /// As [`FileReader::read_at`].
    pub fn stat(&self) -> Result<Entry> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.access.view().entry_named(self.entry.name.as_slice(), &self.file.stat()?, self.entry.permission))
    }

    /// Reads at an offset until the buffer is full or the file ends; returns the number of bytes.
    ///
    /// # Errors
    /// [`super::Error::SessionEnded`] once the session's token is not active, or no longer allows reading at the file's
    /// current path.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// Fills the buffer at an offset from the page cache. It never waits for a disk, so an async task may call it.
    ///
    /// # Errors
    /// As [`FileReader::read_at`]; [`super::Error::Filesystem`] with [`std::io::ErrorKind::WouldBlock`] when not all
    /// bytes are in the page cache.
    pub fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.access.authorize_use(&*self.file)?;
        Ok(self.file.read_cached_at(buffer, offset)?)
    }

    /// Returns the file to send a range of it, after the same check as a read. `None` where a part of the range is not in
    /// the page cache, as far as samples tell: sending it would wait for a disk.
    ///
    /// # Errors
    /// As [`FileReader::read_at`].
    pub fn cached_range(&self, offset: u64, length: usize) -> Result<Option<Arc<dyn AsFd + Send + Sync>>> {
        self.access.authorize_use(&*self.file)?;
        let starts =
            (0..length as u64).step_by(CACHE_SAMPLE_BYTES).chain(length.checked_sub(1).map(|last| last as u64));
        for start in starts {
            if self.file.is_in_memory() {
                break;
            }
            match self.file.read_cached_at(&mut [0], offset.saturating_add(start)) {
                Ok(_) => {}
                // The blocking read finds the reason.
                Err(_) => return Ok(None),
            }
        }
        Ok(Some(Arc::clone(&self.file) as Arc<dyn AsFd + Send + Sync>))
    }

    /// Sets mode and times of the file, if the session may write it.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] for a size, which is content; [`Error::Forbidden`], [`Error::Locked`],
    /// [`Error::SessionEnded`].
    pub(super) fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.access.authorize_use(&*self.file)?;
        if attributes.size.is_some() {
            return Err(Error::WrongOpenMode);
        }
        let view = self.access.view();
        // The handle was authorized to read only: FSETSTAT needs `w` at the current path.
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
