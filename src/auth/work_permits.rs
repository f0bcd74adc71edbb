//! Permits for work on blocking threads, of three kinds that do not wait for each other.
//!
//! *Heavy* work keeps a processor busy for long, for a request of a few bytes: listings, comparisons, copies, removals
//! of trees, checksums. *Light* work is calls of the store by REST and the console. *Revoking* is apart from both: each
//! token has permits of its own, so that a flood of requests with a stolen token keeps nobody from revoking it, its
//! owner included.
//!
//! Permits are bounded for each user and in total. The rest of the work waits for one, which takes no thread. A user
//! has as many permits as there are processors: alone it keeps all of them busy, and beside others at most a share.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{Login, TokenId};

/// Minimum number of permits of a user: some of the work waits for a disk.
const MIN_PERMITS_PER_USER: usize = 2;
/// Number of users that can hold all their permits at the same time.
const FULL_LOAD_USERS: usize = 16;
/// Maximum number of permits of a user that are held or waited for.
const MAX_ADMITTED_PER_USER: usize = 256;
/// Maximum number of permits in total that are held or waited for.
const MAX_ADMITTED_TOTAL: usize = 4096;

/// Error of a user, or of all users together, with too much work waiting for a permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much work is waiting: try again later")]
pub struct TooMuchWork;

/// Permits of all kinds of work.
#[derive(Default)]
pub(super) struct WorkPermitPools {
    /// Permits for work that keeps a processor busy for long, by user.
    pub(super) heavy: WorkPermits<Login>,
    /// Permits for calls of the store, by user.
    pub(super) light: WorkPermits<Login>,
    /// Permits for revoking, by the token that asks for it.
    pub(super) revocation: WorkPermits<TokenId>,
}

/// Permits of one kind of work for owners of type `K`; clones share them.
#[derive(Clone)]
pub(super) struct WorkPermits<K> {
    per_user: usize,
    owners: PermitTable<K>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// Permits that are held or waited for, by owner.
type PermitTable<K> = Arc<Mutex<HashMap<K, OwnerWorkPermits>>>;

/// Permits of one owner.
struct OwnerWorkPermits {
    running: Arc<Semaphore>,
    admitted: usize,
}

/// Permit for one piece of work, released when it is dropped.
#[derive(Debug)]
pub struct WorkPermit {
    // Dropped in this order: the permits go back before the admission, whose end may remove the semaphore that they
    // belong to from the table. A new one would be full, and exceed the bound.
    _user_permit: OwnedSemaphorePermit,
    _total_permit: OwnedSemaphorePermit,
    _admitted: Box<dyn AdmittedWorkGuard>,
}

/// Permit that is held or waited for.
struct AdmittedWork<K: Eq + Hash> {
    owners: PermitTable<K>,
    owner: K,
    _total_permit: OwnedSemaphorePermit,
}

/// An [`AdmittedWork`] of any type of owner.
trait AdmittedWorkGuard: Send + Sync + std::fmt::Debug {}

impl<K: PermitOwner> AdmittedWorkGuard for AdmittedWork<K> {}

/// User or token that permits are given to.
pub(super) trait PermitOwner: Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static {}

impl PermitOwner for Login {}
impl PermitOwner for TokenId {}

impl<K: PermitOwner> std::fmt::Debug for AdmittedWork<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AdmittedWork").field("owner", &self.owner).finish_non_exhaustive()
    }
}

impl<K: PermitOwner> Default for WorkPermits<K> {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, NonZero::get).max(MIN_PERMITS_PER_USER))
    }
}

