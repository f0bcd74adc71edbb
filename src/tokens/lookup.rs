//! Look-up of tokens: one by its id, or pages of those that match a query.

use std::str::FromStr;

use super::principal::{AuthorizedCaller, TokenBearer};
use super::{Error, Principal, Result, ResultPage, TokenService};
use crate::domain::{ForeignRoles, Login, PathAccess, Role, Roles, Scope, TokenId};
use crate::store::{LocatedScope, TokenFilter, TokenRecord, TokenState, has_dangling_scopes};

/// Number of tokens that are read at once to find those with dangling scopes.
const DANGLING_BATCH_TOKENS: usize = 200;

/// A query for tokens, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct TokenQuery {
    /// Owner of the tokens.
    pub owner: Option<Login>,
    /// State of the tokens.
    pub state: Option<StateFilter>,
    /// Text in their id, name, description or owner.
    pub text: Option<String>,
    /// Id after which the page starts: the `next` of the previous page.
    pub after: Option<TokenId>,
    /// Id before which the page ends, in place of `after`. `next` is then the `before` of the page in front of it.
    pub before: Option<TokenId>,
}

/// A token with its current effective scopes and roles.
#[derive(Clone, Debug)]
pub struct EffectiveToken {
    /// The stored record.
    pub record: TokenRecord,
    /// The part of its owner's grants that the scopes of its chain leave; `None` where the chain has no scopes.
    pub scopes: Option<Vec<Scope>>,
    /// The roles that the token, its owner and every token above it have.
    pub roles: Roles,
}

/// A state of tokens to filter by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// Neither revoked nor expired.
    Live,
    /// The token, or one above it, has expired.
    Expired,
    /// The token, or one above it, was revoked.
    Revoked,
    /// The token has a scope whose node does not exist any more.
    Dangling,
}

impl FromStr for StateFilter {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "live" => Ok(StateFilter::Live),
            "expired" => Ok(StateFilter::Expired),
            "revoked" => Ok(StateFilter::Revoked),
            "dangling" => Ok(StateFilter::Dangling),
            _ => Err(format!("the state {text:?} is unknown: give live, expired, revoked or dangling")),
        }
    }
}

impl TokenService {
    /// Returns the record of a token.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], also for a token that the caller may not see.
    pub fn find(&self, principal: &Principal, id: TokenId) -> Result<TokenRecord> {
        let caller = principal.authorized_caller()?;
        let record = self.find_record(id)?;
        caller.require_visible(&self.store, &record)?;
        self.with_visible_scopes(&caller, record)
    }

    /// Returns a token with its effective scopes and roles.
    ///
    /// # Errors
    /// As [`TokenService::find`].
    pub fn find_effective(&self, principal: &Principal, id: TokenId) -> Result<EffectiveToken> {
        let record = self.find(principal, id)?;
        let privileges = self.store.effective_access(id)?.ok_or(Error::UnknownToken(id))?.into_privileges();
        Ok(EffectiveToken { record, scopes: privileges.access.effective_scopes(), roles: privileges.roles })
    }

