//! Buffer of this process's audit events: an event is reported at once, counted while it repeats, and bounded, so that
//! a flood of unauthenticated requests fills neither memory nor the store.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;

use crate::domain::{AuditEvent, EventKind, Login, Protocol, TokenId, UnixMillis};

/// Time for which a repeated event is counted before it is reported again.
const REPEAT_INTERVAL: Duration = Duration::from_secs(60);
/// Time for which an aggregate of events is counted before it is reported again.
const AGGREGATE_INTERVAL: Duration = Duration::from_secs(600);
/// Maximum number of events that are told apart at once.
const MAX_DISTINCT_EVENTS: usize = 2048;
/// Maximum number of further events that are told apart by user and kind alone.
const MAX_AGGREGATED_EVENTS: usize = 2048;

/// Origin of an event, which decides the budget that its row is taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EventOrigin {
    /// Bearer of a token: 256 rows at once for each user, then one in 20 s; 4096 in total, then one a second.
    Authenticated,
    /// Unauthenticated callers: 256 rows at once in total, then one in ten seconds.
    Unauthenticated,
}

/// Events to be recorded, told apart by all but time, client and count.
#[derive(Default)]
pub(super) struct AuditBuffer {
    events: Mutex<BufferedEvents>,
}

#[derive(Default)]
struct BufferedEvents {
    repeated: HashMap<EventKey, RepeatedEvent>,
    budgets: EventRowBudgets,
}

/// Budgets of rows: of each user, of all users together, and of unauthenticated callers.
#[derive(Default)]
struct EventRowBudgets {
    users: HashMap<Login, EventRowBudget>,
    authenticated: EventRowBudget,
    unauthenticated: EventRowBudget,
}

/// Number of rows that a budget has at once, and the time after which one comes back.
type RowBudgetSize = (u64, Duration);

const USER_BUDGET: RowBudgetSize = (256, Duration::from_secs(20));
const AUTHENTICATED_BUDGET: RowBudgetSize = (4096, Duration::from_secs(1));
const UNAUTHENTICATED_BUDGET: RowBudgetSize = (256, Duration::from_secs(10));

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct EventKey {
    kind: EventKind,
    user: Option<Login>,
    token: Option<TokenId>,
    address: Option<String>,
    protocol: Option<Protocol>,
    path: Option<String>,
    detail: Option<String>,
}

struct RepeatedEvent {
    event: AuditEvent,
    origin: EventOrigin,
    /// Number of occurrences since the last report.
    unreported: u64,
    reported_at: Option<UnixMillis>,
}

/// Rows that may be written: they run out, and come back with time.
#[derive(Default)]
struct EventRowBudget {
    used: u64,
    refilled_at: Option<UnixMillis>,
}

impl AuditBuffer {
    /// Records an event; one that repeats an event of the last minute is counted.
    pub(super) fn record(&self, origin: EventOrigin, event: AuditEvent) {
        self.events.lock().record(origin, event);
    }

    /// Takes the events that are due to be reported.
    pub(super) fn take_due(&self, now: UnixMillis) -> Vec<AuditEvent> {
        self.events.lock().take(now, false)
    }

    /// Takes all events that were not reported.
    pub(super) fn take_all(&self, now: UnixMillis) -> Vec<AuditEvent> {
        self.events.lock().take(now, true)
    }

    /// Takes back events that could not be written.
    pub(super) fn restore(&self, events: Vec<AuditEvent>) {
        let mut buffered = self.events.lock();
        for event in events {
            match buffered.repeated.get_mut(&EventKey::from_event(&event)) {
                // The count goes back to its entry, whose details may be those of a newer event by now.
                Some(repeated) => {
                    repeated.unreported = repeated.unreported.saturating_add(event.count);
                    // As if it had not been reported: due at the next flush, in the row that it has from the budget.
                    repeated.reported_at = None;
                }
                // The entry is gone, and the origin with it: the smaller budget applies.
                None => buffered.record(EventOrigin::Unauthenticated, event),
            }
        }
    }
}

