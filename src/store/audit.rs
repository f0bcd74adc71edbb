//! The audit trail: events, recorded in the transaction of the change that they report, and read in pages.

use std::net::IpAddr;

use rusqlite::{Connection, Row, named_params};

use super::audit_chain::{ChainHead, hash_row};
use super::audit_export::read_insert_position;
use super::audit_removed::delete_events;
use super::columns::{get_u64, sql_limit, to_sql_integer};
use super::notices::{NoticeAudience, insert_notice};
use super::transactions::WriteTransaction;
use super::{Result, Store, StoreError, WriteDurability};
use crate::domain::{Actor, AuditEvent, EventKind, Login, Notice, NoticeContent, Peer, Protocol, TokenId, UnixMillis};

/// Filter of audit events; a field that is `None` filters nothing.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Earliest time of the events.
    pub since: Option<UnixMillis>,
    /// User that the events concern.
    pub user: Option<Login>,
    /// Token that the events concern.
    pub token: Option<TokenId>,
    /// Kind of the events.
    pub kind: Option<EventKind>,
}

/// Start and direction of a page of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventCursor {
    /// From the latest event on, newest first.
    Latest,
    /// Events with lower ids than this one, newest first.
    Before(u64),
    /// Events with higher ids than this one, oldest first.
    After(u64),
}

/// A stored event with its id.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct RecordedEvent {
    /// The id: later events have higher ones, and none is used again.
    pub id: u64,
    /// The event.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// A use of a token from a network from which this process has not seen it used before.
#[derive(Clone, Debug)]
pub(crate) struct AddressSeen {
    pub(crate) token: TokenId,
    /// Time of the use.
    pub(crate) at: UnixMillis,
    /// Network of the address, by its first address.
    pub(crate) network: IpAddr,
    /// Protocol, address and program of the caller.
    pub(crate) peer: Peer,
}

/// Maximum number of networks that are recorded for a token.
const MAX_NETWORKS_PER_TOKEN: u32 = 256;

impl Store {
    /// Records events that don't belong to a change of the store. A power cut may lose them.
    pub fn record_events(&self, events: &[AuditEvent]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(WriteDurability::Lazy, |t| events.iter().try_for_each(|event| insert_event(t, event)))
    }

    /// Records networks that are new for their tokens, with an event for the first use of a token and for each further
    /// network.
    pub(crate) fn record_addresses(&self, addresses: &[AddressSeen]) -> Result<()> {
        self.write(WriteDurability::Lazy, |t| addresses.iter().try_for_each(|seen| insert_address(t, seen)))
    }

    /// Tells whether a prefilter is that of a secret that a rotation replaced (the last 16 of a token are known).
    pub(crate) fn is_retired_secret(&self, token: TokenId, prefilter: &[u8; 8]) -> Result<bool> {
        let query = "SELECT 1 FROM retired WHERE token = ?1 AND prefilter = ?2";
        self.read(|c| Ok(c.prepare_cached(query)?.exists((token, prefilter))?))
    }

