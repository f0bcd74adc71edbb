//! Tells when a request of a login stays without an answer, seen from the socket.
//!
//! russh leaves some requests unanswered: a second SSH_MSG_SERVICE_REQUEST, and whatever belongs to another phase. Its
//! packets are encrypted and its state is closed to us, so that only sizes and times can be seen: what came in, and
//! whether anything went out after it.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Watches the requests of one login.
#[derive(Debug)]
pub(super) struct AnswerMonitor {
    born: Instant,
    /// Size of the last read that russh completed: of a packet, all but its head.
    last_read: AtomicUsize,
    /// Size that the first SSH_MSG_SERVICE_REQUEST had; zero while no login is under way. Smaller packets are passed over:
    /// an empty SSH_MSG_IGNORE, as PuTTY sends in place of a keepalive, needs no answer.
    request_size: AtomicUsize,
    /// Milliseconds after `born`, plus one, at which the oldest request without an answer came in; zero for none.
    unanswered: AtomicU64,
    /// Whether a token is being checked.
    checking: AtomicBool,
}

impl AnswerMonitor {
    /// Returns a monitor that watches nothing yet.
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            last_read: AtomicUsize::new(0),
            request_size: AtomicUsize::new(0),
            unanswered: AtomicU64::new(0),
            checking: AtomicBool::new(false),
        }
    }

    /// Begins to watch, while the first request for the login service is being answered.
    pub(super) fn begin(&self) {
        self.request_size.store(self.last_read.load(Ordering::Relaxed).max(1), Ordering::Relaxed);
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Ends the watch: who is logged in may send what needs no answer.
    pub(super) fn end(&self) {
        self.request_size.store(0, Ordering::Relaxed);
    }

    /// Notes that russh has completed a read of so many bytes.
    pub(super) fn note_read(&self, size: usize) {
        self.last_read.store(size, Ordering::Relaxed);
        let smallest = self.request_size.load(Ordering::Relaxed);
        if smallest > 0 && size >= smallest && self.unanswered.load(Ordering::Relaxed) == 0 {
            self.unanswered.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Notes that something was sent.
    pub(super) fn note_write(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Stops the clock while a token is checked, until the guard is dropped.
    pub(super) fn check(&self) -> CheckGuard<'_> {
        self.checking.store(true, Ordering::Relaxed);
        CheckGuard(self)
    }

    /// Returns for how long a request has been without an answer.
    pub(super) fn waiting(&self) -> Duration {
        let since = self.unanswered.load(Ordering::Relaxed);
        let watched = self.request_size.load(Ordering::Relaxed) > 0 && !self.checking.load(Ordering::Relaxed);
        if since == 0 || !watched {
            return Duration::ZERO;
        }
        self.born.elapsed().saturating_sub(Duration::from_millis(since - 1))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX - 1) + 1
    }
}

/// Marks the time that a token's check takes.
pub(super) struct CheckGuard<'a>(&'a AnswerMonitor);

impl Drop for CheckGuard<'_> {
    fn drop(&mut self) {
        // The answer is yet to be sent: its time begins now.
        self.0.unanswered.store(self.0.now(), Ordering::Relaxed);
        self.0.checking.store(false, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_waiting(monitor: &AnswerMonitor) -> bool {
        std::thread::sleep(Duration::from_millis(3));
        !monitor.waiting().is_zero()
    }

    #[test]
    fn request_waits_until_something_is_sent() {
        let monitor = AnswerMonitor::new();
        monitor.note_read(48);
        assert!(!is_waiting(&monitor), "the key exchange is not watched");
        monitor.begin();
        monitor.note_read(48);
        assert!(is_waiting(&monitor));
        monitor.note_write();
        assert!(!is_waiting(&monitor));
        monitor.note_read(48);
        monitor.end();
        assert!(!is_waiting(&monitor), "whoever is logged in is not watched");
    }

    #[test]
    fn packet_smaller_than_any_request_needs_no_answer() {
        let monitor = AnswerMonitor::new();
        monitor.note_read(48);
        monitor.begin();
        monitor.note_read(4);
        monitor.note_read(32);
        assert!(!is_waiting(&monitor));
        monitor.note_read(64);
        assert!(is_waiting(&monitor));
    }

    #[test]
    fn time_of_a_token_check_does_not_count() {
        let monitor = AnswerMonitor::new();
        monitor.note_read(48);
        monitor.begin();
        monitor.note_read(80);
        std::thread::sleep(Duration::from_millis(20));
        let guard = monitor.check();
        assert!(!is_waiting(&monitor));
        drop(guard);
        assert!(monitor.waiting() < Duration::from_millis(15), "{:?}", monitor.waiting());
    }
}
