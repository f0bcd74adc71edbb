//! Counts of finished operations by user, kept only where metrics by user are asked for. They are bounded: what users
//! beyond the bound do is counted under one name.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::operation::{FinishedOperation, HttpArea, OperationKind};
use crate::domain::Login;

/// Maximum number of users that are counted by name.
pub const MAX_COUNTED_USERS: usize = 1000;
/// Name under which all further users are counted. No login has parentheses.
const OTHER_USERS: &str = "(others)";
/// Number of protocols: those of HTTP, and SFTP.
const PROTOCOLS: usize = HttpArea::ALL.len() + 1;

/// Counts of the operations of one user, by protocol.
#[derive(Default)]
pub struct UserOperations([ProtocolCounters; PROTOCOLS]);

#[derive(Default)]
struct ProtocolCounters {
    operations: AtomicU64,
    received_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

/// Counts of the operations of one user over one protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserOperationCounts {
    /// Login of the user, or `(others)` for all beyond the bound.
    pub user: String,
    /// Name of the protocol.
    pub protocol: &'static str,
    /// Number of operations that have ended.
    pub operations: u64,
    /// Number of bytes of content that were received and read.
    pub received_bytes: u64,
    /// Number of bytes of content that were sent.
    pub sent_bytes: u64,
}

/// Counts of the operations of all users.
#[derive(Default)]
pub(super) struct UserCounters {
    users: RwLock<HashMap<Login, Arc<UserOperations>>>,
    others: Arc<UserOperations>,
}

impl UserOperations {
    /// Counts an operation.
    pub fn count(&self, operation: &FinishedOperation) {
        let index = match operation.kind {
            OperationKind::Http(area, _) => area as usize,
            OperationKind::Sftp(_) => PROTOCOLS - 1,
        };
        if let Some(counters) = self.0.get(index) {
            counters.operations.fetch_add(1, Ordering::Relaxed);
            counters.received_bytes.fetch_add(operation.received_bytes, Ordering::Relaxed);
            counters.sent_bytes.fetch_add(operation.sent_bytes, Ordering::Relaxed);
        }
    }

    /// Returns the counts of every protocol over which there was an operation.
    fn counts(&self, user: &str) -> impl Iterator<Item = UserOperationCounts> {
        let protocols = HttpArea::ALL.iter().map(|area| area.as_str()).chain(["sftp"]);
        self.0.iter().zip(protocols).filter_map(|(counters, protocol)| {
            let operations = counters.operations.load(Ordering::Relaxed);
            (operations > 0).then(|| UserOperationCounts {
                user: user.to_owned(),
                protocol,
                operations,
                received_bytes: counters.received_bytes.load(Ordering::Relaxed),
                sent_bytes: counters.sent_bytes.load(Ordering::Relaxed),
            })
        })
    }
}

impl UserCounters {
    /// Returns the counters of a user, or those of all further users where the bound is reached.
    pub(super) fn of_user(&self, login: &Login) -> Arc<UserOperations> {
        if let Some(operations) = self.users.read().get(login) {
            return Arc::clone(operations);
        }
        let mut users = self.users.write();
        if users.len() >= MAX_COUNTED_USERS && !users.contains_key(login) {
            return Arc::clone(&self.others);
        }
        Arc::clone(users.entry(login.clone()).or_default())
    }

    /// Returns the counts of all users, in the order of their logins.
    pub(super) fn counts(&self) -> Vec<UserOperationCounts> {
        let users = self.users.read();
        let mut counts: Vec<_> =
            users.iter().flat_map(|(login, operations)| operations.counts(login.as_str())).collect();
        counts.extend(self.others.counts(OTHER_USERS));
        counts.sort_by(|a, b| (&a.user, a.protocol).cmp(&(&b.user, b.protocol)));
        counts
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::telemetry::{HttpMethodName, OperationStatus, SftpRequestName};

    fn operation(kind: OperationKind) -> FinishedOperation {
        let (status, duration) = (OperationStatus::Http(200), Duration::ZERO);
        FinishedOperation { kind, status, received_bytes: 3, sent_bytes: 5, duration }
    }

    #[test]
    fn operations_are_counted_by_user_and_protocol() {
        let counters = UserCounters::default();
        let (alice, bob): (Login, Login) = ("alice".parse().expect("a login"), "bob".parse().expect("a login"));
        for _ in 0..2 {
            counters.of_user(&bob).count(&operation(OperationKind::Sftp(SftpRequestName::Read)));
        }
        counters.of_user(&alice).count(&operation(OperationKind::Http(HttpArea::Other, HttpMethodName::Get)));
        counters.of_user(&alice).count(&operation(OperationKind::Http(HttpArea::Webdav, HttpMethodName::Put)));
        let found: Vec<_> =
            counters.counts().into_iter().map(|c| (c.user, c.protocol, c.operations, c.sent_bytes)).collect();
        let expected = [("alice", "http", 1, 5), ("alice", "webdav", 1, 5), ("bob", "sftp", 2, 10)];
        assert_eq!(found, expected.map(|(user, protocol, count, bytes)| (user.to_owned(), protocol, count, bytes)));
    }

    #[test]
    fn users_beyond_the_bound_are_counted_together() {
        let counters = UserCounters::default();
        let put = operation(OperationKind::Http(HttpArea::Webdav, HttpMethodName::Put));
        for number in 0..MAX_COUNTED_USERS + 2 {
            counters.of_user(&format!("user{number}").parse().expect("a login")).count(&put);
        }
        // One that has a name keeps it.
        counters.of_user(&"user0".parse().expect("a login")).count(&put);
        let counts = counters.counts();
        let of = |user: &str| counts.iter().find(|counts| counts.user == user).map(|counts| counts.operations);
        assert_eq!(counts.len(), MAX_COUNTED_USERS + 1);
        assert_eq!((of(OTHER_USERS), of("user0"), of("user1000")), (Some(2), Some(2), None));
    }
}
