//! Notices that wait for their receivers: a bounded queue of rows, which survive a kill. A notice is inserted in the
//! transaction of what it is about where that is a change of the store; it is deleted once its receiver has it, or when
//! that is given up.

mod conditions;
mod expiring;

use rusqlite::{OptionalExtension, Row, params};

use super::columns::{get_u64, sql_limit, to_sql_integer};
use super::transactions::WriteTransaction;
use super::{BallastShare, Result, Store, StoreError, WriteDurability};
use crate::domain::{Notice, NoticeContent, NoticeKind, UnixMillis};

/// Maximum number of notices of one kind that wait for one receiver. A flood of one kind displaces no other.
const MAX_QUEUED_PER_KIND: usize = if cfg!(test) { 5 } else { 100 };
/// Beginning of the names of receivers that get mail.
const MAIL_PREFIX: &str = "mail ";

/// A notice that waits for a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct QueuedNotice {
    /// Number of its row.
    pub(crate) id: i64,
    /// Name of the receiver.
    pub(crate) receiver: String,
    /// Number of failed attempts.
    pub(crate) attempts: u32,
    /// Time of the next attempt.
    pub(crate) due_at: UnixMillis,
    /// Failure of the last attempt.
    pub(crate) failure: Option<String>,
    /// The notice.
    pub(crate) notice: Notice,
}

/// Queue and history of a receiver.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct NoticeReceiverState {
    /// Name of the receiver: `mail ADDRESS`, or `webhook ORIGIN` and a part of the hash of its URL.
    pub name: String,
    /// Number of notices that wait for it.
    pub queued: u64,
    /// Number of notices that were delivered.
    pub delivered: u64,
    /// Number of attempts that failed.
    pub failed: u64,
    /// Number of notices that were dropped: at the bound of the queue, or after the last attempt.
    pub dropped: u64,
    /// Time of the last delivery.
    #[serde(serialize_with = "as_optional_date")]
    pub delivered_at: Option<UnixMillis>,
    /// Time of the last failed attempt.
    #[serde(serialize_with = "as_optional_date")]
    pub failed_at: Option<UnixMillis>,
    /// Reason of that failure.
    pub failure: Option<String>,
}

impl NoticeReceiverState {
    /// Tells whether the receiver gets mail.
    pub fn is_mail(&self) -> bool {
        self.name.starts_with(MAIL_PREFIX)
    }

    /// Tells whether the last attempt has failed.
    pub fn is_failing(&self) -> bool {
        self.failed_at.is_some_and(|failed_at| self.delivered_at.is_none_or(|delivered_at| failed_at > delivered_at))
    }
}

/// Receivers of a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoticeAudience {
    All,
    Mail,
    Webhooks,
}

