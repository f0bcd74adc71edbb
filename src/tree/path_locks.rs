//! Commit locks of paths: a check under one is still true at the effect.

use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::{Mutex, MutexGuard};

use crate::domain::TreePath;

/// Number of mutexes over which paths are spread by hash.
const PATH_LOCK_STRIPES: usize = 256;

/// The commit locks of a tree, by canonical path; two paths may share a mutex.
pub(super) struct PathLocks(Box<[Mutex<()>]>);

/// Guards of the commit locks of one or more paths.
pub(super) struct PathGuards<'a>(
    #[expect(dead_code, reason = "held for its drop, never read")] Vec<MutexGuard<'a, ()>>,
);

impl PathLocks {
    /// Creates the locks, all free.
    pub(super) fn new() -> Self {
        Self((0..PATH_LOCK_STRIPES).map(|_| Mutex::default()).collect())
    }

    /// Waits for the locks of all given paths, in an order that can't deadlock. A thread may hold one such set at a
    /// time.
    pub(super) fn lock(&self, names: &[&TreePath]) -> PathGuards<'_> {
        PathGuards(stripes_of(names).into_iter().map(|stripe| self.0[stripe].lock()).collect())
    }

    /// Takes the lock of a path if it is free.
    pub(super) fn try_lock(&self, name: &TreePath) -> Option<PathGuards<'_>> {
        self.try_lock_all(&[name])
    }

    /// Takes the locks of all given paths if they are free.
    pub(super) fn try_lock_all(&self, names: &[&TreePath]) -> Option<PathGuards<'_>> {
        stripes_of(names).into_iter().map(|stripe| self.0[stripe].try_lock()).collect::<Option<_>>().map(PathGuards)
    }
}

/// Returns the mutexes of paths. Sorted, so that two threads never wait for each other; without duplicates, since a mutex
/// is not reentrant.
fn stripes_of(names: &[&TreePath]) -> Vec<usize> {
    let mut stripes: Vec<usize> = names.iter().map(|name| stripe_of(name)).collect();
    stripes.sort_unstable();
    stripes.dedup();
    stripes
}

fn stripe_of(name: &TreePath) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() % PATH_LOCK_STRIPES as u64).unwrap_or(0)
}
