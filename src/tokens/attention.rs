//! Live tokens that somebody should look after: before they end, or because what they name has.

use std::collections::HashMap;

use super::authority::Caller;
use super::{Authority, Error, Result, Tokens};
use crate::domain::{Login, NodeId, TokenId};
use crate::store::{TokenFilter, TokenRecord, TokenState};

/// How many scopes are looked at in one go.
const BATCH: usize = 2000;
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
    /// Returns the live tokens that end soon ([`crate::domain::Expiry::ends_soon`]) and that the caller may look at, all or those of
    /// one owner; `limit` of them by themselves.
    ///
    /// # Errors
    /// As [`Tokens::page`].
    pub fn ending(&self, who: &Authority, owner: Option<&Login>, limit: usize) -> Result<Attention> {
        let (caller, filter) = self.seen(who, owner)?;
        let mut attention = Attention::default();
        for token in self.store.ending(&filter, self.clock.now())? {
            if attention.count == COUNTED {
                attention.more = true;
                break;
            }
            self.note(&caller, token, limit, &mut attention)?;
        }
        Ok(attention)
    }

    /// Likewise those with a scope whose node has ended.
    ///
    /// # Errors
    /// As [`Tokens::page`].
    pub fn dangling(&self, who: &Authority, owner: Option<&Login>, limit: usize) -> Result<Attention> {
        let (caller, filter) = self.seen(who, owner)?;
        let (mut attention, mut known, mut noted) = (Attention::default(), HashMap::new(), None);
        let mut after = None;
        loop {
            let scopes = self.store.scopes(&filter, after, BATCH, self.clock.now())?;
            for (token, node) in &scopes {
                let ended = match known.get(node) {
                    Some(known) => *known,
                    None => *known.entry(*node).or_insert(self.has_ended(*node)?),
                };
                if ended && noted.replace(*token) != Some(*token) {
                    self.note(&caller, *token, limit, &mut attention)?;
                }
            }
            if scopes.len() < BATCH || attention.count >= COUNTED {
                attention.more = scopes.len() == BATCH;
                return Ok(attention);
            }
            after = scopes.last().copied();
        }
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

    /// Notes a token, unless it, or one above it, has died.
    fn note(&self, caller: &Caller, token: TokenId, limit: usize, attention: &mut Attention) -> Result<()> {
        let record = match self.record(token) {
            Err(Error::UnknownToken(_)) => return Ok(()),
            record => record?,
        };
        if record.state == TokenState::Live {
            attention.count += 1;
            if attention.first.len() < limit {
                attention.first.push(self.shown(caller, record)?);
            }
        }
        Ok(())
    }

    fn has_ended(&self, node: NodeId) -> Result<bool> {
        Ok(match &self.tree {
            Some(tree) => tree.locate(node).map_err(Error::Tree)?.is_none(),
            None => self.store.node(node)?.is_none(),
        })
    }
}
