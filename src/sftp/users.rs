//! How many connections each user has.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::Login;

/// Counts connections by user; clones share the counts.
#[derive(Clone, Debug)]
pub(super) struct Users {
    most: usize,
    counts: Arc<Mutex<HashMap<Login, usize>>>,
}

/// One connection's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    users: Users,
    login: Login,
}

impl Users {
    /// Allows each user `most` connections.
    pub(super) fn new(most: usize) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// Lets a user's connection in; `None` when he has as many as he may.
    pub(super) fn enter(&self, login: &Login) -> Option<Place> {
        let mut counts = self.counts.lock();
        let count = counts.entry(login.clone()).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { users: self.clone(), login: login.clone() })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.users.counts.lock();
        if let Some(count) = counts.get_mut(&self.login) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.login);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_leaves_room_for_others_and_places_come_back() {
        let users = Users::new(2);
        let (alice, bob) = ("alice".parse().expect("login"), "bob".parse().expect("login"));
        let first = users.enter(&alice).expect("first");
        let _second = users.enter(&alice).expect("second");
        assert!(users.enter(&alice).is_none());
        assert!(users.enter(&bob).is_some());
        drop(first);
        assert!(users.enter(&alice).is_some());
        assert_eq!(users.counts.lock().len(), 1, "bob has left");
    }
}
