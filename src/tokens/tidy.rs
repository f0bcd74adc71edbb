//! Clean-up: what has been dead or told for long enough leaves the store, a few rows at a time.

use std::time::Duration;

use super::{Result, Tokens};
use crate::auth::Authenticator;

/// How many rows one round takes away at most, of each kind.
const BATCH: usize = 100;
/// How many old events one round forgets at most, and how many old counts.
const EVENTS: usize = 1000;
/// How much longer than events counts stay: a chart that reaches back for as long as they are kept begins at the start
/// of a day (UTC), which may be almost a day earlier.
const CHARTED: Duration = Duration::from_secs(24 * 3600);
/// How many rows of journals one round forgets at most.
const MARKS: usize = 10_000;

/// What one round of clean-up did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tidied {
    /// Tokens that were noted to have expired.
    pub expired: usize,
    /// Tokens that were removed.
    pub removed: usize,
    /// Events that were forgotten.
    pub forgotten: usize,
    /// Counts of uses and refusals that were forgotten.
    pub counts: usize,
    /// Properties and nodes that count for nobody any more, since whoever set or named them was removed.
    pub disowned: usize,
    /// Rows of sync journals, of dead tokens or at rest for too long, that were forgotten.
    pub marks: usize,
}

impl Tidied {
    /// Tells whether there may be more to do at once.
    pub fn is_full(&self) -> bool {
        let events = self.forgotten.max(self.counts).max(self.disowned);
        self.expired >= BATCH || self.removed >= BATCH || events >= EVENTS || self.marks >= MARKS
    }
}

impl Tokens {
    /// Does one round of clean-up: notes tokens that have expired, ends graces, removes tokens that have been dead for
    /// the policy's `token-retention`, and forgets events older than its `audit-retention`, counts a day later, and
    /// what is left of the sync journals of dead tokens, and of those that nobody asks for any more. Nothing is deleted
    /// by age while the clock has just jumped ([`Clock::retention`]).
    ///
    /// [`Clock::retention`]: crate::auth::Clock::retention
    ///
    /// # Errors
    /// [`super::Error::Store`]; what was done by then stays done.
    pub fn tidy(&self) -> Result<Tidied> {
        let (now, policy) = (self.clock.now(), self.store.policy()?);
        let (steady, present) = (self.clock.steady_time(), self.clock.retention_time());
        // A sliding token lives by uses that only memory may have.
        let in_force = self.auth.as_ref().is_none_or(Authenticator::flush_uses);
        let expired = if in_force { self.store.mark_expired(steady, BATCH)? } else { 0 };
        self.store.clear_expired_graces(steady)?;
        let marks = self.store.delete_stale_sync_journals(present, MARKS)?;
        let removed = self.store.delete_inactive_tokens(
            present.saturating_sub(policy.token_retention.as_duration()),
            now,
            BATCH,
        )?;
        let old = present.saturating_sub(policy.audit_retention.as_duration());
        let forgotten = self.store.delete_events_before(old, EVENTS)? + self.store.trim_events(EVENTS)?;
        let disowned = self.store.disown_removed_users(EVENTS)?;
        let counts = self.store.delete_usage_counts_before(old.saturating_sub(CHARTED), EVENTS)?;
        Ok(Tidied { expired, removed, forgotten, counts, marks, disowned })
    }
}
