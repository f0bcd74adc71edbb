//! Throttle of guesses by address: a leaky bucket that only guesses fill.
//!
//! Only a guess is told to wait: a caller with a valid token never is. Implements the generic cell rate algorithm,
//! which keeps one instant for each address: the one at which its bucket has leaked empty.
//!
//! Instants are the machine's running time ([`Clock::boottime`]). By the wall clock, one that is set back would throttle
//! an address until it catches up, since throttled guesses are no failures that would correct the bucket; one that is
//! set forward would empty all buckets.
//!
//! [`Clock::boottime`]: super::clock::Clock::boottime

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::BannedNetwork;

/// Number of failures that an address may make at once.
const BURST_FAILURES: u32 = 20;
/// Time in which one of them leaks from the bucket.
const LEAK_INTERVAL: Duration = Duration::from_secs(3);
/// Maximum number of addresses with a bucket of their own; further ones share one.
const MAX_TRACKED_ADDRESSES: usize = 1 << 16;

/// Buckets of the addresses that failed lately.
pub(super) struct LoginThrottle {
    /// Number of failures that fill a bucket.
    capacity: u32,
    /// Time in which one of them leaks from a bucket.
    leak_interval: Duration,
    buckets: Mutex<LeakyBuckets>,
}

impl Default for LoginThrottle {
    fn default() -> Self {
        Self::new(BURST_FAILURES, LEAK_INTERVAL)
    }
}

#[derive(Default)]
struct LeakyBuckets {
    empty_at: HashMap<IpAddr, Duration>,
    overflow_empty_at: Option<Duration>,
    pruned_at: Option<Duration>,
}

impl LoginThrottle {
    /// Creates buckets that `capacity` failures at once fill, of which one leaks in each `leak_interval`.
    pub(super) fn new(capacity: u32, leak_interval: Duration) -> Self {
        Self { capacity, leak_interval, buckets: Mutex::default() }
    }

    /// Returns how long an address has to wait until it may try again; `None` when it need not.
    pub(super) fn retry_after(&self, address: IpAddr, now: Duration) -> Option<Duration> {
        let buckets = self.buckets.lock();
        let empty_at = buckets.empty_at.get(&address_prefix(address)).copied();
        // Without a bucket of its own, an address counts with the overflow bucket once the table is full: a flood of
        // addresses is no way around the throttle.
        let empty_at = empty_at.or(if buckets.empty_at.len() < MAX_TRACKED_ADDRESSES {
            None
        } else {
            buckets.overflow_empty_at
        })?;
        // The wait is the time by which one more failure would overflow the bucket: one interval at most.
        let wait =
            (empty_at.saturating_sub(now) + self.leak_interval).saturating_sub(self.capacity * self.leak_interval);
        (!wait.is_zero()).then_some(wait)
    }

    /// Records a failure. A full bucket gets no fuller. Returns whether the address has a bucket of its own, and that is
    /// full.
    pub(super) fn record_failure(&self, address: IpAddr, now: Duration) -> bool {
        let mut buckets = self.buckets.lock();
        let network = address_prefix(address);
        // Only a new address pays for a scan of the table.
        if !buckets.empty_at.contains_key(&network) {
            buckets.prune_empty(now, self.leak_interval);
        }
        let has_own_bucket = buckets.empty_at.len() < MAX_TRACKED_ADDRESSES || buckets.empty_at.contains_key(&network);
        let empty_at = match has_own_bucket {
            true => buckets.empty_at.entry(network).or_insert(now),
            false => buckets.overflow_empty_at.get_or_insert(now),
        };
        // Capped at a full bucket: a flood doesn't lengthen the wait of an honest client behind the same address.
        let filled = (*empty_at).max(now) + self.leak_interval;
        *empty_at = filled.min(now + self.capacity * self.leak_interval);
        // What leaked since the last failure counts for the part of an interval that it took.
        has_own_bucket && filled + self.leak_interval > now + self.capacity * self.leak_interval
    }

