//! Synchronization of symbolic links with moves: link creation, link moves and directory moves exclude each other
//! for the moment of their effect, and a directory move learns of changes below its source while that was walked.
//!
//! The target of a relative link depends on the path of the link. An operation that puts a link somewhere checks its
//! text by that path, and a directory move checks every link below its source by the path that it will have. Neither
//! check may be outdated by another session between check and effect:
//!
//! - The effect of every operation that puts a link somewhere, or moves a directory, runs under
//!   [`LinkMoves::lock_exclusive`], and only after the open parent directories were found at the paths by which the
//!   links were checked. So no ancestor has been moved, and none can be before the effect.
//! - A directory is walked without that lock, since that takes as long as the directory is large. It is watched before
//!   the walk begins; whatever arrives in it, moves within it, or moves it away marks the watch, under the lock. A move
//!   with a marked watch walks again, a bounded number of times.
//!
//! Lock order: commit locks of paths, then the freeze of the lock table, then the index, then this. Nothing else is
//! acquired under it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::domain::TreePath;

/// The effect lock and the watched directories of a tree.
#[derive(Default)]
pub(super) struct LinkMoves {
    effect_lock: RwLock<()>,
    watch_table: Mutex<WatchTable>,
    next_number: AtomicU64,
}

#[derive(Default)]
struct WatchTable {
    watched: Vec<(u64, TreePath, Arc<AtomicBool>)>,
    pinned: Vec<(u64, TreePath)>,
}

/// A directory that is watched until this is dropped.
pub(super) struct DirectoryWatch<'a> {
    link_moves: &'a LinkMoves,
    number: u64,
    is_changed: Arc<AtomicBool>,
}

/// An entry whose ancestors stay where they are until this is dropped.
pub(super) struct PinnedPath<'a> {
    link_moves: &'a LinkMoves,
    number: u64,
}

/// Exclusive guard for putting a link somewhere, or moving a directory.
pub(super) struct LinkMoveGuard<'a> {
    link_moves: &'a LinkMoves,
    _effect_lock: RwLockWriteGuard<'a, ()>,
}

impl LinkMoves {
    /// Watches a directory until the watch is dropped.
    pub(super) fn watch(&self, directory: &TreePath) -> DirectoryWatch<'_> {
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let is_changed = Arc::new(AtomicBool::new(false));
        self.watch_table.lock().watched.push((number, directory.clone(), Arc::clone(&is_changed)));
        DirectoryWatch { link_moves: self, number, is_changed }
    }

    /// Waits for the exclusive guard for putting a link somewhere, or moving a directory. Hold it for the effect alone.
    pub(super) fn lock_exclusive(&self) -> LinkMoveGuard<'_> {
        LinkMoveGuard { link_moves: self, _effect_lock: self.effect_lock.write() }
    }

    /// Waits for the shared guard for moving a file: while it is held, the file can't become a link or a directory.
    pub(super) fn lock_shared(&self) -> RwLockReadGuard<'_, ()> {
        self.effect_lock.read()
    }
}

impl<'a> LinkMoveGuard<'a> {
    /// Marks the watches of directories in which an entry arrived at `path`.
    pub(super) fn mark_arrival(&self, path: &TreePath) {
        self.mark_watches(|watched| path.starts_with(watched));
    }

    /// Marks the watches of directories that were moved themselves, or in which an entry was moved.
    pub(super) fn mark_move(&self, from: &TreePath, to: &TreePath) {
        self.mark_watches(|watched| {
            // Both ways: moves within the watched directory, and of its ancestors, change where its links lead.
            [from, to].iter().any(|path| path.starts_with(watched) || watched.starts_with(path))
        });
    }

    /// Keeps the ancestors of an entry from being moved.
    pub(super) fn pin(&self, path: &TreePath) -> PinnedPath<'a> {
        let number = self.link_moves.next_number.fetch_add(1, Ordering::Relaxed);
        self.link_moves.watch_table.lock().pinned.push((number, path.clone()));
        PinnedPath { link_moves: self.link_moves, number }
    }

    /// Tells whether a directory, or an entry below it, is pinned.
    pub(super) fn is_pinned(&self, directory: &TreePath) -> bool {
        self.link_moves.watch_table.lock().pinned.iter().any(|(_, path)| path.starts_with(directory))
    }

    fn mark_watches(&self, concerns: impl Fn(&TreePath) -> bool) {
        for (_, watched, is_changed) in &self.link_moves.watch_table.lock().watched {
            if concerns(watched) {
                // Relaxed: marks are set, and looked at reliably, under the effect lock alone.
                is_changed.store(true, Ordering::Relaxed);
            }
        }
    }
}

impl DirectoryWatch<'_> {
    /// Tells whether the watch was marked; reliable only under [`LinkMoves::lock_exclusive`].
    pub(super) fn is_changed(&self) -> bool {
        self.is_changed.load(Ordering::Relaxed)
    }
}

impl Drop for DirectoryWatch<'_> {
    fn drop(&mut self) {
        self.link_moves.watch_table.lock().watched.retain(|(number, ..)| *number != self.number);
    }
}

impl Drop for PinnedPath<'_> {
    fn drop(&mut self) {
        self.link_moves.watch_table.lock().pinned.retain(|(number, _)| *number != self.number);
    }
}
