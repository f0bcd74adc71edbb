//! Retention: expirations are recorded, and tokens that have been inactive for long are deleted, in small batches, so
//! that no other write waits for long.

use rusqlite::{OptionalExtension, params};

use super::audit::insert_event;
use super::columns::sql_limit;
use super::sync_journals::delete_journals_of;
use super::transactions::WriteTransaction;
use super::{Result, Store, WriteDurability};
use crate::domain::{Actor, AuditEvent, EventKind, Login, TokenId, UnixMillis};

impl Store {
    /// Records the expiration of up to `limit` tokens that have expired and were not recorded yet, and returns how
    /// many. A sliding token is recorded only once no use that extends it can be unwritten any more.
    pub(crate) fn mark_expired(&self, now: UnixMillis, limit: usize) -> Result<usize> {
        // The second condition waits for uses that are not written yet (`WINDOW_WITH_WRITE_LAG_SQL`), with a margin.
        const EXPIRED_UNMARKED_QUERY: &str =
            "SELECT t.id, u.login, t.expires_at FROM tokens t JOIN users u ON u.id = t.user_id
            WHERE t.expires_at IS NOT NULL AND t.revoked_at IS NULL AND t.expiry_recorded = 0 AND t.expires_at <= ?1
              AND (t.window_ms IS NULL OR t.expires_at + t.window_ms / 10 + 2000 <= ?1)
            ORDER BY t.expires_at LIMIT ?2";
        // A read first: most rounds find nothing, and then don't take the write lock.
        let any = self.read(|c| Ok(c.prepare_cached(EXPIRED_UNMARKED_QUERY)?.exists(params![now, sql_limit(1)])?))?;
        if !any {
            return Ok(0);
        }
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let mut select = t.prepare_cached(EXPIRED_UNMARKED_QUERY)?;
            let found =
                select.query_map(params![now, sql_limit(limit)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let found = found.collect::<Result<Vec<ExpiredToken>, rusqlite::Error>>()?;
            record_expirations(t, &found, now)
        })
    }

    /// Records the expiration of tokens for a process that knows their last uses; returns how many were not recorded
    /// yet.
    pub(crate) fn mark_tokens_expired(&self, tokens: &[TokenId], now: UnixMillis) -> Result<usize> {
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let mut select = t.prepare_cached(
                "SELECT t.id, u.login, t.expires_at FROM tokens t JOIN users u ON u.id = t.user_id
                 WHERE t.id = ?1 AND t.expires_at IS NOT NULL AND t.revoked_at IS NULL AND t.expiry_recorded = 0",
            )?;
            let mut found = Vec::new();
            for token in tokens {
                let row = select.query_row([token], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                found.extend(row.optional()?);
            }
            record_expirations(t, &found, now)
        })
    }

    /// Deletes the hashes of replaced secrets whose grace is over; returns how many.
    pub(crate) fn clear_expired_graces(&self, now: UnixMillis) -> Result<usize> {
        const GRACE_OVER_QUERY: &str = "SELECT 1 FROM tokens WHERE old_secret_until <= ?1";
        if !self.read(|c| Ok(c.prepare_cached(GRACE_OVER_QUERY)?.exists([now])?))? {
            return Ok(0);
        }
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let end = "UPDATE tokens SET old_phc = NULL, old_prefilter = NULL, old_secret_until = NULL \
                 WHERE old_secret_until <= ?1";
            Ok(t.prepare_cached(end)?.execute([now])?)
        })
    }

    /// Deletes up to `limit` tokens that were revoked or expired at `inactive_since` or before, children before their
    /// parents, and returns how many. A child is inactive for at least as long as the tokens above it.
    pub(crate) fn delete_inactive_tokens(
        &self,
        inactive_since: UnixMillis,
        now: UnixMillis,
        limit: usize,
    ) -> Result<usize> {
        const REVOKED_QUERY: &str = "SELECT id FROM tokens WHERE revoked_at <= ?1 ORDER BY revoked_at LIMIT ?2";
        const EXPIRED_QUERY: &str =
            "SELECT id FROM tokens WHERE expiry_recorded = 1 AND expires_at <= ?1 ORDER BY expires_at LIMIT ?2";
        let inactive = self.read(|c| {
            let mut inactive: Vec<TokenId> = Vec::new();
            for query in [REVOKED_QUERY, EXPIRED_QUERY] {
                let mut select = c.prepare_cached(query)?;
                let rows = select.query_map(params![inactive_since, sql_limit(limit)], |row| row.get(0))?;
                inactive.extend(rows.collect::<Result<Vec<TokenId>, rusqlite::Error>>()?);
            }
            Ok(inactive)
        })?;
        if inactive.is_empty() {
            return Ok(0);
        }
        self.write_shrinking(WriteDurability::Lazy, |t| {
            let mut deleted = 0;
            for token in inactive {
                // Children first, so that a batch that ends in the middle leaves no token without its parent. A token
                // may be deleted already, as a descendant of one before it.
                for descendant in descendants(t, token, limit - deleted)? {
                    deleted += usize::from(delete_token(t, descendant, now)?);
                }
            }
            Ok(deleted)
        })
    }
}

