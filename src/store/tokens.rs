//! Rows of tokens: creation, look-up and state.

mod expiring;
mod keys;
mod state;
mod update;

use rusqlite::{Connection, OptionalExtension, Row, ToSql, Transaction, named_params, params};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::columns::sql_limit;
use super::located_scopes::{self, LocatedScope};
use super::sqlite::contains_sql;
use super::token_chain::MAX_CHAIN_TOKENS;
use super::token_proof::TokenProof;
use super::users::user_id;
use super::{Result, Store, StoreError, WriteDurability, columns, policy, storage_quota};
use crate::domain::{
    EventKind, ForeignRoles, Login, PolicyViolation, Protocol, Roles, Scope, SshPublicKey, StorageAccount, TokenExpiry,
    TokenId, TokenLimits, UnixMillis, optional_text, schema, text,
};

pub use state::TokenState;
pub use update::NarrowedToken;

pub(crate) use update::TokenUse;

/// A new token to be stored.
#[derive(Clone, Debug)]
pub struct NewTokenRow {
    /// The public id.
    pub id: TokenId,
    /// The owner.
    pub login: Login,
    /// The parent: the token that it was created with and that bounds it; `None` for one without parent.
    pub parent: Option<TokenId>,
    /// A name for people.
    pub name: String,
    /// A description for people.
    pub description: String,
    /// What it is proven by.
    pub proof: TokenProof,
    /// Time of its creation.
    pub created_at: UnixMillis,
    /// Its expiration.
    pub expiry: TokenExpiry,
    /// Its scopes; `None` for a token without scopes.
    pub scopes: Option<Vec<Scope>>,
    /// What it is limited to.
    pub limits: TokenLimits,
    /// Its roles: what it may do through the REST API and the console beyond its own tokens.
    pub roles: Roles,
    /// Roles of another service, which grant nothing here.
    pub foreign_roles: ForeignRoles,
}

/// The last use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LastUse)]
pub struct LastUseRecord {
    /// Time of the use.
    #[serde(with = "text")]
    #[schema(value_type = schema::Time)]
    pub at: UnixMillis,
    /// Address of the client.
    #[serde(rename = "from")]
    pub address: Option<String>,
    /// User agent of the client.
    pub client: Option<String>,
    /// Protocol of the client.
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
}

/// A token without its secret.
// One declaration for the store, REST, console and the remote command line. Times are exact in the server, and whole
// seconds in JSON. The texts are those of the OpenAPI document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenRecord {
    /// Public id.
    #[schema(value_type = schema::TokenId)]
    pub id: TokenId,
    /// Login of the owner.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// Name for people.
    pub name: String,
    /// Description for people.
    pub description: String,
    /// State of the token, which depends on its parents, too.
    #[schema(value_type = schema::State)]
    pub state: TokenState,
    /// Whether the node of a scope is gone.
    pub dangling: bool,
    /// Time of creation.
    #[serde(with = "text")]
    #[schema(value_type = schema::Time)]
    pub created_at: UnixMillis,
    /// Expiration, unless a use moves it; absent for a token without expiration.
    #[serde(default, with = "optional_text")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<UnixMillis>,
    /// Latest expiration that uses can move it to; absent for a token without expiration.
    #[serde(default, with = "optional_text")]
    #[schema(value_type = Option<schema::Time>)]
    pub hard_limit: Option<UnixMillis>,
    /// Sliding window in seconds; absent for a token without one.
    #[schema(minimum = 1)]
    pub window_seconds: Option<u64>,
    /// Time of its revocation.
    #[serde(default, with = "optional_text")]
    #[schema(value_type = Option<schema::Time>)]
    pub revoked_at: Option<UnixMillis>,
    /// End of the grace period of the secret before the last rotation.
    #[serde(default, with = "optional_text")]
    #[schema(value_type = Option<schema::Time>)]
    pub old_secret_until: Option<UnixMillis>,
    /// The token that it was created with.
    #[schema(value_type = Option<schema::TokenId>)]
    pub parent: Option<TokenId>,
    /// Last use.
    pub last_use: Option<LastUseRecord>,
    /// Scopes; absent for a token with all access of its owner.
    pub scopes: Option<Vec<LocatedScope>>,
    /// Limits.
    pub limits: TokenLimits,
    /// Bytes that count for its quota; absent for a token without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub quota_used: Option<u64>,
    /// Roles, which count only while its owner holds them.
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
    /// Roles of another service, which grant nothing here.
    #[serde(default, skip_serializing_if = "ForeignRoles::is_empty")]
    #[schema(value_type = Option<Vec<schema::ForeignRole>>)]
    pub foreign_roles: ForeignRoles,
    /// Fingerprint of the SSH key that it is proven by; absent where that is a secret.
    #[serde(default, rename = "sshKey", skip_serializing_if = "Option::is_none")]
    pub ssh_key: Option<String>,
    /// Version, which every change increments, except for uses. REST has it in the entity tag.
    #[serde(skip)]
    pub version: u64,
}

