//! Directories into which uploads are under way: none of them is removed before its uploads have ended.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fs::{DirectoryFd, ServedFs, Stat};
use super::{Error, Result};
use crate::domain::TreePath;

/// Device and inode of a directory. The registry holds it open, so that no other directory gets the same numbers.
type DirectoryId = (u64, u64);

/// Counts of the uploads under way, by directory. Bounded by the limit on open files, since each upload has one.
#[derive(Default)]
pub(super) struct UploadRegistry(Mutex<HashMap<DirectoryId, (usize, DirectoryFd)>>);

/// An upload in the registry; it is removed from it when dropped.
pub(super) struct RegisteredUpload {
    registry: Arc<UploadRegistry>,
    directory: DirectoryId,
}

impl UploadRegistry {
    /// Registers an upload into a directory with the metadata `stat`.
    pub(super) fn register(self: &Arc<Self>, directory: &DirectoryFd, stat: &Stat) -> RegisteredUpload {
        let id = (stat.device, stat.inode);
        self.0.lock().entry(id).or_insert_with(|| (0, directory.clone())).0 += 1;
        RegisteredUpload { registry: Arc::clone(self), directory: id }
    }

    /// Runs the removal of an empty directory, unless an upload into it is under way. No upload begins meanwhile.
    ///
    /// # Errors
    /// [`Error::DirectoryNotEmpty`], as if the file were there already; the errors of `remove`.
    pub(super) fn remove_empty<T>(&self, directory: &Stat, remove: impl FnOnce() -> Result<T>) -> Result<T> {
        // Held over the removal, so that no upload is registered in between.
        let active = self.0.lock();
        if active.contains_key(&(directory.device, directory.inode)) {
            return Err(Error::DirectoryNotEmpty);
        }
        remove()
    }

    /// Runs the removal or replacement of a whole directory, unless an upload is under way anywhere in it. No upload
    /// begins meanwhile.
    ///
    /// # Errors
    /// [`Error::UploadInProgress`]; the errors of `remove`.
    pub(super) fn remove_all<T>(
        &self,
        fs: &ServedFs,
        path: &TreePath,
        remove: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let active = self.0.lock();
        self.check_none_below(&active, fs, path)?;
        remove()
    }

    /// Checks that no upload is under way anywhere in a directory.
    ///
    /// # Errors
    /// [`Error::UploadInProgress`].
    pub(super) fn check_no_uploads(&self, fs: &ServedFs, path: &TreePath) -> Result<()> {
        self.check_none_below(&self.0.lock(), fs, path)
    }

    fn check_none_below(
        &self,
        active: &HashMap<DirectoryId, (usize, DirectoryFd)>,
        fs: &ServedFs,
        path: &TreePath,
    ) -> Result<()> {
        // By the current path of each open directory: another client may have renamed it since.
        let mut paths = active.values().filter_map(|(_, directory)| fs.path_of_fd(directory));
        if paths.any(|directory| directory.starts_with(path)) { Err(Error::UploadInProgress) } else { Ok(()) }
    }
}

impl Drop for RegisteredUpload {
    fn drop(&mut self) {
        let mut active = self.registry.0.lock();
        if let Some((count, _)) = active.get_mut(&self.directory) {
            *count -= 1;
            if *count == 0 {
                active.remove(&self.directory);
            }
        }
    }
}