impl BufferedEvents {
    fn record(&mut self, origin: EventOrigin, event: AuditEvent) {
        let key = EventKey::from_event(&event);
        // A repetition takes no row: it is counted in the row that the first occurrence has taken.
        if let Some(repeated) = self.repeated.get_mut(&key) {
            repeated.add(event);
        } else if self.repeated.len() < MAX_DISTINCT_EVENTS
            && self.budgets.try_acquire(origin, event.user.as_ref(), event.at)
        {
            self.insert(key, origin, event);
        } else {
            self.aggregate(origin, event);
        }
    }

    /// Counts an event with all others of its kind; those that a user's token caused, with the others of that user.
    fn aggregate(&mut self, origin: EventOrigin, event: AuditEvent) {
        let AuditEvent { at, kind, count, user, .. } = event;
        // An unauthenticated caller may name any user, and would fill the table if aggregates kept the names apart.
        let user = user.filter(|_| {
            origin == EventOrigin::Authenticated && self.repeated.len() < MAX_DISTINCT_EVENTS + MAX_AGGREGATED_EVENTS
        });
        let event =
            AuditEvent::new(at, kind).with_count(count).with_detail("further events of this kind, counted together");
        let event = AuditEvent { user, ..event };
        let key = EventKey::from_event(&event);
        match self.repeated.get_mut(&key) {
            Some(repeated) => repeated.add(event),
            None => self.insert(key, origin, event),
        }
    }

    fn insert(&mut self, key: EventKey, origin: EventOrigin, event: AuditEvent) {
        let unreported = event.count;
        self.repeated.insert(key, RepeatedEvent { event, origin, unreported, reported_at: None });
    }

    fn take(&mut self, now: UnixMillis, all: bool) -> Vec<AuditEvent> {
        let mut reported = Vec::new();
        let mut over_budget = Vec::new();
        let Self { repeated, budgets } = self;
        for repeated in
            repeated.values_mut().filter(|repeated| repeated.unreported > 0 && (all || repeated.is_due(now)))
        {
            let event = repeated.event.clone().with_count(std::mem::take(&mut repeated.unreported));
            let first = repeated.reported_at.replace(now).is_none();
            // At shutdown everything is written. The row of the first report was taken when the event was recorded, and
            // an aggregate has one row for each user and kind in ten minutes.
            match all
                || first
                || repeated.is_aggregate()
                || budgets.try_acquire(repeated.origin, event.user.as_ref(), now)
            {
                true => reported.push(event),
                false => over_budget.push((repeated.origin, event)),
            }
        }
        // An event that was quiet for an interval is forgotten; its next occurrence needs a row from the budget again.
        repeated.retain(|_, repeated| repeated.unreported > 0 || !repeated.is_due(now));
        // A budget that is whole again is like a new one, and needs no memory.
        budgets.users.retain(|_, budget| !budget.is_full(USER_BUDGET, now));
        for (origin, event) in over_budget {
            self.aggregate(origin, event);
        }
        // Event ids follow the order of writing, and a hash map has none.
        reported.sort_by_key(|event| event.at);
        reported
    }
}

impl RepeatedEvent {
    fn add(&mut self, event: AuditEvent) {
        self.unreported = self.unreported.saturating_add(event.count);
        self.event = event;
    }

    fn is_due(&self, now: UnixMillis) -> bool {
        let interval = if self.is_aggregate() { AGGREGATE_INTERVAL } else { REPEAT_INTERVAL };
        // A clock that was set back must not delay the report.
        self.reported_at
            .is_none_or(|reported_at| now < reported_at || now.saturating_duration_since(reported_at) >= interval)
    }

    fn is_aggregate(&self) -> bool {
        // Any event but an aggregate has the address of a peer.
        self.event.token.is_none() && self.event.address.is_none()
    }
}

