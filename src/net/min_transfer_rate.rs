//! Minimum rate at which a peer has to send or read a transfer.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bytes that have to be transferred for each second of waiting for the peer.
const MIN_BYTES_PER_SECOND: u64 = 256;

/// Measures a peer's transfer rate. Only the time that is spent waiting for the peer counts.
///
/// In each window of waiting, [`MIN_BYTES_PER_SECOND`] times its length have to be transferred. So silence is bounded
/// by one window, and a peer gains nothing by sending a byte now and then.
#[derive(Debug)]
pub struct MinTransferRate {
    window: Duration,
    waited_in_window: Duration,
    transferred_in_window: u64,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MinTransferRate {
    /// Returns a measurement in windows of `window` of waiting.
    pub fn new(window: Duration) -> Self {
        Self { window, waited_in_window: Duration::ZERO, transferred_in_window: 0, waiting_since: None, timer: None }
    }

    /// Polls while waiting for the peer; ready once it was too slow.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // A wait starts once: polls in between must not move its deadline.
        if self.waiting_since.is_none() {
            let now = Instant::now();
            // Earlier waits of the window count: a byte now and then buys no new window.
            let deadline = now + self.window.saturating_sub(self.waited_in_window);
            self.waiting_since = Some(now);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// Records transferred bytes, which ends the current wait.
    pub fn record_transferred(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited_in_window += since.elapsed();
        }
        self.transferred_in_window = self.transferred_in_window.saturating_add(bytes as u64);
        // At least one byte, also for windows of less than a second.
        if self.transferred_in_window >= self.window.as_secs().saturating_mul(MIN_BYTES_PER_SECOND).max(1) {
            (self.transferred_in_window, self.waited_in_window) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    const WINDOW: Duration = Duration::from_secs(10);
    const WINDOW_MIN_BYTES: usize = 2560;

    /// Waits for `time`; returns whether the peer was too slow within it.
    async fn too_slow(rate: &mut MinTransferRate, time: Duration) -> bool {
        tokio::time::timeout(time, poll_fn(|cx| rate.poll_too_slow(cx))).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn idle_peer_is_too_slow_after_one_window() {
        let mut rate = MinTransferRate::new(WINDOW);
        assert!(!too_slow(&mut rate, Duration::from_secs(9)).await);
        assert!(too_slow(&mut rate, Duration::from_secs(2)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn trickled_bytes_are_too_slow() {
        let mut rate = MinTransferRate::new(WINDOW);
        let mut seconds = 0;
        while !too_slow(&mut rate, Duration::from_secs(3)).await {
            rate.record_transferred(1);
            seconds += 3;
            assert!(seconds < 20, "never too slow");
        }
        assert_eq!(seconds, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_bytes_start_a_new_window() {
        let mut rate = MinTransferRate::new(WINDOW);
        for _ in 0..20 {
            assert!(!too_slow(&mut rate, Duration::from_secs(9)).await);
            rate.record_transferred(WINDOW_MIN_BYTES);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_not_spent_waiting_for_peer_is_not_counted() {
        let mut rate = MinTransferRate::new(WINDOW);
        for _ in 0..5 {
            assert!(!too_slow(&mut rate, Duration::from_secs(1)).await);
            rate.record_transferred(1);
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        assert!(too_slow(&mut rate, Duration::from_secs(6)).await);
    }
}
