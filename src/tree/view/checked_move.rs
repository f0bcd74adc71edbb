//! What a move was found to do.

use super::OverwriteMode;
use crate::tree::fs::Stat;

/// Entries of a move as found under the commit locks.
pub(super) struct CheckedMove {
    /// Entry that moves.
    pub(super) moved: Stat,
    /// Entry that it replaces.
    pub(super) replaced: Option<Stat>,
}

impl CheckedMove {
    /// Returns the replaced entry where it has to be exchanged, since rename(2) does not replace it: a directory, or
    /// any entry that a directory replaces.
    pub(super) fn exchanged(&self, overwrite: OverwriteMode) -> Option<&Stat> {
        let needs_exchange =
            |old: &&Stat| !self.moved.is_same_file(old) && (old.is_directory() || self.moved.is_directory());
        self.replaced.as_ref().filter(needs_exchange).filter(|_| overwrite == OverwriteMode::Replace)
    }
}
