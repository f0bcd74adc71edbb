//! Bounds of the audit trail: the users with the most events lose their oldest ones first, and refusals before all
//! others. So no user displaces the events of others, and no write waits for space: not even a revocation.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, ToSql};

use super::audit_removed::delete_events;
use super::columns::sql_limit;
use super::{Result, Store, WriteDurability};
use crate::domain::{EventKind, UserQuotaLimits};

/// Divisor of the bound that gives the number of new events after which they are counted again: counting is slow.
const RECOUNT_DIVISOR: u64 = 100;

/// Number of events that concern one user, or none.
struct UserEventCount {
    user: Option<String>,
    rows: u64,
}

impl Store {
    /// Deletes up to `limit` events of those users who have more than they may have, the oldest refusals first, then
    /// the oldest others; returns how many.
    pub(crate) fn trim_events(&self, limit: usize) -> Result<usize> {
        let latest = self.latest_event_id()?;
        // Counting reads a whole index: not before enough new events may have exceeded a bound.
        if latest < self.inner.recount_after_event.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let bounds = self.state_limits().audit_rows;
        let counts = self.read(count_events_by_user)?;
        let cap = fair_share(counts.iter().map(|count| count.rows).collect(), bounds.total);
        let mut trimmed = 0;
        for count in &counts {
            let max_rows = if count.user.is_some() { cap.min(bounds.per_user) } else { cap };
            let excess =
                usize::try_from(count.rows.saturating_sub(max_rows)).unwrap_or(usize::MAX).min(limit - trimmed);
            if excess > 0 {
                trimmed += self.delete_oldest_events(count.user.as_deref(), excess)?;
            }
        }
        // Only when nothing is left to delete: otherwise the next round continues at once.
        if trimmed < limit {
            let next = latest.saturating_add(recount_interval(bounds));
            self.inner.recount_after_event.store(next, Ordering::Relaxed);
        }
        Ok(trimmed)
    }

    /// Deletes `count` events that concern a user, or none, the oldest refusals first.
    fn delete_oldest_events(&self, user: Option<&str>, count: usize) -> Result<usize> {
        let kinds = [EventKind::AttemptRefused, EventKind::AccessDenied].map(EventKind::as_str);
        let limit = sql_limit(count);
        let mut params: Vec<&dyn ToSql> = vec![&kinds[0], &kinds[1], &limit];
        params.extend(user.iter().map(|user| user as &dyn ToSql));
        let condition = if user.is_some() { "\"user\" = ?4" } else { "\"user\" IS NULL" };
        // `NOT IN` is false for refusals, which sorts them first: an attacker can cause as many of them as it likes.
        let delete = format!(
            "DELETE FROM events WHERE id IN
                (SELECT id FROM events WHERE {condition} ORDER BY kind NOT IN (?1, ?2), id LIMIT ?3)"
        );
        self.write_shrinking(WriteDurability::Lazy, |t| delete_events(t, &delete, &params))
    }
}

/// Returns the number of new events after which events are counted again.
fn recount_interval(bounds: UserQuotaLimits) -> u64 {
    bounds.total.min(bounds.per_user) / RECOUNT_DIVISOR + 1
}

fn count_events_by_user(c: &Connection) -> Result<Vec<UserEventCount>> {
    let all: i64 = c.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    // The partial index on `user` has no rows without a user, so those are counted as the difference.
    let mut select =
        c.prepare_cached("SELECT \"user\", count(*) FROM events WHERE \"user\" IS NOT NULL GROUP BY \"user\"")?;
    let counts = select
        .query_map([], |row| Ok(UserEventCount { user: row.get(0)?, rows: row.get::<_, i64>(1)?.unsigned_abs() }))?;
    let mut counts = counts.collect::<rusqlite::Result<Vec<_>>>()?;
    let of_users: u64 = counts.iter().map(|count| count.rows).sum();
    counts.push(UserEventCount { user: None, rows: all.unsigned_abs().saturating_sub(of_users) });
    Ok(counts)
}

