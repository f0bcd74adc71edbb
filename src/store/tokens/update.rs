//! Changes of stored tokens: narrowing, revocation, rotation, and uses.

use std::cell::Cell;
use std::collections::HashSet;

use rusqlite::{Connection, OptionalExtension, named_params, params};

use super::super::sync_journals::delete_journals_of;
use super::super::token_proof::TokenProof;
use super::super::transactions::WriteTransaction;
use super::super::users::user_id;
use super::super::{BallastShare, Result, Store, WriteDurability, columns, storage_quota};
use super::keys::check_key_is_free;
use super::{LastUseRecord, LocatedScope, TokenRecord, insert_scopes, scope_count_text, select_token, token_not_found};
use crate::domain::{EventKind, Login, Roles, Scope, StorageAccount, TokenExpiry, TokenId, TokenLimits, UnixMillis};

/// The fields of a token after it was narrowed.
#[derive(Clone, Debug)]
pub struct NarrowedToken {
    /// The name.
    pub name: String,
    /// The description.
    pub description: String,
    /// The expiration.
    pub expiry: TokenExpiry,
    /// The new scopes; `None` leaves the present ones.
    pub scopes: Option<Vec<Scope>>,
    /// The limits.
    pub limits: TokenLimits,
    /// The roles.
    pub roles: Roles,
}

/// A use of a token to be written to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TokenUse {
    pub(crate) token: TokenId,
    pub(crate) last_use: LastUseRecord,
}

impl Store {
    /// Changes a token that still has a version; tells whether it had. The change is on disk when this returns. A
    /// change without effect keeps the version.
    ///
    /// # Errors
    /// [`crate::store::StoreError::NotFound`] for an unknown node.
    pub fn narrow_token(&self, id: TokenId, version: u64, narrowed: &NarrowedToken) -> Result<bool> {
        // A new name alone may not use the ballast.
        let narrows = Cell::new(false);
        let share = || narrows.get().then_some(BallastShare::Narrowing);
        self.write_with_ballast_if(WriteDurability::Synced, share, |t| {
            // The state of the record is not used, so any time will do.
            let Some(before) = select_token(t, id, UnixMillis::MAX)?.filter(|record| record.version == version) else {
                return Ok(false);
            };
            let changes = describe_changes(&before, narrowed);
            if changes.is_empty() {
                return Ok(true);
            }
            narrows.set(changes.iter().any(|(kind, _)| *kind == EventKind::TokenNarrowed));
            if !narrows.get() {
                self.check_may_grow()?;
            }
            let (hard_limit_at, window_ms) = columns::expiry_columns(narrowed.expiry);
            let scoped = narrowed.scopes.is_some();
            // A scoped token stays so: leaving the scopes out would otherwise remove the restriction.
            let changed = t.execute(
                "UPDATE tokens SET name = :name, description = :description, hard_limit_at = :hard_limit_at,
                    window_ms = :window_ms, scoped = CASE WHEN scoped = 1 THEN 1 ELSE :scoped END, limits = :limits, roles = :roles,
                    version = version + 1
                 WHERE id = :id AND version = :version AND revoked_at IS NULL",
                named_params! {
                    ":id": id, ":version": version.cast_signed(), ":name": narrowed.name,
                    ":description": narrowed.description, ":hard_limit_at": hard_limit_at, ":window_ms": window_ms,
                    ":scoped": scoped, ":limits": narrowed.limits, ":roles": narrowed.roles,
                },
            )?;
            if changed == 0 {
                return Ok(false);
            }
            if scoped {
                t.execute("DELETE FROM scopes WHERE token_id = ?1", [id])?;
                insert_scopes(t, id, narrowed.scopes.iter().flatten())?;
            }
            if narrowed.limits.quota != before.limits.quota && narrowed.limits.quota.is_some() {
                storage_quota::open_account(t, &StorageAccount::Token(id))?;
            }
            for (kind, detail) in changes {
                self.record_change(t, kind, |event| event.with_user(&before.owner).with_token(id).with_detail(detail))?;
            }
            Ok(true)
        })
    }

