//! The time of day, handed in so that tests can turn it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::Notify;

use crate::domain::Time;

/// Tells the time: the system's, or one that a test turns by hand. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    hand: Option<Arc<Hand>>,
}

#[derive(Debug)]
struct Hand {
    millis: AtomicI64,
    turned: Notify,
}

impl Clock {
    /// Returns the system's clock.
    pub fn system() -> Self {
        Self { hand: None }
    }

    /// Returns a clock that stands at `start` until it is turned.
    pub fn manual(start: Time) -> Self {
        Self { hand: Some(Arc::new(Hand { millis: AtomicI64::new(start.as_millis()), turned: Notify::new() })) }
    }

    /// Turns a manual clock forward and wakes all who wait for it; a system clock stays.
    pub fn turn(&self, by: Duration) {
        if let Some(hand) = &self.hand {
            hand.millis.fetch_add(i64::try_from(by.as_millis()).unwrap_or(i64::MAX), Ordering::SeqCst);
            hand.turned.notify_waiters();
        }
    }

    /// Returns the present instant.
    pub fn now(&self) -> Time {
        match &self.hand {
            Some(hand) => Time::from_millis(hand.millis.load(Ordering::SeqCst)),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Time::from_millis(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
        }
    }

    /// Waits until the clock shows `time` or later. A system clock that is set back or forward is
    /// noticed within a second.
    pub async fn sleep_until(&self, time: Time) {
        loop {
            let turned = self.hand.as_ref().map(|hand| hand.turned.notified());
            let left = time.since(self.now());
            if left.is_zero() {
                return;
            }
            match turned {
                Some(turned) => turned.await,
                None => tokio::time::sleep(left.min(Duration::from_secs(1))).await,
            }
        }
    }
}
