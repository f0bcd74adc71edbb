//! Figures of the authenticator, for metrics.

use std::collections::BTreeMap;

use super::Authenticator;
use super::hashing_pool::{HashingPool, MAX_QUEUED_JOBS};
use crate::domain::Protocol;

/// Figures of an authenticator at this moment.
#[derive(Clone, Debug)]
pub struct AuthStatistics {
    /// Authentications since the start, by protocol and outcome, without counts of zero.
    pub authentications: Vec<(Protocol, &'static str, u64)>,
    /// Open sessions by protocol; those of all protocols.
    pub sessions: Vec<(Protocol, usize)>,
    /// Number of jobs in the queue for argon2.
    pub queued_hashing_jobs: usize,
    /// Maximum number of jobs in that queue.
    pub max_queued_hashing_jobs: usize,
    /// Number of threads that run argon2.
    pub hashing_threads: usize,
}

impl Authenticator {
    /// Returns figures for metrics.
    pub fn statistics(&self) -> AuthStatistics {
        let mut sessions = BTreeMap::from(Protocol::ALL.map(|protocol| (protocol, 0)));
        for cached_token in self.core.token_cache.with_open_sessions() {
            for (_, session) in cached_token.sessions() {
                *sessions.entry(session.peer.protocol).or_default() += 1;
            }
        }
        AuthStatistics {
            authentications: self.core.authentication_counters.counts(),
            sessions: sessions.into_iter().collect(),
            queued_hashing_jobs: self.core.hashing_pool.queued_jobs(),
            max_queued_hashing_jobs: MAX_QUEUED_JOBS,
            hashing_threads: HashingPool::threads(),
        }
    }
}
