//! Tokens that need attention: those that expire soon, and those with scopes on certain nodes.

use std::collections::HashSet;

use rusqlite::ToSql;

use super::super::columns::sql_limit;
use super::super::{Result, Store, columns};
use super::{TokenFilter, TokenState, filter_owner, owner_condition};
use crate::domain::{NodeId, TokenExpiry, TokenId, UnixMillis};

impl Store {
    /// Returns the tokens that match a filter's owner and ancestor, are live by their own row and expire soon, in the
    /// order of their expiration.
    pub(crate) fn expiring_tokens(&self, filter: &TokenFilter, now: UnixMillis) -> Result<Vec<TokenId>> {
        let until = now.saturating_add(TokenExpiry::EXPIRES_SOON_WINDOW);
        self.snapshot(|c| {
            let owner = filter_owner(c, filter)?;
            let (condition, mut params) = owner_condition(&owner, filter);
            let mut select = c.prepare_cached(&format!(
                "SELECT t.id, t.created_at, t.last_used_at, t.hard_limit_at, t.window_ms FROM tokens t
                 WHERE t.revoked_at IS NULL AND t.expiry_recorded = 0 AND t.expires_at > :now AND t.expires_at <= :until
                   AND {condition} ORDER BY t.expires_at, t.id"
            ))?;
            params.extend::<[(&str, &dyn ToSql); 2]>([(":now", &now), (":until", &until)]);
            let mut rows = select.query(&params[..])?;
            let mut expiring = Vec::new();
            while let Some(row) = rows.next()? {
                let (created_at, last_used_at): (UnixMillis, Option<UnixMillis>) = (row.get(1)?, row.get(2)?);
                // The index finds candidates; the rule of the last quarter needs the whole expiration.
                if columns::expiry_from_row(row, 3)?.expires_soon(created_at, last_used_at, now) {
                    expiring.push(row.get(0)?);
                }
            }
            Ok(expiring)
        })
    }

    /// Returns up to `limit` nodes of the scopes of tokens that match a filter's owner and ancestor and are live by
    /// their own row, each once and with whether it has a row; those without one come first.
    pub(crate) fn scope_nodes(
        &self,
        filter: &TokenFilter,
        limit: usize,
        now: UnixMillis,
    ) -> Result<Vec<(NodeId, bool)>> {
        let live = TokenState::Live.prefilter_sql();
        self.snapshot(|c| {
            let owner = filter_owner(c, filter)?;
            let (condition, mut params) = owner_condition(&owner, filter);
            let mut select = c.prepare_cached(&format!(
                // Nodes without a row come first: the caller need not look for them in the file system.
                "SELECT node, node IN (SELECT id FROM nodes) AS named
                 FROM (SELECT DISTINCT s.node FROM scopes s JOIN tokens t ON t.id = s.token_id WHERE {condition} AND {live}) AS scoped
                 ORDER BY named, node LIMIT :limit"
            ))?;
            let limit = sql_limit(limit);
            params.extend::<[(&str, &dyn ToSql); 2]>([(":now", &now), (":limit", &limit)]);
            let rows = select.query_map(&params[..], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<Result<_, rusqlite::Error>>()?)
        })
    }

    /// Returns the tokens that match a filter's owner and ancestor, are live by their own row and have a scope on one
    /// of some nodes, each once and in the order of their ids.
    pub(crate) fn tokens_scoped_to(
        &self,
        filter: &TokenFilter,
        nodes: &HashSet<NodeId>,
        now: UnixMillis,
    ) -> Result<Vec<TokenId>> {
        let live = TokenState::Live.prefilter_sql();
        self.snapshot(|c| {
            let owner = filter_owner(c, filter)?;
            let (condition, mut params) = owner_condition(&owner, filter);
            let mut select = c.prepare_cached(&format!(
                "SELECT s.token_id, s.node FROM scopes s JOIN tokens t ON t.id = s.token_id
                 WHERE {condition} AND {live} ORDER BY s.token_id"
            ))?;
            params.push((":now", &now));
            let mut rows = select.query(&params[..])?;
            let mut tokens: Vec<TokenId> = Vec::new();
            while let Some(row) = rows.next()? {
                if nodes.contains(&row.get(1)?) {
                    tokens.push(row.get(0)?);
                }
            }
            // The rows are ordered by token, so duplicates are adjacent.
            tokens.dedup();
            Ok(tokens)
        })
    }
}
