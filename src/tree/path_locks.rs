//! The commit locks of names: what is judged under one still holds when the effect follows.

use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::{Mutex, MutexGuard};

use crate::domain::TreePath;

const PATH_LOCK_STRIPES: usize = 256;

/// The commit locks of a tree's names, by canonical path; two names may share one.
pub(super) struct PathLocks(Box<[Mutex<()>]>);

/// The commit locks of one or two names, held.
pub(super) struct PathGuards<'a>(#[expect(dead_code, reason = "held, never looked at")] Vec<MutexGuard<'a, ()>>);

impl PathLocks {
    /// Makes the locks, none held.
    pub(super) fn new() -> Self {
        Self((0..PATH_LOCK_STRIPES).map(|_| Mutex::default()).collect())
    }

    /// Waits for the locks of all names at once, in an order of their own. A thread holds one such set
    /// at a time.
    pub(super) fn lock(&self, names: &[&TreePath]) -> PathGuards<'_> {
        let mut stripes: Vec<usize> = names.iter().map(|name| stripe_of(name)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        PathGuards(stripes.into_iter().map(|stripe| self.0[stripe].lock()).collect())
    }

    /// Takes the lock of a name, where nobody holds it.
    pub(super) fn try_lock(&self, name: &TreePath) -> Option<PathGuards<'_>> {
        self.0[stripe_of(name)].try_lock().map(|held| PathGuards(vec![held]))
    }
}

fn stripe_of(name: &TreePath) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() % PATH_LOCK_STRIPES as u64).unwrap_or(0)
}
