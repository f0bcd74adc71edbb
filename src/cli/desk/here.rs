//! Things are done on the state directory, as its administrator.

use super::super::site::Open;
use super::super::{Failure, Result};
use super::{Desk, PAGE, nothing_at};
use crate::api::types::{
    CreatedUserResponse, EventResponse, ExplainResponse, NodePermission, NodeResponse, PolicyResponse, RevealedSecret,
    TokenResponse, TokenWithSecret, UserResponse,
};
use crate::domain::{AccessQuery, Lifetime, Login, NodeId, PolicySetting, Roles, TokenId, TokenText, TreePath};
use crate::store::{EventCursor, EventFilter, TokenRecord};
use crate::tokens::{
    self, Grant, GrantTarget, HomeOption, IssuedToken, NarrowRequest, RotatedToken, StateFilter, TokenQuery,
    TokenRequest, UserRequest,
};
use crate::tree;

/// The state directory.
pub(in crate::cli) struct Here(pub(in crate::cli) Open);

impl Desk for Here {
    fn caller(&self) -> Result<Option<Login>> {
        Ok(None)
    }

    fn create_token(&self, request: TokenRequest) -> Result<TokenWithSecret> {
        let IssuedToken { text, record } = self.0.issue(request)?;
        Ok(reveal(&text, &record))
    }

    fn token(&self, id: TokenId) -> Result<TokenResponse> {
        Ok(TokenResponse::from_record(&self.0.looking().find(&self.0.authority, id)?))
    }

    fn tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<TokenResponse>> {
        let tokens = self.0.looking();
        let mut query = TokenQuery { owner: owner.cloned(), state, ..TokenQuery::default() };
        let mut shown = Vec::new();
        loop {
            let page = tokens.list(&self.0.authority, &query, PAGE)?;
            shown.extend(page.items.iter().map(TokenResponse::from_record));
            query.after = page.next;
            if query.after.is_none() {
                return Ok(shown);
            }
        }
    }

    fn revoke(&self, ids: &[TokenId]) -> Result {
        Ok(self.0.tokens.revoke(&self.0.authority, ids)?)
    }

    fn revoke_all(&self, owner: &Login) -> Result<usize> {
        Ok(self.0.tokens.revoke_all(&self.0.authority, owner)?)
    }

    fn narrow(&self, id: TokenId, change: &NarrowRequest) -> Result<TokenResponse> {
        let tokens = if change.scopes.is_none() { self.0.looking() } else { self.0.with_tree()? };
        Ok(TokenResponse::from_record(&tokens.narrow(&self.0.authority, id, change, None)?))
    }

    fn rotate(&self, id: TokenId, grace: Option<Lifetime>) -> Result<TokenWithSecret> {
        let RotatedToken { text, record } = self.0.looking().rotate(&self.0.authority, id, grace)?;
        Ok(reveal(&text, &record))
    }

    fn create_user(&self, request: &UserRequest) -> Result<CreatedUserResponse> {
        let alone = request.home == HomeOption::Skip && request.grants.is_empty();
        let tokens = if alone { self.0.tokens.clone() } else { self.0.with_tree()? };
        let created = tokens.create_user(&self.0.authority, request)?;
        Ok(CreatedUserResponse::new(self.user(&request.login)?, &created))
    }

    fn users(&self) -> Result<Vec<UserResponse>> {
        let (tokens, mut users, mut after) = (self.0.looking(), Vec::new(), None);
        loop {
            let page = tokens.profiles(&self.0.authority, after.as_ref(), PAGE)?;
            users.extend(page.items.into_iter().map(UserResponse::from_profile));
            after = page.next;
            if after.is_none() {
                return Ok(users);
            }
        }
    }

    fn user(&self, login: &Login) -> Result<UserResponse> {
        Ok(UserResponse::from_profile(self.0.looking().profile(&self.0.authority, login)?))
    }

    fn disable(&self, login: &Login, disabled: bool) -> Result {
        match disabled {
            true => Ok(self.0.tokens.disable_user(&self.0.authority, login)?),
            false => Ok(self.0.tokens.enable_user(&self.0.authority, login)?),
        }
    }

    fn set_roles(&self, login: &Login, roles: &Roles) -> Result {
        Ok(self.0.tokens.set_roles(&self.0.authority, login, roles)?)
    }

    fn delete_user(&self, login: &Login) -> Result {
        Ok(self.0.tokens.delete_user(&self.0.authority, login)?)
    }

    fn grants(&self, login: &Login) -> Result<Vec<NodePermission>> {
        Ok(self.0.looking().grants(&self.0.authority, login)?.iter().map(NodePermission::from_located_scope).collect())
    }

    fn grant(&self, login: &Login, grant: &Grant) -> Result {
        self.0.with_tree()?.grant(&self.0.authority, login, grant)?;
        Ok(())
    }

    fn revoke_grant(&self, login: &Login, place: &GrantTarget) -> Result {
        Ok(self.0.tokens.revoke_grant(&self.0.authority, login, place)?)
    }

    fn node_at(&self, path: &TreePath) -> Result<NodeResponse> {
        let node = self.0.tree()?.assign_node_id(path).map_err(|error| refused(path, &error))?;
        Ok(NodeResponse { node, path: path.to_string(), dangling: false })
    }

    fn node(&self, id: NodeId) -> Result<NodeResponse> {
        let path = self.0.tree()?.locate(id)?.ok_or(tokens::Error::UnknownNode(id))?;
        Ok(NodeResponse { node: id, path: path.to_string(), dangling: false })
    }

    fn nodes(&self, under: &TreePath) -> Result<Vec<NodeResponse>> {
        Ok(self.0.tree()?.nodes(under)?.iter().map(NodeResponse::from_named_node).collect())
    }

    fn policy(&self) -> Result<PolicyResponse> {
        Ok(self.0.tokens.policy(&self.0.authority)?.into())
    }

    fn set_policy(&self, setting: PolicySetting) -> Result<PolicyResponse> {
        Ok(self.0.tokens.change_policy(&self.0.authority, &[setting])?.into())
    }

    fn events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<EventResponse>> {
        let events = self.0.tokens.events(&self.0.authority, filter, cursor, limit)?;
        Ok(events.into_iter().map(EventResponse::from_stored).collect())
    }

    fn explain(&self, token: TokenId, question: &AccessQuery) -> Result<ExplainResponse> {
        Ok(ExplainResponse::from_explanation(&self.0.looking().explain(&self.0.authority, token, question)?))
    }
}

fn reveal(text: &TokenText, record: &TokenRecord) -> TokenWithSecret {
    TokenWithSecret {
        token: RevealedSecret::from(text.reveal().to_string()),
        record: TokenResponse::from_record(record),
    }
}

fn refused(path: &TreePath, error: &tree::Error) -> Failure {
    match error {
        tree::Error::Absent | tree::Error::NotADirectory => nothing_at(path),
        tree::Error::Unsupported => {
            Failure::new(format!("{path} is neither a file nor a folder")).hint("give the path that the link leads to")
        }
        other => Failure::new(other.to_string()),
    }
}
