//! Notices of tokens that expire soon: each token at most once for each number of days.

use std::collections::BTreeMap;
use std::time::Duration;

use rusqlite::{Connection, params};

use super::super::columns::sql_limit;
use super::super::token_chain::inactive_token_sql;
use super::super::transactions::WriteTransaction;
use super::super::{Result, Store, WriteDurability};
use super::{NoticeAudience, insert_notice};
use crate::domain::{ExpiringToken, Login, Notice, NoticeContent, TokenId, UnixMillis, notice_text};

/// Maximum number of tokens in one mail.
const MAX_TOKENS_PER_MAIL: usize = 50;
/// Maximum number of tokens that one call announces for each number of days; others follow with the next one.
const MAX_TOKENS_PER_CALL: usize = 500;

impl Store {
    /// Queues notices of live tokens that expire within one of these numbers of days and were not announced for it: one
    /// for each token to webhooks, one for each owner by mail. A token that is valid for no longer than a number of days
    /// is not announced for it. Returns how many tokens were announced.
    pub(crate) fn announce_expiring_tokens(&self, days: &[u32], now: UnixMillis) -> Result<usize> {
        let mut days = days.to_vec();
        days.sort_unstable();
        let mut announced = 0;
        for (position, within) in days.iter().enumerate() {
            // A read first: most rounds find nothing, and then don't take the write lock.
            if self.read(|c| select_expiring(c, *within, now, 1))?.is_empty() {
                continue;
            }
            announced += self.write(WriteDurability::Lazy, |t| {
                let found = select_expiring(t, *within, now, MAX_TOKENS_PER_CALL)?;
                insert_expiry_notices(t, &found, *within, now)?;
                // For larger numbers, too: two days before its end nobody has to be told that it expires within 14.
                let mut insert = t.prepare_cached(
                    "INSERT INTO expiry_notices (token, days) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
                )?;
                for (token, days) in found.iter().flat_map(|found| days[position..].iter().map(|days| (found.id, days)))
                {
                    insert.execute(params![token, days])?;
                }
                Ok(found.len())
            })?;
        }
        Ok(announced)
    }
}

/// A row of a token that expires soon.
struct ExpiringRow {
    id: TokenId,
    owner: Login,
    name: String,
    expires_at: UnixMillis,
}

fn select_expiring(c: &Connection, days: u32, now: UnixMillis, limit: usize) -> Result<Vec<ExpiringRow>> {
    let window = Duration::from_secs(u64::from(days) * 86_400);
    let window_ms = i64::try_from(window.as_millis()).unwrap_or(i64::MAX);
    // The lifetime of a sliding token is its window, but where its hard limit comes first.
    let inactive = inactive_token_sql("t.id");
    let mut select = c.prepare_cached(&format!(
        "SELECT t.id, u.login, t.name, t.expires_at FROM tokens t JOIN users u ON u.id = t.user_id
         WHERE t.expires_at IS NOT NULL AND t.revoked_at IS NULL AND t.expiry_recorded = 0 AND u.disabled_at IS NULL
           AND t.expires_at > ?1 AND t.expires_at <= ?2
           AND CASE WHEN t.window_ms IS NULL OR t.expires_at = t.hard_limit_at THEN t.expires_at - t.created_at
                    ELSE t.window_ms END > ?3
           AND NOT EXISTS (SELECT 1 FROM expiry_notices e WHERE e.token = t.id AND e.days = ?4)
           AND NOT {inactive}
         ORDER BY t.expires_at, t.id LIMIT ?5"
    ))?;
    let rows = select
        .query_map(params![now, now.saturating_add(window), window_ms, days, sql_limit(limit)], |row| {
            Ok(ExpiringRow { id: row.get(0)?, owner: row.get(1)?, name: row.get(2)?, expires_at: row.get(3)? })
        })?;
    Ok(rows.collect::<Result<_, rusqlite::Error>>()?)
}

