//! Readiness check, which orchestrators request every few seconds, and which anybody may request at any rate.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::store::{DiskFault, Store};

/// Time for which the result of a check is served from the cache.
const READINESS_CACHE_LIFETIME: Duration = Duration::from_secs(1);

/// Message that says what is wrong; `None` where the server is ready.
type ReadinessProblem = Option<&'static str>;

/// Check of the store, carried out at most once a second and for one request at a time. Clones share it.
#[derive(Clone)]
pub(super) struct ReadinessCheck {
    check: Arc<dyn Fn() -> ReadinessProblem + Send + Sync>,
    cached: Arc<Mutex<Option<(Instant, ReadinessProblem)>>>,
}

impl ReadinessCheck {
    /// Creates a readiness check from `check`, which may block and returns what is wrong.
    fn new(check: impl Fn() -> ReadinessProblem + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), cached: Arc::default() }
    }

    /// Creates the readiness check of a store: it can be read, and its disk can be written.
    pub(super) fn for_store(store: Store) -> Self {
        Self::new(move || match store.data_version() {
            Ok(_) => store.disk_fault().map(DiskFault::message),
            Err(_) => Some("the store can't be read"),
        })
    }

    /// Returns what is wrong, from a check within the last second.
    pub(super) async fn problem(&self) -> ReadinessProblem {
        let mut cached = Arc::clone(&self.cached).lock_owned().await;
        if let Some((at, problem)) = *cached
            && at.elapsed() < READINESS_CACHE_LIFETIME
        {
            return problem;
        }
        let check = Arc::clone(&self.check);
        // The check keeps the lock although its request is cancelled: the next one would start another check.
        let check = move || {
            let problem = check();
            *cached = Some((Instant::now(), problem));
            problem
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(Some("the readiness check failed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::sync::mpsc;

    // Time is paused: the result stays fresh however busy the machine is.
    #[tokio::test(start_paused = true)]
    async fn concurrent_readiness_requests_share_one_check() {
        let checks = Arc::new(AtomicUsize::new(0));
        let (open, gate) = mpsc::channel::<()>();
        let gate = parking_lot::Mutex::new(gate);
        let counted = checks.clone();
        let readiness = ReadinessCheck::new(move || {
            counted.fetch_add(1, Ordering::SeqCst);
            gate.lock().recv().err().map(|_| "checked twice")
        });
        // One request that is cancelled while the check runs, and many that wait.
        let abandoned = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.problem().await }
        });
        while checks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        abandoned.abort();
        assert!(abandoned.await.is_err_and(|error| error.is_cancelled()));
        let requests: Vec<_> = (0..50)
            .map(|_| {
                let readiness = readiness.clone();
                tokio::spawn(async move { readiness.problem().await })
            })
            .collect();
        open.send(()).expect("the check waits");
        drop(open);
        for request in requests {
            assert_eq!(request.await.expect("no panic"), None, "the result of the first check");
        }
        assert_eq!(checks.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_result_is_cached_for_one_second() {
        let full = Arc::new(AtomicBool::new(false));
        let now = full.clone();
        let readiness = ReadinessCheck::new(move || now.load(Ordering::SeqCst).then_some("full"));
        assert_eq!(readiness.problem().await, None);
        full.store(true, Ordering::SeqCst);
        assert_eq!(readiness.problem().await, None, "cached");
        tokio::time::advance(READINESS_CACHE_LIFETIME).await;
        assert_eq!(readiness.problem().await, Some("full"));
    }
}