impl TokenRecord {
    /// Returns the token's own expiration, without those of the tokens above it.
    pub fn expiry(&self) -> TokenExpiry {
        match (self.hard_limit, self.window_seconds) {
            (None, _) => TokenExpiry::Never,
            (Some(hard_limit), None) => TokenExpiry::Hard(hard_limit),
            (Some(cap), Some(seconds)) => TokenExpiry::Sliding { window_ms: seconds.saturating_mul(1000), cap },
        }
    }

    /// Returns the time at which the token, or one above it, expires if it is not used again;
    /// [`UnixMillis::MAX`] for never.
    pub fn deadline(&self) -> UnixMillis {
        self.expires_at.unwrap_or(UnixMillis::MAX)
    }
}

/// Tells whether the node of one of a token's scopes does not exist any more.
pub(crate) fn has_dangling_scopes(scopes: Option<&[LocatedScope]>) -> bool {
    scopes.into_iter().flatten().any(|scope| scope.path.is_none())
}

/// Filter of tokens; a field that is `None` filters nothing.
#[derive(Clone, Debug, Default)]
pub struct TokenFilter {
    /// Owner of the tokens.
    pub owner: Option<Login>,
    /// State of the tokens.
    pub state: Option<TokenState>,
    /// A token, which matches itself and all its descendants.
    pub descendants_of: Option<TokenId>,
    /// Text in their id, name, description or owner; the case of ASCII letters is ignored.
    pub text: Option<String>,
    /// Whether tokens without scopes are left out.
    pub only_scoped: bool,
}

/// Sliding window of a token of a chain, in milliseconds.
const WINDOW_SQL: &str = "link.window_ms";

/// Sliding window of a token of a chain plus the longest time that a use stays in the memory of the process that saw
/// it: uses are written once in a second or a twentieth of the window, by a store watcher that runs several times a
/// second.
const WINDOW_WITH_WRITE_LAG_SQL: &str =
    "(link.window_ms + CASE WHEN link.window_ms > 20000 THEN link.window_ms / 20 ELSE 1000 END + 1000)";

/// Returns an expression for the state of `t` at `:now`, over the whole chain above it.
fn state_sql(window: &str) -> String {
    // `depth` ends a cycle, which only an edited or damaged database has; it is larger than any valid chain.
    format!(
        "(
    WITH RECURSIVE chain (id, depth) AS (
        SELECT t.id, 0
        UNION ALL SELECT above.parent, depth + 1 FROM chain JOIN tokens above ON above.id = chain.id
        WHERE above.parent IS NOT NULL AND depth < 64)
    SELECT CASE max(CASE
            WHEN link.revoked_at IS NOT NULL THEN 2
            WHEN link.expiry_recorded = 1 OR link.hard_limit_at <= :now
              OR coalesce(link.last_used_at, link.created_at) + {window} <= :now THEN 1
            ELSE 0 END)
        WHEN 2 THEN 'revoked' WHEN 1 THEN 'expired' ELSE 'live' END
    FROM chain JOIN tokens link ON link.id = chain.id)"
    )
}

/// Condition that `t` is `:ancestor` or a descendant of it.
const DESCENDANTS_CONDITION: &str = "t.id IN (
    WITH RECURSIVE descendants (id) AS (
        VALUES (:ancestor)
        UNION SELECT child.id FROM descendants JOIN tokens child ON child.parent = descendants.id)
    SELECT id FROM descendants)";