impl Store {
    /// Records which receivers get which kinds of notices; what waits for other receivers is dropped. Returns how many
    /// notices those were.
    pub(crate) fn configure_notices(&self, receivers: &[String], kinds: &[NoticeKind]) -> Result<usize> {
        let mut receivers = receivers.to_vec();
        receivers.sort();
        // Where nobody is told, no process has to look at what.
        let kinds = if receivers.is_empty() { &[] } else { kinds };
        let mut kind_names: Vec<_> = kinds.iter().map(|kind| kind.as_str()).collect();
        kind_names.sort_unstable();
        // A read first: most starts change nothing.
        let is_current = self.read(|c| {
            let names = select_texts(c, "SELECT name FROM notice_receivers ORDER BY name")?;
            Ok(names == receivers && select_texts(c, "SELECT kind FROM notice_kinds ORDER BY kind")? == kind_names)
        })?;
        if is_current {
            return Ok(0);
        }
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |t| {
            let mut dropped = 0;
            for name in select_texts(t, "SELECT name FROM notice_receivers")? {
                if receivers.binary_search(&name).is_err() {
                    dropped += t.execute("DELETE FROM notices WHERE receiver = ?1", [&name])?;
                    t.execute("DELETE FROM notice_receivers WHERE name = ?1", [&name])?;
                }
            }
            for name in &receivers {
                t.execute("INSERT INTO notice_receivers (name) VALUES (?1) ON CONFLICT (name) DO NOTHING", [name])?;
            }
            t.execute("DELETE FROM notice_kinds", [])?;
            for kind in &kind_names {
                t.execute("INSERT INTO notice_kinds (kind) VALUES (?1)", [kind])?;
            }
            if receivers.is_empty() {
                // Of conditions that end while nobody is told no end would be seen.
                t.execute("DELETE FROM notice_conditions", [])?;
            }
            Ok(dropped)
        })
    }

    /// Queues a notice for all receivers, if its kind is wanted.
    pub(crate) fn queue_notice(&self, notice: &Notice) -> Result<()> {
        if !self.is_notice_wanted(&notice.content)? {
            return Ok(());
        }
        // With a part of the ballast: a notice of a full disk is one of those that matter.
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |t| {
            insert_notice(t, notice, NoticeAudience::All)
        })
    }

    /// Tells whether there is a receiver for notices of this kind.
    pub(crate) fn is_notice_wanted(&self, content: &NoticeContent) -> Result<bool> {
        let Some(kind) = content.kind() else { return Ok(false) };
        let query = "SELECT 1 FROM notice_kinds, notice_receivers WHERE kind = ?1";
        self.read(|c| Ok(c.prepare_cached(query)?.exists([kind.as_str()])?))
    }

    /// Returns the notice for a receiver that has been due for longest; `None` where none is due.
    pub(crate) fn due_notice(
        &self,
        receiver: &str,
        now: UnixMillis,
        latest: UnixMillis,
    ) -> Result<Option<QueuedNotice>> {
        // What is due after `latest` was put off under a clock that was set back since.
        let query = format!(
            "SELECT {NOTICE_COLUMNS} FROM notices WHERE receiver = ?1 AND (due_at <= ?2 OR due_at > ?3)
             ORDER BY due_at, id LIMIT 1"
        );
        self.read(|c| {
            let mut select = c.prepare_cached(&query)?;
            let mut rows = select.query(params![receiver, now, latest])?;
            rows.next()?.map(notice_from_row).transpose()
        })
    }

    /// Deletes a notice that was delivered.
    pub(crate) fn record_delivered_notice(&self, id: i64, now: UnixMillis) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let Some(receiver) = delete_notice(t, id)? else { return Ok(()) };
            let update = "UPDATE notice_receivers SET delivered = delivered + 1, delivered_at = ?2 WHERE name = ?1";
            Ok(t.prepare_cached(update)?.execute(params![receiver, now]).map(drop)?)
        })
    }

    /// Records a failed attempt. The next one is due at `retry_at`; where that is `None`, the notice is dropped.
    pub(crate) fn record_failed_notice(
        &self,
        id: i64,
        failure: &str,
        now: UnixMillis,
        retry_at: Option<UnixMillis>,
    ) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let receiver = match retry_at {
                None => delete_notice(t, id)?,
                Some(retry_at) => {
                    let update = "UPDATE notices SET attempts = attempts + 1, due_at = ?2, failure = ?3 WHERE id = ?1
                         RETURNING receiver";
                    let mut update = t.prepare_cached(update)?;
                    update.query_row(params![id, retry_at, failure], |row| row.get(0)).optional()?
                }
            };
            let Some(receiver) = receiver else { return Ok(()) };
            let update = "UPDATE notice_receivers SET failed = failed + 1, dropped = dropped + ?4, failed_at = ?2,
                 failure = ?3 WHERE name = ?1";
            let dropped = i64::from(retry_at.is_none());
            Ok(t.prepare_cached(update)?.execute(params![receiver, now, failure, dropped]).map(drop)?)
        })
    }

    /// Returns up to `limit` notices that wait, those that are due first in front.
    pub(crate) fn queued_notices(&self, limit: usize) -> Result<Vec<QueuedNotice>> {
        let query = format!("SELECT {NOTICE_COLUMNS} FROM notices ORDER BY due_at, id LIMIT ?1");
        self.read(|c| {
            let mut select = c.prepare_cached(&query)?;
            let mut rows = select.query([sql_limit(limit)])?;
            let mut queued = Vec::new();
            while let Some(row) = rows.next()? {
                queued.push(notice_from_row(row)?);
            }
            Ok(queued)
        })
    }

    /// Returns queue and history of each receiver.
    pub fn notice_receivers(&self) -> Result<Vec<NoticeReceiverState>> {
        self.read(|c| {
            let mut select = c.prepare_cached(
                "SELECT name, delivered, failed, dropped, delivered_at, failed_at, failure,
                    (SELECT count(*) FROM notices WHERE receiver = name)
                 FROM notice_receivers ORDER BY name",
            )?;
            let mut rows = select.query([])?;
            let mut receivers = Vec::new();
            while let Some(row) = rows.next()? {
                receivers.push(NoticeReceiverState {
                    name: row.get(0)?,
                    delivered: get_u64(row, 1)?,
                    failed: get_u64(row, 2)?,
                    dropped: get_u64(row, 3)?,
                    delivered_at: row.get(4)?,
                    failed_at: row.get(5)?,
                    failure: row.get(6)?,
                    queued: get_u64(row, 7)?,
                });
            }
            Ok(receivers)
        })
    }

    /// Returns the free space on the disk of the state directory.
    pub(crate) fn state_disk_free_bytes(&self) -> u64 {
        self.inner.ballast_file.free_bytes()
    }
}

