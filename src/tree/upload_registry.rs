//! The directories into which uploads are under way: none of them is removed before its uploads have ended.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::fs::{DirectoryFd, ServedFs, Stat};
use super::{Error, Result};
use crate::domain::TreePath;

/// A directory of the host, by device and inode; held open, so that no other gets the same numbers.
type DirectoryId = (u64, u64);

/// Counts the uploads under way by directory. Bounded by the uploads themselves: each has an open file.
#[derive(Default)]
pub(super) struct UploadRegistry(Mutex<HashMap<DirectoryId, (usize, DirectoryFd)>>);

/// An upload in the registry; leaves it when dropped.
pub(super) struct RegisteredUpload {
    registry: Arc<UploadRegistry>,
    directory: DirectoryId,
}

impl UploadRegistry {
    /// Registers an upload into a directory, of which the host says `stat`.
    pub(super) fn register(self: &Arc<Self>, directory: &DirectoryFd, stat: &Stat) -> RegisteredUpload {
        let id = (stat.device, stat.inode);
        self.0.lock().entry(id).or_insert_with(|| (0, directory.clone())).0 += 1;
        RegisteredUpload { registry: Arc::clone(self), directory: id }
    }

    /// Removes a directory that has to be empty, unless an upload is under way into it. None begins meanwhile.
    ///
    /// # Errors
    /// [`Error::DirectoryNotEmpty`], as if the file were there already; what `remove` says.
    pub(super) fn remove_empty<T>(&self, directory: &Stat, remove: impl FnOnce() -> Result<T>) -> Result<T> {
        let under_way = self.0.lock();
        if under_way.contains_key(&(directory.device, directory.inode)) {
            return Err(Error::DirectoryNotEmpty);
        }
        remove()
    }

    /// Removes or replaces a directory with all in it, unless an upload is under way anywhere in it. None begins
    /// meanwhile.
    ///
    /// # Errors
    /// [`Error::UploadInProgress`]; what `remove` says.
    pub(super) fn remove_all<T>(
        &self,
        host: &ServedFs,
        path: &TreePath,
        remove: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let under_way = self.0.lock();
        self.check_none_below(&under_way, host, path)?;
        remove()
    }

    /// Tells whether an upload is under way anywhere in a directory.
    ///
    /// # Errors
    /// [`Error::UploadInProgress`].
    pub(super) fn check_no_uploads(&self, host: &ServedFs, path: &TreePath) -> Result<()> {
        self.check_none_below(&self.0.lock(), host, path)
    }

    fn check_none_below(
        &self,
        under_way: &HashMap<DirectoryId, (usize, DirectoryFd)>,
        host: &ServedFs,
        path: &TreePath,
    ) -> Result<()> {
        let mut places = under_way.values().filter_map(|(_, directory)| host.path_of_fd(directory));
        if places.any(|place| place.starts_with(path)) { Err(Error::UploadInProgress) } else { Ok(()) }
    }
}

impl Drop for RegisteredUpload {
    fn drop(&mut self) {
        let mut under_way = self.registry.0.lock();
        if let Some((count, _)) = under_way.get_mut(&self.directory) {
            *count -= 1;
            if *count == 0 {
                under_way.remove(&self.directory);
            }
        }
    }
}
