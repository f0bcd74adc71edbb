//! What leaves the store by itself: tokens that have been dead for long, a few at a time, so that no
//! writer waits for it.

use rusqlite::{OptionalExtension, Transaction, params};

use super::audit::note;
use super::journals::end_journals;
use super::users::page;
use super::{Durability, Result, Store};
use crate::domain::{Actor, AuditEvent, EventKind, Login, TokenId, UnixMillis};

impl Store {
    /// Notes up to `limit` tokens that have expired by themselves since this was last asked, and returns
    /// how many. A use that is not written down yet makes a sliding one live a little longer than its
    /// row says: that is waited for.
    pub(crate) fn note_expired(&self, now: UnixMillis, limit: usize) -> Result<usize> {
        const DYING: &str = "SELECT t.id, u.login, t.dies_at FROM tokens t JOIN users u ON u.id = t.user_id
            WHERE t.dies_at IS NOT NULL AND t.revoked_at IS NULL AND t.expiry_noted = 0 AND t.dies_at <= ?1
              AND (t.window_ms IS NULL OR t.dies_at + t.window_ms / 10 + 2000 <= ?1)
            ORDER BY t.dies_at LIMIT ?2";
        let any = self.read(|c| Ok(c.prepare_cached(DYING)?.exists(params![now, page(1)])?))?;
        if !any {
            return Ok(0);
        }
        self.write_freeing(Durability::Lazy, |t| {
            let mut select = t.prepare_cached(DYING)?;
            let found =
                select.query_map(params![now, page(limit)], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
            let found = found.collect::<Result<Vec<Expired>, rusqlite::Error>>()?;
            expire(t, &found, now)
        })
    }

    /// Notes that tokens have expired by themselves, on the word of the process that has their last uses; returns how
    /// many that was new of.
    pub(crate) fn note_expired_tokens(&self, tokens: &[TokenId], now: UnixMillis) -> Result<usize> {
        self.write_freeing(Durability::Lazy, |t| {
            let mut select = t.prepare_cached(
                "SELECT t.id, u.login, t.dies_at FROM tokens t JOIN users u ON u.id = t.user_id
                 WHERE t.id = ?1 AND t.dies_at IS NOT NULL AND t.revoked_at IS NULL AND t.expiry_noted = 0",
            )?;
            let mut found = Vec::new();
            for token in tokens {
                let row = select.query_row([token], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
                found.extend(row.optional()?);
            }
            expire(t, &found, now)
        })
    }

    /// Takes away what was kept of secrets that a rotation replaced and whose grace is over; returns how many those were.
    pub(crate) fn end_graces(&self, now: UnixMillis) -> Result<usize> {
        const OVER: &str = "SELECT 1 FROM tokens WHERE old_until <= ?1";
        if !self.read(|c| Ok(c.prepare_cached(OVER)?.exists([now])?))? {
            return Ok(0);
        }
        self.write_freeing(Durability::Lazy, |t| {
            let end = "UPDATE tokens SET old_phc = NULL, old_prefilter = NULL, old_until = NULL WHERE old_until <= ?1";
            Ok(t.prepare_cached(end)?.execute([now])?)
        })
    }

    /// Removes up to `limit` tokens that were revoked or have expired by an instant, children before their
    /// parents, and returns how many. A child is dead for at least as long as what stands above it.
    pub(crate) fn remove_dead(&self, by: UnixMillis, now: UnixMillis, limit: usize) -> Result<usize> {
        const REVOKED: &str = "SELECT id FROM tokens WHERE revoked_at <= ?1 ORDER BY revoked_at LIMIT ?2";
        const EXPIRED: &str =
            "SELECT id FROM tokens WHERE expiry_noted = 1 AND dies_at <= ?1 ORDER BY dies_at LIMIT ?2";
        let dead = self.read(|c| {
            let mut dead: Vec<TokenId> = Vec::new();
            for query in [REVOKED, EXPIRED] {
                let mut select = c.prepare_cached(query)?;
                let rows = select.query_map(params![by, page(limit)], |row| row.get(0))?;
                dead.extend(rows.collect::<Result<Vec<TokenId>, rusqlite::Error>>()?);
            }
            Ok(dead)
        })?;
        if dead.is_empty() {
            return Ok(0);
        }
        self.write_freeing(Durability::Lazy, |t| {
            let mut removed = 0;
            for token in dead {
                for below in lineage(t, token, limit - removed)? {
                    removed += usize::from(remove(t, below, now)?);
                }
            }
            Ok(removed)
        })
    }
}

/// A token that has expired: its owner, and when by what is written down.
type Expired = (TokenId, Login, UnixMillis);

fn expire(t: &Transaction<'_>, found: &[Expired], now: UnixMillis) -> Result<usize> {
    let mut mark = t.prepare_cached("UPDATE tokens SET expiry_noted = 1 WHERE id = ?1")?;
    for (token, login, at) in found {
        mark.execute([token])?;
        let event =
            AuditEvent::new(now, EventKind::TokenExpired).with_user(login).with_token(*token).with_actor(Actor::Server);
        note(t, &event.with_detail(format!("at {at}")))?;
    }
    end_journals(t, &found.iter().map(|(token, ..)| *token).collect::<Vec<_>>())?;
    Ok(found.len())
}

/// Removes the token of a user that has been dead for longest, with those made with it; tells whether there was one.
pub(super) fn remove_longest_dead(t: &Transaction<'_>, user: i64, now: UnixMillis) -> Result<bool> {
    let mut select = t.prepare_cached(
        "SELECT id FROM tokens WHERE user_id = ?1 AND (revoked_at IS NOT NULL OR expiry_noted = 1)
         ORDER BY coalesce(revoked_at, dies_at) LIMIT 1",
    )?;
    let Some(dead): Option<TokenId> = select.query_row([user], |row| row.get(0)).optional()? else { return Ok(false) };
    for token in lineage(t, dead, usize::MAX)? {
        remove(t, token, now)?;
    }
    Ok(true)
}

/// Returns a token and those made with it, the youngest generation first.
fn lineage(t: &Transaction<'_>, token: TokenId, limit: usize) -> Result<Vec<TokenId>> {
    let mut select = t.prepare_cached(
        "WITH RECURSIVE below (id, depth) AS (
            VALUES (?1, 0)
            UNION ALL SELECT t.id, depth + 1 FROM below JOIN tokens t ON t.parent = below.id WHERE depth < 64)
         SELECT id FROM below ORDER BY depth DESC LIMIT ?2",
    )?;
    let rows = select.query_map(params![token, page(limit)], |row| row.get(0))?;
    Ok(rows.collect::<Result<Vec<TokenId>, rusqlite::Error>>()?)
}

/// Removes a token; tells whether it was there.
fn remove(t: &Transaction<'_>, token: TokenId, now: UnixMillis) -> Result<bool> {
    let mut select =
        t.prepare_cached("SELECT u.login, t.name FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ?1")?;
    let found = select.query_row([token], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((login, name)): Option<(Login, String)> = found else { return Ok(false) };
    t.prepare_cached("DELETE FROM tokens WHERE id = ?1")?.execute([token])?;
    let event =
        AuditEvent::new(now, EventKind::TokenRemoved).with_user(&login).with_token(token).with_actor(Actor::Server);
    note(t, &event.with_detail(name))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::domain::TokenExpiry;
    use crate::store::testing::{id, login, now, opened, token};
    use crate::store::{Cursor, EventFilter, LastUse, NewToken, Use};

    fn later(seconds: u64) -> UnixMillis {
        now().saturating_add(Duration::from_secs(seconds))
    }

    fn store() -> (tempfile::TempDir, Store) {
        let (folder, store) = opened();
        store.create_user(&login("alice"), &[], now()).expect("user");
        store.set_policy("max-tokens-per-user", "1000").expect("set");
        (folder, store)
    }

    fn add(store: &Store, name: &str, expiry: TokenExpiry, parent: Option<&str>) {
        store.add_token(&NewToken { parent: parent.map(id), ..token(name, "alice", expiry) }).expect("kept");
    }

    fn left(store: &Store) -> Vec<String> {
        let tokens = store.tokens(&Default::default(), None, 1000, now()).expect("list");
        tokens.iter().map(|token| token.id.to_string()).collect()
    }

    fn told(store: &Store, kind: EventKind) -> Vec<TokenId> {
        let filter = EventFilter { kind: Some(kind), ..EventFilter::default() };
        let events = store.audit(&filter, Cursor::After(0), 1000).expect("read");
        events.into_iter().filter_map(|noted| noted.event.token).collect()
    }

    #[test]
    fn expiry_is_noted_once_and_only_when_it_is_certain() {
        let (_folder, store) = store();
        add(&store, "aaaaaaaa", TokenExpiry::Hard(later(60)), None);
        add(&store, "bbbbbbbb", TokenExpiry::Sliding { window_ms: 100_000, cap: later(9999) }, None);
        add(&store, "cccccccc", TokenExpiry::Never, None);
        add(&store, "dddddddd", TokenExpiry::Hard(later(60)), None);
        store.revoke_tokens(&[id("dddddddd")], later(1)).expect("revoked");
        assert_eq!(store.note_expired(later(59), 10).expect("noted"), 0);
        assert_eq!(store.note_expired(later(60), 10).expect("noted"), 1);
        assert_eq!(store.note_expired(later(105), 10).expect("noted"), 0, "a use may not be written down yet");
        let last = LastUse { at: later(99), from: None, client: None, protocol: None };
        store.record_uses(&[Use { token: id("bbbbbbbb"), last }], false).expect("written");
        assert_eq!(store.note_expired(later(190), 10).expect("noted"), 0);
        assert_eq!(store.note_expired(later(300), 10).expect("noted"), 1);
        assert_eq!(store.note_expired(later(99_999), 10).expect("noted"), 0);
        assert_eq!(told(&store, EventKind::TokenExpired), [id("aaaaaaaa"), id("bbbbbbbb")]);
    }

    #[test]
    fn dead_tokens_leave_after_their_time_and_never_before() {
        let (_folder, store) = store();
        add(&store, "aaaaaaaa", TokenExpiry::Hard(later(60)), None);
        add(&store, "bbbbbbbb", TokenExpiry::Never, None);
        add(&store, "cccccccc", TokenExpiry::Never, None);
        store.revoke_tokens(&[id("bbbbbbbb")], later(90)).expect("revoked");
        store.note_expired(later(60), 10).expect("noted");
        assert_eq!(store.remove_dead(later(59), later(1000), 10).expect("removed"), 0);
        assert_eq!(store.remove_dead(later(60), later(1000), 10).expect("removed"), 1);
        assert_eq!(left(&store), ["bbbbbbbb", "cccccccc"]);
        assert_eq!(store.remove_dead(later(89), later(1000), 10).expect("removed"), 0);
        assert_eq!(store.remove_dead(later(90), later(1000), 10).expect("removed"), 1);
        assert_eq!(left(&store), ["cccccccc"]);
        assert_eq!(
            store.remove_dead(UnixMillis::MAX, later(1000), 10).expect("removed"),
            0,
            "a live one stays for ever"
        );
        assert_eq!(told(&store, EventKind::TokenRemoved), [id("aaaaaaaa"), id("bbbbbbbb")], "their events stay");
    }

    #[test]
    fn children_leave_before_their_parents_in_batches() {
        let (_folder, store) = store();
        add(&store, "aaaaaaaa", TokenExpiry::Never, None);
        add(&store, "bbbbbbbb", TokenExpiry::Never, Some("aaaaaaaa"));
        add(&store, "cccccccc", TokenExpiry::Never, Some("bbbbbbbb"));
        add(&store, "dddddddd", TokenExpiry::Never, Some("aaaaaaaa"));
        store.revoke_tokens(&[id("bbbbbbbb")], later(5)).expect("revoked");
        assert_eq!(store.remove_dead(later(5), later(9), 10).expect("removed"), 2, "what it was made with stays");
        assert_eq!(left(&store), ["aaaaaaaa", "dddddddd"]);
        store.revoke_tokens(&[id("aaaaaaaa")], later(6)).expect("revoked");
        assert_eq!(store.remove_dead(later(6), later(9), 1).expect("removed"), 1);
        assert_eq!(left(&store), ["aaaaaaaa"], "never a child without its parent");
        assert_eq!(store.remove_dead(later(6), later(9), 1).expect("removed"), 1);
        assert!(left(&store).is_empty());
    }

    #[test]
    fn looking_for_dead_tokens_reads_no_live_ones() {
        let (_folder, store) = store();
        let queries = [
            ("SELECT id FROM tokens WHERE revoked_at <= 5 ORDER BY revoked_at LIMIT 5", "tokens_revoked"),
            (
                "SELECT id FROM tokens WHERE expiry_noted = 1 AND dies_at <= 5 ORDER BY dies_at LIMIT 5",
                "tokens_expired",
            ),
            (
                "SELECT id FROM tokens WHERE dies_at IS NOT NULL AND revoked_at IS NULL AND expiry_noted = 0
                 AND dies_at <= 5 ORDER BY dies_at LIMIT 5",
                "tokens_dying",
            ),
        ];
        for (query, index) in queries {
            let explain = format!("EXPLAIN QUERY PLAN {query}");
            let plan = store.read(|c| Ok(c.query_row(&explain, [], |row| row.get::<_, String>(3))?)).expect("plan");
            assert!(plan.starts_with("SEARCH") && plan.contains(index), "{plan}");
        }
    }
}