/// An expired token with its owner and the time of its expiration by its row.
type ExpiredToken = (TokenId, Login, UnixMillis);

fn record_expirations(t: &WriteTransaction<'_>, found: &[ExpiredToken], now: UnixMillis) -> Result<usize> {
    let mut mark = t.prepare_cached("UPDATE tokens SET expiry_recorded = 1 WHERE id = ?1")?;
    for (token, login, at) in found {
        mark.execute([token])?;
        let event =
            AuditEvent::new(now, EventKind::TokenExpired).with_user(login).with_token(*token).with_actor(Actor::Server);
        insert_event(t, &event.with_detail(format!("at {at}")))?;
    }
    delete_journals_of(t, &found.iter().map(|(token, ..)| *token).collect::<Vec<_>>())?;
    Ok(found.len())
}

/// Query for the token of a user that has been inactive for longest.
const LONGEST_INACTIVE_OF_USER: &str =
    "SELECT id FROM tokens WHERE user_id = ?1 AND (revoked_at IS NOT NULL OR expiry_recorded = 1)
     ORDER BY coalesce(revoked_at, expires_at) LIMIT 1";
/// Query for the token that has been inactive for longest. Two searches, each of which an index answers.
const LONGEST_INACTIVE: &str = "SELECT id FROM (
        SELECT id, inactive_since FROM
            (SELECT id, revoked_at AS inactive_since FROM tokens WHERE revoked_at IS NOT NULL
             ORDER BY revoked_at LIMIT 1) AS revoked
        UNION ALL SELECT id, inactive_since FROM
            (SELECT id, expires_at AS inactive_since FROM tokens WHERE expiry_recorded = 1
             ORDER BY expires_at LIMIT 1) AS expired) AS inactive
     ORDER BY inactive_since LIMIT 1";

/// Deletes the token that has been inactive for longest, of a user or of all, with its descendants; tells whether there
/// was one.
pub(super) fn delete_longest_inactive(t: &WriteTransaction<'_>, user: Option<i64>, now: UnixMillis) -> Result<bool> {
    let inactive = match user {
        Some(user) => t.prepare_cached(LONGEST_INACTIVE_OF_USER)?.query_row([user], |row| row.get(0)).optional()?,
        None => t.prepare_cached(LONGEST_INACTIVE)?.query_row([], |row| row.get(0)).optional()?,
    };
    let Some(inactive): Option<TokenId> = inactive else { return Ok(false) };
    for token in descendants(t, inactive, usize::MAX)? {
        delete_token(t, token, now)?;
    }
    Ok(true)
}

/// Returns a token and its descendants, the youngest generation first.
fn descendants(t: &WriteTransaction<'_>, token: TokenId, limit: usize) -> Result<Vec<TokenId>> {
    let mut select = t.prepare_cached(
        // UNION ALL needs the bound on `depth` to end a cycle, which only an edited or damaged database has.
        "WITH RECURSIVE below (id, depth) AS (
            VALUES (?1, 0)
            UNION ALL SELECT t.id, depth + 1 FROM below JOIN tokens t ON t.parent = below.id WHERE depth < 64)
         SELECT id FROM below ORDER BY depth DESC LIMIT ?2",
    )?;
    let rows = select.query_map(params![token, sql_limit(limit)], |row| row.get(0))?;
    Ok(rows.collect::<Result<Vec<TokenId>, rusqlite::Error>>()?)
}