    /// Returns up to `limit` events that match a filter, from a cursor on.
    pub fn audit_events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<RecordedEvent>> {
        let (low, high, order) = match cursor {
            EventCursor::Latest => (0, i64::MAX, "DESC"),
            EventCursor::Before(id) => (0, to_sql_integer(id), "DESC"),
            EventCursor::After(id) => (to_sql_integer(id), i64::MAX, "ASC"),
        };
        let EventFilter { since, user, token, kind } = filter;
        // Conditions that don't apply are left out, in place of `:user IS NULL OR …`, so that SQLite uses the index of
        // each one that does.
        let clause_if = |given: bool, condition: &'static str| if given { condition } else { "" };
        let query = format!(
            "SELECT id, at, kind, \"user\", token, actor, address, client, protocol, path, count, detail FROM events
             WHERE id > :low AND id < :high {} {} {} {} ORDER BY id {order} LIMIT :limit",
            // `at` alone decides, but the lowest matching id tells where to start: rows are read in the order of ids.
            clause_if(since.is_some(), "AND at >= :since AND id >= (SELECT min(id) FROM events WHERE at >= :since)"),
            clause_if(user.is_some(), "AND \"user\" = :user"),
            clause_if(token.is_some(), "AND token = :token"),
            clause_if(kind.is_some(), "AND kind = :kind"),
        );
        self.read(|c| {
            let mut select = c.prepare_cached(&query)?;
            let limit = sql_limit(limit);
            let kind = kind.map(EventKind::as_str);
            // By hand: a named parameter that the query lacks is an error for `query`.
            let mut bind = |name: &str, value: &dyn rusqlite::ToSql| match select.parameter_index(name)? {
                Some(index) => select.raw_bind_parameter(index, value),
                None => Ok(()),
            };
            for (name, value) in named_params! {
                ":low": low, ":high": high, ":limit": limit,
                ":since": since, ":user": user, ":token": token, ":kind": kind
            } {
                bind(name, value)?;
            }
            let mut rows = select.raw_query();
            let mut events = Vec::new();
            while let Some(row) = rows.next()? {
                events.push(event_from_row(row)?);
            }
            Ok(events)
        })
    }

    /// Returns the id of the latest event; 0 where there is none.
    pub fn latest_event_id(&self) -> Result<u64> {
        self.read(select_latest_id)
    }

    /// Deletes up to `limit` events from before a time, the oldest first, and returns how many.
    pub fn delete_events_before(&self, before: UnixMillis, limit: usize) -> Result<usize> {
        // The id column is AUTOINCREMENT, so the ids of deleted events are not used again and cursors of clients stay
        // valid.
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let delete = "DELETE FROM events WHERE id IN
                (SELECT id FROM events WHERE at < ?1 ORDER BY at LIMIT ?2)";
            delete_events(t, delete, &[&before, &sql_limit(limit)])
        })
    }
}

/// Inserts an event within the transaction of the change that it reports, as the next row of the chain.
pub(super) fn insert_event(t: &WriteTransaction<'_>, event: &AuditEvent) -> Result<()> {
    let head = match t.audit_head.get() {
        Some(head) => head,
        None => read_insert_position(t)?,
    };
    let AuditEvent { at, kind, user, token, by, address, client, protocol, path, count, detail } = event;
    let (actor, protocol) = (by.as_ref().map(ToString::to_string), protocol.map(|protocol| protocol.to_string()));
    // As it is stored, which is what is verified later.
    let count = to_sql_integer(*count);
    let number = head.number.saturating_add(1);
    let texts = [
        Some(kind.as_str()),
        user.as_ref().map(Login::as_str),
        token.as_ref().map(TokenId::as_str),
        actor.as_deref(),
        address.as_deref(),
        client.as_deref(),
        protocol.as_deref(),
        path.as_deref(),
        detail.as_deref(),
    ];
    let hash = hash_row(&head.hash, number, at.as_millis(), count, texts);
    let mut insert = t.prepare_cached(
        "INSERT INTO events (id, at, kind, \"user\", token, actor, address, client, protocol, path, count, detail, hash)
         VALUES (:id, :at, :kind, :user, :token, :actor, :address, :client, :protocol, :path, :count, :detail, :hash)",
    )?;
    insert.execute(named_params! {
        ":id": to_sql_integer(number), ":at": at, ":kind": kind.as_str(), ":user": user, ":token": token,
        ":actor": actor, ":address": address, ":client": client, ":protocol": protocol, ":path": path,
        ":count": count, ":detail": detail, ":hash": hash.as_bytes(),
    })?;
    // After the insert, so that a failed one that the caller tolerates leaves the head where it is.
    t.audit_head.set(Some(ChainHead { number, hash }));
    // In the same transaction, and for every process that records events: no notice is without its event, or missing.
    match NoticeContent::of_event(event) {
        Some(content) => insert_notice(t, &Notice::new(event.at, content), NoticeAudience::All),
        None => Ok(()),
    }
}

