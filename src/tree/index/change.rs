//! A change of names that the index follows, from its announcement to its end.

use parking_lot::{RwLockReadGuard, RwLockWriteGuard};

use super::NodeIndex;
use crate::domain::TreePath;
use crate::store::{ChangeIntent, IntentAction};
#[cfg(doc)]
use crate::tree::Error;
use crate::tree::Result;

/// A move or removal under way. Dropped without [`IndexChange::finish`], it is completed or abandoned by the state of
/// the file system, which mostly has refused it.
#[must_use = "the file system changes next, and then the change is finished"]
pub(in crate::tree) struct IndexChange<'a> {
    pub(super) index: &'a NodeIndex,
    pub(super) _guard: ChangeGuard<'a>,
    pub(super) state: IndexChangeState,
}

pub(super) enum IndexChangeState {
    /// A change whose intent is in the store.
    IntentRecorded(ChangeIntent),
    /// A change that concerned no node when it began.
    Unnamed(TreePath, IntentAction),
    Finished,
}

#[expect(dead_code, reason = "held for its drop, never read")]
pub(super) enum ChangeGuard<'a> {
    Shared(RwLockReadGuard<'a, ()>),
    Exclusive(RwLockWriteGuard<'a, ()>),
}

impl<'a> IndexChange<'a> {
    pub(super) fn unnamed(
        index: &'a NodeIndex,
        guard: ChangeGuard<'a>,
        source: &TreePath,
        action: IntentAction,
    ) -> Self {
        Self { index, _guard: guard, state: IndexChangeState::Unnamed(source.clone(), action) }
    }

    /// Updates the index after the file system has changed (and was synced, where durability asks for it).
    ///
    /// # Errors
    /// [`Error::Store`]: the index follows before the next recorded change, or at the next start.
    pub(in crate::tree) fn finish(mut self) -> Result<()> {
        // Marked as finished first, so that the drop does not settle the intent once more.
        let (source, target) = match std::mem::replace(&mut self.state, IndexChangeState::Finished) {
            IndexChangeState::IntentRecorded(intent) => return self.index.finish_intent(&intent),
            IndexChangeState::Unnamed(source, IntentAction::Move(target)) => (source, target),
            IndexChangeState::Unnamed(..) | IndexChangeState::Finished => return Ok(()),
        };
        // Another process (the command line) may have assigned an id to the source since this began.
        if self.index.store.node_at(&source)?.is_none() {
            return Ok(());
        }
        match self.index.metadata(&target)? {
            Some(metadata) => self.index.move_nodes(None, &source, &target, metadata.entry_identity(), &[]),
            None => Ok(()),
        }
    }
}

impl Drop for IndexChange<'_> {
    fn drop(&mut self) {
        let IndexChangeState::IntentRecorded(intent) = &self.state else { return };
        if let Err(error) = self.index.complete_or_abandon(intent) {
            tracing::warn!(%error, "a recorded change is not completed: it will be before the next one");
        }
    }
}
