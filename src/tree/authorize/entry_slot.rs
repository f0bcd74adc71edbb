//! Slots: where an authorized operation creates, replaces or removes an entry.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::domain::{EntryName, Permission, TreeAccess, TreePath};
#[cfg(doc)]
use crate::tree::Error;
use crate::tree::fs::{DirectoryFd, Errno, Stat};
use crate::tree::{Result, View};

/// Time for which the directory of a slot is not looked up again: a small upload on a file system in memory takes less,
/// one that waits for a disk takes longer.
const SLOT_RECHECK_GRACE: Duration = Duration::from_micros(100);

/// A name in an open directory at which an operation is authorized, whether or not an entry exists there.
pub(in crate::tree) struct EntrySlot {
    pub(in crate::tree) directory: DirectoryFd,
    pub(in crate::tree) directory_stat: Stat,
    pub(in crate::tree) name: EntryName,
    /// Canonical path: without symbolic links above the name, which may be one itself.
    pub(in crate::tree) path: TreePath,
    /// All permissions of the session at that path.
    pub(in crate::tree) permission: Permission,
    /// Whether only an existing file may be replaced: the file is granted, its directory is not.
    pub(in crate::tree) existing_only: bool,
    /// Topmost place above the slot at which the session may write; `None` where there is none, or where it has to be looked
    /// up, since the directory was reached over a link.
    pub(in crate::tree) topmost_writable: Option<TreePath>,
    /// Access of the session by which this was authorized.
    pub(super) access: Arc<TreeAccess>,
    /// Time at which the directory was looked up by its path.
    pub(super) resolved_at: Instant,
}

impl EntrySlot {
    /// Returns the metadata of the entry at the slot, links not followed; `None` when there is none.
    pub(in crate::tree) fn stat(&self) -> Result<Option<Stat>> {
        match self.directory.stat_entry(&self.name) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Tells whether the slot was authorized just now, by the access that the session still has: then its directory
    /// isn't looked up again. A rename of the directory in so short a time is as good as one just after the look-up.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub(in crate::tree) fn is_fresh(&self, view: &View) -> Result<bool> {
        let access = view.session().access()?;
        let grace = SLOT_RECHECK_GRACE;
        #[cfg(test)]
        let grace = crate::tree::fs::fault_injection::slot_recheck_grace().unwrap_or(grace);
        Ok(Arc::ptr_eq(&access, &self.access) && self.resolved_at.elapsed() < grace)
    }

    /// Returns the path of the directory.
    pub(in crate::tree) fn directory_path(&self) -> TreePath {
        self.path.parent().unwrap_or_default()
    }
}