fn insert_address(t: &WriteTransaction<'_>, seen: &AddressSeen) -> Result<()> {
    let AddressSeen { token, at, network, peer } = seen;
    let mut known = t.prepare_cached(
        "SELECT u.login, (SELECT count(*) FROM sightings WHERE token = t.id),
            EXISTS (SELECT 1 FROM sightings WHERE token = t.id AND network = ?2)
         FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ?1",
    )?;
    let network = network.to_string();
    let mut rows = known.query((token, &network))?;
    // The token may have been deleted since it was used.
    let Some(row) = rows.next()? else { return Ok(()) };
    let (login, network_count, known): (Login, u32, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
    // Bounded: a client that changes networks at will could otherwise fill this table and the audit trail.
    if known || network_count >= MAX_NETWORKS_PER_TOKEN {
        return Ok(());
    }
    t.prepare_cached("INSERT INTO sightings (token, network, at) VALUES (?1, ?2, ?3)")?
        .execute((token, &network, at))?;
    let kind = if network_count == 0 { EventKind::TokenFirstUsed } else { EventKind::TokenNewAddress };
    let by = Actor::Bearer { login: login.clone(), token: *token };
    let event = AuditEvent::new(*at, kind).with_user(&login).with_token(*token).with_actor(by).with_peer(peer);
    let is_last = network_count + 1 == MAX_NETWORKS_PER_TOKEN;
    insert_event(t, &if is_last { event.with_detail("further networks of this token are not recorded") } else { event })
}

fn select_latest_id(c: &Connection) -> Result<u64> {
    let mut select = c.prepare_cached("SELECT coalesce(max(id), 0) FROM events")?;
    let mut rows = select.query([])?;
    rows.next()?.map_or(Ok(0), |row| get_u64(row, 0))
}

fn event_from_row(row: &Row<'_>) -> Result<RecordedEvent> {
    let kind: String = row.get(2)?;
    let actor: Option<String> = row.get(5)?;
    let protocol: Option<String> = row.get(8)?;
    let event = AuditEvent {
        at: row.get(1)?,
        kind: kind.parse().map_err(StoreError::Corrupt)?,
        user: row.get(3)?,
        token: row.get(4)?,
        by: actor.map(|actor| actor.parse::<Actor>()).transpose().map_err(StoreError::Corrupt)?,
        address: row.get(6)?,
        client: row.get(7)?,
        protocol: protocol.map(|protocol| protocol.parse::<Protocol>()).transpose().map_err(StoreError::Corrupt)?,
        path: row.get(9)?,
        count: get_u64(row, 10)?,
        detail: row.get(11)?,
    };
    Ok(RecordedEvent { id: get_u64(row, 0)?, event })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::sqlite::query_plan;
    use crate::store::testing::{id, login, now, open_temp_store};

    fn sample_event(second: u64, kind: EventKind) -> AuditEvent {
        AuditEvent::new(now().saturating_add(Duration::from_secs(second)), kind)
    }

    fn event_ids(events: &[RecordedEvent]) -> Vec<u64> {
        events.iter().map(|recorded| recorded.id).collect()
    }

    #[test]
    fn event_roundtrips_through_store() {
        let (_temp_dir, store) = open_temp_store();
        let token = id("JhxND7ci");
        let peer = Peer {
            protocol: Protocol::Sftp,
            address: "2001:db8::1".parse().expect("address"),
            user_agent: Some("SSH-2.0-x".to_owned()),
        };
        let full = sample_event(1, EventKind::AccessDenied)
            .with_user(&login("alice"))
            .with_token(token)
            .with_actor(Actor::Bearer { login: login("bob"), token })
            .with_peer(&peer)
            .with_path(&crate::domain::TreePath::parse(b"/a/b").expect("path"))
            .with_count(7)
            .with_detail("write");
        let bare = sample_event(2, EventKind::PolicyChanged);
        store.record_events(&[full.clone(), bare.clone()]).expect("recorded");
        let read = store.audit_events(&EventFilter::default(), EventCursor::After(0), 10).expect("read");
        assert_eq!(read, [RecordedEvent { id: 1, event: full }, RecordedEvent { id: 2, event: bare }]);
        assert_eq!(store.latest_event_id().expect("read"), 2);
    }

    #[test]
    fn events_are_paged_in_both_directions_and_filtered() {
        let (_temp_dir, store) = open_temp_store();
        let kinds = [EventKind::TokenCreated, EventKind::TokenRevoked];
        let events: Vec<_> = (0..10)
            .map(|n| {
                let of = sample_event(n, kinds[usize::from(n % 2 == 1)]);
                if n < 5 { of.with_user(&login("alice")) } else { of.with_token(id("JhxND7ci")) }
            })
            .collect();
        store.record_events(&events).expect("recorded");
        let read = |filter: &EventFilter, cursor| event_ids(&store.audit_events(filter, cursor, 4).expect("read"));
        let all = EventFilter::default();
        assert_eq!(read(&all, EventCursor::Latest), [10, 9, 8, 7]);
        assert_eq!(read(&all, EventCursor::Before(7)), [6, 5, 4, 3]);
        assert_eq!(read(&all, EventCursor::After(7)), [8, 9, 10]);
        let since = EventFilter { since: Some(events[7].at), ..all.clone() };
        assert_eq!(read(&since, EventCursor::Latest), [10, 9, 8]);
        assert_eq!(read(&since, EventCursor::After(9)), [10]);
        let user = EventFilter { user: Some(login("alice")), ..all.clone() };
        assert_eq!(read(&user, EventCursor::Latest), [5, 4, 3, 2]);
        let both = EventFilter { token: Some(id("JhxND7ci")), kind: Some(EventKind::TokenRevoked), ..all };
        assert_eq!(read(&both, EventCursor::After(0)), [6, 8, 10]);
    }

    #[test]
    fn old_events_are_deleted_in_batches_and_ids_not_reused() {
        let (_temp_dir, store) = open_temp_store();
        let events: Vec<_> = (0..10).map(|n| sample_event(n, EventKind::TokenCreated)).collect();
        store.record_events(&events).expect("recorded");
        assert_eq!(store.delete_events_before(events[5].at, 3).expect("deleted"), 3);
        assert_eq!(store.delete_events_before(events[5].at, 3).expect("deleted"), 2);
        assert_eq!(store.delete_events_before(events[5].at, 3).expect("deleted"), 0);
        let remaining = store.audit_events(&EventFilter::default(), EventCursor::After(0), 100).expect("read");
        assert_eq!(event_ids(&remaining), [6, 7, 8, 9, 10]);
        store.delete_events_before(UnixMillis::MAX, 100).expect("deleted");
        store.record_events(&events[..1]).expect("recorded");
        assert_eq!(store.latest_event_id().expect("read"), 11);
    }

    #[test]
    fn event_filters_use_indexes() {
        let (_temp_dir, store) = open_temp_store();
        let filters = [
            ("at >= 0 AND id >= (SELECT min(id) FROM events WHERE at >= 0)", "SCAN events"),
            ("\"user\" = 'alice'", "SCAN events"),
            ("token = 'JhxND7ci'", "SCAN events"),
            ("kind = 'token.created'", "SCAN events"),
        ];
        for (filter, scan) in filters {
            let query = format!("SELECT * FROM events WHERE id > 5 AND id < 9 AND {filter} ORDER BY id DESC LIMIT 5");
            let plan = store.read(|c| query_plan(c, &query, [])).expect("plan");
            assert!(!plan.contains(scan) && !plan.contains("TEMP B-TREE"), "{filter}: {plan}");
        }
    }
}
