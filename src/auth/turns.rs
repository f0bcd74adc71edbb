//! Turns of REPORT: so many of a user, and in all, are worked on at once. The others wait for theirs, which takes no
//! thread, so that reports of long directories leave the threads to everybody's requests.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{Error, Result};
use crate::domain::Login;

/// Maximum number of reports of a user that are worked on at once.
const RUNNING_PER_USER: usize = 4;
/// Maximum number of reports in all that are worked on at once.
const RUNNING_IN_ALL: usize = 64;
/// Maximum number of reports of a user that are worked on or wait.
const ADMITTED_PER_USER: usize = 64;
/// Maximum number of reports in all that are worked on or wait.
const ADMITTED_IN_ALL: usize = 4096;

/// Gives turns; clones share them.
#[derive(Clone)]
pub(super) struct ReportTurns {
    users: Arc<Mutex<HashMap<Login, UserTurns>>>,
    running: Arc<Semaphore>,
    admitted: Arc<Semaphore>,
}

/// Turns of one user.
struct UserTurns {
    running: Arc<Semaphore>,
    admitted: usize,
}

/// A turn, which ends when it is dropped.
#[derive(Debug)]
pub(super) struct ReportTurn {
    _of_user: OwnedSemaphorePermit,
    _in_all: OwnedSemaphorePermit,
    _admission: Admission,
}

/// A report that is worked on or waits.
struct Admission {
    users: Arc<Mutex<HashMap<Login, UserTurns>>>,
    login: Login,
    _in_all: OwnedSemaphorePermit,
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admission").field("login", &self.login).finish_non_exhaustive()
    }
}

impl Default for ReportTurns {
    fn default() -> Self {
        let semaphore = |places| Arc::new(Semaphore::new(places));
        Self { users: Arc::default(), running: semaphore(RUNNING_IN_ALL), admitted: semaphore(ADMITTED_IN_ALL) }
    }
}

impl ReportTurns {
    /// Waits for a turn.
    ///
    /// # Errors
    /// [`Error::Busy`] where too many wait already.
    pub(super) async fn take(&self, login: &Login) -> Result<ReportTurn> {
        let (admission, of_user) = self.admit(login)?;
        // The user's own first: who waits for that takes no place from the others.
        let of_user = of_user.acquire_owned().await.map_err(|_| Error::Lost)?;
        let in_all = Arc::clone(&self.running).acquire_owned().await.map_err(|_| Error::Lost)?;
        Ok(ReportTurn { _of_user: of_user, _in_all: in_all, _admission: admission })
    }

    fn admit(&self, login: &Login) -> Result<(Admission, Arc<Semaphore>)> {
        let in_all = Arc::clone(&self.admitted).try_acquire_owned().map_err(|_| Error::Busy)?;
        let mut users = self.users.lock();
        let fresh = || UserTurns { running: Arc::new(Semaphore::new(RUNNING_PER_USER)), admitted: 0 };
        let user = users.entry(login.clone()).or_insert_with(fresh);
        if user.admitted == ADMITTED_PER_USER {
            return Err(Error::Busy);
        }
        user.admitted += 1;
        let admission = Admission { users: Arc::clone(&self.users), login: login.clone(), _in_all: in_all };
        Ok((admission, Arc::clone(&user.running)))
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Entry::Occupied(mut user) = self.users.lock().entry(self.login.clone()) {
            user.get_mut().admitted -= 1;
            if user.get().admitted == 0 {
                user.remove();
            }
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
    fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }

    #[test]
    fn reports_of_one_user_wait_for_their_own_and_not_those_of_another() {
        let turns = ReportTurns::default();
        let take = |name: &str| now(turns.take(&login(name))).map(|turn| turn.expect("admitted"));
        let mut running: Vec<_> = (0..RUNNING_PER_USER).map(|_| take("alice").expect("at once")).collect();
        assert!(take("alice").is_none(), "it waits");
        assert!(take("bob").is_some());
        running.pop();
        assert!(take("alice").is_some(), "who hung up while waiting holds nothing");
        running.clear();
        assert!(turns.users.lock().is_empty());
        assert_eq!(turns.admitted.available_permits(), ADMITTED_IN_ALL);
    }

    #[test]
    fn too_many_waiting_reports_are_refused() {
        let turns = ReportTurns::default();
        let alice = login("alice");
        let admitted: Vec<_> = (0..ADMITTED_PER_USER).map(|_| turns.admit(&alice).expect("admitted")).collect();
        assert!(matches!(now(turns.take(&alice)), Some(Err(Error::Busy))));
        assert!(now(turns.take(&login("bob"))).is_some_and(|turn| turn.is_ok()));
        drop(admitted);
        assert!(now(turns.take(&alice)).is_some_and(|turn| turn.is_ok()));
    }

    #[test]
    fn all_users_together_have_so_many_turns() {
        let turns = ReportTurns::default();
        let take = |number: usize| now(turns.take(&login(&format!("user{number}"))));
        let running: Vec<_> = (0..RUNNING_IN_ALL).map(|number| take(number).expect("at once")).collect();
        assert!(take(RUNNING_IN_ALL).is_none(), "it waits");
        drop(running);
        assert!(take(RUNNING_IN_ALL).is_some());
    }
}
