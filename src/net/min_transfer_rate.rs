//! The least pace at which a peer has to send or take what is under way.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Bytes that have to move for each second that is spent waiting for a peer.
const MIN_BYTES_PER_SECOND: u64 = 256;

/// Measures how a peer sends or takes bytes. Only the time counts that is spent waiting for it.
///
/// In each window of waiting as many bytes have to move as [`MIN_BYTES_PER_SECOND`] asks for: so silence is bounded by
/// one window, and whoever sends a byte now and then gains nothing.
#[derive(Debug)]
pub struct MinTransferRate {
    window: Duration,
    waited_in_window: Duration,
    transferred_in_window: u64,
    waiting_since: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl MinTransferRate {
    /// Measures in windows of so much waiting.
    pub fn new(window: Duration) -> Self {
        Self { window, waited_in_window: Duration::ZERO, transferred_in_window: 0, waiting_since: None, timer: None }
    }

    /// Waits for the peer; is ready once it was too slow.
    pub fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.waiting_since.is_none() {
            let now = Instant::now();
            let deadline = now + self.window.saturating_sub(self.waited_in_window);
            self.waiting_since = Some(now);
            match &mut self.timer {
                Some(timer) => timer.as_mut().reset(deadline),
                None => self.timer = Some(Box::pin(tokio::time::sleep_until(deadline))),
            }
        }
        self.timer.as_mut().map_or(Poll::Pending, |timer| timer.as_mut().poll(cx))
    }

    /// Notes that so many bytes have moved.
    pub fn record_transferred(&mut self, bytes: usize) {
        if let Some(since) = self.waiting_since.take() {
            self.waited_in_window += since.elapsed();
        }
        self.transferred_in_window = self.transferred_in_window.saturating_add(bytes as u64);
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

    /// Waits for so long; tells whether that was too long.
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
