//! How often an address may guess: a leaky bucket that only guesses fill.
//!
//! Asking is free, and only a guess is told to wait: whoever shows a right token never does. The generic cell rate
//! algorithm, kept as one instant an address: the instant at which its bucket has run dry.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::UnixMillis;

/// Failures that an address may make at once.
const BURST: u32 = 20;
/// How long it takes until one of them is forgotten.
const FORGET: Duration = Duration::from_secs(3);
/// Addresses that are told apart; further ones share one bucket.
const ADDRESSES: usize = 1 << 16;

/// A bucket for each address that failed lately.
#[derive(Default)]
pub(super) struct Throttle {
    buckets: Mutex<Buckets>,
}

#[derive(Default)]
struct Buckets {
    dry_at: HashMap<IpAddr, UnixMillis>,
    others: Option<UnixMillis>,
    swept_at: Option<UnixMillis>,
}

impl Throttle {
    /// Returns how long an address has to wait until it may try again; `None` when it need not.
    pub(super) fn wait(&self, address: IpAddr, now: UnixMillis) -> Option<Duration> {
        let buckets = self.buckets.lock();
        let dry_at = buckets.dry_at.get(&network(address)).copied();
        let dry_at = dry_at.or(if buckets.dry_at.len() < ADDRESSES { None } else { buckets.others })?;
        let over = (dry_at.saturating_duration_since(now).min(BURST * FORGET) + FORGET).saturating_sub(BURST * FORGET);
        (!over.is_zero()).then_some(over)
    }

    /// Notes a failure. A full bucket stays as full as it is.
    pub(super) fn fail(&self, address: IpAddr, now: UnixMillis) {
        let mut buckets = self.buckets.lock();
        let network = network(address);
        if !buckets.dry_at.contains_key(&network) {
            buckets.make_room(now);
        }
        let dry_at = match buckets.dry_at.len() < ADDRESSES || buckets.dry_at.contains_key(&network) {
            true => buckets.dry_at.entry(network).or_insert(now),
            false => buckets.others.get_or_insert(now),
        };
        *dry_at = (*dry_at).max(now).saturating_add(FORGET).min(now.saturating_add(BURST * FORGET));
    }
}

impl Buckets {
    /// Forgets dry buckets when there are too many, and looks for them no oftener than one can run dry.
    fn make_room(&mut self, now: UnixMillis) {
        let lately = self.swept_at.is_some_and(|at| now >= at && now.saturating_duration_since(at) < FORGET);
        if self.dry_at.len() >= ADDRESSES && !lately {
            self.dry_at.retain(|_, dry_at| *dry_at > now);
            self.swept_at = Some(now);
        }
    }
}

/// Returns what stands for an address: itself, or the /64 that an IPv6 host draws its addresses from.
pub(super) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_777_968_000_000;

    fn at(seconds: i64) -> UnixMillis {
        UnixMillis::from_millis(NOW + seconds * 1000)
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    fn exhausted(throttle: &Throttle, from: &str) {
        for _ in 0..BURST {
            assert_eq!(throttle.wait(address(from), at(0)), None);
            throttle.fail(address(from), at(0));
        }
    }

    #[test]
    fn an_address_that_failed_often_waits_and_is_forgiven_in_time() {
        let throttle = Throttle::default();
        exhausted(&throttle, "192.0.2.1");
        assert_eq!(throttle.wait(address("192.0.2.1"), at(0)), Some(FORGET));
        assert_eq!(throttle.wait(address("192.0.2.1"), at(2)), Some(Duration::from_secs(1)));
        assert_eq!(throttle.wait(address("192.0.2.1"), at(3)), None);
        throttle.fail(address("192.0.2.1"), at(3));
        assert_eq!(throttle.wait(address("192.0.2.1"), at(3)), Some(FORGET));
        assert_eq!(throttle.wait(address("192.0.2.2"), at(0)), None);
    }

    #[test]
    fn a_flood_of_failures_does_not_lengthen_the_wait() {
        let throttle = Throttle::default();
        for _ in 0..10_000 {
            throttle.fail(address("192.0.2.1"), at(0));
        }
        assert_eq!(throttle.wait(address("192.0.2.1"), at(0)), Some(FORGET));
    }

    #[test]
    fn a_host_with_a_whole_ipv6_network_is_one_address() {
        let throttle = Throttle::default();
        exhausted(&throttle, "2001:db8:1:2::1");
        assert!(throttle.wait(address("2001:db8:1:2:ffff::9"), at(0)).is_some());
        assert!(throttle.wait(address("2001:db8:1:3::1"), at(0)).is_none());
        exhausted(&throttle, "::ffff:192.0.2.7");
        assert!(throttle.wait(address("192.0.2.7"), at(0)).is_some());
    }

    #[test]
    fn a_clock_set_back_keeps_nobody_out_for_long() {
        let throttle = Throttle::default();
        exhausted(&throttle, "192.0.2.1");
        assert_eq!(throttle.wait(address("192.0.2.1"), at(-86_400)), Some(FORGET));
        throttle.fail(address("192.0.2.1"), at(-86_400));
        assert_eq!(throttle.wait(address("192.0.2.1"), at(-86_400 + 3)), None);
    }

    #[test]
    fn more_addresses_than_are_told_apart_share_one_bucket() {
        let throttle = Throttle::default();
        for number in 0..100_000u32 {
            throttle.fail(IpAddr::from(number.to_be_bytes()), at(0));
        }
        assert!(throttle.buckets.lock().dry_at.len() <= ADDRESSES);
        assert!(throttle.wait(address("203.0.113.1"), at(0)).is_some());
        throttle.fail(address("203.0.113.1"), at(10));
        assert!(throttle.buckets.lock().dry_at.len() < 10, "dry buckets are forgotten");
    }
}
