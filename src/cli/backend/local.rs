//! The backend that works on the state directory, as its administrator.

use super::super::open_state::OpenState;
use super::super::{CommandError, Result};
use super::{ENTRIES_PER_REQUEST, ManagementBackend, no_such_path};
use crate::api::types::{
    BanResponse, CreatedUserResponse, EventResponse, ExplainResponse, NodeResponse, PolicyResponse, TokenWithSecret,
    UserResponse,
};
use crate::domain::{AccessQuery, BannedNetwork, ByteSize, Login, NodeId, PolicySetting, Roles, TokenId, TreePath};
use crate::store::{ChainPage, EventCursor, EventFilter, LocatedScope, TokenRecord};
use crate::tokens::{
    self, BanRequest, Grant, GrantTarget, HomeOption, IssuedToken, NarrowRequest, RotatedToken, Rotation, StateFilter,
    TokenQuery, TokenRequest, UserRequest,
};
use crate::tree;

/// The backend of the state directory.
pub(in crate::cli) struct LocalBackend(pub(in crate::cli) OpenState);

impl ManagementBackend for LocalBackend {
    fn create_token(&self, request: TokenRequest) -> Result<TokenWithSecret> {
        let IssuedToken { text, record } = self.0.issue(request)?;
        Ok(TokenWithSecret::new(text.as_ref(), record))
    }

    fn token(&self, id: TokenId) -> Result<TokenRecord> {
        Ok(self.0.tokens_with_optional_tree().find(&self.0.principal, id)?)
    }

    fn list_tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<TokenRecord>> {
        let tokens = self.0.tokens_with_optional_tree();
        let mut query = TokenQuery { owner: owner.cloned(), state, ..TokenQuery::default() };
        let mut records = Vec::new();
        loop {
            let page = tokens.list(&self.0.principal, &query, ENTRIES_PER_REQUEST)?;
            records.extend(page.items);
            query.after = page.next;
            if query.after.is_none() {
                return Ok(records);
            }
        }
    }

    fn revoke(&self, ids: &[TokenId]) -> Result {
        Ok(self.0.tokens.revoke(&self.0.principal, ids)?)
    }

    fn revoke_all(&self, owner: &Login) -> Result<usize> {
        Ok(self.0.tokens.revoke_all(&self.0.principal, owner)?)
    }

    fn narrow(&self, id: TokenId, change: &NarrowRequest) -> Result<TokenRecord> {
        let tokens =
            if change.scopes.is_none() { self.0.tokens_with_optional_tree() } else { self.0.tokens_with_tree()? };
        Ok(tokens.narrow(&self.0.principal, id, change, None)?)
    }

    fn rotate(&self, id: TokenId, rotation: Rotation) -> Result<TokenWithSecret> {
        let RotatedToken { text, record } =
            self.0.tokens_with_optional_tree().rotate(&self.0.principal, id, &rotation)?;
        Ok(TokenWithSecret::new(text.as_ref(), record))
    }

    fn create_user(&self, request: &UserRequest) -> Result<CreatedUserResponse> {
        // Without grants and home no served directory is needed: users can be created before the first start of the
        // server.
        let needs_no_tree = request.home == HomeOption::Skip && request.grants.is_empty();
        let tokens = if needs_no_tree { self.0.tokens.clone() } else { self.0.tokens_with_tree()? };
        let created = tokens.create_user(&self.0.principal, request)?;
        Ok(CreatedUserResponse::new(self.user(&request.login)?, &created))
    }

    fn list_users(&self) -> Result<Vec<UserResponse>> {
        let (tokens, mut users, mut after) = (self.0.tokens_with_optional_tree(), Vec::new(), None);
        loop {
            let page = tokens.profiles(&self.0.principal, after.as_ref(), ENTRIES_PER_REQUEST)?;
            users.extend(page.items.into_iter().map(UserResponse::from_profile));
            after = page.next;
            if after.is_none() {
                return Ok(users);
            }
        }
    }

    fn user(&self, login: &Login) -> Result<UserResponse> {
        Ok(UserResponse::from_profile(self.0.tokens_with_optional_tree().profile(&self.0.principal, login)?))
    }

