//! Caps on connections: in all, unauthenticated ones, and unauthenticated ones per address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

/// How many connections a listener takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GateLimits {
    /// At once, in all.
    pub connections: usize,
    /// At once, of callers who have not proven themselves.
    pub strangers: usize,
    /// At once, of such callers from one address (one /64 of IPv6).
    pub strangers_per_address: usize,
}

/// Counts the connections of a listener.
#[derive(Clone, Debug)]
pub struct Gate {
    limits: GateLimits,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    strangers: usize,
    by_address: HashMap<IpAddr, usize>,
}

impl Gate {
    /// Makes a gate that nobody has passed.
    pub fn new(limits: GateLimits) -> Self {
        Self { limits, counts: Arc::default() }
    }

    /// Lets a connection in, as a stranger; `None` when that would pass a cap.
    pub fn admit(&self, address: IpAddr) -> Option<Pass> {
        let key = network(address);
        let mut counts = self.counts.lock();
        let here = counts.by_address.get(&key).copied().unwrap_or(0);
        if counts.connections >= self.limits.connections
            || counts.strangers >= self.limits.strangers
            || here >= self.limits.strangers_per_address
        {
            return None;
        }
        counts.connections += 1;
        counts.strangers += 1;
        *counts.by_address.entry(key).or_default() += 1;
        Some(Pass { gate: self.clone(), stranger: Mutex::new(Some(key)) })
    }

    /// Returns how many connections are open.
    pub fn connections(&self) -> usize {
        self.counts.lock().connections
    }
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    gate: Gate,
    stranger: Mutex<Option<IpAddr>>,
}

impl Pass {
    /// Notes that the caller has proven itself: it no longer counts as a stranger.
    pub fn proven(&self) {
        if let Some(key) = self.stranger.lock().take() {
            self.gate.counts.lock().forget_stranger(key);
        }
    }

    /// Counts a stranger as one of another address, from which he came through a proxy; false when there are
    /// as many from there as may be.
    pub fn moves_to(&self, address: IpAddr) -> bool {
        let mut stranger = self.stranger.lock();
        let (Some(old), new) = (*stranger, network(address)) else { return true };
        let mut counts = self.gate.counts.lock();
        let there = counts.by_address.get(&new).copied().unwrap_or(0);
        if old != new && there >= self.gate.limits.strangers_per_address {
            return false;
        }
        counts.forget_stranger(old);
        counts.strangers += 1;
        *counts.by_address.entry(new).or_default() += 1;
        *stranger = Some(new);
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.proven();
        self.gate.counts.lock().connections -= 1;
    }
}

impl Counts {
    fn forget_stranger(&mut self, key: IpAddr) {
        self.strangers -= 1;
        if let Some(count) = self.by_address.get_mut(&key) {
            *count -= 1;
            if *count == 0 {
                self.by_address.remove(&key);
            }
        }
    }
}

/// Returns what counts as one address: an IPv4 address, or the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((u128::from(v6) & (u128::MAX << 64)).into()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gate() -> Gate {
        Gate::new(GateLimits { connections: 4, strangers: 3, strangers_per_address: 2 })
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("address")
    }

    #[test]
    fn strangers_of_one_address_leave_room_for_others() {
        let gate = gate();
        let _one = gate.admit(address("192.0.2.1")).expect("room");
        let two = gate.admit(address("::ffff:192.0.2.1")).expect("room");
        assert!(gate.admit(address("192.0.2.1")).is_none());
        let _other = gate.admit(address("192.0.2.2")).expect("room");
        assert!(gate.admit(address("192.0.2.3")).is_none(), "three strangers in all");
        two.proven();
        two.proven();
        assert!(gate.admit(address("192.0.2.1")).is_some());
    }

    #[test]
    fn who_comes_through_a_proxy_counts_where_he_comes_from() {
        let gate = gate();
        let proxy = address("192.0.2.9");
        let two = [gate.admit(proxy), gate.admit(proxy)].map(|pass| pass.expect("room"));
        assert!(two.iter().all(|pass| pass.moves_to(address("192.0.2.1"))));
        assert!(two[0].moves_to(address("192.0.2.1")), "he is there already");
        let third = gate.admit(proxy).expect("the proxy holds none any more");
        assert!(!third.moves_to(address("192.0.2.1")));
        drop((two, third));
        assert!(gate.counts.lock().by_address.is_empty());
    }

    #[test]
    fn every_place_is_given_back() {
        let gate = gate();
        for _ in 0..10 {
            let one = gate.admit(address("2001:db8::1")).expect("room");
            one.proven();
            let two = gate.admit(address("2001:db8::2")).expect("room");
            let three = gate.admit(address("2001:db8::3")).expect("one /64, two strangers");
            assert!(gate.admit(address("2001:db8::4")).is_none());
            drop((one, two, three));
        }
        assert_eq!(gate.connections(), 0);
        assert!(gate.counts.lock().by_address.is_empty());
    }
}
