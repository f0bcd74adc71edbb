//! Live tokens that need attention: they expire soon, or the node of a scope does not exist any more.

use std::collections::HashSet;

use super::principal::AuthorizedCaller;
use super::{Error, Principal, Result, TokenService};
use crate::domain::{Login, NodeId, TokenId};
use crate::store::{TokenFilter, TokenRecord, TokenState};

/// Maximum number of nodes that are looked up in the served directory.
const MAX_NODES_CHECKED: usize = 1000;
/// Maximum number of tokens that are counted.
const MAX_TOKENS_COUNTED: usize = 200;

/// The first tokens of a list, with their number.
#[derive(Clone, Debug, Default)]
pub struct TokenListSummary {
    /// The first tokens.
    pub records: Vec<TokenRecord>,
    /// Number of tokens, as far as they were counted.
    pub count: usize,
    /// Whether there may be more.
    pub may_have_more: bool,
}

impl TokenService {
    /// Returns the live tokens that expire soon ([`crate::domain::TokenExpiry::expires_soon`]) and that the caller may
    /// see, all or those of one owner, with the records of the first `limit`.
    ///
    /// # Errors
    /// As [`TokenService::list`].
    pub fn expiring(&self, principal: &Principal, owner: Option<&Login>, limit: usize) -> Result<TokenListSummary> {
        let (caller, filter) = self.visible_filter(principal, owner)?;
        self.summarize(&caller, self.flushed_store().expiring_tokens(&filter, self.clock.now())?, limit)
    }

    /// Returns the live tokens that the caller may see and that have a scope on a node that does not exist any more,
    /// all or those of one owner. Only a limited number of nodes is looked up; where scopes name more, there may be
    /// more tokens.
    ///
    /// # Errors
    /// As [`TokenService::list`].
    pub fn dangling(&self, principal: &Principal, owner: Option<&Login>, limit: usize) -> Result<TokenListSummary> {
        let (caller, filter) = self.visible_filter(principal, owner)?;
        let now = self.clock.now();
        // One more than the maximum, which tells whether there are others.
        let mut nodes = self.store.scope_nodes(&filter, MAX_NODES_CHECKED + 1, now)?;
        let has_unchecked_nodes = nodes.len() > MAX_NODES_CHECKED;
        nodes.truncate(MAX_NODES_CHECKED);
        let mut missing = HashSet::new();
        for (node, named) in nodes {
            // A node without a row is missing for certain: only the others cost a look at the file system.
            if !named || self.is_node_missing(node)? {
                missing.insert(node);
            }
        }
        let tokens =
            if missing.is_empty() { Vec::new() } else { self.store.tokens_scoped_to(&filter, &missing, now)? };
        let mut summary = self.summarize(&caller, tokens, limit)?;
        summary.may_have_more |= has_unchecked_nodes;
        Ok(summary)
    }

    /// Returns the authorized caller, and a filter for the tokens that it may see.
    fn visible_filter(&self, principal: &Principal, owner: Option<&Login>) -> Result<(AuthorizedCaller, TokenFilter)> {
        let caller = principal.authorized_caller()?;
        let mut filter = TokenFilter { owner: owner.cloned(), ..TokenFilter::default() };
        caller.restrict_filter(&mut filter)?;
        if let Some(owner) = &filter.owner {
            self.require_user(owner)?;
        }
        Ok((caller, filter))
    }

    /// Counts tokens, except for those that are inactive because of a token above them.
    fn summarize(&self, caller: &AuthorizedCaller, tokens: Vec<TokenId>, limit: usize) -> Result<TokenListSummary> {
        let mut summary = TokenListSummary::default();
        for token in tokens {
            if summary.count == MAX_TOKENS_COUNTED {
                summary.may_have_more = true;
                break;
            }
            let record = match self.find_record(token) {
                // Deleted since the query.
                Err(Error::UnknownToken(_)) => continue,
                record => record?,
            };
            // The query judged each token by its own row; the state of the record includes the tokens above it.
            if record.state == TokenState::Live {
                summary.count += 1;
                if summary.records.len() < limit {
                    summary.records.push(self.with_visible_scopes(caller, record)?);
                }
            }
        }
        Ok(summary)
    }

    fn is_node_missing(&self, node: NodeId) -> Result<bool> {
        match self.tree.as_ref().map(|tree| tree.locate(node)) {
            Some(Err(error)) if !error.is_outage() => Err(Error::Tree(error)),
            Some(Ok(path)) => Ok(path.is_none()),
            // During an outage of the directory, or without one, the index decides.
            Some(Err(_)) | None => Ok(self.store.node(node)?.is_none()),
        }
    }
}