/// Deletes a token and records that; tells whether it existed.
fn delete_token(t: &WriteTransaction<'_>, token: TokenId, now: UnixMillis) -> Result<bool> {
    // Before the row is deleted: the event names its owner and its name.
    let mut select =
        t.prepare_cached("SELECT u.login, t.name FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ?1")?;
    let found = select.query_row([token], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((login, name)): Option<(Login, String)> = found else { return Ok(false) };
    t.prepare_cached("DELETE FROM tokens WHERE id = ?1")?.execute([token])?;
    let event =
        AuditEvent::new(now, EventKind::TokenRemoved).with_user(&login).with_token(token).with_actor(Actor::Server);
    insert_event(t, &event.with_detail(name))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::TokenExpiry;
    use crate::store::sqlite::query_plan;
    use crate::store::testing::{id, login, new_token, now, open_temp_store};
    use crate::store::{EventCursor, EventFilter, LastUseRecord, NewTokenRow, TokenUse};

    fn seconds_later(seconds: u64) -> UnixMillis {
        now().saturating_add(Duration::from_secs(seconds))
    }

    fn store_with_user() -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = open_temp_store();
        store.create_user(&login("alice"), &[], now()).expect("user");
        store.set_policy("max-tokens-per-user", "1000").expect("set");
        (temp_dir, store)
    }

    fn add_token(store: &Store, name: &str, expiry: TokenExpiry, parent: Option<&str>) {
        store.add_token(&NewTokenRow { parent: parent.map(id), ..new_token(name, "alice", expiry) }).expect("stored");
    }

    fn remaining_tokens(store: &Store) -> Vec<String> {
        let tokens = store.tokens(&Default::default(), None, 1000, now()).expect("list");
        tokens.iter().map(|token| token.id.to_string()).collect()
    }

    fn event_tokens(store: &Store, kind: EventKind) -> Vec<TokenId> {
        let filter = EventFilter { kind: Some(kind), ..EventFilter::default() };
        let events = store.audit_events(&filter, EventCursor::After(0), 1000).expect("read");
        events.into_iter().filter_map(|recorded| recorded.event.token).collect()
    }

    #[test]
    fn expiration_is_recorded_once_and_only_when_certain() {
        let (_temp_dir, store) = store_with_user();
        add_token(&store, "aaaaaaaa", TokenExpiry::Hard(seconds_later(60)), None);
        add_token(&store, "bbbbbbbb", TokenExpiry::Sliding { window_ms: 100_000, cap: seconds_later(9999) }, None);
        add_token(&store, "cccccccc", TokenExpiry::Never, None);
        add_token(&store, "dddddddd", TokenExpiry::Hard(seconds_later(60)), None);
        store.revoke_tokens(&[id("dddddddd")], seconds_later(1)).expect("revoked");
        assert_eq!(store.mark_expired(seconds_later(59), 10).expect("recorded"), 0);
        assert_eq!(store.mark_expired(seconds_later(60), 10).expect("recorded"), 1);
        assert_eq!(store.mark_expired(seconds_later(105), 10).expect("recorded"), 0, "a use may be unwritten");
        let last = LastUseRecord { at: seconds_later(99), address: None, client: None, protocol: None };
        store.record_uses(&[TokenUse { token: id("bbbbbbbb"), last_use: last }], None, false).expect("written");
        assert_eq!(store.mark_expired(seconds_later(190), 10).expect("recorded"), 0);
        assert_eq!(store.mark_expired(seconds_later(300), 10).expect("recorded"), 1);
        assert_eq!(store.mark_expired(seconds_later(99_999), 10).expect("recorded"), 0);
        assert_eq!(event_tokens(&store, EventKind::TokenExpired), [id("aaaaaaaa"), id("bbbbbbbb")]);
    }

    #[test]
    fn inactive_tokens_are_deleted_after_retention_only() {
        let (_temp_dir, store) = store_with_user();
        add_token(&store, "aaaaaaaa", TokenExpiry::Hard(seconds_later(60)), None);
        add_token(&store, "bbbbbbbb", TokenExpiry::Never, None);
        add_token(&store, "cccccccc", TokenExpiry::Never, None);
        store.revoke_tokens(&[id("bbbbbbbb")], seconds_later(90)).expect("revoked");
        store.mark_expired(seconds_later(60), 10).expect("recorded");
        assert_eq!(store.delete_inactive_tokens(seconds_later(59), seconds_later(1000), 10).expect("removed"), 0);
        assert_eq!(store.delete_inactive_tokens(seconds_later(60), seconds_later(1000), 10).expect("removed"), 1);
        assert_eq!(remaining_tokens(&store), ["bbbbbbbb", "cccccccc"]);
        assert_eq!(store.delete_inactive_tokens(seconds_later(89), seconds_later(1000), 10).expect("removed"), 0);
        assert_eq!(store.delete_inactive_tokens(seconds_later(90), seconds_later(1000), 10).expect("removed"), 1);
        assert_eq!(remaining_tokens(&store), ["cccccccc"]);
        assert_eq!(
            store.delete_inactive_tokens(UnixMillis::MAX, seconds_later(1000), 10).expect("removed"),
            0,
            "a live one stays for ever"
        );
        assert_eq!(
            event_tokens(&store, EventKind::TokenRemoved),
            [id("aaaaaaaa"), id("bbbbbbbb")],
            "their events stay"
        );
    }

    #[test]
    fn children_are_deleted_before_parents_in_batches() {
        let (_temp_dir, store) = store_with_user();
        add_token(&store, "aaaaaaaa", TokenExpiry::Never, None);
        add_token(&store, "bbbbbbbb", TokenExpiry::Never, Some("aaaaaaaa"));
        add_token(&store, "cccccccc", TokenExpiry::Never, Some("bbbbbbbb"));
        add_token(&store, "dddddddd", TokenExpiry::Never, Some("aaaaaaaa"));
        store.revoke_tokens(&[id("bbbbbbbb")], seconds_later(5)).expect("revoked");
        assert_eq!(
            store.delete_inactive_tokens(seconds_later(5), seconds_later(9), 10).expect("removed"),
            2,
            "what it was made with stays"
        );
        assert_eq!(remaining_tokens(&store), ["aaaaaaaa", "dddddddd"]);
        store.revoke_tokens(&[id("aaaaaaaa")], seconds_later(6)).expect("revoked");
        assert_eq!(store.delete_inactive_tokens(seconds_later(6), seconds_later(9), 1).expect("removed"), 1);
        assert_eq!(remaining_tokens(&store), ["aaaaaaaa"], "never a child without its parent");
        assert_eq!(store.delete_inactive_tokens(seconds_later(6), seconds_later(9), 1).expect("removed"), 1);
        assert!(remaining_tokens(&store).is_empty());
    }

    #[test]
    fn inactive_token_queries_use_indexes() {
        let (_temp_dir, store) = store_with_user();
        let queries = [
            ("SELECT id FROM tokens WHERE revoked_at <= 5 ORDER BY revoked_at LIMIT 5", "tokens_revoked"),
            (
                "SELECT id FROM tokens WHERE expiry_recorded = 1 AND expires_at <= 5 ORDER BY expires_at LIMIT 5",
                "tokens_expired",
            ),
            (
                "SELECT id FROM tokens WHERE expires_at IS NOT NULL AND revoked_at IS NULL AND expiry_recorded = 0
                 AND expires_at <= 5 ORDER BY expires_at LIMIT 5",
                "tokens_expiring",
            ),
        ];
        for (query, index) in queries {
            let plan = store.read(|c| query_plan(c, query, [])).expect("plan");
            assert!(plan.starts_with("SEARCH") && plan.contains(index), "{plan}");
        }
        let plan = store.read(|c| query_plan(c, LONGEST_INACTIVE, [])).expect("plan");
        assert!(plan.contains("tokens_revoked") && plan.contains("tokens_expired"), "{plan}");
    }
}
