//! What many hold a part of, with a bound for each user and one in all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Login;

/// Bounds on an amount: of one user, and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShareLimits {
    /// Of one user.
    pub per_user: u64,
    /// Of all users together.
    pub in_all: u64,
}

/// Amounts that users hold at the moment. Clones share them.
#[derive(Clone, Debug)]
pub struct Shares {
    limits: ShareLimits,
    held: Arc<Mutex<Held>>,
}

#[derive(Debug, Default)]
struct Held {
    in_all: u64,
    by_user: HashMap<Login, u64>,
}

/// An amount that a user holds; given back when dropped.
#[derive(Debug)]
pub struct Share {
    shares: Shares,
    login: Login,
    amount: u64,
}

impl Shares {
    /// Returns shares that nobody holds.
    pub fn new(limits: ShareLimits) -> Self {
        Self { limits, held: Arc::default() }
    }

    /// Takes an amount for a user; none where it would pass his bound or that of all.
    pub fn take(&self, login: &Login, amount: u64) -> Option<Share> {
        let mut held = self.held.lock();
        let in_all = held.in_all.checked_add(amount).filter(|sum| *sum <= self.limits.in_all)?;
        let own = held.by_user.get(login).copied().unwrap_or(0);
        let own = own.checked_add(amount).filter(|sum| *sum <= self.limits.per_user)?;
        held.in_all = in_all;
        held.by_user.insert(login.clone(), own);
        Some(Share { shares: self.clone(), login: login.clone(), amount })
    }

    /// Takes an amount for a user though it may pass a bound, as what goes on in the place of another share does.
    pub fn take_beyond(&self, login: &Login, amount: u64) -> Share {
        let mut held = self.held.lock();
        held.in_all = held.in_all.saturating_add(amount);
        let own = held.by_user.entry(login.clone()).or_default();
        *own = own.saturating_add(amount);
        Share { shares: self.clone(), login: login.clone(), amount }
    }

    /// Returns how much is held in all.
    pub fn in_all(&self) -> u64 {
        self.held.lock().in_all
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut held = self.shares.held.lock();
        held.in_all -= self.amount;
        if let Some(own) = held.by_user.get_mut(&self.login) {
            *own -= self.amount;
            if *own == 0 {
                held.by_user.remove(&self.login);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others_and_shares_come_back() {
        let shares = Shares::new(ShareLimits { per_user: 2, in_all: 3 });
        let [alice, bob, carol]: [Login; 3] = ["alice", "bob", "carol"].map(|login| login.parse().expect("login"));
        let first = shares.take(&alice, 2).expect("his share");
        assert!(shares.take(&alice, 1).is_none(), "no more for one");
        let _second = shares.take(&bob, 1).expect("room");
        assert!(shares.take(&carol, 1).is_none(), "no more in all");
        assert!(shares.take(&carol, u64::MAX).is_none());
        let more = shares.take_beyond(&alice, 1);
        assert_eq!(shares.in_all(), 4);
        drop((first, more));
        assert_eq!(shares.in_all(), 1);
        assert!(shares.take(&alice, 1).is_some());
        let held = shares.held.lock();
        assert_eq!(held.by_user.len(), 1, "who holds nothing is forgotten");
    }
}
