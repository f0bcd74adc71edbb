//! The commit locks of names: what is judged under one still holds when the effect follows.

use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::{Mutex, MutexGuard};

use crate::domain::TreePath;

const STRIPES: usize = 256;

/// The commit locks of a tree's names, by canonical path; two names may share one.
pub(super) struct NameLocks(Box<[Mutex<()>]>);

/// The commit locks of one or two names, held.
pub(super) struct Held<'a>(#[expect(dead_code, reason = "held, never looked at")] Vec<MutexGuard<'a, ()>>);

impl NameLocks {
    /// Makes the locks, none held.
    pub(super) fn new() -> Self {
        Self((0..STRIPES).map(|_| Mutex::default()).collect())
    }

    /// Waits for the locks of all names at once, in an order of their own. A thread holds one such set
    /// at a time.
    pub(super) fn hold(&self, names: &[&TreePath]) -> Held<'_> {
        let mut stripes: Vec<usize> = names.iter().map(|name| stripe(name)).collect();
        stripes.sort_unstable();
        stripes.dedup();
        Held(stripes.into_iter().map(|stripe| self.0[stripe].lock()).collect())
    }

    /// Takes the lock of a name, where nobody holds it.
    pub(super) fn try_hold(&self, name: &TreePath) -> Option<Held<'_>> {
        self.0[stripe(name)].try_lock().map(|held| Held(vec![held]))
    }
}

fn stripe(name: &TreePath) -> usize {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    usize::try_from(hasher.finish() % STRIPES as u64).unwrap_or(0)
}
