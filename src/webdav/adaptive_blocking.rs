//! Where a small upload is committed: on the spot, or on a thread that may wait.
//!
//! The way over another thread and back costs more than staging, writing and renaming a small file where nothing waits
//! for a disk: on a file system in memory, or one whose cache keeps what it takes. Which one this is, is not guessed
//! but measured: a long streak of uploads that were done in no time is gone on with on the spot, and one that had to
//! wait sends the next ones off the runtime again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::error::{Result, run_blocking};

/// As long as an upload may take that counts as done in no time.
const FAST_COMMIT_LIMIT: Duration = Duration::from_millis(1);
/// How many more brief ones than long ones there must have been.
const INLINE_SCORE_THRESHOLD: u32 = 128;
/// How many brief ones a long one outweighs, so that one in many does no harm.
const SLOW_COMMIT_PENALTY: u32 = 64;
/// The most that is counted, so that a disk that becomes slow is found out soon.
const MAX_SCORE: u32 = 1024;

/// How uploads have gone lately; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct AdaptiveBlocking(Arc<AtomicU32>);

impl AdaptiveBlocking {
    /// Does work that is brief unless it has to wait.
    ///
    /// # Errors
    /// What the work says.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.runs_inline() {
            return self.run_timed(work);
        }
        let this = self.clone();
        run_blocking(move || this.run_timed(work)).await
    }

    fn runs_inline(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= INLINE_SCORE_THRESHOLD
    }

    fn run_timed<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = work();
        self.record_duration(started.elapsed());
        result
    }

    fn record_duration(&self, duration: Duration) {
        let next_score = |score: u32| match duration < FAST_COMMIT_LIMIT {
            true => Some((score + 1).min(MAX_SCORE)),
            false => Some(score.saturating_sub(SLOW_COMMIT_PENALTY)),
        };
        // Whichever of two counts comes first, the other is counted as well.
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next_score);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn current_thread_id() -> Result<std::thread::ThreadId> {
        Ok(std::thread::current().id())
    }

    #[tokio::test]
    async fn work_runs_inline_only_after_many_fast_runs() {
        let (this, here) = (AdaptiveBlocking::default(), std::thread::current().id());
        assert_ne!(this.run(current_thread_id).await.expect("done"), here, "nothing is known yet");
        (0..INLINE_SCORE_THRESHOLD).for_each(|_| this.record_duration(Duration::ZERO));
        assert_eq!(this.run(current_thread_id).await.expect("done"), here);
        this.record_duration(FAST_COMMIT_LIMIT);
        assert_ne!(this.run(current_thread_id).await.expect("done"), here, "the last had to wait");
    }

    #[test]
    fn slow_disk_ends_inline_execution_quickly() {
        let this = AdaptiveBlocking::default();
        (0..100_000).for_each(|_| this.record_duration(Duration::ZERO));
        this.record_duration(FAST_COMMIT_LIMIT);
        assert!(this.runs_inline(), "one in many does no harm");
        (0..16).for_each(|_| this.record_duration(Duration::from_millis(5)));
        assert!(!this.runs_inline());
    }
}