const NOTICE_COLUMNS: &str = "id, receiver, attempts, due_at, failure, message_id, at, content";

/// Inserts a notice for each receiver of an audience, if its kind is wanted. At the bound of a receiver's queue the
/// oldest notice of the same kind is dropped.
pub(super) fn insert_notice(t: &WriteTransaction<'_>, notice: &Notice, audience: NoticeAudience) -> Result<()> {
    let Some(kind) = notice.content.kind().map(NoticeKind::as_str) else { return Ok(()) };
    if !t.prepare_cached("SELECT 1 FROM notice_kinds WHERE kind = ?1")?.exists([kind])? {
        return Ok(());
    }
    let content = serde_json::to_string(&notice.content).map_err(|error| StoreError::Corrupt(error.to_string()))?;
    for receiver in select_texts(t, "SELECT name FROM notice_receivers ORDER BY name")? {
        let is_included = match audience {
            NoticeAudience::All => true,
            NoticeAudience::Mail => receiver.starts_with(MAIL_PREFIX),
            NoticeAudience::Webhooks => !receiver.starts_with(MAIL_PREFIX),
        };
        if !is_included {
            continue;
        }
        let insert =
            "INSERT INTO notices (message_id, receiver, kind, at, content, due_at) VALUES (?1, ?2, ?3, ?4, ?5, ?4)";
        t.prepare_cached(insert)?.execute(params![notice.message_id, receiver, kind, notice.at, content])?;
        drop_oldest(t, &receiver, kind)?;
    }
    Ok(())
}

/// Drops the oldest notices of a kind beyond the bound of a receiver's queue.
fn drop_oldest(t: &WriteTransaction<'_>, receiver: &str, kind: &str) -> Result<()> {
    let delete = "DELETE FROM notices WHERE id IN
        (SELECT id FROM notices WHERE receiver = ?1 AND kind = ?2 ORDER BY id DESC LIMIT ?3 OFFSET ?4)";
    let dropped = t.prepare_cached(delete)?.execute(params![
        receiver,
        kind,
        sql_limit(usize::MAX),
        sql_limit(MAX_QUEUED_PER_KIND)
    ])?;
    if dropped > 0 {
        let update = "UPDATE notice_receivers SET dropped = dropped + ?2 WHERE name = ?1";
        t.prepare_cached(update)?.execute(params![receiver, to_sql_integer(dropped as u64)])?;
        tracing::warn!(receiver, kind, "the queue of notices is full: {dropped} of the oldest were dropped");
    }
    Ok(())
}

/// Deletes a notice; returns its receiver, or `None` where it is gone already.
fn delete_notice(t: &WriteTransaction<'_>, id: i64) -> Result<Option<String>> {
    let mut delete = t.prepare_cached("DELETE FROM notices WHERE id = ?1 RETURNING receiver")?;
    Ok(delete.query_row([id], |row| row.get(0)).optional()?)
}

fn notice_from_row(row: &Row<'_>) -> Result<QueuedNotice> {
    let content: String = row.get(7)?;
    Ok(QueuedNotice {
        id: row.get(0)?,
        receiver: row.get(1)?,
        attempts: row.get(2)?,
        due_at: row.get(3)?,
        failure: row.get(4)?,
        notice: Notice {
            message_id: row.get(5)?,
            at: row.get(6)?,
            content: serde_json::from_str(&content).map_err(|error| StoreError::Corrupt(error.to_string()))?,
        },
    })
}

fn select_texts(c: &rusqlite::Connection, query: &str) -> Result<Vec<String>> {
    let mut select = c.prepare_cached(query)?;
    let texts = select.query_map([], |row| row.get(0))?.collect::<Result<_, rusqlite::Error>>()?;
    Ok(texts)
}

