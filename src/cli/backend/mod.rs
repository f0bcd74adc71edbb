//! Where the commands that manage users and tokens get things done: on the state directory, or over the
//! network through a server's REST API. What they show is the same.

mod local;
mod remote;

use super::error::CREATE_PATH_HINT;
use super::{CommandError, Result};
use crate::api::types::{
    CreatedUserResponse, EventResponse, ExplainResponse, NodePermission, NodeResponse, PolicyResponse, TokenResponse,
    TokenWithSecret, UserResponse,
};
use crate::domain::{AccessQuery, Lifetime, Login, NodeId, PolicySetting, Roles, TokenId, TreePath};
use crate::store::{EventCursor, EventFilter};
use crate::tokens::{Grant, GrantTarget, NarrowRequest, StateFilter, TokenRequest, UserRequest};

pub(super) use local::LocalBackend;
pub(super) use remote::{RemoteBackend, RemoteOptions, read_ca_certificates, root_cause};

/// Says that nothing is at a path.
fn no_such_path(path: &TreePath) -> CommandError {
    CommandError::new(format!("nothing is at {path}")).with_hint(CREATE_PATH_HINT)
}

/// How many entries of a list are read at once.
const ENTRIES_PER_REQUEST: usize = 500;

/// Gets things done.
pub(super) trait ManagementBackend {
    /// Returns the user in whose name things are done, where they are done in anybody's.
    fn calling_user(&self) -> Result<Option<Login>>;
    /// Makes a token.
    fn create_token(&self, request: TokenRequest) -> Result<TokenWithSecret>;
    /// Looks a token up.
    fn token(&self, id: TokenId) -> Result<TokenResponse>;
    /// Lists the tokens that fit.
    fn list_tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<TokenResponse>>;
    /// Revokes tokens; none where one of them is not there.
    fn revoke(&self, ids: &[TokenId]) -> Result;
    /// Revokes all tokens of a user and returns how many had not been revoked before.
    fn revoke_all(&self, owner: &Login) -> Result<usize>;
    /// Changes a token's name, and makes it narrower.
    fn narrow(&self, id: TokenId, change: &NarrowRequest) -> Result<TokenResponse>;
    /// Gives a token a new secret.
    fn rotate(&self, id: TokenId, grace: Option<Lifetime>) -> Result<TokenWithSecret>;
    /// Makes a user.
    fn create_user(&self, request: &UserRequest) -> Result<CreatedUserResponse>;
    /// Lists the users.
    fn list_users(&self) -> Result<Vec<UserResponse>>;
    /// Looks a user up.
    fn user(&self, login: &Login) -> Result<UserResponse>;
    /// Disables a user, or enables it again.
    fn set_disabled(&self, login: &Login, disabled: bool) -> Result;
    /// Gives a user these roles and no others.
    fn set_roles(&self, login: &Login, roles: &Roles) -> Result;
    /// Deletes a user with its tokens.
    fn delete_user(&self, login: &Login) -> Result;
    /// Lists what a user may reach.
    fn list_grants(&self, login: &Login) -> Result<Vec<NodePermission>>;
    /// Gives a user a permission at a path.
    fn create_grant(&self, login: &Login, grant: &Grant) -> Result;
    /// Takes a grant back.
    fn revoke_grant(&self, login: &Login, target: &GrantTarget) -> Result;
    /// Returns the node at a path; one without an id gets it.
    fn node_at(&self, path: &TreePath) -> Result<NodeResponse>;
    /// Returns where a node is.
    fn node(&self, id: NodeId) -> Result<NodeResponse>;
    /// Lists the nodes below a path that have an id.
    fn list_nodes(&self, under: &TreePath) -> Result<Vec<NodeResponse>>;
    /// Returns the policy.
    fn policy(&self) -> Result<PolicyResponse>;
    /// Changes one key of the policy.
    fn set_policy(&self, setting: PolicySetting) -> Result<PolicyResponse>;
    /// Returns events from a cursor on.
    fn list_events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<EventResponse>>;
    /// Tells whether a token may do something, and which rule decides.
    fn explain(&self, token: TokenId, query: &AccessQuery) -> Result<ExplainResponse>;
}