    /// Returns the roles of another service that are stored with the calling token.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn foreign_roles(&self, principal: &Principal) -> Result<ForeignRoles> {
        match principal.authorized_caller()?.bearer() {
            // Another server asks for these at each of its requests: flushing uses would cost a write each time, for
            // nothing.
            Some(TokenBearer { token, .. }) => {
                let record = self.store.token(*token, self.clock.now())?;
                Ok(record.ok_or(Error::UnknownToken(*token))?.foreign_roles)
            }
            None => Ok(ForeignRoles::default()),
        }
    }

    /// Returns a page of up to `limit` tokens that match a query and that the caller may see.
    ///
    /// # Errors
    /// [`Error::UnknownUser`] for an unknown owner; [`Error::Forbidden`] for another user's tokens
    /// without the role to look them up.
    pub fn list(
        &self,
        principal: &Principal,
        query: &TokenQuery,
        limit: usize,
    ) -> Result<ResultPage<TokenRecord, TokenId>> {
        let caller = principal.authorized_caller()?;
        let state = match query.state {
            Some(StateFilter::Live) => Some(TokenState::Live),
            Some(StateFilter::Expired) => Some(TokenState::Expired),
            Some(StateFilter::Revoked) => Some(TokenState::Revoked),
            Some(StateFilter::Dangling) | None => None,
        };
        let dangling = query.state == Some(StateFilter::Dangling);
        let owner = query.owner.clone();
        let mut filter =
            TokenFilter { owner, state, descendants_of: None, text: query.text.clone(), only_scoped: dangling };
        // Before the owner is looked up, so that a caller without the role can't probe logins.
        caller.restrict_filter(&mut filter)?;
        if let Some(owner) = &filter.owner {
            self.require_user(owner)?;
        }
        let store = self.flushed_store();
        let (mut items, mut after, mut before) = (Vec::new(), query.after, query.before);
        // One more than the page tells whether there is another. Dangling scopes are found only by looking at the file
        // system, so that their pages are collected from batches.
        let batch = if dangling { DANGLING_BATCH_TOKENS } else { limit + 1 };
        loop {
            let found = match before {
                Some(before) => store.tokens_before(&filter, before, batch, self.clock.now())?,
                None => store.tokens(&filter, after, batch, self.clock.now())?,
            };
            let is_last_batch = found.len() < batch;
            // The next batch continues after the last token that was read, in either direction.
            let last_id = found.last().map(|record| record.id);
            (after, before) = (last_id.or(after), before.and(last_id.or(before)));
            for record in found {
                let record = self.with_visible_scopes(&caller, record)?;
                if !dangling || record.dangling {
                    items.push(record);
                }
            }
            if is_last_batch || items.len() > limit {
                let mut page = ResultPage::from_items(items, limit, |record| record.id);
                if query.before.is_some() {
                    // Read backwards, returned in the order of ids.
                    page.items.reverse();
                }
                return Ok(page);
            }
        }
    }

    /// Returns how many live tokens a user has.
    ///
    /// # Errors
    /// [`Error::UnknownUser`]; [`Error::Forbidden`] for another user without the role to look up its tokens.
    pub fn count_live_tokens(&self, principal: &Principal, owner: &Login) -> Result<u32> {
        let caller = principal.authorized_caller()?;
        // The role before the look-up, so that a caller without it can't probe logins.
        if !caller.is_unrestricted_self(owner) && !caller.has_role(Role::ManageUsers) {
            caller.require_role(Role::AuthenticationLookup)?;
        }
        self.require_user(owner)?;
        Ok(self.flushed_store().count_live_tokens(owner, self.clock.now())?)
    }

    /// Returns the record of a token without any check of the caller.
    pub(super) fn find_record(&self, id: TokenId) -> Result<TokenRecord> {
        self.flushed_store().token(id, self.clock.now())?.ok_or(Error::UnknownToken(id))
    }

    /// Completes a record by the current paths of its scopes, without those that are hidden from the caller.
    pub(super) fn with_visible_scopes(
        &self,
        caller: &AuthorizedCaller,
        mut record: TokenRecord,
    ) -> Result<TokenRecord> {
        if let Some(scopes) = &mut record.scopes {
            self.refresh_locations(scopes)?;
            if let AuthorizedCaller::Bearer(bearer) = caller
                && !caller.has_role(Role::AuthenticationLookup)
            {
                // Also a record of the caller's own or of a descendant may have paths that the calling token can't see.
                let hidden = |path: &_| bearer.privileges.access.path_access(path) == PathAccess::Absent;
                scopes.iter_mut().for_each(|located| located.path = located.path.take().filter(|path| !hidden(path)));
            }
        }
        // Anew: the file system may know better than the index, and a hidden path looks like a missing one.
        record.dangling = has_dangling_scopes(record.scopes.as_deref());
        Ok(record)
    }

    /// Updates the paths of grants or scopes from the served directory, where there is one: those whose nodes are not
    /// found there dangle, whatever the index says. During an outage of the directory, the paths of the index stay, so
    /// that tokens can still be listed and revoked.
    pub(super) fn refresh_locations(&self, located: &mut [LocatedScope]) -> Result<()> {
        let Some(tree) = &self.tree else { return Ok(()) };
        for located in located {
            match tree.locate(located.node) {
                Err(error) if error.is_outage() => {}
                path => located.path = path.map_err(Error::Tree)?,
            }
        }
        Ok(())
    }
}