fn insert_expiry_notices(t: &WriteTransaction<'_>, found: &[ExpiringRow], days: u32, now: UnixMillis) -> Result<()> {
    let mut by_owner: BTreeMap<&str, Vec<ExpiringToken>> = BTreeMap::new();
    for row in found {
        by_owner.entry(row.owner.as_str()).or_default().push(ExpiringToken {
            id: row.id.to_string(),
            name: notice_text(&row.name),
            expires_at: row.expires_at.to_string(),
        });
    }
    for (user, tokens) in by_owner {
        let notice = |tokens: &[ExpiringToken]| {
            let content = NoticeContent::TokenExpiring { user: user.to_owned(), days, tokens: tokens.to_vec() };
            Notice::new(now, content)
        };
        for token in tokens.chunks(1) {
            insert_notice(t, &notice(token), NoticeAudience::Webhooks)?;
        }
        for tokens in tokens.chunks(MAX_TOKENS_PER_MAIL) {
            insert_notice(t, &notice(tokens), NoticeAudience::Mail)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{NoticeKind, TokenExpiry};
    use crate::store::testing::{id, login, new_token, now, open_temp_store};

    fn in_days(days: u64) -> UnixMillis {
        now().saturating_add(Duration::from_secs(days * 86_400))
    }

    fn store_with_users() -> (tempfile::TempDir, Store) {
        let (temp_dir, store) = open_temp_store();
        for user in ["alice", "bob"] {
            store.create_user(&login(user), &[], now()).expect("user");
        }
        let receivers = ["mail ops@example.org".to_owned(), "webhook https://hooks.example 1".to_owned()];
        store.configure_notices(&receivers, NoticeKind::ALL).expect("configured");
        (temp_dir, store)
    }

    /// Takes all queued notices: receiver, days and ids of tokens of each.
    fn take_queued(store: &Store) -> Vec<(bool, u32, String)> {
        let mut taken = Vec::new();
        for queued in store.queued_notices(100).expect("read") {
            let NoticeContent::TokenExpiring { days, tokens, .. } = &queued.notice.content else { continue };
            let ids: Vec<_> = tokens.iter().map(|token| token.id.as_str()).collect();
            taken.push((queued.receiver.starts_with("mail"), *days, ids.join(" ")));
            store.record_delivered_notice(queued.id, now()).expect("delivered");
        }
        taken.sort();
        taken
    }

    #[test]
    fn each_token_is_announced_once_for_each_number_of_days_and_grouped_by_owner_in_mail() {
        let (_temp_dir, store) = store_with_users();
        for (token, owner, days) in [("aaaaaaaa", "alice", 30), ("bbbbbbbb", "alice", 30), ("cccccccc", "bob", 31)] {
            store.add_token(&new_token(token, owner, TokenExpiry::Hard(in_days(days)))).expect("token");
        }
        let announce = |day| store.announce_expiring_tokens(&[14, 3], in_days(day)).expect("announced");
        assert_eq!(announce(15), 0);
        assert_eq!((announce(17), announce(17)), (3, 0));
        let text = |text: &str| text.to_owned();
        let expected = [
            (false, 14, text("aaaaaaaa")),
            (false, 14, text("bbbbbbbb")),
            (false, 14, text("cccccccc")),
            (true, 14, text("aaaaaaaa bbbbbbbb")),
            (true, 14, text("cccccccc")),
        ];
        assert_eq!(take_queued(&store), expected);
        assert_eq!((announce(20), announce(28), announce(29)), (0, 3, 0));
        assert_eq!(take_queued(&store).len(), 5);
        assert_eq!(announce(40), 0, "they have expired");
    }

    #[test]
    fn late_start_announces_a_token_for_the_smallest_number_of_days_alone() {
        let (_temp_dir, store) = store_with_users();
        store.add_token(&new_token("aaaaaaaa", "alice", TokenExpiry::Hard(in_days(30)))).expect("token");
        assert_eq!(store.announce_expiring_tokens(&[14, 3], in_days(28)).expect("announced"), 1);
        let queued = take_queued(&store);
        assert_eq!(queued.iter().map(|(_, days, _)| *days).collect::<Vec<_>>(), [3, 3]);
    }

    #[test]
    fn short_revoked_and_disabled_tokens_are_not_announced() {
        let (_temp_dir, store) = store_with_users();
        let sliding =
            |window_days: u64, cap| TokenExpiry::Sliding { window_ms: window_days * 86_400_000, cap: in_days(cap) };
        for (token, owner, expiry) in [
            ("aaaaaaaa", "alice", TokenExpiry::Hard(in_days(2))),
            ("bbbbbbbb", "alice", TokenExpiry::Hard(in_days(30))),
            ("cccccccc", "bob", TokenExpiry::Hard(in_days(30))),
            ("dddddddd", "alice", sliding(2, 100)),
            ("eeeeeeee", "alice", sliding(28, 100)),
        ] {
            store.add_token(&new_token(token, owner, expiry)).expect("token");
        }
        store.revoke_tokens(&[id("bbbbbbbb")], in_days(1)).expect("revoked");
        let disable = crate::store::UserUpdate { disabled: Some(true), roles: None, quota: None };
        store.update_user(&login("bob"), &disable, in_days(1)).expect("disabled");
        assert_eq!(store.announce_expiring_tokens(&[3], in_days(1)).expect("announced"), 0);
        assert_eq!(store.announce_expiring_tokens(&[3], in_days(27)).expect("announced"), 1);
        let queued = take_queued(&store);
        assert!(queued.iter().all(|(_, _, ids)| ids == "eeeeeeee"), "not used for a long time: {queued:?}");
    }
}
