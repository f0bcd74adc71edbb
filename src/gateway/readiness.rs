//! Whether the server can answer: what orchestrators ask every few seconds, and anybody as often as they like.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::store::{DiskFault, Store};

/// Time for which a finding counts.
const FINDING_LIFETIME: Duration = Duration::from_secs(1);

/// What is wrong, in words; nothing where all is well.
type Finding = Option<&'static str>;

/// What keeps the store from answering, looked up once a second at most and by one request at a time. Clones share it.
#[derive(Clone)]
pub(super) struct Readiness {
    check: Arc<dyn Fn() -> Finding + Send + Sync>,
    found: Arc<Mutex<Option<(Instant, Finding)>>>,
}

impl Readiness {
    /// Returns a readiness that `check` finds out: it may block, and says what is wrong.
    fn new(check: impl Fn() -> Finding + Send + Sync + 'static) -> Self {
        Self { check: Arc::new(check), found: Arc::default() }
    }

    /// Returns the readiness of a store: it can be read, and its disk takes what is written.
    pub(super) fn of(store: Store) -> Self {
        Self::new(move || match store.data_version() {
            Ok(_) => store.disk_fault().map(DiskFault::message),
            Err(_) => Some("the store can't be read"),
        })
    }

    /// Says what is wrong, as it was found within the last second.
    pub(super) async fn fault(&self) -> Finding {
        let mut found = Arc::clone(&self.found).lock_owned().await;
        if let Some((at, fault)) = *found
            && at.elapsed() < FINDING_LIFETIME
        {
            return fault;
        }
        let check = Arc::clone(&self.check);
        // The check keeps the lock although its request is gone: the next one would begin another beside it.
        let check = move || {
            let fault = check();
            *found = Some((Instant::now(), fault));
            fault
        };
        tokio::task::spawn_blocking(check).await.unwrap_or(Some("the check was lost"))
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
            gate.lock().recv().err().map(|_| "asked twice")
        });
        // One that goes while the check is under way, and many that stay.
        let gone = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.fault().await }
        });
        while checks.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(gone.await.is_err_and(|error| error.is_cancelled()));
        let asked: Vec<_> = (0..50)
            .map(|_| {
                let readiness = readiness.clone();
                tokio::spawn(async move { readiness.fault().await })
            })
            .collect();
        open.send(()).expect("the check waits");
        drop(open);
        for one in asked {
            assert_eq!(one.await.expect("no panic"), None, "the finding of the first check");
        }
        assert_eq!(checks.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn finding_counts_for_a_second() {
        let full = Arc::new(AtomicBool::new(false));
        let now = full.clone();
        let readiness = Readiness::new(move || now.load(Ordering::SeqCst).then_some("full"));
        assert_eq!(readiness.fault().await, None);
        full.store(true, Ordering::SeqCst);
        assert_eq!(readiness.fault().await, None, "found a moment ago");
        tokio::time::advance(FINDING_LIFETIME).await;
        assert_eq!(readiness.fault().await, Some("full"));
    }
}
