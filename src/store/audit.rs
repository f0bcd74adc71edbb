//! The audit trail: what happened, noted in the transaction that makes it so, read in pages.

use std::net::IpAddr;

use rusqlite::{Connection, Row, Transaction, named_params};

use super::users::page;
use super::{Durability, Result, Store, StoreError};
use crate::domain::{Actor, AuditEvent, EventKind, Login, Peer, Protocol, TokenId, UnixMillis};

/// Which events to read; `None` narrows nothing.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Those at this instant or later.
    pub since: Option<UnixMillis>,
    /// Those that concern one user.
    pub user: Option<Login>,
    /// Those that concern one token.
    pub token: Option<TokenId>,
    /// Those of one kind.
    pub kind: Option<EventKind>,
}

/// Where a page of events begins, and which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursor {
    /// The latest event; newest first.
    Latest,
    /// The one noted before this one; newest first.
    Before(u64),
    /// The one noted after this one; oldest first.
    After(u64),
}

/// An event that was noted, and its number: later ones have higher ones.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Noted {
    /// The number.
    pub id: u64,
    /// The event.
    #[serde(flatten)]
    pub event: AuditEvent,
}

/// A token that was used from a network from which this process did not see it used before.
#[derive(Clone, Debug)]
pub(crate) struct Sighting {
    /// The token.
    pub(crate) token: TokenId,
    /// When.
    pub(crate) at: UnixMillis,
    /// The network.
    pub(crate) network: IpAddr,
    /// Who used it.
    pub(crate) peer: Peer,
}

/// How many networks of a token are told apart.
const NETWORKS: u32 = 256;

impl Store {
    /// Notes events that no change of the store goes with. A power cut may lose them.
    pub fn record(&self, events: &[AuditEvent]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        self.write(Durability::Lazy, |t| events.iter().try_for_each(|event| note(t, event)))
    }

    /// Notes what is new of sightings: the first use of a token, and each network after it.
    pub(crate) fn sight(&self, sightings: &[Sighting]) -> Result<()> {
        self.write(Durability::Lazy, |t| sightings.iter().try_for_each(|sighting| sight(t, sighting)))
    }

    /// Tells whether a prefilter is that of a secret that a rotation replaced.
    pub(crate) fn is_retired(&self, token: TokenId, prefilter: &[u8; 8]) -> Result<bool> {
        let query = "SELECT 1 FROM retired WHERE token = ?1 AND prefilter = ?2";
        self.read(|c| Ok(c.prepare_cached(query)?.exists((token, prefilter))?))
    }

    /// Returns up to `limit` events from a cursor on.
    pub fn audit(&self, filter: &EventFilter, cursor: Cursor, limit: usize) -> Result<Vec<Noted>> {
        let (low, high, order) = match cursor {
            Cursor::Latest => (0, i64::MAX, "DESC"),
            Cursor::Before(id) => (0, number(id), "DESC"),
            Cursor::After(id) => (number(id), i64::MAX, "ASC"),
        };
        let EventFilter { since, user, token, kind } = filter;
        let narrowed = |given: bool, condition: &'static str| if given { condition } else { "" };
        let query = format!(
            "SELECT id, at, kind, user, token, actor, address, client, protocol, path, count, detail FROM events
             WHERE id > :low AND id < :high {} {} {} {} ORDER BY id {order} LIMIT :limit",
            narrowed(since.is_some(), "AND at >= :since AND id >= (SELECT min(id) FROM events WHERE at >= :since)"),
            narrowed(user.is_some(), "AND user = :user"),
            narrowed(token.is_some(), "AND token = :token"),
            narrowed(kind.is_some(), "AND kind = :kind"),
        );
        self.read(|c| {
            let mut select = c.prepare_cached(&query)?;
            let limit = page(limit);
            let kind = kind.map(EventKind::as_str);
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
                events.push(noted(row)?);
            }
            Ok(events)
        })
    }

    /// Returns the number of the latest event; 0 where there is none.
    pub fn latest_event(&self) -> Result<u64> {
        self.read(latest)
    }

    /// Forgets up to `limit` events from before an instant, the oldest first, and returns how many.
    pub fn forget_events(&self, before: UnixMillis, limit: usize) -> Result<usize> {
        self.write_freeing(Durability::Lazy, |t| {
            let delete = "DELETE FROM events WHERE id IN
                (SELECT id FROM events WHERE at < ?1 ORDER BY at LIMIT ?2)";
            Ok(t.prepare_cached(delete)?.execute((before, page(limit)))?)
        })
    }
}

