//! Whether a connection waits for its caller, and since when: what decides which one makes room for another.
//!
//! Every request changes it, and so without the table of the connections, which they all share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Activity of one connection, shared by its permit, its requests and the table of connections.
#[derive(Debug)]
pub(super) struct ConnectionActivity {
    /// Running time at which it began to wait for its caller, or to be answered, in nanoseconds.
    idle_since_nanos: AtomicU64,
    /// Requests that are being answered.
    active_requests: AtomicUsize,
}

impl Default for ConnectionActivity {
    /// Returns the activity of a connection that is opened now.
    fn default() -> Self {
        Self { idle_since_nanos: AtomicU64::new(running_time_nanos()), active_requests: AtomicUsize::new(0) }
    }
}

impl ConnectionActivity {
    /// Tells whether a request is being answered.
    pub(super) fn is_answering(&self) -> bool {
        self.active_requests.load(Ordering::Acquire) > 0
    }

    /// Returns the [`running_time`] since which the connection waits for its caller, or is being answered.
    pub(super) fn idle_since(&self) -> Duration {
        Duration::from_nanos(self.idle_since_nanos.load(Ordering::Acquire))
    }

    /// Notes that a request is being answered, until what is returned is dropped.
    pub(super) fn begin_request(self: &Arc<Self>) -> ActiveRequest {
        if !self.is_answering() {
            self.idle_since_nanos.store(running_time_nanos(), Ordering::Release);
        }
        self.active_requests.fetch_add(1, Ordering::AcqRel);
        ActiveRequest(Arc::clone(self))
    }

    /// Has the connection wait for its caller for longer than it does.
    #[cfg(test)]
    pub(super) fn age(&self, by: Duration) {
        self.idle_since_nanos.fetch_sub(u64::try_from(by.as_nanos()).expect("a short time"), Ordering::AcqRel);
    }
}

/// A request that is being answered: until it is dropped its connection is not told to end for another.
#[derive(Debug)]
pub struct ActiveRequest(Arc<ConnectionActivity>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        // The time first: a connection that is seen to answer nothing any more must not seem to have waited for long.
        self.0.idle_since_nanos.store(running_time_nanos(), Ordering::Release);
        self.0.active_requests.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Returns the running time of the machine (CLOCK_MONOTONIC).
pub(super) fn running_time() -> Duration {
    let time = clock_gettime(ClockId::Monotonic);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn running_time_nanos() -> u64 {
    u64::try_from(running_time().as_nanos()).unwrap_or(u64::MAX)
}