fn as_optional_date<S: serde::Serializer>(at: &Option<UnixMillis>, serializer: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => serializer.collect_str(at),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::{Actor, AuditEvent, EventKind};
    use crate::store::testing::{now, open_temp_store};

    const WEBHOOK: &str = "webhook https://hooks.example 1";
    const MAIL: &str = "mail ops@example.org";

    fn configured_store() -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = open_temp_store();
        store.configure_notices(&[WEBHOOK.to_owned(), MAIL.to_owned()], NoticeKind::ALL).expect("configured");
        (temp_dir, store)
    }

    fn lost(path: &str) -> Notice {
        let content = NoticeContent::RootLost { path: path.to_owned(), reason: "gone".to_owned() };
        Notice::new(now(), content)
    }

    fn due(store: &Store, receiver: &str, at: UnixMillis) -> Option<QueuedNotice> {
        store.due_notice(receiver, at, at.saturating_add(Duration::from_secs(86_400))).expect("read")
    }

    #[test]
    fn notice_waits_for_each_receiver_until_it_is_delivered_or_given_up() {
        let (_temp_dir, store) = configured_store();
        store.queue_notice(&lost("/")).expect("queued");
        let first = due(&store, WEBHOOK, now()).expect("due");
        let of_mail = due(&store, MAIL, now()).expect("due");
        assert_eq!(first.notice, of_mail.notice, "with the same id for all receivers");
        store.record_delivered_notice(first.id, now()).expect("recorded");
        assert_eq!(due(&store, WEBHOOK, now()), None);
        let later = now().saturating_add(Duration::from_secs(10));
        store.record_failed_notice(of_mail.id, "refused", now(), Some(later)).expect("recorded");
        assert_eq!(due(&store, MAIL, now()), None);
        let again = due(&store, MAIL, later).expect("due again");
        assert_eq!((again.attempts, again.notice), (1, of_mail.notice));
        let long_before = now().saturating_sub(Duration::from_secs(10 * 86_400));
        assert!(due(&store, MAIL, long_before).is_some(), "the clock was set back since");
        store.record_failed_notice(of_mail.id, "refused again", later, None).expect("recorded");
        assert_eq!(store.queued_notices(10).expect("read"), []);
        let receivers = store.notice_receivers().expect("read");
        let counts: Vec<_> = receivers.iter().map(|r| (r.delivered, r.failed, r.dropped, r.is_failing())).collect();
        assert_eq!(counts, [(0, 2, 1, true), (1, 0, 0, false)]);
        assert_eq!(receivers[0].failure.as_deref(), Some("refused again"));
    }

    #[test]
    fn queue_is_bounded_for_each_kind_and_receiver() {
        let (_temp_dir, store) = configured_store();
        store.queue_notice(&Notice::new(now(), NoticeContent::RootBack { path: "/".to_owned() })).expect("queued");
        for number in 0..MAX_QUEUED_PER_KIND + 3 {
            store.queue_notice(&lost(&format!("/{number}"))).expect("queued");
        }
        let queued = store.queued_notices(1000).expect("read");
        let of_webhook: Vec<_> = queued.iter().filter(|queued| queued.receiver == WEBHOOK).collect();
        assert_eq!(of_webhook.len(), MAX_QUEUED_PER_KIND + 1);
        assert!(matches!(of_webhook[0].notice.content, NoticeContent::RootBack { .. }), "of another kind");
        let oldest = NoticeContent::RootLost { path: "/3".to_owned(), reason: "gone".to_owned() };
        assert_eq!(of_webhook[1].notice.content, oldest);
        assert_eq!(store.notice_receivers().expect("read").iter().map(|r| r.dropped).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn events_of_any_process_are_notices_in_the_same_transaction() {
        let (temp_dir, store) = configured_store();
        let other_process = Store::open(&temp_dir.path().join("state")).expect("opens");
        let ban = AuditEvent::new(now(), EventKind::BanAdded).with_actor(Actor::Server).with_detail("192.0.2.7");
        other_process.record_events(&[ban]).expect("recorded");
        let queued = due(&store, WEBHOOK, now()).expect("queued");
        assert_eq!(queued.notice.content, NoticeContent::BanAdded { ban: "192.0.2.7".to_owned(), count: 1 });
    }

    #[test]
    fn nothing_is_queued_for_kinds_and_receivers_that_are_not_configured() {
        let (_temp_dir, store) = open_temp_store();
        let ban = AuditEvent::new(now(), EventKind::BanAdded).with_actor(Actor::Server);
        store.record_events(std::slice::from_ref(&ban)).expect("recorded");
        store.queue_notice(&lost("/")).expect("ignored");
        assert_eq!(store.queued_notices(10).expect("read"), []);
        store.configure_notices(&[MAIL.to_owned()], &[NoticeKind::RootLost]).expect("configured");
        store.record_events(&[ban]).expect("recorded");
        store.queue_notice(&lost("/")).expect("queued");
        assert_eq!(store.queued_notices(10).expect("read").len(), 1);
        assert_eq!(store.configure_notices(&[WEBHOOK.to_owned()], NoticeKind::ALL).expect("configured"), 1, "dropped");
        assert_eq!(store.queued_notices(10).expect("read"), []);
    }
}
