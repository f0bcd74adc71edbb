//! Tokens that are proven by an SSH key.

use rusqlite::{Connection, OptionalExtension, named_params};

use super::super::{Result, Store, StoreError};
use super::{WINDOW_WITH_WRITE_LAG_SQL, state_sql};
use crate::domain::{SshPublicKey, TokenId, UnixMillis};

/// Maximum number of tokens that are looked at for one key: one is live, the others have just expired.
const MAX_TOKENS_OF_KEY: i64 = 8;

impl Store {
    /// Tells whether any token is proven by a key.
    pub(crate) fn has_key_tokens(&self) -> Result<bool> {
        self.read(|c| Ok(c.prepare_cached("SELECT 1 FROM tokens WHERE key_digest IS NOT NULL LIMIT 1")?.exists([])?))
    }

    /// Returns the tokens of a user, by its login as it was sent, that a key proves at `now`: by the current key, or the one
    /// before the last rotation within its grace. Those that are revoked, or whose expiration is recorded, are left out; the
    /// rest may have expired. Two look-ups in indexes, however many tokens there are.
    pub(crate) fn tokens_of_key(&self, login: &str, key: &SshPublicKey, now: UnixMillis) -> Result<Vec<TokenId>> {
        self.read(|c| {
            let mut select = c.prepare_cached(
                "SELECT t.id FROM tokens t JOIN users u ON u.id = t.user_id
                 WHERE (t.key_digest = :digest OR (t.old_key_digest = :digest AND t.old_secret_until > :now))
                    AND u.login = :login AND t.revoked_at IS NULL AND t.expiry_recorded = 0
                 ORDER BY t.created_at DESC LIMIT :limit",
            )?;
            let params =
                named_params! {":digest": key.digest(), ":login": login, ":now": now, ":limit": MAX_TOKENS_OF_KEY};
            Ok(select.query_map(params, |row| row.get(0))?.collect::<rusqlite::Result<_>>()?)
        })
    }
}

/// Refuses a key that proves another live token of a user.
pub(super) fn check_key_is_free(
    c: &Connection,
    user: i64,
    own: Option<TokenId>,
    key: &SshPublicKey,
    now: UnixMillis,
) -> Result<()> {
    let state = state_sql(WINDOW_WITH_WRITE_LAG_SQL);
    let mut select = c.prepare_cached(&format!(
        "SELECT t.id FROM tokens t
         WHERE (t.key_digest = :digest OR (t.old_key_digest = :digest AND t.old_secret_until > :now))
            AND t.user_id = :user AND t.id <> coalesce(:own, '') AND {state} = 'live' LIMIT 1"
    ))?;
    let params = named_params! {":digest": key.digest(), ":user": user, ":own": own, ":now": now};
    match select.query_row(params, |row| row.get::<_, TokenId>(0)).optional()? {
        Some(token) => Err(StoreError::KeyInUse(token)),
        None => Ok(()),
    }
}
