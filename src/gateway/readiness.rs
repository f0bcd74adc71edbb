//! Whether the server can answer: what orchestrators ask every few seconds, and anybody as often as they like.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Time for which a finding counts.
const FINDING_LIFETIME: Duration = Duration::from_secs(1);

/// Answer to whether the server can answer, looked up once a second at most and by one request at a time. Clones share it.
#[derive(Clone)]
pub(super) struct Readiness {
    check: Arc<dyn Fn() -> bool + Send + Sync>,
    found: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Readiness {
    /// Returns a readiness that `check`, which may block, finds out.
    pub(super) fn new(check: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), found: Arc::default() }
    }

    /// Tells whether the server can answer, as it was found within the last second.
    pub(super) async fn is_ready(&self) -> bool {
        let mut found = Arc::clone(&self.found).lock_owned().await;
        if let Some((at, ready)) = *found
            && at.elapsed() < FINDING_LIFETIME
        {
            return ready;
        }
        let check = Arc::clone(&self.check);
        // The check keeps the lock although its request is gone: the next one would begin another beside it.
        let check = move || {
            let ready = check();
            *found = Some((Instant::now(), ready));
            ready
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    // The clock stands still: the finding is fresh however busy the machine is.
    #[tokio::test(start_paused = true)]
    async fn flood_of_questions_costs_one_check() {
        let checks = Arc::new(AtomicUsize::new(0));
        let (open, gate) = mpsc::channel::<()>();
        let gate = parking_lot::Mutex::new(gate);
        let counted = checks.clone();
        let readiness = Readiness::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.lock().recv().is_ok()
        });
        // One that goes while the check is under way, and many that stay.
        let gone = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.is_ready().await }
        });
        while checks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.is_err_and(|error| error.is_cancelled()));
        let asked: Vec<_> = (0..50)
            .map(|_| {
                let readiness = readiness.clone();
                tokio::spawn(async move { readiness.is_ready().await })
            })
            .collect();
        open.send(()).expect("the check waits");
        drop(open);
        for one in asked {
            assert!(one.await.expect("no panic"), "the finding of the first check");
        }
        assert_eq!(checks.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn finding_counts_for_a_second() {
        let ready = Arc::new(AtomicBool::new(true));
        let now = ready.clone();
        let readiness = Readiness::new(move || now.load(Ordering::SeqCst));
        assert!(readiness.is_ready().await);
        ready.store(false, Ordering::SeqCst);
        assert!(readiness.is_ready().await, "found a moment ago");
        tokio::time::advance(FINDING_LIFETIME).await;
        assert!(!readiness.is_ready().await);
    }
}
