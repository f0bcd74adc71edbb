//! Live tokens that somebody should look after: before they end, or because what they name has.

use std::collections::HashSet;

use super::principal::AuthorizedCaller;
use super::{Error, Principal, Result, TokenService};
use crate::domain::{Login, NodeId, TokenId};
use crate::store::{TokenFilter, TokenRecord, TokenState};

/// How many nodes that scopes name are looked for.
const MAX_NODES_CHECKED: usize = 1000;
/// How many tokens are counted.
const MAX_TOKENS_COUNTED: usize = 200;

/// Some tokens of the same kind: the first of them, and how many there are.
#[derive(Clone, Debug, Default)]
pub struct TokenListSummary {
    /// The first.
    pub records: Vec<TokenRecord>,
    /// How many there are, as far as they are counted.
    pub count: usize,
    /// Whether there may be more.
    pub may_have_more: bool,
}

impl TokenService {
    /// Returns the live tokens that end soon ([`crate::domain::TokenExpiry::expires_soon`]) and that the caller may look at, all or those of
    /// one owner; `limit` of them by themselves.
    ///
    /// # Errors
    /// As [`TokenService::list`].
    pub fn expiring(&self, who: &Principal, owner: Option<&Login>, limit: usize) -> Result<TokenListSummary> {
        let (caller, filter) = self.visible_filter(who, owner)?;
        self.summarize(&caller, self.flushed_store().expiring_tokens(&filter, self.clock.now())?, limit)
    }

    /// Likewise those with a scope whose node has ended. Only so many nodes are looked for in the served folder; where
    /// scopes name others besides, there may be more.
    ///
    /// # Errors
    /// As [`TokenService::list`].
    pub fn dangling(&self, who: &Principal, owner: Option<&Login>, limit: usize) -> Result<TokenListSummary> {
        let (caller, filter) = self.visible_filter(who, owner)?;
        let now = self.clock.now();
        let mut nodes = self.store.scope_nodes(&filter, MAX_NODES_CHECKED + 1, now)?;
        let unseen = nodes.len() > MAX_NODES_CHECKED;
        nodes.truncate(MAX_NODES_CHECKED);
        let mut ended = HashSet::new();
        for (node, named) in nodes {
            if !named || self.is_node_missing(node)? {
                ended.insert(node);
            }
        }
        let tokens = if ended.is_empty() { Vec::new() } else { self.store.tokens_scoped_to(&filter, &ended, now)? };
        let mut attention = self.summarize(&caller, tokens, limit)?;
        attention.may_have_more |= unseen;
        Ok(attention)
    }

    /// Returns who asks, and a filter for what that may look at.
    fn visible_filter(&self, who: &Principal, owner: Option<&Login>) -> Result<(AuthorizedCaller, TokenFilter)> {
        let caller = who.authorized_caller()?;
        let mut filter = TokenFilter { owner: owner.cloned(), ..TokenFilter::default() };
        caller.restrict_filter(&mut filter)?;
        if let Some(owner) = &filter.owner {
            self.require_user(owner)?;
        }
        Ok((caller, filter))
    }

    /// Counts tokens, but for those that died with one above them.
    fn summarize(&self, caller: &AuthorizedCaller, tokens: Vec<TokenId>, limit: usize) -> Result<TokenListSummary> {
        let mut attention = TokenListSummary::default();
        for token in tokens {
            if attention.count == MAX_TOKENS_COUNTED {
                attention.may_have_more = true;
                break;
            }
            let record = match self.find_record(token) {
                Err(Error::UnknownToken(_)) => continue,
                record => record?,
            };
            if record.state == TokenState::Live {
                attention.count += 1;
                if attention.records.len() < limit {
                    attention.records.push(self.with_visible_scopes(caller, record)?);
                }
            }
        }
        Ok(attention)
    }

    fn is_node_missing(&self, node: NodeId) -> Result<bool> {
        match self.tree.as_ref().map(|tree| tree.locate(node)) {
            Some(Err(error)) if !error.is_outage() => Err(Error::Tree(error)),
            Some(Ok(path)) => Ok(path.is_none()),
            Some(Err(_)) | None => Ok(self.store.node(node)?.is_none()),
        }
    }
}