    fn set_disabled(&self, login: &Login, disabled: bool) -> Result {
        match disabled {
            true => Ok(self.0.tokens.disable_user(&self.0.principal, login)?),
            false => Ok(self.0.tokens.enable_user(&self.0.principal, login)?),
        }
    }

    fn set_roles(&self, login: &Login, roles: &Roles) -> Result {
        Ok(self.0.tokens.set_roles(&self.0.principal, login, roles)?)
    }

    fn set_quota(&self, login: &Login, quota: Option<ByteSize>) -> Result {
        Ok(self.0.tokens.set_quota(&self.0.principal, login, quota)?)
    }

    fn delete_user(&self, login: &Login) -> Result {
        Ok(self.0.tokens.delete_user(&self.0.principal, login)?)
    }

    fn list_grants(&self, login: &Login) -> Result<Vec<LocatedScope>> {
        Ok(self.0.tokens_with_optional_tree().grants(&self.0.principal, login)?)
    }

    fn create_grant(&self, login: &Login, grant: &Grant) -> Result {
        self.0.tokens_with_tree()?.grant(&self.0.principal, login, grant)?;
        Ok(())
    }

    fn revoke_grant(&self, login: &Login, target: &GrantTarget) -> Result {
        Ok(self.0.tokens.revoke_grant(&self.0.principal, login, target)?)
    }

    fn node_at(&self, path: &TreePath) -> Result<NodeResponse> {
        let node = self.0.tree()?.assign_node_id(path).map_err(|error| node_error(path, &error))?;
        Ok(NodeResponse { node, path: path.to_string(), dangling: false })
    }

    fn node(&self, id: NodeId) -> Result<NodeResponse> {
        let path = self.0.tree()?.locate(id)?.ok_or(tokens::Error::UnknownNode(id))?;
        Ok(NodeResponse { node: id, path: path.to_string(), dangling: false })
    }

    fn list_nodes(&self, under: &TreePath) -> Result<Vec<NodeResponse>> {
        Ok(self.0.tree()?.nodes(under)?.iter().map(NodeResponse::from_named_node).collect())
    }

    fn policy(&self) -> Result<PolicyResponse> {
        Ok(self.0.tokens.policy(&self.0.principal)?.into())
    }

    fn set_policy(&self, setting: PolicySetting) -> Result<PolicyResponse> {
        Ok(self.0.tokens.change_policy(&self.0.principal, &[setting])?.into())
    }

    fn bans(&self) -> Result<Vec<BanResponse>> {
        let bans = self.0.tokens.bans(&self.0.principal)?;
        Ok(bans.into_iter().map(BanResponse::from).collect())
    }

    fn add_ban(&self, request: &BanRequest) -> Result<BanResponse> {
        Ok(self.0.tokens.add_ban(&self.0.principal, request)?.into())
    }

    fn remove_ban(&self, network: BannedNetwork) -> Result {
        Ok(self.0.tokens.remove_ban(&self.0.principal, network)?)
    }

    fn list_events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<EventResponse>> {
        let events = self.0.tokens.events(&self.0.principal, filter, cursor, limit)?;
        Ok(events.into_iter().map(EventResponse::from_stored).collect())
    }

    fn audit_chain(&self, after: u64, limit: usize) -> Result<ChainPage> {
        Ok(self.0.tokens.audit_chain(&self.0.principal, after, limit)?)
    }

    fn explain(&self, token: TokenId, query: &AccessQuery) -> Result<ExplainResponse> {
        Ok(ExplainResponse::from_explanation(&self.0.tokens_with_optional_tree().explain(
            &self.0.principal,
            token,
            query,
        )?))
    }
}

fn node_error(path: &TreePath, error: &tree::Error) -> CommandError {
    match error {
        tree::Error::Absent | tree::Error::NotADirectory => no_such_path(path),
        tree::Error::Unsupported => CommandError::new(format!("{path} is neither a file nor a directory"))
            .with_hint("give the path that the link leads to"),
        other => CommandError::new(other.to_string()),
    }
}
