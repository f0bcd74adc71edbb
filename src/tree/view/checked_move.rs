//! What a move was found to do.

use super::OverwriteMode;
use super::storage_changes::file_bytes;
use crate::domain::TreePath;
use crate::tree::byte_change::ByteChange;
use crate::tree::fs::Stat;

/// Entries of a move as found under the commit locks.
pub(super) struct CheckedMove {
    /// Entry that moves.
    pub(super) moved: Stat,
    /// Entry that it replaces.
    pub(super) replaced: Option<Stat>,
}

impl CheckedMove {
    /// Returns the changes of the bytes at both paths. Those of an entry that is exchanged, and then removed from
    /// staging, are not among them.
    pub(super) fn byte_changes<'a>(
        &self,
        from: &'a TreePath,
        to: &'a TreePath,
        moved_bytes: u64,
    ) -> Vec<ByteChange<'a>> {
        let old = self.replaced.as_ref();
        if self.moved.is_directory() {
            let (left, arrived) =
                (ByteChange::removed_directory(from, moved_bytes), ByteChange::added_directory(to, moved_bytes));
            return vec![left, arrived];
        }
        let left = ByteChange::file(from, moved_bytes, 0);
        match old {
            // Two names of one file, of which one is removed.
            Some(old) if old.is_same_file(&self.moved) => vec![left],
            old => vec![left, ByteChange::file(to, file_bytes(old), moved_bytes)],
        }
    }

    /// Returns the replaced entry where it has to be exchanged, since rename(2) does not replace it: a directory, or
    /// any entry that a directory replaces.
    pub(super) fn exchanged(&self, overwrite: OverwriteMode) -> Option<&Stat> {
        let needs_exchange =
            |old: &&Stat| !self.moved.is_same_file(old) && (old.is_directory() || self.moved.is_directory());
        self.replaced.as_ref().filter(needs_exchange).filter(|_| overwrite == OverwriteMode::Replace)
    }
}