/// Returns the condition that `t` has `:text` in its id, name, description or owner.
fn text_condition() -> String {
    // Line breaks between them, so that a text is not found across two of them.
    contains_sql("lower(t.id || '\n' || t.name || '\n' || t.description || '\n' || u.login)", "lower(:text)")
}

const RECORD_COLUMNS: &str = "t.id, u.login, t.parent, t.name, t.description, t.created_at,
    t.hard_limit_at, t.window_ms, t.last_used_at, t.last_used_from, t.last_used_client, t.last_used_protocol, t.scoped,
    t.limits, t.revoked_at, t.old_secret_until, t.roles, t.version, t.foreign_roles, t.key_digest,
    CASE WHEN t.parent IS NULL THEN NULL ELSE (
        WITH RECURSIVE above (id) AS (
            SELECT t.parent
            UNION SELECT link.parent FROM above JOIN tokens link ON link.id = above.id WHERE link.parent IS NOT NULL)
        SELECT min(link.expires_at) FROM above JOIN tokens link ON link.id = above.id) END";

impl Store {
    /// Inserts a new token; it is on disk when this returns.
    ///
    /// # Errors
    /// [`StoreError::Policy`] when the owner has as many live tokens as the policy allows,
    /// [`StoreError::NotFound`] for an unknown owner, parent or node, [`StoreError::AlreadyExists`] for a
    /// taken id, [`StoreError::ChainTooLong`] when too many tokens are above it, [`StoreError::KeyInUse`] for the key of
    /// another live token of the owner.
    pub fn add_token(&self, token: &NewTokenRow) -> Result<()> {
        self.write(WriteDurability::Synced, |t| {
            // Checked and inserted in one transaction: two creations at the same time can't both pass the maximum.
            let user = check_token_quota(t, &token.login, token.parent, token.created_at)?;
            if let Some(key) = token.proof.ssh_key() {
                keys::check_key_is_free(t, user, None, key, token.created_at)?;
            }
            self.evict_inactive_tokens(t, user, token.created_at)?;
            insert_token(t, user, token)?;
            self.record_change(t, EventKind::TokenCreated, |event| {
                event.with_user(&token.login).with_token(token.id).with_detail(creation_detail(token))
            })
        })
    }

    /// Checks that an owner may have one more token with `parent` at `now`, without inserting it.
    ///
    /// # Errors
    /// As [`Store::add_token`], except for nodes and ids.
    pub(crate) fn check_add_token(&self, login: &Login, parent: Option<TokenId>, now: UnixMillis) -> Result<()> {
        self.snapshot(|c| check_token_quota(c, login, parent, now).map(drop))
    }

    /// Returns a token by its id, with its state at `now`.
    pub fn token(&self, id: TokenId, now: UnixMillis) -> Result<Option<TokenRecord>> {
        self.snapshot(|c| select_token(c, id, now))
    }

