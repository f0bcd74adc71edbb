//! Choice of where short work is done, a small upload or the listing of a small directory: on the runtime thread, or on a
//! thread that may block.
//!
//! A switch to another thread and back costs more than staging, writing and renaming a small file where nothing waits
//! for a disk: on a file system in memory, or one with a write-back cache. This is measured, not guessed: after a long
//! run of fast work the next is done inline, and work that blocked sends the next off the runtime again.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::error::{Error, Result, run_blocking};
use crate::tree::{self, View};

/// Duration below which work counts as fast.
const FAST_WORK_LIMIT: Duration = Duration::from_millis(1);
/// Score from which work is done inline; each fast one adds 1.
const INLINE_SCORE_THRESHOLD: u32 = 128;
/// Score that slow work subtracts: a rare slow one doesn't end inline work for long.
const SLOW_WORK_PENALTY: u32 = 64;
/// Maximum score, so that a disk that becomes slow is detected soon.
const MAX_SCORE: u32 = 1024;

/// Score of recent work of one kind; clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct AdaptiveBlocking(Arc<AtomicU32>);

impl AdaptiveBlocking {
    /// Runs work that is short unless it blocks.
    ///
    /// # Errors
    /// The error of the work.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
        if self.runs_inline() {
            // Blocks a thread of the runtime on purpose: measured to be shorter than a switch.
            return self.run_timed(work);
        }
        let this = self.clone();
        run_blocking(move || this.run_timed(work)).await
    }

    /// Runs work that is short unless it blocks, where it is done inline; `None` where it is to be done on another thread,
    /// in [`AdaptiveBlocking::run_timed`].
    pub(super) fn try_inline<T>(&self, work: impl FnOnce() -> Result<T>) -> Option<Result<T>> {
        self.runs_inline().then(|| self.run_timed(work))
    }

    /// Runs a change in a view of the tree here, where such work was fast and this one has to wait for nothing
    /// ([`View::without_waiting`]); `None` where it is to be done on another thread, in [`AdaptiveBlocking::run_timed`].
    pub(super) fn try_in_view<T>(&self, view: &View, work: impl FnOnce(&View) -> Result<T>) -> Option<Result<T>> {
        self.try_inline(|| work(&view.without_waiting())).filter(|result| match result {
            Err(Error::Tree(tree::Error::Filesystem(error))) => error.kind() != io::ErrorKind::WouldBlock,
            Ok(_) | Err(_) => true,
        })
    }

    /// Runs a change in a view of the tree: here as [`AdaptiveBlocking::try_in_view`] does, otherwise on another thread.
    ///
    /// # Errors
    /// The error of the work.
    pub(super) async fn run_in_view<T: Send + 'static>(
        &self,
        view: &View,
        work: impl Fn(&View) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if let Some(result) = self.try_in_view(view, &work) {
            return result;
        }
        let (this, view) = (self.clone(), view.clone());
        run_blocking(move || this.run_timed(|| work(&view))).await
    }

    fn runs_inline(&self) -> bool {
        // Relaxed: the score is a hint, on which no other data depends.
        self.0.load(Ordering::Relaxed) >= INLINE_SCORE_THRESHOLD
    }

    /// Runs work here, and counts whether it was fast.
    ///
    /// # Errors
    /// The error of the work.
    pub(super) fn run_timed<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let started = Instant::now();
        let result = work();
        // Failed work counts too: it may have waited for the disk as well.
        self.record_duration(started.elapsed());
        result
    }

    fn record_duration(&self, duration: Duration) {
        let next_score = |score: u32| match duration < FAST_WORK_LIMIT {
            true => Some((score + 1).min(MAX_SCORE)),
            false => Some(score.saturating_sub(SLOW_WORK_PENALTY)),
        };
        // The update never returns `None`, so it can't fail; concurrent updates are all counted.
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
        let (adaptive, current_thread) = (AdaptiveBlocking::default(), std::thread::current().id());
        assert_ne!(adaptive.run(current_thread_id).await.expect("done"), current_thread, "nothing is known yet");
        (0..INLINE_SCORE_THRESHOLD).for_each(|_| adaptive.record_duration(Duration::ZERO));
        assert_eq!(adaptive.run(current_thread_id).await.expect("done"), current_thread);
        adaptive.record_duration(FAST_WORK_LIMIT);
        assert_ne!(adaptive.run(current_thread_id).await.expect("done"), current_thread, "the last had to wait");
    }

    #[test]
    fn slow_disk_ends_inline_execution_quickly() {
        let adaptive = AdaptiveBlocking::default();
        (0..100_000).for_each(|_| adaptive.record_duration(Duration::ZERO));
        adaptive.record_duration(FAST_WORK_LIMIT);
        assert!(adaptive.runs_inline(), "one in many does no harm");
        (0..16).for_each(|_| adaptive.record_duration(Duration::from_millis(5)));
        assert!(!adaptive.runs_inline());
    }
}
