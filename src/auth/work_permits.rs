//! Turns of work on blocking threads, of three kinds that do not wait for each other.
//!
//! *Heavy* work keeps a processor busy for long, for a request of a few bytes: listings, comparisons, copies, removals of
//! trees, checksums. *Light* work is what REST and the console ask of the store. *Revoking* is apart from both: each token
//! has turns of its own, so that whoever floods the gateway with a stolen token keeps nobody from revoking it, its owner
//! included.
//!
//! So much of a user's, and in all, is done at once. The rest waits for its turn, which takes no thread. A user has as
//! many turns as there are processors: alone he keeps all of them busy, and beside others at most a share.

use std::collections::HashMap;
use std::hash::Hash;
use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::{Login, TokenId};

/// Minimum number of turns of a user: some of his work waits for a disk.
const MIN_PERMITS_PER_USER: usize = 2;
/// Users whose turns fit into those that there are in all.
const FULL_LOAD_USERS: usize = 16;
/// Maximum number of turns of a user that are taken or waited for.
const MAX_ADMITTED_PER_USER: usize = 256;
/// Maximum number of turns in all that are taken or waited for.
const MAX_ADMITTED_TOTAL: usize = 4096;

/// A user, or all together, have more waiting for a turn than may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too much work waits for its turn: try again")]
pub struct TooMuchWork;

/// Turns of all kinds of work.
#[derive(Default)]
pub(super) struct WorkTurns {
    /// Of work that keeps a processor busy for long, by user.
    pub(super) heavy: WorkPermits<Login>,
    /// Of calls of the store, by user.
    pub(super) light: WorkPermits<Login>,
    /// Of revoking, by the token that asks for it.
    pub(super) revoking: WorkPermits<TokenId>,
}

/// Gives turns of one kind of work to holders of type `K`; clones share them.
#[derive(Clone)]
pub(super) struct WorkPermits<K> {
    per_user: usize,
    users: TurnTable<K>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// Turns that are taken or waited for, by their holder.
type TurnTable<K> = Arc<Mutex<HashMap<K, UserWorkPermits>>>;

/// Turns of one holder.
struct UserWorkPermits {
    running: Arc<Semaphore>,
    admitted: usize,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub struct WorkPermit {
    _user_permit: OwnedSemaphorePermit,
    _total_permit: OwnedSemaphorePermit,
    _admitted: Box<dyn AdmittedTurn>,
}

/// A turn that is taken or waited for.
struct AdmittedWork<K: Eq + Hash> {
    users: TurnTable<K>,
    holder: K,
    _total_permit: OwnedSemaphorePermit,
}

/// An [`AdmittedWork`] of whatever kind of holder.
trait AdmittedTurn: Send + Sync + std::fmt::Debug {}

impl<K: TurnHolder> AdmittedTurn for AdmittedWork<K> {}

/// A user or token that turns are given to.
pub(super) trait TurnHolder: Clone + Eq + Hash + Send + Sync + std::fmt::Debug + 'static {}

impl TurnHolder for Login {}
impl TurnHolder for TokenId {}

impl<K: TurnHolder> std::fmt::Debug for AdmittedWork<K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("holder", &self.holder).finish_non_exhaustive()
    }
}

impl<K: TurnHolder> Default for WorkPermits<K> {
    fn default() -> Self {
        Self::new(available_parallelism().map_or(1, NonZero::get).max(MIN_PERMITS_PER_USER))
    }
}

