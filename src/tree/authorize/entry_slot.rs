//! Slots: where an authorized operation creates, replaces or removes an entry.

use crate::domain::{EntryName, Permission, TreePath};
use crate::tree::Result;
use crate::tree::fs::{DirectoryFd, Errno, Stat};

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

    /// Returns the path of the directory.
    pub(in crate::tree) fn directory_path(&self) -> TreePath {
        self.path.parent().unwrap_or_default()
    }
}