impl EventRowBudgets {
    /// Takes one row, if any is left.
    fn try_acquire(&mut self, origin: EventOrigin, user: Option<&Login>, now: UnixMillis) -> bool {
        match (origin, user) {
            (EventOrigin::Unauthenticated, _) => self.unauthenticated.try_acquire(UNAUTHENTICATED_BUDGET, now),
            (EventOrigin::Authenticated, None) => self.authenticated.try_acquire(AUTHENTICATED_BUDGET, now),
            // The user's own budget first: one that has used it up takes no row from all users.
            (EventOrigin::Authenticated, Some(user)) => {
                let user_budget = self.users.entry(user.clone()).or_default();
                user_budget.try_acquire(USER_BUDGET, now) && self.authenticated.try_acquire(AUTHENTICATED_BUDGET, now)
            }
        }
    }
}

impl EventRowBudget {
    /// Takes one row, if any is left.
    fn try_acquire(&mut self, size: RowBudgetSize, now: UnixMillis) -> bool {
        self.refill(size, now);
        let has_row = self.used < size.0;
        self.used += u64::from(has_row);
        has_row
    }

    /// Tells whether all rows have come back.
    fn is_full(&mut self, size: RowBudgetSize, now: UnixMillis) -> bool {
        self.refill(size, now);
        self.used == 0
    }

    fn refill(&mut self, (_, row_interval): RowBudgetSize, now: UnixMillis) {
        let refilled_at = *self.refilled_at.get_or_insert(now);
        let refilled = u64::try_from(now.saturating_duration_since(refilled_at).as_millis() / row_interval.as_millis())
            .unwrap_or(u64::MAX);
        // A clock that was set back restarts the interval instead of blocking the budget until it catches up.
        if refilled > 0 || now < refilled_at {
            self.used = self.used.saturating_sub(refilled);
            self.refilled_at = Some(now);
        }
    }
}