    /// Returns up to `limit` tokens after `after` in the order of their ids, with their states at `now`.
    pub fn tokens(
        &self,
        filter: &TokenFilter,
        after: Option<TokenId>,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<TokenRecord>> {
        let after = after.as_ref().map_or("", TokenId::as_str);
        self.select_tokens(filter, after, ("t.id > :from", "t.id"), limit, now)
    }

    /// Returns up to `limit` tokens before `before` in the reverse order of their ids, with their states at `now`.
    pub(crate) fn tokens_before(
        &self,
        filter: &TokenFilter,
        before: TokenId,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<TokenRecord>> {
        self.select_tokens(filter, before.as_str(), ("t.id < :from", "t.id DESC"), limit, now)
    }

    fn select_tokens(
        &self,
        filter: &TokenFilter,
        from: &str,
        (page_condition, order): (&str, &str),
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<TokenRecord>> {
        self.snapshot(|c| {
            let owner = filter_owner(c, filter)?;
            let (mut condition, mut params) = owner_condition(&owner, filter);
            if filter.only_scoped {
                condition.push_str(" AND t.scoped = 1");
            }
            if let Some(text) = &filter.text {
                condition.push_str(&format!(" AND {}", text_condition()));
                params.push((":text", text));
            }
            let state = state_sql(WINDOW_SQL);
            let wanted_state = filter.state.map(TokenState::as_str);
            if let (Some(wanted), Some(name)) = (filter.state, &wanted_state) {
                // The prefilter only narrows the search; the state decides, over the whole chain. For inactive tokens it
                // goes through those of all users, so a request for one user's would cost as much as all of them keep.
                let is_narrow = owner.is_some() || filter.descendants_of.is_some();
                if wanted == TokenState::Live || !is_narrow {
                    condition.push_str(&format!(" AND {}", wanted.prefilter_sql()));
                }
                condition.push_str(&format!(" AND {state} = :state"));
                params.push((":state", name));
            }
            let limit = sql_limit(limit);
            params.extend::<[(&str, &dyn ToSql); 3]>([(":from", &from), (":limit", &limit), (":now", &now)]);
            let mut select = c.prepare_cached(&format!(
                "SELECT {RECORD_COLUMNS}, {state} FROM tokens t JOIN users u ON u.id = t.user_id
                 WHERE {page_condition} AND {condition} ORDER BY {order} LIMIT :limit"
            ))?;
            let mut rows = select.query(&params[..])?;
            let mut tokens = Vec::new();
            while let Some(row) = rows.next()? {
                tokens.push(record_from_row(c, row)?);
            }
            Ok(tokens)
        })
    }

    /// Tells whether a token is `ancestor` itself or a descendant of it.
    pub(crate) fn is_descendant(&self, token: TokenId, ancestor: TokenId) -> Result<bool> {
        self.snapshot(|c| {
            let mut select = c.prepare_cached("SELECT parent FROM tokens WHERE id = ?1")?;
            let mut next = Some(token);
            // Bounded as the chain is, so that a cycle ends.
            for _ in 0..=MAX_CHAIN_TOKENS {
                match next {
                    Some(id) if id == ancestor => return Ok(true),
                    Some(id) => next = select.query_row([id], |row| row.get(0)).optional()?.flatten(),
                    None => break,
                }
            }
            Ok(false)
        })
    }

    /// Returns how many live tokens a user has.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for an unknown login.
    pub fn count_live_tokens(&self, login: &Login, now: UnixMillis) -> Result<u32> {
        self.snapshot(|c| count_live_tokens(c, user_id(c, login)?, now, u32::MAX, WINDOW_SQL))
    }

    /// Tells whether there is any token, also an inactive one.
    pub(crate) fn has_tokens(&self) -> Result<bool> {
        self.read(|c| Ok(c.prepare_cached("SELECT 1 FROM tokens LIMIT 1")?.exists([])?))
    }
}

/// Returns the row id of a filter's owner.
fn filter_owner(c: &Connection, filter: &TokenFilter) -> Result<Option<i64>> {
    filter.owner.as_ref().map(|login| user_id(c, login)).transpose()
}

/// Returns the condition that tokens `t` match a filter's owner, by its row id, and ancestor, with its parameters.
fn owner_condition<'a>(
    owner: &'a Option<i64>,
    filter: &'a TokenFilter,
) -> (String, Vec<(&'static str, &'a dyn ToSql)>) {
    // Conditions that don't apply are left out with their parameters: a parameter that is only asked whether it is NULL
    // has no type that an engine could find out.
    let (mut condition, mut params) = ("TRUE".to_owned(), Vec::<(&str, &dyn ToSql)>::new());
    if let Some(owner) = owner {
        condition.push_str(" AND t.user_id = :owner");
        params.push((":owner", owner));
    }
    if let Some(ancestor) = &filter.descendants_of {
        condition.push_str(&format!(" AND {DESCENDANTS_CONDITION}"));
        params.push((":ancestor", ancestor));
    }
    (condition, params)
}

/// Returns the detail of a creation's audit event.
fn creation_detail(token: &NewTokenRow) -> String {
    let parent = token.parent.map(|parent| format!(", with {parent}")).unwrap_or_default();
    let roles = if token.roles.is_empty() { String::new() } else { format!(", roles {}", token.roles) };
    let scopes = token.scopes.as_ref().map(|scopes| format!(", {}", scope_count_text(scopes))).unwrap_or_default();
    let key = token.proof.ssh_key().map(|key| format!(", by the SSH key {}", key.fingerprint())).unwrap_or_default();
    format!("until {}{key}{parent}{scopes}{roles}: {}", token.expiry.hard_limit(), token.name)
}

/// Returns the number of scopes as text.
fn scope_count_text(scopes: &[Scope]) -> String {
    format!("{} scope{}", scopes.len(), if scopes.len() == 1 { "" } else { "s" })
}

/// Reads a token with its state at `now`.
fn select_token(c: &Connection, id: TokenId, now: UnixMillis) -> Result<Option<TokenRecord>> {
    let state = state_sql(WINDOW_SQL);
    let mut select = c.prepare_cached(&format!(
        "SELECT {RECORD_COLUMNS}, {state} FROM tokens t JOIN users u ON u.id = t.user_id WHERE t.id = :id"
    ))?;
    let mut rows = select.query(named_params! {":id": id, ":now": now})?;
    rows.next()?.map(|row| record_from_row(c, row)).transpose()
}

fn token_not_found(id: TokenId) -> StoreError {
    StoreError::NotFound(format!("the token {id}"))
}

/// Refuses an owner with as many live tokens as the policy allows, and a parent as [`check_chain_length`] does; returns
/// the owner's row id.
fn check_token_quota(c: &Connection, login: &Login, parent: Option<TokenId>, now: UnixMillis) -> Result<i64> {
    let user = user_id(c, login)?;
    if let Some(parent) = parent {
        check_chain_length(c, parent)?;
    }
    let max = policy::read_policy(c)?.max_tokens_per_user.get();
    // A sliding token counts as live while a use may be unwritten: otherwise that use would lead to one token too many.
    if count_live_tokens(c, user, now, max, WINDOW_WITH_WRITE_LAG_SQL)? >= max {
        return Err(PolicyViolation::TooManyTokens(max).into());
    }
    Ok(user)
}

/// Refuses a parent that doesn't exist, or whose child would have more than [`MAX_CHAIN_TOKENS`] tokens above it.
fn check_chain_length(t: &Connection, parent: TokenId) -> Result<()> {
    let mut select = t.prepare_cached("SELECT parent FROM tokens WHERE id = ?1")?;
    let mut next = Some(parent);
    let mut depth = 0;
    while let Some(id) = next {
        depth += 1;
        if depth > MAX_CHAIN_TOKENS {
            return Err(StoreError::ChainTooLong(MAX_CHAIN_TOKENS));
        }
        next = select.query_row([id], |row| row.get(0)).optional()?.ok_or_else(|| token_not_found(id))?;
    }
    Ok(())
}

/// Counts a user's live tokens, up to `max_count`.
fn count_live_tokens(t: &Connection, user: i64, now: UnixMillis, max_count: u32, window: &str) -> Result<u32> {
    let state = state_sql(window);
    // Of those that are kept after their end the state is not searched: most tokens may be such.
    let mut count = t.prepare_cached(&format!(
        "SELECT count(*) FROM (SELECT 1 FROM tokens t
         WHERE t.user_id = :user AND t.revoked_at IS NULL AND t.expiry_recorded = 0 AND {state} = 'live'
         LIMIT :max_count) AS live"
    ))?;
    Ok(count.query_row(named_params! {":user": user, ":now": now, ":max_count": max_count}, |row| row.get(0))?)
}

fn insert_token(t: &Transaction<'_>, user: i64, token: &NewTokenRow) -> Result<()> {
    let (hard_limit_at, window_ms) = columns::expiry_columns(token.expiry);
    let inserted = t.execute(
        "INSERT INTO tokens (id, user_id, parent, name, description, phc, prefilter, created_at,
            hard_limit_at, window_ms, scoped, limits, roles, foreign_roles, key_digest)
         VALUES (:id, :user, :parent, :name, :description, :proof, :prefilter, :created_at,
            :hard_limit_at, :window_ms, :scoped, :limits, :roles, :foreign_roles, :key_digest)
         ON CONFLICT DO NOTHING",
        named_params! {
            ":id": token.id, ":user": user, ":parent": token.parent, ":name": token.name,
            ":description": token.description, ":proof": token.proof.as_str(), ":prefilter": token.proof.prefilter(),
            ":created_at": token.created_at, ":hard_limit_at": hard_limit_at, ":window_ms": window_ms,
            ":scoped": token.scopes.is_some(), ":limits": token.limits,
            ":roles": token.roles, ":foreign_roles": token.foreign_roles, ":key_digest": token.proof.key_digest(),
        },
    )?;
    // A taken id is a result and not an error of SQLite: the caller draws another one.
    if inserted == 0 {
        return Err(StoreError::AlreadyExists(format!("the token id {}", token.id)));
    }
    if token.limits.quota.is_some() {
        storage_quota::open_account(t, &StorageAccount::Token(token.id))?;
    }
    insert_scopes(t, token.id, token.scopes.iter().flatten())
}