impl<K: PermitOwner> WorkPermits<K> {
    fn new(per_user: usize) -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let (running, admitted) = (semaphore(per_user * FULL_LOAD_USERS), semaphore(MAX_ADMITTED_TOTAL));
        Self { per_user, owners: Arc::default(), running, admitted }
    }

    /// Waits for a permit for new work.
    ///
    /// # Errors
    /// [`TooMuchWork`] when the owner, or all owners together, have too much work waiting.
    pub(super) async fn acquire(&self, owner: &K) -> Result<WorkPermit, TooMuchWork> {
        self.acquire_admitted(self.admit(owner, MAX_ADMITTED_PER_USER)?).await
    }

    /// Waits for another permit for work that has begun: its number is bounded by the connections that it answers.
    ///
    /// # Errors
    /// [`TooMuchWork`] when all owners together have too much work waiting.
    pub(super) async fn acquire_followup(&self, owner: &K) -> Result<WorkPermit, TooMuchWork> {
        // Without the owner's bound, which would break off work that is half done.
        self.acquire_admitted(self.admit(owner, usize::MAX)?).await
    }

    async fn acquire_admitted(
        &self,
        (admitted, user_permit): (AdmittedWork<K>, Arc<Semaphore>),
    ) -> Result<WorkPermit, TooMuchWork> {
        // The owner's own first: a wait for it occupies no permit that others need. Neither semaphore is ever closed.
        let user_permit = user_permit.acquire_owned().await.map_err(|_| TooMuchWork)?;
        let total_permit = Arc::clone(&self.running).acquire_owned().await.map_err(|_| TooMuchWork)?;
        Ok(WorkPermit { _user_permit: user_permit, _total_permit: total_permit, _admitted: Box::new(admitted) })
    }

    fn admit(&self, owner: &K, max_admitted: usize) -> Result<(AdmittedWork<K>, Arc<Semaphore>), TooMuchWork> {
        // Refused at once when everything is full. On an early return below the permit is released by its drop.
        let total_permit = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| TooMuchWork)?;
        let mut owners = self.owners.lock();
        let new_owner = || OwnerWorkPermits { running: Arc::new(Semaphore::new(self.per_user)), admitted: 0 };
        let owner_permits = owners.entry(owner.clone()).or_insert_with(new_owner);
        if owner_permits.admitted >= max_admitted {
            return Err(TooMuchWork);
        }
        owner_permits.admitted += 1;
        let admitted =
            AdmittedWork { owners: Arc::clone(&self.owners), owner: owner.clone(), _total_permit: total_permit };
        Ok((admitted, Arc::clone(&owner_permits.running)))
    }
}

impl<K: Eq + Hash> Drop for AdmittedWork<K> {
    fn drop(&mut self) {
        let mut owners = self.owners.lock();
        let Some(owner_permits) = owners.get_mut(&self.owner) else { return };
        owner_permits.admitted -= 1;
        // Removed with the last admission, so that names of former callers don't accumulate.
        if owner_permits.admitted == 0 {
            owners.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn login(name: &str) -> Login {
        name.parse().expect("a login")
    }

    /// Returns the output of a future that is ready at once; `None` for one that waits.
    fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn work_permits_of_one_user_do_not_block_another() {
        let permits = WorkPermits::new(2);
        let acquire = |name: &str| poll_once(permits.acquire(&login(name))).map(|permit| permit.expect("admitted"));
        let mut running: Vec<_> = (0..2).map(|_| acquire("alice").expect("at once")).collect();
        assert!(acquire("alice").is_none(), "it waits");
        assert!(acquire("bob").is_some());
        running.pop();
        assert!(acquire("alice").is_some(), "a cancelled wait holds no permit");
        running.clear();
        assert!(permits.owners.lock().is_empty());
        assert_eq!(permits.admitted.available_permits(), MAX_ADMITTED_TOTAL);
    }

    #[test]
    fn work_beyond_admission_bound_is_refused() {
        let permits = WorkPermits::new(2);
        let alice = login("alice");
        let admitted: Vec<_> = (0..MAX_ADMITTED_PER_USER)
            .map(|_| permits.admit(&alice, MAX_ADMITTED_PER_USER).expect("admitted"))
            .collect();
        assert!(matches!(poll_once(permits.acquire(&alice)), Some(Err(TooMuchWork))));
        assert!(poll_once(permits.acquire(&login("bob"))).is_some_and(|permit| permit.is_ok()));
        drop(admitted);
        assert!(poll_once(permits.acquire(&alice)).is_some_and(|permit| permit.is_ok()));
    }

    #[tokio::test]
    async fn revocation_waits_for_no_other_work_of_its_user() {
        let permits = WorkPermitPools::default();
        let (alice, stolen, own_token): (_, TokenId, TokenId) =
            (login("alice"), "aaaaaaaa".parse().expect("id"), "bbbbbbbb".parse().expect("id"));
        let mut held = Vec::new();
        while let Some(permit) = poll_once(permits.heavy.acquire(&alice)) {
            held.push(permit.expect("admitted"));
        }
        while let Some(permit) = poll_once(permits.light.acquire(&alice)) {
            held.push(permit.expect("admitted"));
        }
        while let Some(permit) = poll_once(permits.revocation.acquire(&stolen)) {
            held.push(permit.expect("admitted"));
        }
        assert!(poll_once(permits.revocation.acquire(&own_token)).is_some_and(|permit| permit.is_ok()));
    }

    #[test]
    fn total_work_permits_are_limited() {
        let permits = WorkPermits::new(2);
        let acquire = |number: usize| poll_once(permits.acquire(&login(&format!("user{number}"))));
        let running: Vec<_> = (0..2 * FULL_LOAD_USERS).map(|number| acquire(number).expect("at once")).collect();
        assert!(acquire(2 * FULL_LOAD_USERS).is_none(), "it waits");
        drop(running);
        assert!(acquire(2 * FULL_LOAD_USERS).is_some());
    }
}
