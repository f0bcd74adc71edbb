//! The file system as the node index uses it: metadata, and removals that complete an interrupted change.

use std::sync::Arc;

use super::background_delete::BackgroundDeletes;
use super::fs::{DirectoryFd, ServedFs};
use super::index::{HostAccess, InodeMetadata};
use super::{Error, Result};
use crate::domain::{EntryName, TreePath};

/// Implements [`HostAccess`] on the served directory.
pub(super) struct FsHostAccess {
    fs: Arc<ServedFs>,
    background_deletes: BackgroundDeletes,
}

impl FsHostAccess {
    pub(super) fn new(fs: Arc<ServedFs>, background_deletes: BackgroundDeletes) -> Self {
        Self { fs, background_deletes }
    }

    fn open_parent(&self, path: &TreePath) -> Result<(DirectoryFd, EntryName)> {
        let (parent, name) = path.split_last().ok_or(Error::Forbidden)?;
        Ok((self.fs.open_directory(&parent)?, name))
    }
}

impl HostAccess for FsHostAccess {
    fn metadata(&self, path: &TreePath) -> Result<InodeMetadata> {
        // An error instead of `Absent`: on a bare mount point every node would look removed.
        self.fs.check_available()?;
        let stat = self.fs.stat(path)?;
        let kind = stat.kind.ok_or(Error::Absent)?;
        Ok(InodeMetadata { kind, inode: stat.inode, birth_time: stat.birth_time() })
    }

    fn changed_since(&self, path: &TreePath, instant: i64) -> Result<bool> {
        self.fs.verify_mounts_below(path)?;
        let (directory, name) = self.open_parent(path)?;
        let stat = directory.stat_entry(&name)?;
        if !stat.is_directory() {
            return Ok(stat.changed_since(instant));
        }
        // Only mtime counts for the directory itself: it may have been moved aside and back, which changes its ctime.
        let mut changed = stat.modified_since(instant);
        directory.open_directory(&TreePath::root().child(&name))?.walk(
            || Ok::<(), Error>(()),
            |_, _, _, stat| {
                changed |= stat.changed_since(instant);
                Ok(())
            },
        )?;
        Ok(changed)
    }

    fn remove_subtree(&self, path: &TreePath) -> Result<()> {
        // A file system that is not mounted now would lose its mount point.
        self.fs.verify_mounts_below(path)?;
        let (directory, name) = self.open_parent(path)?;
        // One rename, so that a kill leaves the whole subtree either in place or in staging.
        let staged = self.fs.staging(&directory, directory.stat()?.mount_key())?.move_in(&directory, &name)?;
        // The name must be off the disk before the caller deletes the intent.
        directory.sync()?;
        self.background_deletes.enqueue(staged);
        Ok(())
    }
}