    /// Revokes tokens, on disk when this returns. Those already revoked stay as they are.
    ///
    /// # Errors
    /// [`crate::store::StoreError::NotFound`] for an unknown id; none is revoked then.
    pub fn revoke_tokens(&self, ids: &[TokenId], now: UnixMillis) -> Result<()> {
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Revocation, |t| {
            ids.iter().try_for_each(|id| self.revoke_one(t, *id, now))?;
            delete_journals_of(t, ids)
        })
    }

    /// Revokes all tokens of a user and returns how many had not been revoked before.
    ///
    /// # Errors
    /// [`crate::store::StoreError::NotFound`] for an unknown login.
    pub fn revoke_user_tokens(&self, login: &Login, now: UnixMillis) -> Result<usize> {
        self.write_with_ballast(WriteDurability::Synced, BallastShare::Revocation, |t| {
            let user = user_id(t, login)?;
            let mut select = t.prepare_cached("SELECT id FROM tokens WHERE user_id = ?1 AND revoked_at IS NULL")?;
            let ids = select.query_map([user], |row| row.get(0))?.collect::<Result<Vec<TokenId>, rusqlite::Error>>()?;
            ids.iter().try_for_each(|id| self.revoke_one(t, *id, now))?;
            delete_journals_of(t, &ids)?;
            Ok(ids.len())
        })
    }

    fn revoke_one(&self, t: &WriteTransaction<'_>, id: TokenId, now: UnixMillis) -> Result<()> {
        let login = token_owner(t, id)?;
        let mut revoke = t.prepare_cached(
            "UPDATE tokens SET revoked_at = ?2, version = version + 1 WHERE id = ?1 AND revoked_at IS NULL",
        )?;
        match revoke.execute(params![id, now])? {
            0 => Ok(()),
            _ => self.record_change(t, EventKind::TokenRevoked, |event| event.with_user(&login).with_token(id)),
        }
    }

    /// Gives a token a new proof at `now`, on disk when this returns; the previous one is accepted until `grace_until`, or
    /// with `None` not any more.
    ///
    /// # Errors
    /// [`crate::store::StoreError::NotFound`] for an unknown or revoked token,
    /// [`crate::store::StoreError::KeyInUse`] for the key of another live token of its owner.
    pub fn rotate_token(
        &self,
        id: TokenId,
        proof: &TokenProof,
        grace_until: Option<UnixMillis>,
        now: UnixMillis,
    ) -> Result<()> {
        // Without the ballast: a rotation adds a row for the replaced secret (trigger `tokens_retire`).
        self.write(WriteDurability::Synced, |t| {
            if let Some(key) = proof.ssh_key() {
                let mut owner = t.prepare_cached("SELECT user_id FROM tokens WHERE id = ?1")?;
                let owner = owner.query_row([id], |row| row.get(0)).optional()?.ok_or_else(|| token_not_found(id))?;
                check_key_is_free(t, owner, Some(id), key, now)?;
            }
            // SET reads the old values of the row, so `old_phc` gets the proof that is replaced.
            let rotated = t.execute(
                "UPDATE tokens SET phc = ?2, prefilter = ?3,
                    old_phc = CASE WHEN CAST(?4 AS BIGINT) IS NULL THEN NULL ELSE phc END,
                    old_prefilter = CASE WHEN CAST(?4 AS BIGINT) IS NULL THEN NULL ELSE prefilter END,
                    old_key_digest = CASE WHEN CAST(?4 AS BIGINT) IS NULL THEN NULL ELSE key_digest END,
                    key_digest = ?5, old_secret_until = ?4, version = version + 1
                 WHERE id = ?1 AND revoked_at IS NULL",
                params![id, proof.as_str(), proof.prefilter(), grace_until, proof.key_digest()],
            )?;
            if rotated == 0 {
                return Err(token_not_found(id));
            }
            let login = token_owner(t, id)?;
            let key = proof.ssh_key().map(|key| format!("to the SSH key {}, ", key.fingerprint())).unwrap_or_default();
            let old = match grace_until {
                Some(until) => format!("{key}the old secret until {until}"),
                None => format!("{key}the old secret is void"),
            };
            self.record_change(t, EventKind::TokenRotated, |event| {
                event.with_user(&login).with_token(id).with_detail(old)
            })
        })
    }

    /// Writes uses to the store. A late one changes no revoked token and moves no time back, except one after `latest`,
    /// which a wrong clock has written. The final ones of a process may use the ballast: without them, sliding tokens
    /// would have expired at the next start.
    pub(crate) fn record_uses(&self, uses: &[TokenUse], latest: Option<UnixMillis>, is_final: bool) -> Result<()> {
        let latest = latest.unwrap_or(UnixMillis::MAX);
        let share = || is_final.then_some(BallastShare::Narrowing);
        self.write_with_ballast_if(WriteDurability::Lazy, share, |t| {
            // `created_at - 1` accepts a first use within the millisecond of the creation. Expired tokens take late
            // uses, too: a use before the expiration may be written after it.
            let mut update = t.prepare_cached(
                "UPDATE tokens SET last_used_at = ?2,
                    last_used_from = CASE WHEN ?5 IS NULL THEN last_used_from ELSE ?3 END,
                    last_used_client = CASE WHEN ?5 IS NULL THEN last_used_client ELSE ?4 END,
                    last_used_protocol = coalesce(?5, last_used_protocol)
                 WHERE id = ?1 AND revoked_at IS NULL
                    AND (coalesce(last_used_at, created_at - 1) < ?2 OR last_used_at > ?6)",
            )?;
            for TokenUse { token, last_use } in uses {
                let protocol = last_use.protocol.map(|protocol| protocol.to_string());
                let LastUseRecord { at, address, client, .. } = last_use;
                update.execute(params![token, at, address, client, protocol, latest])?;
            }
            Ok(())
        })
    }
}

/// Returns the audit events of a change of a token with their details; none where it has no effect.
fn describe_changes(before: &TokenRecord, narrowed: &NarrowedToken) -> Vec<(EventKind, String)> {
    let NarrowedToken { name, description, expiry, scopes, limits, roles } = narrowed;
    let mut changes = Vec::new();
    if *name != before.name || *description != before.description {
        changes.push((EventKind::TokenRenamed, format!("{} -> {name}", before.name)));
    }
    let differs = |scopes: &&Vec<Scope>| {
        // As sets: the order of scopes has no meaning.
        let current: HashSet<_> = before.scopes.iter().flatten().map(LocatedScope::scope).collect();
        before.scopes.is_none() || current != scopes.iter().copied().collect()
    };
    let changed = [
        scopes.as_ref().filter(differs).map(|scopes| scope_count_text(scopes)),
        (*limits != before.limits).then(|| "limits".to_owned()),
        (*roles != before.roles).then(|| format!("roles {roles}")),
        (*expiry != before.expiry()).then(|| format!("until {}", expiry.hard_limit())),
    ];
    let changed: Vec<_> = changed.into_iter().flatten().collect();
    if !changed.is_empty() {
        changes.push((EventKind::TokenNarrowed, changed.join(", ")));
    }
    changes
}

/// Returns a token's owner.
fn token_owner(c: &Connection, id: TokenId) -> Result<Login> {
    let mut select =
        c.prepare_cached("SELECT u.login FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id = ?1")?;
    select.query_row([id], |row| row.get(0)).optional()?.ok_or_else(|| token_not_found(id))
}