    /// Empties the bucket of an address.
    pub(super) fn forget(&self, address: IpAddr) {
        self.buckets.lock().empty_at.remove(&address_prefix(address));
    }
}

impl LeakyBuckets {
    /// Removes empty buckets when there are too many, at most once in the time in which one failure leaks.
    fn prune_empty(&mut self, now: Duration, leak_interval: Duration) {
        let pruned_recently = self.pruned_at.is_some_and(|at| now.saturating_sub(at) < leak_interval);
        if self.empty_at.len() >= MAX_TRACKED_ADDRESSES && !pruned_recently {
            self.empty_at.retain(|_, empty_at| *empty_at > now);
            self.pruned_at = Some(now);
        }
    }
}

/// Returns the network that an address is counted as: itself, or the /64 that an IPv6 host draws its addresses from.
pub(super) fn address_prefix(address: IpAddr) -> IpAddr {
    BannedNetwork::of_address(address).first_address()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds_in(seconds: u64) -> Duration {
        Duration::from_secs(1000 + seconds)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn exhaust(throttle: &LoginThrottle, from: &str) {
        for _ in 0..BURST_FAILURES {
            assert_eq!(throttle.retry_after(address(from), seconds_in(0)), None);
            throttle.record_failure(address(from), seconds_in(0));
        }
    }

    #[test]
    fn address_with_many_failures_waits_until_bucket_leaks() {
        let throttle = LoginThrottle::default();
        exhaust(&throttle, "192.0.2.1");
        assert_eq!(throttle.retry_after(address("192.0.2.1"), seconds_in(0)), Some(LEAK_INTERVAL));
        assert_eq!(throttle.retry_after(address("192.0.2.1"), seconds_in(2)), Some(Duration::from_secs(1)));
        assert_eq!(throttle.retry_after(address("192.0.2.1"), seconds_in(3)), None);
        throttle.record_failure(address("192.0.2.1"), seconds_in(3));
        assert_eq!(throttle.retry_after(address("192.0.2.1"), seconds_in(3)), Some(LEAK_INTERVAL));
        assert_eq!(throttle.retry_after(address("192.0.2.2"), seconds_in(0)), None);
    }

    #[test]
    fn flood_of_failures_does_not_lengthen_wait() {
        let throttle = LoginThrottle::default();
        for _ in 0..10_000 {
            throttle.record_failure(address("192.0.2.1"), seconds_in(0));
        }
        assert_eq!(throttle.retry_after(address("192.0.2.1"), seconds_in(0)), Some(LEAK_INTERVAL));
    }

    #[test]
    fn ipv6_slash_64_is_throttled_as_one_address() {
        let throttle = LoginThrottle::default();
        exhaust(&throttle, "2001:db8:1:2::1");
        assert!(throttle.retry_after(address("2001:db8:1:2:ffff::9"), seconds_in(0)).is_some());
        assert!(throttle.retry_after(address("2001:db8:1:3::1"), seconds_in(0)).is_none());
        exhaust(&throttle, "::ffff:192.0.2.7");
        assert!(throttle.retry_after(address("192.0.2.7"), seconds_in(0)).is_some());
    }

    #[test]
    fn addresses_beyond_bound_share_one_bucket() {
        let throttle = LoginThrottle::default();
        for number in 0..100_000u32 {
            throttle.record_failure(IpAddr::from(number.to_be_bytes()), seconds_in(0));
        }
        assert!(throttle.buckets.lock().empty_at.len() <= MAX_TRACKED_ADDRESSES);
        assert!(throttle.retry_after(address("203.0.113.1"), seconds_in(0)).is_some());
        throttle.record_failure(address("203.0.113.1"), seconds_in(10));
        assert!(throttle.buckets.lock().empty_at.len() < 10, "empty buckets are removed");
    }
}