/// Returns the largest number of events that each user may keep so that all together are within `limit`; `u64::MAX`
/// where they are already.
fn fair_share(mut counts: Vec<u64>, limit: u64) -> u64 {
    // From the smallest count on: the part of the equal share that a user doesn't need is left for the larger ones.
    counts.sort_unstable();
    let mut remaining = limit;
    for (number, count) in counts.iter().enumerate() {
        let share = remaining / (counts.len() - number) as u64;
        if *count > share {
            return share;
        }
        remaining -= count;
    }
    u64::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuditEvent, StateLimits};
    use crate::store::testing::{login, now, open_temp_store};
    use crate::store::{EventCursor, EventFilter};

    fn events(kind: EventKind, user: &str, count: usize) -> Vec<AuditEvent> {
        (0..count).map(|_| AuditEvent::new(now(), kind).with_user(&login(user))).collect()
    }

    fn kinds_of(store: &Store, user: &str) -> Vec<EventKind> {
        let filter = EventFilter { user: Some(login(user)), ..EventFilter::default() };
        let read = store.audit_events(&filter, EventCursor::After(0), 1000).expect("read");
        read.into_iter().map(|recorded| recorded.event.kind).collect()
    }

    fn bounded_store(per_user: u64, total: u64) -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = open_temp_store();
        store.set_state_limits(StateLimits {
            audit_rows: UserQuotaLimits { per_user, total },
            ..StateLimits::default()
        });
        (temp_dir, store)
    }

    #[test]
    fn fair_share_limits_only_users_with_most_events() {
        assert_eq!(fair_share(vec![5, 1, 10], 16), u64::MAX);
        assert_eq!(fair_share(vec![5, 1, 10], 12), 6);
        assert_eq!(fair_share(vec![5, 1, 10], 9), 4);
        assert_eq!(fair_share(vec![10, 10], 1), 0);
        assert_eq!(fair_share(Vec::new(), 0), u64::MAX);
    }

    #[test]
    fn refusals_of_a_user_displace_neither_their_own_changes_nor_events_of_others() {
        let (_temp_dir, store) = bounded_store(10, 1000);
        store.record_events(&events(EventKind::TokenCreated, "bob", 8)).expect("recorded");
        store.record_events(&events(EventKind::TokenCreated, "mallory", 4)).expect("recorded");
        store.record_events(&events(EventKind::AccessDenied, "mallory", 40)).expect("recorded");
        assert_eq!(store.trim_events(30).expect("trimmed"), 30, "in batches");
        assert_eq!(store.trim_events(30).expect("trimmed"), 4);
        assert_eq!(store.trim_events(30).expect("trimmed"), 0);
        assert_eq!(kinds_of(&store, "bob"), [EventKind::TokenCreated; 8]);
        let remaining = kinds_of(&store, "mallory");
        assert_eq!(remaining[..4], [EventKind::TokenCreated; 4]);
        assert_eq!(remaining[4..], [EventKind::AccessDenied; 6]);
    }

    #[test]
    fn total_event_limit_trims_users_with_most_events() {
        let (_temp_dir, store) = bounded_store(100, 30);
        store.record_events(&events(EventKind::TokenCreated, "bob", 8)).expect("recorded");
        store.record_events(&events(EventKind::TokenCreated, "mallory", 60)).expect("recorded");
        assert_eq!(store.trim_events(1000).expect("trimmed"), 38);
        assert_eq!((kinds_of(&store, "bob").len(), kinds_of(&store, "mallory").len()), (8, 22));
    }

    #[test]
    fn full_audit_trail_accepts_revocation_event() {
        let (_temp_dir, store) = bounded_store(1, 1);
        store.record_events(&events(EventKind::AccessDenied, "mallory", 20)).expect("recorded");
        store.record_events(&events(EventKind::TokenRevoked, "bob", 1)).expect("recorded");
        store.trim_events(1000).expect("trimmed");
        assert_eq!(kinds_of(&store, "bob").len() + kinds_of(&store, "mallory").len(), 0, "no share for two of one row");
        store.record_events(&events(EventKind::TokenRevoked, "bob", 1)).expect("recorded");
        assert_eq!(kinds_of(&store, "bob"), [EventKind::TokenRevoked]);
    }
}