/// Notes an event within the transaction that makes it so.
pub(super) fn note(t: &Transaction<'_>, event: &AuditEvent) -> Result<()> {
    let mut insert = t.prepare_cached(
        "INSERT INTO events (at, kind, user, token, actor, address, client, protocol, path, count, detail)
         VALUES (:at, :kind, :user, :token, :actor, :address, :client, :protocol, :path, :count, :detail)",
    )?;
    insert.execute(named_params! {
        ":at": event.at, ":kind": event.kind.as_str(), ":user": event.user, ":token": event.token,
        ":actor": event.by.as_ref().map(ToString::to_string), ":address": event.address, ":client": event.client,
        ":protocol": event.protocol.map(|protocol| protocol.to_string()), ":path": event.path,
        ":count": number(event.count), ":detail": event.detail,
    })?;
    Ok(())
}

fn sight(t: &Transaction<'_>, sighting: &Sighting) -> Result<()> {
    let Sighting { token, at, network, peer } = sighting;
    let mut known = t.prepare_cached(
        "SELECT u.login, (SELECT count(*) FROM sightings WHERE token = t.id),
            EXISTS (SELECT 1 FROM sightings WHERE token = t.id AND network = ?2)
         FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ?1",
    )?;
    let network = network.to_string();
    let mut rows = known.query((token, &network))?;
    let Some(row) = rows.next()? else { return Ok(()) };
    let (login, networks, known): (Login, u32, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
    if known || networks >= NETWORKS {
        return Ok(());
    }
    t.prepare_cached("INSERT INTO sightings (token, network, at) VALUES (?1, ?2, ?3)")?
        .execute((token, &network, at))?;
    let kind = if networks == 0 { EventKind::TokenFirstUsed } else { EventKind::TokenNewAddress };
    let by = Actor::Bearer { login: login.clone(), token: *token };
    let event = AuditEvent::new(*at, kind).with_user(&login).with_token(*token).with_actor(by).with_peer(peer);
    let last = networks + 1 == NETWORKS;
    note(t, &if last { event.with_detail("further networks of this token are not told") } else { event })
}

fn latest(c: &Connection) -> Result<u64> {
    let mut select = c.prepare_cached("SELECT coalesce(max(id), 0) FROM events")?;
    let mut rows = select.query([])?;
    rows.next()?.map_or(Ok(0), |row| unsigned(row, 0))
}

fn noted(row: &Row<'_>) -> Result<Noted> {
    let kind: String = row.get(2)?;
    let actor: Option<String> = row.get(5)?;
    let protocol: Option<String> = row.get(8)?;
    let event = AuditEvent {
        at: row.get(1)?,
        kind: kind.parse().map_err(StoreError::Damaged)?,
        user: row.get(3)?,
        token: row.get(4)?,
        by: actor.map(|actor| actor.parse::<Actor>()).transpose().map_err(StoreError::Damaged)?,
        address: row.get(6)?,
        client: row.get(7)?,
        protocol: protocol.map(|door| door.parse::<Protocol>()).transpose().map_err(StoreError::Damaged)?,
        path: row.get(9)?,
        count: unsigned(row, 10)?,
        detail: row.get(11)?,
    };
    Ok(Noted { id: unsigned(row, 0)?, event })
}

/// Reads a number as SQLite keeps it.
pub(super) fn unsigned(row: &Row<'_>, column: usize) -> Result<u64> {
    Ok(row.get::<_, i64>(column)?.cast_unsigned())
}

/// Returns a number as SQLite takes it.
pub(super) fn number(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::testing::{id, login, now, opened};

    fn event(second: u64, kind: EventKind) -> AuditEvent {
        AuditEvent::new(now().saturating_add(Duration::from_secs(second)), kind)
    }

    fn numbers(events: &[Noted]) -> Vec<u64> {
        events.iter().map(|noted| noted.id).collect()
    }

    #[test]
    fn an_event_is_read_as_it_was_noted() {
        let (_folder, store) = opened();
        let token = id("JhxND7ci");
        let peer = Peer {
            protocol: Protocol::Sftp,
            address: "2001:db8::1".parse().expect("address"),
            user_agent: Some("SSH-2.0-x".to_owned()),
        };
        let full = event(1, EventKind::AccessDenied)
            .with_user(&login("alice"))
            .with_token(token)
            .with_actor(Actor::Bearer { login: login("bob"), token })
            .with_peer(&peer)
            .with_path(&crate::domain::TreePath::parse(b"/a/b").expect("path"))
            .with_count(7)
            .with_detail("write");
        let bare = event(2, EventKind::PolicyChanged);
        store.record(&[full.clone(), bare.clone()]).expect("noted");
        let read = store.audit(&EventFilter::default(), Cursor::After(0), 10).expect("read");
        assert_eq!(read, [Noted { id: 1, event: full }, Noted { id: 2, event: bare }]);
        assert_eq!(store.latest_event().expect("read"), 2);
    }

    #[test]
    fn events_are_read_in_pages_either_way_and_filtered() {
        let (_folder, store) = opened();
        let kinds = [EventKind::TokenCreated, EventKind::TokenRevoked];
        let events: Vec<_> = (0..10)
            .map(|n| {
                let of = event(n, kinds[usize::from(n % 2 == 1)]);
                if n < 5 { of.with_user(&login("alice")) } else { of.with_token(id("JhxND7ci")) }
            })
            .collect();
        store.record(&events).expect("noted");
        let read = |filter: &EventFilter, cursor| numbers(&store.audit(filter, cursor, 4).expect("read"));
        let all = EventFilter::default();
        assert_eq!(read(&all, Cursor::Latest), [10, 9, 8, 7]);
        assert_eq!(read(&all, Cursor::Before(7)), [6, 5, 4, 3]);
        assert_eq!(read(&all, Cursor::After(7)), [8, 9, 10]);
        let since = EventFilter { since: Some(events[7].at), ..all.clone() };
        assert_eq!(read(&since, Cursor::Latest), [10, 9, 8]);
        assert_eq!(read(&since, Cursor::After(9)), [10]);
        let user = EventFilter { user: Some(login("alice")), ..all.clone() };
        assert_eq!(read(&user, Cursor::Latest), [5, 4, 3, 2]);
        let both = EventFilter { token: Some(id("JhxND7ci")), kind: Some(EventKind::TokenRevoked), ..all };
        assert_eq!(read(&both, Cursor::After(0)), [6, 8, 10]);
    }

    #[test]
    fn old_events_are_forgotten_in_batches_and_numbers_are_not_given_twice() {
        let (_folder, store) = opened();
        let events: Vec<_> = (0..10).map(|n| event(n, EventKind::TokenCreated)).collect();
        store.record(&events).expect("noted");
        assert_eq!(store.forget_events(events[5].at, 3).expect("forgotten"), 3);
        assert_eq!(store.forget_events(events[5].at, 3).expect("forgotten"), 2);
        assert_eq!(store.forget_events(events[5].at, 3).expect("forgotten"), 0);
        let left = store.audit(&EventFilter::default(), Cursor::After(0), 100).expect("read");
        assert_eq!(numbers(&left), [6, 7, 8, 9, 10]);
        store.forget_events(UnixMillis::MAX, 100).expect("forgotten");
        store.record(&events[..1]).expect("noted");
        assert_eq!(store.latest_event().expect("read"), 11);
    }

    #[test]
    fn no_filter_reads_the_whole_trail() {
        let (_folder, store) = opened();
        let filters = [
            ("at >= ?1 AND id >= (SELECT min(id) FROM events WHERE at >= ?1)", "SCAN events"),
            ("user = 'alice'", "SCAN events"),
            ("token = 'JhxND7ci'", "SCAN events"),
            ("kind = 'token.created'", "SCAN events"),
        ];
        for (filter, scan) in filters {
            let query = format!(
                "EXPLAIN QUERY PLAN SELECT * FROM events WHERE id > 5 AND id < 9 AND {filter}
                ORDER BY id DESC LIMIT 5"
            );
            let plan = store.read(|c| {
                let mut select = c.prepare(&query)?;
                if select.parameter_count() > 0 {
                    select.raw_bind_parameter(1, 0)?;
                }
                let mut rows = select.raw_query();
                let mut plan = Vec::new();
                while let Some(row) = rows.next()? {
                    plan.push(row.get::<_, String>(3)?);
                }
                Ok(plan)
            });
            let plan = plan.expect("plan");
            assert!(!plan.iter().any(|step| step.contains(scan) || step.contains("TEMP B-TREE")), "{filter}: {plan:?}");
        }
    }
}
