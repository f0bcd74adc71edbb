//! Live tokens that somebody should look after: before they end, or because what they name has.

use std::collections::HashSet;

use super::authority::Caller;
use super::{Authority, Error, Result, Tokens};
use crate::domain::{Login, NodeId, TokenId};
use crate::store::{TokenFilter, TokenRecord, TokenState};

/// How many nodes that scopes name are looked for.
const LOOKED: usize = 1000;
/// How many tokens are counted.
const COUNTED: usize = 200;

/// Some tokens of the same kind: the first of them, and how many there are.
#[derive(Clone, Debug, Default)]
pub struct Attention {
    /// The first.
    pub first: Vec<TokenRecord>,
    /// How many there are, as far as they are counted.
    pub count: usize,
    /// Whether there may be more.
    pub more: bool,
}

impl Tokens {
    /// Returns the live tokens that end soon ([`crate::domain::TokenExpiry::ends_soon`]) and that the caller may look at, all or those of
    /// one owner; `limit` of them by themselves.
    ///
    /// # Errors
    /// As [`Tokens::page`].
    pub fn ending(&self, who: &Authority, owner: Option<&Login>, limit: usize) -> Result<Attention> {
        let (caller, filter) = self.seen(who, owner)?;
        self.counted(&caller, self.in_force().expiring_tokens(&filter, self.clock.now())?, limit)
    }

    /// Likewise those with a scope whose node has ended. Only so many nodes are looked for in the served folder; where
    /// scopes name others besides, there may be more.
    ///
    /// # Errors
    /// As [`Tokens::page`].
    pub fn dangling(&self, who: &Authority, owner: Option<&Login>, limit: usize) -> Result<Attention> {
        let (caller, filter) = self.seen(who, owner)?;
        let now = self.clock.now();
        let mut nodes = self.store.scope_nodes(&filter, LOOKED + 1, now)?;
        let unseen = nodes.len() > LOOKED;
        nodes.truncate(LOOKED);
        let mut ended = HashSet::new();
        for (node, named) in nodes {
            if !named || self.has_ended(node)? {
                ended.insert(node);
            }
        }
        let tokens = if ended.is_empty() { Vec::new() } else { self.store.tokens_scoped_to(&filter, &ended, now)? };
        let mut attention = self.counted(&caller, tokens, limit)?;
        attention.more |= unseen;
        Ok(attention)
    }

    /// Returns who asks, and a filter for what that may look at.
    fn seen(&self, who: &Authority, owner: Option<&Login>) -> Result<(Caller, TokenFilter)> {
        let caller = who.caller()?;
        let mut filter = TokenFilter { owner: owner.cloned(), ..TokenFilter::default() };
        caller.narrows(&mut filter)?;
        if let Some(owner) = &filter.owner {
            self.known(owner)?;
        }
        Ok((caller, filter))
    }

    /// Counts tokens, but for those that died with one above them.
    fn counted(&self, caller: &Caller, tokens: Vec<TokenId>, limit: usize) -> Result<Attention> {
        let mut attention = Attention::default();
        for token in tokens {
            if attention.count == COUNTED {
                attention.more = true;
                break;
            }
            let record = match self.record(token) {
                Err(Error::UnknownToken(_)) => continue,
                record => record?,
            };
            if record.state == TokenState::Live {
                attention.count += 1;
                if attention.first.len() < limit {
                    attention.first.push(self.shown(caller, record)?);
                }
            }
        }
        Ok(attention)
    }

    fn has_ended(&self, node: NodeId) -> Result<bool> {
        match self.tree.as_ref().map(|tree| tree.locate(node)) {
            Some(Err(error)) if !error.is_outage() => Err(Error::Tree(error)),
            Some(Ok(path)) => Ok(path.is_none()),
            Some(Err(_)) | None => Ok(self.store.node(node)?.is_none()),
        }
    }
}
