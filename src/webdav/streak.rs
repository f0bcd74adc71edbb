//! Where a small upload is committed: on the spot, or on a thread that may wait.
//!
//! The way over another thread and back costs more than staging, writing and renaming a small file where nothing waits
//! for a disk: on a file system in memory, or one whose cache keeps what it takes. Which one this is, is not guessed
//! but measured: a long streak of uploads that were done in no time is gone on with on the spot, and one that had to
//! wait sends the next ones off the runtime again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::error::{Result, blocking};

/// As long as an upload may take that counts as done in no time.
const BRIEF: Duration = Duration::from_millis(1);
/// How many more brief ones than long ones there must have been.
const ENOUGH: u32 = 128;
/// How many brief ones a long one outweighs, so that one in many does no harm.
const WEIGHT: u32 = 64;
/// The most that is counted, so that a disk that becomes slow is found out soon.
const MOST: u32 = 1024;

/// How uploads have gone lately; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Streak(Arc<AtomicU32>);

impl Streak {
    /// Does work that is brief unless it has to wait.
    ///
    /// # Errors
    /// What the work says.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.holds() {
            return self.timed(work);
        }
        let streak = self.clone();
        blocking(move || streak.timed(work)).await
    }

    fn holds(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= ENOUGH
    }

    fn timed<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let began = Instant::now();
        let done = work();
        self.count(began.elapsed());
        done
    }

    fn count(&self, took: Duration) {
        let counted = |count: u32| match took < BRIEF {
            true => Some((count + 1).min(MOST)),
            false => Some(count.saturating_sub(WEIGHT)),
        };
        // Whichever of two counts comes first, the other is counted as well.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thread() -> Result<std::thread::ThreadId> {
        Ok(std::thread::current().id())
    }

    #[tokio::test]
    async fn work_is_done_on_the_spot_only_after_a_streak_of_brief_ones() {
        let (streak, here) = (Streak::default(), std::thread::current().id());
        assert_ne!(streak.run(thread).await.expect("done"), here, "nothing is known yet");
        (0..ENOUGH).for_each(|_| streak.count(Duration::ZERO));
        assert_eq!(streak.run(thread).await.expect("done"), here);
        streak.count(BRIEF);
        assert_ne!(streak.run(thread).await.expect("done"), here, "the last had to wait");
    }

    #[test]
    fn a_disk_that_becomes_slow_is_found_out_soon() {
        let streak = Streak::default();
        (0..100_000).for_each(|_| streak.count(Duration::ZERO));
        streak.count(BRIEF);
        assert!(streak.holds(), "one in many does no harm");
        (0..16).for_each(|_| streak.count(Duration::from_millis(5)));
        assert!(!streak.holds());
    }
}