impl EventKey {
    fn from_event(event: &AuditEvent) -> Self {
        Self {
            kind: event.kind,
            user: event.user.clone(),
            token: event.token,
            address: event.address.clone(),
            protocol: event.protocol,
            path: event.path.clone(),
            detail: event.detail.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Peer;

    fn seconds_in(seconds: u64) -> UnixMillis {
        UnixMillis::from_millis(1_777_968_000_000).saturating_add(Duration::from_secs(seconds))
    }

    fn attempt(seconds: u64, number: u32) -> AuditEvent {
        let address = std::net::Ipv4Addr::from(0x0a00_0000 + number).into();
        let peer = Peer { protocol: Protocol::Sftp, address, user_agent: None };
        AuditEvent::new(seconds_in(seconds), EventKind::AttemptRefused).with_peer(&peer).with_detail("wrong secret")
    }

    fn counts(events: &[AuditEvent]) -> Vec<u64> {
        events.iter().map(|event| event.count).collect()
    }

    #[test]
    fn repeated_event_is_reported_at_once_then_aggregated() {
        let buffer = AuditBuffer::default();
        buffer.record(EventOrigin::Unauthenticated, attempt(0, 1));
        assert_eq!(counts(&buffer.take_due(seconds_in(0))), [1]);
        for second in 1..50 {
            buffer.record(EventOrigin::Unauthenticated, attempt(second, 1));
        }
        assert!(buffer.take_due(seconds_in(59)).is_empty());
        let reported = buffer.take_due(seconds_in(60));
        assert_eq!((counts(&reported), reported[0].at), (vec![49], seconds_in(49)));
        assert!(buffer.take_due(seconds_in(120)).is_empty());
        assert!(buffer.events.lock().repeated.is_empty(), "forgotten");
        buffer.record(EventOrigin::Unauthenticated, attempt(130, 1));
        buffer.record(EventOrigin::Unauthenticated, attempt(131, 1));
        assert_eq!(counts(&buffer.take_all(seconds_in(131))), [2]);
    }

    #[test]
    fn event_flood_is_bounded_and_fully_counted() {
        let buffer = AuditBuffer::default();
        let (mut rows, mut counted) = (0, 0);
        for second in 0..3600u32 {
            for number in 0..100 {
                buffer.record(EventOrigin::Unauthenticated, attempt(u64::from(second), second * 100 + number));
            }
            let reported = buffer.take_due(seconds_in(u64::from(second)));
            rows += reported.len();
            counted += counts(&reported).iter().sum::<u64>();
            assert!(buffer.events.lock().repeated.len() <= MAX_DISTINCT_EVENTS + 1);
        }
        counted += counts(&buffer.take_all(seconds_in(3600))).iter().sum::<u64>();
        assert_eq!(counted, 360_000);
        assert!(rows < 256 + 360 + 10, "{rows} rows in an hour");
        buffer.record(
            EventOrigin::Authenticated,
            AuditEvent::new(seconds_in(3600), EventKind::SessionEnded).with_token("JhxND7ci".parse().expect("id")),
        );
        assert_eq!(
            counts(&buffer.take_due(seconds_in(3600))),
            [1],
            "unauthenticated callers use up no budget of others"
        );
    }

    fn denial(seconds: u64, user: &str, path: usize) -> AuditEvent {
        let event =
            AuditEvent::new(seconds_in(seconds), EventKind::AccessDenied).with_user(&user.parse().expect("a login"));
        AuditEvent { path: Some(format!("/{path}")), ..event.with_token("JhxND7ci".parse().expect("an id")) }
    }

    #[test]
    fn denials_of_one_user_leave_row_budget_of_others_and_name_the_user() {
        let buffer = AuditBuffer::default();
        for path in 0..5000 {
            buffer.record(EventOrigin::Authenticated, denial(0, "mallory", path));
        }
        buffer.record(EventOrigin::Authenticated, denial(0, "bob", 1));
        let reported = buffer.take_due(seconds_in(0));
        let is_of = |event: &&AuditEvent, login: &str| event.user.as_ref().is_some_and(|user| user.as_str() == login);
        let of = |login: &'static str| reported.iter().filter(move |event| is_of(event, login));
        let bobs: Vec<_> = of("bob").collect();
        assert!(bobs.len() == 1 && bobs[0].path.as_deref() == Some("/1"), "told apart: {bobs:?}");
        assert_eq!(of("mallory").count(), 256 + 1);
        assert_eq!(of("mallory").map(|event| event.count).sum::<u64>(), 5000, "and none of it is uncounted");
        assert_eq!(buffer.events.lock().budgets.users.len(), 2);
        buffer.take_due(seconds_in(256 * 20));
        assert!(buffer.events.lock().budgets.users.is_empty(), "released");
    }

    #[test]
    fn unwritten_events_are_retried() {
        let buffer = AuditBuffer::default();
        buffer.record(EventOrigin::Unauthenticated, attempt(0, 1));
        let reported = buffer.take_due(seconds_in(0));
        buffer.record(EventOrigin::Unauthenticated, attempt(1, 1));
        buffer.restore(reported);
        assert_eq!(counts(&buffer.take_due(seconds_in(1))), [2], "at once, as one event");
        assert!(buffer.take_due(seconds_in(60)).is_empty());
    }

    #[test]
    fn unwritten_events_keep_their_rows() {
        let buffer = AuditBuffer::default();
        for number in 0..256 {
            buffer.record(EventOrigin::Unauthenticated, attempt(0, number));
        }
        for _ in 0..3 {
            let reported = buffer.take_due(seconds_in(0));
            assert_eq!(counts(&reported), [1; 256], "all are told apart, though the budget is used up");
            buffer.restore(reported);
        }
    }

    #[test]
    fn clock_set_back_does_not_delay_events() {
        let buffer = AuditBuffer::default();
        buffer.record(EventOrigin::Unauthenticated, attempt(7200, 1));
        assert_eq!(counts(&buffer.take_due(seconds_in(7200))), [1]);
        buffer.record(EventOrigin::Unauthenticated, attempt(0, 1));
        assert_eq!(counts(&buffer.take_due(seconds_in(0))), [1]);
    }
}