/// Adds scopes to a token.
fn insert_scopes<'a>(t: &Transaction<'_>, token: TokenId, scopes: impl Iterator<Item = &'a Scope>) -> Result<()> {
    // Scopes on the same node are united.
    let mut scope = t.prepare_cached(
        "INSERT INTO scopes (token_id, node, permission) VALUES (?1, ?2, ?3)
         ON CONFLICT (token_id, node) DO UPDATE SET permission = scopes.permission | excluded.permission",
    )?;
    for Scope { node, permission } in scopes {
        located_scopes::check_node_exists(t, *node)?;
        scope.execute(params![token, node, permission])?;
    }
    Ok(())
}

fn record_from_row(c: &Connection, row: &Row<'_>) -> Result<TokenRecord> {
    let id: TokenId = row.get(0)?;
    let protocol: Option<String> = row.get(11)?;
    let last_use = match row.get(8)? {
        Some(at) => Some(LastUseRecord {
            at,
            address: row.get(9)?,
            client: row.get(10)?,
            // An unknown protocol is left out: a last use must not make the token unreadable.
            protocol: protocol.and_then(|protocol| protocol.parse().ok()),
        }),
        None => None,
    };
    let scopes = match row.get(12)? {
        true => Some(located_scopes::located_scopes(c, "SELECT node, permission FROM scopes WHERE token_id = ?1", id)?),
        false => None,
    };
    let state = match row.get_ref(21)?.as_str() {
        Ok("live") => TokenState::Live,
        Ok("expired") => TokenState::Expired,
        // An unknown state counts as revoked, which is the safe side.
        _ => TokenState::Revoked,
    };
    let created_at = row.get(5)?;
    let expiry = columns::expiry_from_row(row, 6)?;
    let own_deadline = expiry.deadline(last_use.as_ref().map_or(created_at, |last| last.at));
    // Earliest expiration of the tokens above it if they are not used again; `None` where none of them expires.
    let ancestors_expire_at: Option<UnixMillis> = row.get(20)?;
    let deadline = ancestors_expire_at.map_or(own_deadline, |above| above.min(own_deadline));
    let limits: TokenLimits = row.get(13)?;
    let quota_used = match limits.quota {
        Some(_) => storage_quota::select_usage(c, &StorageAccount::Token(id))?.map(|usage| usage.used),
        None => None,
    };
    Ok(TokenRecord {
        id,
        owner: row.get(1)?,
        parent: row.get(2)?,
        name: row.get(3)?,
        description: row.get(4)?,
        created_at,
        expires_at: Some(deadline).filter(|at| *at < UnixMillis::MAX),
        hard_limit: Some(expiry).filter(|expiry| *expiry != TokenExpiry::Never).map(TokenExpiry::hard_limit),
        window_seconds: match expiry {
            // Windows are created in whole seconds.
            TokenExpiry::Sliding { window_ms, .. } => Some(window_ms / 1000),
            TokenExpiry::Hard(_) | TokenExpiry::Never => None,
        },
        last_use,
        dangling: has_dangling_scopes(scopes.as_deref()),
        scopes,
        limits,
        quota_used,
        revoked_at: row.get(14)?,
        old_secret_until: row.get(15)?,
        roles: row.get(16)?,
        foreign_roles: row.get(18)?,
        ssh_key: row.get::<_, Option<[u8; 32]>>(19)?.map(SshPublicKey::fingerprint_of),
        version: row.get::<_, i64>(17)?.cast_unsigned(),
        state,
    })
}

#[cfg(test)]
mod tests;
