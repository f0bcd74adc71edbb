//! Clean-up: what has been dead or told for long enough leaves the store, a few rows at a time.

use std::time::Duration;

use super::{Result, TokenService};
use crate::auth::Authenticator;

/// How many rows one round takes away at most, of each kind.
const MAX_TOKENS_PER_ROUND: usize = 100;
/// How many old events one round forgets at most, and how many old counts.
const MAX_EVENTS_PER_ROUND: usize = 1000;
/// How much longer than events counts stay: a chart that reaches back for as long as they are kept begins at the start
/// of a day (UTC), which may be almost a day earlier.
const COUNT_RETENTION_MARGIN: Duration = Duration::from_secs(24 * 3600);
/// How many rows of journals one round forgets at most.
const MAX_SYNC_ENTRIES_PER_ROUND: usize = 10_000;

/// What one round of clean-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Tokens that were noted to have expired.
    pub expired_tokens: usize,
    /// Tokens that were removed.
    pub deleted_tokens: usize,
    /// Events that were forgotten.
    pub deleted_events: usize,
    /// Counts of uses and refusals that were forgotten.
    pub deleted_counts: usize,
    /// Properties and nodes that count for nobody any more, since whoever set or named them was removed.
    pub disowned: usize,
    /// Rows of sync journals, of dead tokens or at rest for too long, that were forgotten.
    pub deleted_sync_entries: usize,
}

impl RetentionReport {
    /// Tells whether there may be more to do at once.
    pub fn may_have_more(&self) -> bool {
        let events = self.deleted_events.max(self.deleted_counts).max(self.disowned);
        self.expired_tokens >= MAX_TOKENS_PER_ROUND
            || self.deleted_tokens >= MAX_TOKENS_PER_ROUND
            || events >= MAX_EVENTS_PER_ROUND
            || self.deleted_sync_entries >= MAX_SYNC_ENTRIES_PER_ROUND
    }
}

impl TokenService {
    /// Does one round of clean-up: notes tokens that have expired, ends graces, removes tokens that have been dead for
    /// the policy's `token-retention`, and forgets events older than its `audit-retention`, counts a day later, and
    /// what is left of the sync journals of dead tokens, and of those that nobody asks for any more. Nothing is deleted
    /// by age while the clock has just jumped ([`Clock::retention_time`]).
    ///
    /// [`Clock::retention_time`]: crate::auth::Clock::retention_time
    ///
    /// # Errors
    /// [`super::Error::Store`]; what was done by then stays done.
    pub fn apply_retention(&self) -> Result<RetentionReport> {
        let (now, policy) = (self.clock.now(), self.store.policy()?);
        let (steady_time, retention_time) = (self.clock.steady_time(), self.clock.retention_time());
        // A sliding token lives by uses that only memory may have.
        let uses_flushed = self.auth.as_ref().is_none_or(Authenticator::flush_uses);
        let expired_tokens =
            if uses_flushed { self.store.mark_expired(steady_time, MAX_TOKENS_PER_ROUND)? } else { 0 };
        self.store.clear_expired_graces(steady_time)?;
        let deleted_sync_entries = self.store.delete_stale_sync_journals(retention_time, MAX_SYNC_ENTRIES_PER_ROUND)?;
        let deleted_tokens = self.store.delete_inactive_tokens(
            retention_time.saturating_sub(policy.token_retention.as_duration()),
            now,
            MAX_TOKENS_PER_ROUND,
        )?;
        let oldest_event = retention_time.saturating_sub(policy.audit_retention.as_duration());
        let deleted_events = self.store.delete_events_before(oldest_event, MAX_EVENTS_PER_ROUND)?
            + self.store.trim_events(MAX_EVENTS_PER_ROUND)?;
        let disowned = self.store.disown_removed_users(MAX_EVENTS_PER_ROUND)?;
        let deleted_counts = self
            .store
            .delete_usage_counts_before(oldest_event.saturating_sub(COUNT_RETENTION_MARGIN), MAX_EVENTS_PER_ROUND)?;
        Ok(RetentionReport {
            expired_tokens,
            deleted_tokens,
            deleted_events,
            deleted_counts,
            deleted_sync_entries,
            disowned,
        })
    }
}
