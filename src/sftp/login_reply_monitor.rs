//! Detection of login requests without a reply, from the socket's side.
//!
//! russh ignores some requests: a second SSH_MSG_SERVICE_REQUEST, and messages of another phase. Its packets are
//! encrypted and its state is private, so that only sizes and times are visible: the packets that were received, and
//! whether anything was sent after them.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Monitor of one connection's login requests.
#[derive(Debug)]
pub(super) struct LoginReplyMonitor {
    started_at: Instant,
    /// Size of the last read that russh completed: a packet without its head.
    last_read_bytes: AtomicUsize,
    /// Size of the first SSH_MSG_SERVICE_REQUEST; zero outside a login. Smaller packets are ignored: an empty
    /// SSH_MSG_IGNORE, which PuTTY sends as a keepalive, needs no reply.
    min_request_bytes: AtomicUsize,
    /// Time of the oldest request without a reply, in milliseconds after `started_at`, plus one; zero for none.
    unanswered_since: AtomicU64,
    /// Whether a token is being authenticated, which may take longer than the time limit.
    checking_token: AtomicBool,
}

impl LoginReplyMonitor {
    /// Returns a monitor that is not started yet.
    pub(super) fn new() -> Self {
        Self {
            started_at: Instant::now(),
            last_read_bytes: AtomicUsize::new(0),
            min_request_bytes: AtomicUsize::new(0),
            unanswered_since: AtomicU64::new(0),
            checking_token: AtomicBool::new(false),
        }
    }

    /// Starts monitoring; called while the first request for the login service is being answered.
    pub(super) fn start(&self) {
        // At least one, since zero means that no login is under way. The current read is that of the service request.
        self.min_request_bytes.store(self.last_read_bytes.load(Ordering::Relaxed).max(1), Ordering::Relaxed);
        self.unanswered_since.store(0, Ordering::Relaxed);
    }

    /// Stops monitoring: after the login, a client may send messages that need no reply.
    pub(super) fn stop(&self) {
        self.min_request_bytes.store(0, Ordering::Relaxed);
    }

    /// Records that russh completed a read of `size` bytes.
    pub(super) fn record_read(&self, size: usize) {
        self.last_read_bytes.store(size, Ordering::Relaxed);
        let min_bytes = self.min_request_bytes.load(Ordering::Relaxed);
        // Only the oldest request counts: a client that repeats it must not extend the time.
        if min_bytes > 0 && size >= min_bytes && self.unanswered_since.load(Ordering::Relaxed) == 0 {
            self.unanswered_since.store(self.elapsed_mark(), Ordering::Relaxed);
        }
    }

    /// Records that bytes were sent, which is taken for the reply.
    pub(super) fn record_write(&self) {
        // Any write is the reply: russh answers in order, and what it writes is encrypted.
        self.unanswered_since.store(0, Ordering::Relaxed);
    }

    /// Pauses monitoring while a token is authenticated, until the guard is dropped.
    pub(super) fn pause_for_token_check(&self) -> TokenCheckGuard<'_> {
        self.checking_token.store(true, Ordering::Relaxed);
        TokenCheckGuard(self)
    }

    /// Returns the time since the oldest request without a reply.
    pub(super) fn unanswered_for(&self) -> Duration {
        let since = self.unanswered_since.load(Ordering::Relaxed);
        let watched =
            self.min_request_bytes.load(Ordering::Relaxed) > 0 && !self.checking_token.load(Ordering::Relaxed);
        if since == 0 || !watched {
            return Duration::ZERO;
        }
        self.started_at.elapsed().saturating_sub(Duration::from_millis(since - 1))
    }

    fn elapsed_mark(&self) -> u64 {
        u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

/// Guard of a pause for authentication; ends it when dropped.
pub(super) struct TokenCheckGuard<'a>(&'a LoginReplyMonitor);

impl Drop for TokenCheckGuard<'_> {
    fn drop(&mut self) {
        // Restarts the clock before monitoring resumes: the reply is sent only after this.
        self.0.unanswered_since.store(self.0.elapsed_mark(), Ordering::Relaxed);
        self.0.checking_token.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_unanswered(monitor: &LoginReplyMonitor) -> bool {
        std::thread::sleep(Duration::from_millis(3));
        !monitor.unanswered_for().is_zero()
    }

    #[test]
    fn request_is_unanswered_until_something_is_sent() {
        let monitor = LoginReplyMonitor::new();
        monitor.record_read(48);
        assert!(!is_unanswered(&monitor), "the key exchange is not monitored");
        monitor.start();
        monitor.record_read(48);
        assert!(is_unanswered(&monitor));
        monitor.record_write();
        assert!(!is_unanswered(&monitor));
        monitor.record_read(48);
        monitor.stop();
        assert!(!is_unanswered(&monitor), "not monitored after the login");
    }

    #[test]
    fn packet_smaller_than_any_request_needs_no_reply() {
        let monitor = LoginReplyMonitor::new();
        monitor.record_read(48);
        monitor.start();
        monitor.record_read(4);
        monitor.record_read(32);
        assert!(!is_unanswered(&monitor));
        monitor.record_read(64);
        assert!(is_unanswered(&monitor));
    }

    #[test]
    fn token_check_time_is_not_counted() {
        let monitor = LoginReplyMonitor::new();
        monitor.record_read(48);
        monitor.start();
        monitor.record_read(80);
        std::thread::sleep(Duration::from_millis(20));
        let guard = monitor.pause_for_token_check();
        assert!(!is_unanswered(&monitor));
        drop(guard);
        assert!(monitor.unanswered_for() < Duration::from_millis(15), "{:?}", monitor.unanswered_for());
    }
}
