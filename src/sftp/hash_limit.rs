//! Limits on concurrent hashing. Hashing a large file keeps a CPU busy for long, on a request of a few bytes. So only a
//! share of the CPUs is used, one chunk at a time, and the number of files that wait is bounded.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::{Condvar, Mutex};

use crate::domain::{Login, QuotaReservation, UserQuotaLimits, UserQuotas};

/// Maximum number of files that are hashed concurrently: each holds a thread.
const HASHED_FILE_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 16, total: 128 };

/// Limiter of concurrent hashing; clones share the limits.
#[derive(Clone)]
pub(super) struct HashLimiter {
    files: UserQuotas,
    slots: Arc<HashSlots>,
}

struct HashSlots {
    free: Mutex<usize>,
    slot_released: Condvar,
}

/// Permit to hash one file; released when dropped.
pub(super) struct HashPermit {
    slots: Arc<HashSlots>,
    _reservation: QuotaReservation,
}

/// Slot in which one chunk is hashed; released when dropped.
struct HashSlot<'a>(&'a HashSlots);

impl HashLimiter {
    /// Returns a limiter with a slot for every second CPU, at least one.
    pub(super) fn new() -> Self {
        Self::with_slots(available_parallelism().map_or(1, NonZero::get).div_ceil(2))
    }

    fn with_slots(slots: usize) -> Self {
        let slots = HashSlots { free: Mutex::new(slots), slot_released: Condvar::new() };
        Self { files: UserQuotas::new(HASHED_FILE_LIMITS), slots: Arc::new(slots) }
    }

    /// Returns a permit to hash a file of a user; `None` at the limit of the user or the total.
    pub(super) fn acquire(&self, login: &Login) -> Option<HashPermit> {
        // The limits are on files, the slots on CPUs: a waiting file counts as well, since it holds a thread.
        Some(HashPermit { slots: Arc::clone(&self.slots), _reservation: self.files.try_reserve(login, 1)? })
    }
}

impl HashPermit {
    /// Runs `work` on one chunk in a slot; blocks until a slot is free.
    pub(super) fn run_in_slot<T>(&self, work: impl FnOnce() -> T) -> T {
        let mut free = self.slots.free.lock();
        self.slots.slot_released.wait_while(&mut free, |free| *free == 0);
        *free -= 1;
        // The lock guards the counter only, never the work.
        drop(free);
        // A guard: a slot is released even if the work panics.
        let _slot = HashSlot(&self.slots);
        work()
    }
}

impl Drop for HashSlot<'_> {
    fn drop(&mut self) {
        *self.0.free.lock() += 1;
        self.0.slot_released.notify_one();
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
    fn hashed_files_are_limited_per_user_and_in_total() {
        let limiter = HashLimiter::with_slots(1);
        let mut permits: Vec<_> =
            (0..HASHED_FILE_LIMITS.per_user).map(|_| limiter.acquire(&login(0)).expect("a permit")).collect();
        assert!(limiter.acquire(&login(0)).is_none());
        permits.extend(
            (HASHED_FILE_LIMITS.per_user..HASHED_FILE_LIMITS.total)
                .map(|number| limiter.acquire(&login(number / HASHED_FILE_LIMITS.per_user)).expect("a permit")),
        );
        assert!(limiter.acquire(&login(99)).is_none());
        permits.pop();
        assert!(limiter.acquire(&login(0)).is_none(), "a refused file holds no permit");
        assert!(limiter.acquire(&login(99)).is_some());
    }

    #[test]
    fn concurrent_hashing_never_exceeds_slots() {
        let (limiter, active, peak) = (HashLimiter::with_slots(2), AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|threads| {
            for _ in 0..8 {
                let permit = limiter.acquire(&login(0)).expect("a permit");
                let (active, peak) = (&active, &peak);
                threads.spawn(move || {
                    for _ in 0..100 {
                        permit.run_in_slot(|| {
                            peak.fetch_max(active.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                            std::thread::yield_now();
                            active.fetch_sub(1, Ordering::SeqCst);
                        });
                    }
                });
            }
        });
        assert!((1..=2).contains(&peak.into_inner()));
    }
}
