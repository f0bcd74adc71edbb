//! Quotas in memory, with a limit for each user and one in all.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::Login;

/// Limits of an amount: for one user, and in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserQuotaLimits {
    /// Limit for one user.
    pub per_user: u64,
    /// Limit for all users together.
    pub total: u64,
}

/// Amounts that users have reserved at the moment. Clones share them.
#[derive(Clone, Debug)]
pub struct UserQuotas {
    limits: UserQuotaLimits,
    usage: Arc<Mutex<UserQuotaUsage>>,
}

#[derive(Debug, Default)]
struct UserQuotaUsage {
    total: u64,
    by_user: HashMap<Login, u64>,
}

/// An amount that a user has reserved; released when dropped.
#[derive(Debug)]
pub struct QuotaReservation {
    quotas: UserQuotas,
    login: Login,
    amount: u64,
}

impl UserQuotas {
    /// Creates quotas without any reservation.
    pub fn new(limits: UserQuotaLimits) -> Self {
        Self { limits, usage: Arc::default() }
    }

    /// Reserves an amount for a user; `None` where it would exceed the user's limit or the total.
    pub fn try_reserve(&self, login: &Login, amount: u64) -> Option<QuotaReservation> {
        let mut usage = self.usage.lock();
        // Both limits are checked before either amount changes.
        let total = usage.total.checked_add(amount).filter(|sum| *sum <= self.limits.total)?;
        let own = usage.by_user.get(login).copied().unwrap_or(0);
        let own = own.checked_add(amount).filter(|sum| *sum <= self.limits.per_user)?;
        usage.total = total;
        usage.by_user.insert(login.clone(), own);
        Some(QuotaReservation { quotas: self.clone(), login: login.clone(), amount })
    }

    /// Reserves an amount for a user even beyond the limits, as for work that continues under another reservation.
    pub fn reserve_over_limit(&self, login: &Login, amount: u64) -> QuotaReservation {
        let mut usage = self.usage.lock();
        usage.total = usage.total.saturating_add(amount);
        let own = usage.by_user.entry(login.clone()).or_default();
        *own = own.saturating_add(amount);
        QuotaReservation { quotas: self.clone(), login: login.clone(), amount }
    }

    /// Returns the limits.
    pub fn limits(&self) -> UserQuotaLimits {
        self.limits
    }

    /// Returns the amount that is reserved in all.
    pub fn total_reserved(&self) -> u64 {
        self.usage.lock().total
    }
}

impl Drop for QuotaReservation {
    fn drop(&mut self) {
        let mut usage = self.quotas.usage.lock();
        usage.total -= self.amount;
        if let Some(own) = usage.by_user.get_mut(&self.login) {
            *own -= self.amount;
            // Users without reservations have no entry, so that the map is bounded by the reservations.
            if *own == 0 {
                usage.by_user.remove(&self.login);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_bounded_per_user_and_released_on_drop() {
        let quotas = UserQuotas::new(UserQuotaLimits { per_user: 2, total: 3 });
        let [alice, bob, carol]: [Login; 3] = ["alice", "bob", "carol"].map(|login| login.parse().expect("login"));
        let first = quotas.try_reserve(&alice, 2).expect("his share");
        assert!(quotas.try_reserve(&alice, 1).is_none(), "no more for one");
        let _second = quotas.try_reserve(&bob, 1).expect("room");
        assert!(quotas.try_reserve(&carol, 1).is_none(), "no more in all");
        assert!(quotas.try_reserve(&carol, u64::MAX).is_none());
        let more = quotas.reserve_over_limit(&alice, 1);
        assert_eq!(quotas.total_reserved(), 4);
        drop((first, more));
        assert_eq!(quotas.total_reserved(), 1);
        assert!(quotas.try_reserve(&alice, 1).is_some());
        let usage = quotas.usage.lock();
        assert_eq!(usage.by_user.len(), 1, "users without reservations have no entry");
    }
}
