//! Counters that many threads add to at the same time, and that are seldom read.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Number of stripes that threads spread their counts over.
pub const COUNTER_STRIPES: usize = 16;
/// Number of counters in the pair of cache lines that a processor fetches at once: stripes are separated by as many.
const COUNTERS_PER_CACHE_LINE: usize = 16;

/// Returns the number of the stripe that this thread adds to.
pub fn stripe_of_thread() -> usize {
    static THREADS: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static STRIPE: usize = THREADS.fetch_add(1, Ordering::Relaxed) % COUNTER_STRIPES;
    }
    STRIPE.with(|stripe| *stripe)
}

/// A fixed number of counters, each of which is there once for every stripe: threads that count at the same time seldom
/// write to the same cache line.
pub struct StripedCounters {
    stripes: Box<[Box<[AtomicU64]>]>,
    count: usize,
}

/// The counters of one thread's stripe.
#[derive(Clone, Copy)]
pub struct CounterStripe<'a>(&'a [AtomicU64]);

impl StripedCounters {
    /// Creates counters that are all zero.
    pub fn new(count: usize) -> Self {
        let length = count.next_multiple_of(COUNTERS_PER_CACHE_LINE);
        let stripe = || (0..length).map(|_| AtomicU64::new(0)).collect();
        Self { stripes: (0..COUNTER_STRIPES).map(|_| stripe()).collect(), count }
    }

    /// Returns the stripe of this thread, to add to several counters.
    pub fn stripe(&self) -> CounterStripe<'_> {
        CounterStripe(self.stripes.get(stripe_of_thread()).map_or(&[], |stripe| stripe))
    }

    /// Adds to one counter.
    pub fn add(&self, index: usize, amount: u64) {
        self.stripe().add(index, amount);
    }

    /// Returns the sums of all counters. What threads add meanwhile may be in some of them and not in others.
    pub fn sums(&self) -> Vec<u64> {
        let sum = |index: usize| {
            let counts = self.stripes.iter().filter_map(|stripe| stripe.get(index));
            counts.fold(0u64, |sum, count| sum.wrapping_add(count.load(Ordering::Relaxed)))
        };
        (0..self.count).map(sum).collect()
    }
}

impl CounterStripe<'_> {
    /// Adds to one counter.
    pub fn add(self, index: usize, amount: u64) {
        debug_assert!(index < self.0.len(), "there is no counter {index}");
        if let Some(counter) = self.0.get(index) {
            counter.fetch_add(amount, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_all_threads_are_summed() {
        let counters = StripedCounters::new(3);
        std::thread::scope(|scope| {
            for _ in 0..2 * COUNTER_STRIPES {
                scope.spawn(|| {
                    for _ in 0..100 {
                        counters.add(0, 1);
                    }
                    counters.stripe().add(2, 5);
                });
            }
        });
        let threads = 2 * COUNTER_STRIPES as u64;
        assert_eq!(counters.sums(), [100 * threads, 0, 5 * threads]);
    }
}
