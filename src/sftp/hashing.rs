//! How much is hashed at once. A hash of a large file keeps a processor busy for long, for a request of a few bytes:
//! so only a share of the processors does it, a piece at a time in turn, and few files of one user wait for that.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::{Condvar, Mutex};

use crate::domain::{Login, Share, ShareLimits, Shares};

/// Files that are hashed at once: each keeps a thread.
const FILES: ShareLimits = ShareLimits { per_user: 16, in_all: 128 };

/// Bounds what is hashed at once; clones share the bounds.
#[derive(Clone)]
pub(super) struct Hashing {
    files: Shares,
    turns: Arc<Turns>,
}

struct Turns {
    free: Mutex<usize>,
    returned: Condvar,
}

/// One file's place; given back when dropped.
pub(super) struct Hasher {
    turns: Arc<Turns>,
    _share: Share,
}

/// The time in which one piece is hashed.
struct Turn<'a>(&'a Turns);

impl Hashing {
    /// Lets half of the processors hash.
    pub(super) fn new() -> Self {
        Self::with_turns(available_parallelism().map_or(1, NonZero::get).div_ceil(2))
    }

    fn with_turns(turns: usize) -> Self {
        let turns = Turns { free: Mutex::new(turns), returned: Condvar::new() };
        Self { files: Shares::new(FILES), turns: Arc::new(turns) }
    }

    /// Lets a file of a user be hashed; `None` when too many are.
    pub(super) fn enter(&self, login: &Login) -> Option<Hasher> {
        Some(Hasher { turns: Arc::clone(&self.turns), _share: self.files.take(login, 1)? })
    }
}

impl Hasher {
    /// Does work on a piece when its turn has come; blocks until then.
    pub(super) fn in_turn<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut free = self.turns.free.lock();
        self.turns.returned.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        drop(free);
        let _turn = Turn(&self.turns);
        work()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn login(number: u64) -> Login {
        format!("user{number}").parse().expect("login")
    }

    #[test]
    fn a_user_has_so_many_places_and_all_together_have() {
        let hashing = Hashing::with_turns(1);
        let mut all: Vec<_> = (0..FILES.per_user).map(|_| hashing.enter(&login(0)).expect("a place")).collect();
        assert!(hashing.enter(&login(0)).is_none());
        all.extend(
            (FILES.per_user..FILES.in_all)
                .map(|number| hashing.enter(&login(number / FILES.per_user)).expect("a place")),
        );
        assert!(hashing.enter(&login(99)).is_none());
        all.pop();
        assert!(hashing.enter(&login(0)).is_none(), "what is refused keeps no place");
        assert!(hashing.enter(&login(99)).is_some());
    }

    #[test]
    fn no_more_work_at_once_than_there_are_turns() {
        let (hashing, working, most) = (Hashing::with_turns(2), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for _ in 0..8 {
                let hasher = hashing.enter(&login(0)).expect("a place");
                let (working, most) = (&working, &most);
                threads.spawn(move || {
                    for _ in 0..100 {
                        hasher.in_turn(|| {
                            most.fetch_max(working.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            working.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!((1..=2).contains(&most.into_inner()));
    }
}
