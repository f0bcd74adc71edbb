//! Identity of a name in a directory.

use super::fs::Stat;
use crate::domain::EntryName;

/// A name in a directory, identified by device and inode, whatever the directory's path is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SlotId {
    device: u64,
    inode: u64,
    name: EntryName,
}

impl SlotId {
    /// Returns the slot of a name in the directory with the metadata `directory`.
    pub(super) fn new(directory: &Stat, name: &EntryName) -> Self {
        Self { device: directory.device, inode: directory.inode, name: name.clone() }
    }

    pub(super) fn name(&self) -> &EntryName {
        &self.name
    }

    /// Tells whether the slot is in the directory with this device and inode.
    pub(super) fn is_in(&self, device: u64, inode: u64) -> bool {
        (self.device, self.inode) == (device, inode)
    }
}
