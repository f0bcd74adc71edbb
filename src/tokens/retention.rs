//! Retention: inactive tokens, old events and stale journals are deleted from the store, a few rows at a time.

use std::time::Duration;

use super::{Result, TokenService};
use crate::auth::Authenticator;

/// Maximum number of tokens that one round records as expired, and that it deletes.
const MAX_TOKENS_PER_ROUND: usize = 100;
/// Maximum number of events, of usage counts and of rows whose user is cleared that one round handles.
const MAX_EVENTS_PER_ROUND: usize = 1000;
/// Time that usage counts are kept longer than events: a chart of the whole retention begins at the start of a day
/// (UTC), which may be almost a day earlier.
const COUNT_RETENTION_MARGIN: Duration = Duration::from_secs(24 * 3600);
/// Maximum number of rows of sync journals that one round deletes.
const MAX_SYNC_ENTRIES_PER_ROUND: usize = 10_000;

/// The effects of one round of retention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RetentionReport {
    /// Number of tokens that were recorded as expired.
    pub expired_tokens: usize,
    /// Number of tokens that were deleted.
    pub deleted_tokens: usize,
    /// Number of events that were deleted.
    pub deleted_events: usize,
    /// Number of usage counts that were deleted.
    pub deleted_counts: usize,
    /// Number of properties and nodes whose user was cleared, since the user was deleted.
    pub cleared_attributions: usize,
    /// Number of rows of stale sync journals that were deleted.
    pub deleted_sync_entries: usize,
}

impl RetentionReport {
    /// Tells whether a limit was reached, so that the next round should follow at once.
    pub fn may_have_more(&self) -> bool {
        let events = self.deleted_events.max(self.deleted_counts).max(self.cleared_attributions);
        self.expired_tokens >= MAX_TOKENS_PER_ROUND
            || self.deleted_tokens >= MAX_TOKENS_PER_ROUND
            || events >= MAX_EVENTS_PER_ROUND
            || self.deleted_sync_entries >= MAX_SYNC_ENTRIES_PER_ROUND
    }
}

impl TokenService {
    /// Runs one round of retention: records expirations, clears expired graces, deletes tokens that have been inactive
    /// for the policy's `token-retention`, events older than its `audit-retention`, usage counts a day later, and sync
    /// journals of inactive tokens or without recent requests. Nothing is deleted by age while a jump of the clock is
    /// not trusted yet ([`Clock::retention_time`]).
    ///
    /// [`Clock::retention_time`]: crate::auth::Clock::retention_time
    ///
    /// # Errors
    /// [`super::Error::Store`]; the steps before the failed one stay done.
    pub fn apply_retention(&self) -> Result<RetentionReport> {
        let (now, policy) = (self.clock.now(), self.store.policy()?);
        // Neither goes by the clock alone: a jump that is not trusted yet must not expire or delete anything for good.
        let (steady_time, retention_time) = (self.clock.steady_time(), self.clock.retention_time());
        // A sliding token may be live only by uses in memory: without flushing them, none may be recorded as expired.
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
        // By age first: what that deletes need not be trimmed.
        let deleted_events = self.store.delete_events_before(oldest_event, MAX_EVENTS_PER_ROUND)?
            + self.store.trim_events(MAX_EVENTS_PER_ROUND)?;
        let cleared_attributions = self.store.clear_attribution_to_removed_users(MAX_EVENTS_PER_ROUND)?;
        let deleted_counts = self
            .store
            .delete_usage_counts_before(oldest_event.saturating_sub(COUNT_RETENTION_MARGIN), MAX_EVENTS_PER_ROUND)?;
        Ok(RetentionReport {
            expired_tokens,
            deleted_tokens,
            deleted_events,
            deleted_counts,
            deleted_sync_entries,
            cleared_attributions,
        })
    }
}
