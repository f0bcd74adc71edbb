//! Looking tokens up: one by its id, or those that fit, a page at a time.

use std::str::FromStr;

use super::principal::{AuthorizedCaller, TokenBearer};
use super::{Error, Principal, Result, ResultPage, TokenService};
use crate::domain::{ForeignRoles, Login, PathAccess, Role, Roles, Scope, TokenId};
use crate::store::{LocatedScope, TokenFilter, TokenRecord, TokenState};

/// How many tokens are looked at in one go for those that dangle.
const DANGLING_BATCH_TOKENS: usize = 200;

/// Which tokens to look for, in the order of their ids.
#[derive(Clone, Debug, Default)]
pub struct TokenQuery {
    /// Those of one user.
    pub owner: Option<Login>,
    /// Those in one state.
    pub state: Option<StateFilter>,
    /// Those with this text in their id, name, description or owner.
    pub text: Option<String>,
    /// Those after this id: the `next` of the page before.
    pub after: Option<TokenId>,
    /// In place of `after`: the last ones before this id. Then `next` is where the page before them ends.
    pub before: Option<TokenId>,
}

/// A token, and what it may do at this moment.
#[derive(Clone, Debug)]
pub struct EffectiveToken {
    /// What is kept of it.
    pub record: TokenRecord,
    /// What its scopes and those above it leave of its owner's grants; `None` where it has none.
    pub scopes: Option<Vec<Scope>>,
    /// Those of its roles that its owner and every token above it have.
    pub roles: Roles,
}

/// A state to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateFilter {
    /// Accepted.
    Live,
    /// Past its expiry, or that of a token above it.
    Expired,
    /// Taken back, or one above it was.
    Revoked,
    /// With a scope whose node has ended.
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
    /// Returns what is kept of a token.
    ///
    /// # Errors
    /// [`Error::UnknownToken`], also for one that the caller may not look at.
    pub fn find(&self, principal: &Principal, id: TokenId) -> Result<TokenRecord> {
        let caller = principal.authorized_caller()?;
        let record = self.find_record(id)?;
        caller.require_visible(&self.store, &record)?;
        self.with_visible_scopes(&caller, record)
    }

    /// Returns a token with what its owner and the tokens above it leave of its scopes and roles.
    ///
    /// # Errors
    /// As [`TokenService::find`].
    pub fn find_effective(&self, principal: &Principal, id: TokenId) -> Result<EffectiveToken> {
        let record = self.find(principal, id)?;
        let privileges = self.store.effective_access(id)?.ok_or(Error::UnknownToken(id))?.into_privileges();
        Ok(EffectiveToken { record, scopes: privileges.access.effective_scopes(), roles: privileges.roles })
    }

    /// Returns the roles of another service that are kept on the token that asks.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn foreign_roles(&self, principal: &Principal) -> Result<ForeignRoles> {
        match principal.authorized_caller()?.bearer() {
            // Asked for at every request of another server: last uses don't matter, and cost a write.
            Some(TokenBearer { token, .. }) => {
                let record = self.store.token(*token, self.clock.now())?;
                Ok(record.ok_or(Error::UnknownToken(*token))?.foreign_roles)
            }
            None => Ok(ForeignRoles::default()),
        }
    }

    /// Returns up to `limit` of the tokens that fit and that the caller may look at.
    ///
    /// # Errors
    /// [`Error::UnknownUser`] for an unknown owner; [`Error::Forbidden`] for another user's tokens
    /// without the role to look at them.
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
        caller.restrict_filter(&mut filter)?;
        if let Some(owner) = &filter.owner {
            self.require_user(owner)?;
        }
        let store = self.flushed_store();
        let (mut items, mut after, mut before) = (Vec::new(), query.after, query.before);
        let batch = if dangling { DANGLING_BATCH_TOKENS } else { limit + 1 };
        loop {
            let found = match before {
                Some(before) => store.tokens_before(&filter, before, batch, self.clock.now())?,
                None => store.tokens(&filter, after, batch, self.clock.now())?,
            };
            let is_last_batch = found.len() < batch;
            let last_id = found.last().map(|record| record.id);
            (after, before) = (last_id.or(after), before.and(last_id.or(before)));
            for record in found {
                let record = self.with_visible_scopes(&caller, record)?;
                if !dangling || record.has_dangling_scopes() {
                    items.push(record);
                }
            }
            if is_last_batch || items.len() > limit {
                let mut page = ResultPage::from_items(items, limit, |record| record.id);
                if query.before.is_some() {
                    page.items.reverse();
                }
                return Ok(page);
            }
        }
    }

    /// Returns how many live tokens a user has.
    ///
    /// # Errors
    /// [`Error::UnknownUser`]; [`Error::Forbidden`] for another user without the role to look at its tokens.
    pub fn count_live_tokens(&self, principal: &Principal, owner: &Login) -> Result<u32> {
        let caller = principal.authorized_caller()?;
        if !caller.is_unrestricted_self(owner) && !caller.has_role(Role::ManageUsers) {
            caller.require_role(Role::AuthenticationLookup)?;
        }
        self.require_user(owner)?;
        Ok(self.flushed_store().count_live_tokens(owner, self.clock.now())?)
    }

    /// Returns what is kept of a token, whoever asks.
    pub(super) fn find_record(&self, id: TokenId) -> Result<TokenRecord> {
        self.flushed_store().token(id, self.clock.now())?.ok_or(Error::UnknownToken(id))
    }

    /// Completes a token by where its scopes are now, as far as the caller may know.
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
                let hidden = |path: &_| bearer.privileges.access.path_access(path) == PathAccess::Absent;
                scopes.iter_mut().for_each(|located| located.path = located.path.take().filter(|path| !hidden(path)));
            }
        }
        Ok(record)
    }

    /// Looks at the served folder, where there is one, for where the nodes of grants or scopes are
    /// now; those that are not there dangle, whatever the index says. While the folder is not there itself, the index
    /// is believed: tokens can be looked at and revoked meanwhile.
    pub(super) fn refresh_locations(&self, located: &mut [LocatedScope]) -> Result<()> {
        let Some(tree) = &self.tree else { return Ok(()) };
        for located in located {
            match tree.locate(located.scope.node) {
                Err(error) if error.is_outage() => {}
                path => located.path = path.map_err(Error::Tree)?,
            }
        }
        Ok(())
    }
}