impl<K: TurnHolder> WorkPermits<K> {
    fn new(per_user: usize) -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        let (running, admitted) = (semaphore(per_user * FULL_LOAD_USERS), semaphore(MAX_ADMITTED_TOTAL));
        Self { per_user, users: Arc::default(), running, admitted }
    }

    /// Waits for a turn of new work.
    ///
    /// # Errors
    /// [`TooMuchWork`].
    pub(super) async fn acquire(&self, holder: &K) -> Result<WorkPermit, TooMuchWork> {
        self.acquire_admitted(self.admit(holder, MAX_ADMITTED_PER_USER)?).await
    }

    /// Waits for another turn of work that has begun: it is bounded by the connections that it answers.
    ///
    /// # Errors
    /// [`TooMuchWork`] where all together have too much.
    pub(super) async fn acquire_followup(&self, holder: &K) -> Result<WorkPermit, TooMuchWork> {
        self.acquire_admitted(self.admit(holder, usize::MAX)?).await
    }

    async fn acquire_admitted(
        &self,
        (admission, of_user): (AdmittedWork<K>, Arc<Semaphore>),
    ) -> Result<WorkPermit, TooMuchWork> {
        // The user's own first: who waits for that takes no place from the others. Neither is ever closed.
        let of_user = of_user.acquire_owned().await.map_err(|_| TooMuchWork)?;
        let in_all = Arc::clone(&self.running).acquire_owned().await.map_err(|_| TooMuchWork)?;
        Ok(WorkPermit { _user_permit: of_user, _total_permit: in_all, _admitted: Box::new(admission) })
    }

    fn admit(&self, holder: &K, most: usize) -> Result<(AdmittedWork<K>, Arc<Semaphore>), TooMuchWork> {
        let in_all = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| TooMuchWork)?;
        let mut users = self.users.lock();
        let fresh = || UserWorkPermits { running: Arc::new(Semaphore::new(self.per_user)), admitted: 0 };
        let user = users.entry(holder.clone()).or_insert_with(fresh);
        if user.admitted >= most {
            return Err(TooMuchWork);
        }
        user.admitted += 1;
        let admission = AdmittedWork { users: Arc::clone(&self.users), holder: holder.clone(), _total_permit: in_all };
        Ok((admission, Arc::clone(&user.running)))
    }
}

impl<K: Eq + Hash> Drop for AdmittedWork<K> {
    fn drop(&mut self) {
        let mut users = self.users.lock();
        let Some(user) = users.get_mut(&self.holder) else { return };
        user.admitted -= 1;
        if user.admitted == 0 {
            users.remove(&self.holder);
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

    /// Returns what a future says at once, none where it waits.
    fn poll_once<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn work_permits_of_one_user_do_not_block_another() {
        let turns = WorkPermits::new(2);
        let take = |name: &str| poll_once(turns.acquire(&login(name))).map(|turn| turn.expect("admitted"));
        let mut running: Vec<_> = (0..2).map(|_| take("alice").expect("at once")).collect();
        assert!(take("alice").is_none(), "it waits");
        assert!(take("bob").is_some());
        running.pop();
        assert!(take("alice").is_some(), "who hung up while waiting holds nothing");
        running.clear();
        assert!(turns.users.lock().is_empty());
        assert_eq!(turns.admitted.available_permits(), MAX_ADMITTED_TOTAL);
    }

    #[test]
    fn work_beyond_admission_bound_is_refused() {
        let turns = WorkPermits::new(2);
        let alice = login("alice");
        let admitted: Vec<_> =
            (0..MAX_ADMITTED_PER_USER).map(|_| turns.admit(&alice, MAX_ADMITTED_PER_USER).expect("admitted")).collect();
        assert!(matches!(poll_once(turns.acquire(&alice)), Some(Err(TooMuchWork))));
        assert!(poll_once(turns.acquire(&login("bob"))).is_some_and(|turn| turn.is_ok()));
        drop(admitted);
        assert!(poll_once(turns.acquire(&alice)).is_some_and(|turn| turn.is_ok()));
    }

    #[tokio::test]
    async fn revoking_waits_for_no_other_work_of_its_user_and_for_no_other_token() {
        let turns = WorkTurns::default();
        let (alice, stolen, own): (_, TokenId, TokenId) =
            (login("alice"), "aaaaaaaa".parse().expect("id"), "bbbbbbbb".parse().expect("id"));
        let mut held = Vec::new();
        while let Some(turn) = poll_once(turns.heavy.acquire(&alice)) {
            held.push(turn.expect("admitted"));
        }
        while let Some(turn) = poll_once(turns.light.acquire(&alice)) {
            held.push(turn.expect("admitted"));
        }
        while let Some(turn) = poll_once(turns.revoking.acquire(&stolen)) {
            held.push(turn.expect("admitted"));
        }
        assert!(poll_once(turns.revoking.acquire(&own)).is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn total_work_permits_are_bounded() {
        let turns = WorkPermits::new(2);
        let take = |number: usize| poll_once(turns.acquire(&login(&format!("user{number}"))));
        let running: Vec<_> = (0..2 * FULL_LOAD_USERS).map(|number| take(number).expect("at once")).collect();
        assert!(take(2 * FULL_LOAD_USERS).is_none(), "it waits");
        drop(running);
        assert!(take(2 * FULL_LOAD_USERS).is_some());
    }
}
