//! State of a count of the files of an account, which goes on while they change.
//!
//! The count goes through the directories in one order: each before those below it, and siblings by the bytes of their
//! names. So for any change it is known whether its directory was counted already, and the change is to be added to the
//! sum, or is still to be counted.

use std::cmp::Ordering;
use std::collections::BTreeSet;

use super::byte_change::{ByteChange, ChangedEntry};
use crate::domain::{StorageAccount, TreePath};

/// A count under way.
pub(super) struct RecountState {
    account: StorageAccount,
    /// Topmost paths of the account.
    paths: Vec<TreePath>,
    /// Directories, and topmost files, that are still to be counted.
    pending: BTreeSet<WalkOrder>,
    /// The last one that was counted.
    last_counted: Option<WalkOrder>,
    current: Option<WalkOrder>,
    /// Whether something has changed in the current one since it was begun.
    current_changed: bool,
    bytes: i64,
    restarted: bool,
}

/// A path in the order of the walk.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WalkOrder(TreePath);

impl Ord for WalkOrder {
    fn cmp(&self, other: &Self) -> Ordering {
        // By components: the bytes of whole paths would put `/a.b` between `/a` and `/a/b`.
        self.0.components().cmp(other.0.components())
    }
}

impl PartialOrd for WalkOrder {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl RecountState {
    /// Begins a count of the files at and below these paths, which don't overlap.
    pub(super) fn new(account: StorageAccount, paths: Vec<TreePath>) -> Self {
        let pending = paths.iter().cloned().map(WalkOrder).collect();
        let (last_counted, current) = (None, None);
        Self { account, paths, pending, last_counted, current, current_changed: false, bytes: 0, restarted: false }
    }

    /// Returns the account whose files are counted.
    pub(super) fn account(&self) -> &StorageAccount {
        &self.account
    }

    /// Ends this count: its sum would be wrong, and another one is to begin.
    pub(super) fn restart(&mut self) {
        self.restarted = true;
    }

    /// Tells whether the count is to begin anew.
    pub(super) fn is_restarted(&self) -> bool {
        self.restarted
    }

    /// Returns the bytes that were counted so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.max(0).unsigned_abs()
    }

    /// Begins with the next directory, or topmost file; `None` after the last.
    pub(super) fn begin_next(&mut self) -> Option<TreePath> {
        self.current = self.pending.pop_first();
        self.current_changed = false;
        self.current.as_ref().map(|current| current.0.clone())
    }

    /// Begins anew with the current directory.
    pub(super) fn begin_again(&mut self) {
        self.current_changed = false;
    }

    /// Tells whether something has changed in the current directory since it was begun.
    pub(super) fn has_current_changed(&self) -> bool {
        self.current_changed
    }

    /// Adds the current directory: the bytes of its files, and the directories in it.
    pub(super) fn finish_current(&mut self, bytes: u64, directories: Vec<TreePath>) {
        self.bytes = self.bytes.saturating_add(i64::try_from(bytes).unwrap_or(i64::MAX));
        self.pending.extend(directories.into_iter().map(WalkOrder));
        self.last_counted = self.current.take();
    }

    /// Follows a change at or below the paths of the account.
    pub(super) fn follow(&mut self, change: &ByteChange<'_>) {
        // A topmost file is counted by itself, and any other entry with the directory that holds it.
        let is_topmost = self.paths.contains(change.path);
        let counted_with = if is_topmost { change.path.clone() } else { change.path.parent().unwrap_or_default() };
        let counted_with = WalkOrder(counted_with);
        if self.current.as_ref() == Some(&counted_with) {
            self.current_changed = true;
        }
        match change.entry {
            ChangedEntry::File if self.is_counted(&counted_with) => self.add(change.delta),
            ChangedEntry::File => {}
            // The root of a grant is another node now, or none: the paths of the account are about to change.
            ChangedEntry::AddedDirectory | ChangedEntry::RemovedDirectory if is_topmost => self.restart(),
            ChangedEntry::AddedDirectory => self.follow_added(change, &counted_with),
            ChangedEntry::RemovedDirectory => self.follow_removed(change),
        }
    }

    fn follow_added(&mut self, change: &ByteChange<'_>, parent: &WalkOrder) {
        let added = WalkOrder(change.path.clone());
        if self.is_counted(&added) {
            self.add(change.delta);
        } else if self.is_counted(parent) {
            // Its parent was read before it appeared, and doesn't lead to it any more.
            self.pending.insert(added);
        }
    }

    fn follow_removed(&mut self, change: &ByteChange<'_>) {
        let removed = WalkOrder(change.path.clone());
        let is_within = |order: &WalkOrder| order.0.starts_with(change.path);
        let is_current = self.current.as_ref().is_some_and(is_within);
        if !self.is_counted(&removed) && !is_current {
            // Nothing of it was counted; the walk does not find it any more.
            self.pending.retain(|order| !is_within(order));
        } else if is_current || self.pending.iter().any(is_within) {
            // A part of it was counted.
            self.restart();
        } else {
            self.add(change.delta);
        }
    }

    fn is_counted(&self, order: &WalkOrder) -> bool {
        self.last_counted.as_ref().is_some_and(|last| order <= last)
    }

    fn add(&mut self, delta: i64) {
        self.bytes = self.bytes.saturating_add(delta);
    }
}
