//! How the audit trail stays within its bounds: whoever has the most of it loses his oldest events first, and refusals
//! before all else. So nobody pushes out what others did, and nothing waits for room: not even what revokes a token.

use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::columns::sql_limit;
use super::{Result, Store, WriteDurability};
use crate::domain::{EventKind, UserQuotaLimits};

/// Share of all events that may come before they are counted again: counting takes a while.
const COUNTED_ONCE_IN: u64 = 100;

/// Events that concern one user; those that concern none are one heap as well.
struct EventHeap {
    user: Option<String>,
    rows: u64,
}

impl Store {
    /// Forgets up to `limit` events of those users who have more than they may have, the oldest refusals first, then the
    /// oldest; returns how many.
    pub(crate) fn trim_events(&self, limit: usize) -> Result<usize> {
        let latest = self.latest_event_id()?;
        if latest < self.inner.recount_after_event.load(Ordering::Relaxed) {
            return Ok(0);
        }
        let bounds = self.state_limits().audit_rows;
        let heaps = self.read(event_heaps)?;
        let level = level(heaps.iter().map(|heap| heap.rows).collect(), bounds.total);
        let mut trimmed = 0;
        for heap in &heaps {
            let most = if heap.user.is_some() { level.min(bounds.per_user) } else { level };
            let over = usize::try_from(heap.rows.saturating_sub(most)).unwrap_or(usize::MAX).min(limit - trimmed);
            if over > 0 {
                trimmed += self.forget_oldest_of(heap.user.as_deref(), over)?;
            }
        }
        if trimmed < limit {
            let next = latest.saturating_add(counting_pause(bounds));
            self.inner.recount_after_event.store(next, Ordering::Relaxed);
        }
        Ok(trimmed)
    }

    /// Forgets so many events that concern a user, or none.
    fn forget_oldest_of(&self, user: Option<&str>, count: usize) -> Result<usize> {
        let kinds = [EventKind::AttemptRefused, EventKind::AccessDenied].map(EventKind::as_str);
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let delete = "DELETE FROM events WHERE id IN
                (SELECT id FROM events WHERE user IS ?1 ORDER BY kind NOT IN (?2, ?3), id LIMIT ?4)";
            Ok(t.prepare_cached(delete)?.execute(params![user, kinds[0], kinds[1], sql_limit(count)])?)
        })
    }
}

/// Returns how many events may come before they are counted again.
fn counting_pause(bounds: UserQuotaLimits) -> u64 {
    bounds.total.min(bounds.per_user) / COUNTED_ONCE_IN + 1
}

fn event_heaps(c: &Connection) -> Result<Vec<EventHeap>> {
    let all: i64 = c.query_row("SELECT count(*) FROM events", [], |row| row.get(0))?;
    let mut select = c.prepare_cached("SELECT user, count(*) FROM events WHERE user IS NOT NULL GROUP BY user")?;
    let heaps =
        select.query_map([], |row| Ok(EventHeap { user: row.get(0)?, rows: row.get::<_, i64>(1)?.unsigned_abs() }))?;
    let mut heaps = heaps.collect::<rusqlite::Result<Vec<_>>>()?;
    let of_users: u64 = heaps.iter().map(|heap| heap.rows).sum();
    heaps.push(EventHeap { user: None, rows: all.unsigned_abs().saturating_sub(of_users) });
    Ok(heaps)
}

/// Returns to how much each heap has to come down so that all together are within a bound: heaps below that stay.
fn level(mut heaps: Vec<u64>, most: u64) -> u64 {
    heaps.sort_unstable();
    let mut left = most;
    for (number, heap) in heaps.iter().enumerate() {
        let share = left / (heaps.len() - number) as u64;
        if *heap > share {
            return share;
        }
        left -= heap;
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
        read.into_iter().map(|noted| noted.event.kind).collect()
    }

    fn bounded(per_user: u64, in_all: u64) -> (tempfile::TempDir, Store) {
        let (folder, store) = open_temp_store();
        store.bound_state(StateLimits {
            audit_rows: UserQuotaLimits { per_user, total: in_all },
            ..StateLimits::default()
        });
        (folder, store)
    }

    #[test]
    fn largest_heaps_come_down_and_small_ones_stay() {
        assert_eq!(level(vec![5, 1, 10], 16), u64::MAX);
        assert_eq!(level(vec![5, 1, 10], 12), 6);
        assert_eq!(level(vec![5, 1, 10], 9), 4);
        assert_eq!(level(vec![10, 10], 1), 0);
        assert_eq!(level(Vec::new(), 0), u64::MAX);
    }

    #[test]
    fn refusals_of_one_user_push_out_neither_his_own_changes_nor_anything_of_others() {
        let (_folder, store) = bounded(10, 1000);
        store.record_events(&events(EventKind::TokenCreated, "bob", 8)).expect("noted");
        store.record_events(&events(EventKind::TokenCreated, "mallory", 4)).expect("noted");
        store.record_events(&events(EventKind::AccessDenied, "mallory", 40)).expect("noted");
        assert_eq!(store.trim_events(30).expect("trimmed"), 30, "in batches");
        assert_eq!(store.trim_events(30).expect("trimmed"), 4);
        assert_eq!(store.trim_events(30).expect("trimmed"), 0);
        assert_eq!(kinds_of(&store, "bob"), [EventKind::TokenCreated; 8]);
        let left = kinds_of(&store, "mallory");
        assert_eq!(left[..4], [EventKind::TokenCreated; 4]);
        assert_eq!(left[4..], [EventKind::AccessDenied; 6]);
    }

    #[test]
    fn events_of_all_together_are_bounded_at_the_cost_of_those_who_have_most() {
        let (_folder, store) = bounded(100, 30);
        store.record_events(&events(EventKind::TokenCreated, "bob", 8)).expect("noted");
        store.record_events(&events(EventKind::TokenCreated, "mallory", 60)).expect("noted");
        assert_eq!(store.trim_events(1000).expect("trimmed"), 38);
        assert_eq!((kinds_of(&store, "bob").len(), kinds_of(&store, "mallory").len()), (8, 22));
    }

    #[test]
    fn trail_at_its_bound_takes_what_revokes_a_token() {
        let (_folder, store) = bounded(1, 1);
        store.record_events(&events(EventKind::AccessDenied, "mallory", 20)).expect("noted");
        store.record_events(&events(EventKind::TokenRevoked, "bob", 1)).expect("noted");
        store.trim_events(1000).expect("trimmed");
        assert_eq!(kinds_of(&store, "bob").len() + kinds_of(&store, "mallory").len(), 0, "no share for two of one row");
        store.record_events(&events(EventKind::TokenRevoked, "bob", 1)).expect("noted");
        assert_eq!(kinds_of(&store, "bob"), [EventKind::TokenRevoked]);
    }
}
