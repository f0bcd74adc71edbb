//! Directories that are open for a listing: a handle is the directory that was opened, whatever has its path by now.

use super::authorize::OpenEntry;
use super::fs::{DirectoryFd, FdLocation, filesystem_space};
use super::handle_access::{HandleAccess, HandleLocation};
use super::{AttributeChanges, Entry, Error, FilesystemSpace, Result, View};
use crate::domain::{Permission, TreeOperation, TreePath};

/// An open directory. Each use is authorized at the path that the directory has then.
pub(super) struct DirectoryHandle {
    directory: DirectoryFd,
    access: HandleAccess,
}

impl DirectoryHandle {
    /// Creates the handle of a directory that was opened with `access`.
    pub(super) fn new(directory: DirectoryFd, access: HandleAccess) -> Self {
        Self { directory, access }
    }

    /// Checks that the session is valid and may use the directory where it is now. Returns that path, or its last one.
    ///
    /// # Errors
    /// As [`HandleAccess::authorize_use`].
    pub(super) fn authorize_use(&self) -> Result<TreePath> {
        self.locate().map(|location| location.path)
    }

    fn locate(&self) -> Result<HandleLocation> {
        self.access.authorize_use(&self.directory)?;
        Ok(self.access.last_location())
    }

    /// Tells whether the directory was removed.
    pub(super) fn is_removed(&self) -> bool {
        !matches!(self.view().fs().locate_fd(&self.directory), FdLocation::Linked(_))
    }

    /// Returns the metadata of the directory, as far as the session may see it where it is now, under `name`.
    ///
    /// # Errors
    /// As [`DirectoryHandle::authorize_use`].
    pub(super) fn stat(&self, name: &[u8]) -> Result<Entry> {
        let permission = self.view().permissions_at(&self.authorize_use()?)?.permission();
        Ok(self.view().entry_named(name, &self.directory.stat()?, permission))
    }

    /// Sets mode and times of the directory, if the session may write it where it is now.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Locked`]; [`Error::Absent`] for a directory that was removed,
    /// [`Error::IsADirectory`] for a size; otherwise as [`DirectoryHandle::authorize_use`].
    pub(super) fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        let (view, HandleLocation { path, linked }) = (self.view(), self.locate()?);
        // It waits in staging to be deleted, which a mode without `w` or `x` would keep from happening.
        if !linked {
            return Err(Error::Absent);
        }
        // The handle was authorized to list only: FSETSTAT needs `w` at the current path.
        let permission = view.permissions_at(&path)?.permission();
        if !permission.allows(Permission::W) {
            view.audit_denial(TreeOperation::Write, &path);
            return Err(Error::Forbidden);
        }
        let _lock_freeze = view.shared().locks.freeze();
        // A handle of SFTP, which has no way to submit lock tokens.
        view.check_locks(&path, &[])?;
        if attributes.size.is_some() {
            return Err(Error::IsADirectory);
        }
        let found = OpenEntry { file: self.directory.to_file()?, stat: self.directory.stat()?, path, permission };
        view.apply_attributes(&found, attributes)
    }

    /// Returns the space on the file system of the directory.
    ///
    /// # Errors
    /// As [`DirectoryHandle::authorize_use`].
    pub(super) fn space(&self) -> Result<FilesystemSpace> {
        self.authorize_use()?;
        self.view().bound_space(&self.access.last_location().path, filesystem_space(&self.directory)?)
    }

    fn view(&self) -> &View {
        self.access.view()
    }
}
