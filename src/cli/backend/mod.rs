//! Backends of the commands that manage users and tokens: the state directory, or the REST API of a server. Output is
//! the same with both.

mod local;
mod remote;

use super::error::CREATE_PATH_HINT;
use super::{CommandError, Result};
use crate::api::types::{
    BanResponse, CreatedUserResponse, EventResponse, ExplainResponse, NodeResponse, PolicyResponse, TokenWithSecret,
    UserResponse,
};
use crate::domain::{AccessQuery, BannedNetwork, ByteSize, Login, NodeId, PolicySetting, Roles, TokenId, TreePath};
use crate::store::{ChainPage, EventCursor, EventFilter, LocatedScope, TokenRecord};
use crate::tokens::{BanRequest, Grant, GrantTarget, NarrowRequest, Rotation, StateFilter, TokenRequest, UserRequest};

pub(super) use local::LocalBackend;
pub(super) use remote::{RemoteBackend, RemoteOptions, read_ca_certificates, root_cause};

/// Returns the error for a path without a file or directory.
fn no_such_path(path: &TreePath) -> CommandError {
    CommandError::new(format!("nothing is at {path}")).with_hint(CREATE_PATH_HINT)
}

/// Number of entries of a list that are read at once.
const ENTRIES_PER_REQUEST: usize = 500;

/// The operations of the management commands.
pub(super) trait ManagementBackend {
    /// Creates a token; without an owner, which the state directory requires, for the user whose token is used.
    fn create_token(&self, request: TokenRequest) -> Result<TokenWithSecret>;
    /// Looks up a token.
    fn token(&self, id: TokenId) -> Result<TokenRecord>;
    /// Lists the matching tokens.
    fn list_tokens(&self, owner: Option<&Login>, state: Option<StateFilter>) -> Result<Vec<TokenRecord>>;
    /// Revokes tokens; none of them if one is unknown.
    fn revoke(&self, ids: &[TokenId]) -> Result;
    /// Revokes all tokens of a user and returns how many had not been revoked before.
    fn revoke_all(&self, owner: &Login) -> Result<usize>;
    /// Changes the name of a token, and narrows it.
    fn narrow(&self, id: TokenId, change: &NarrowRequest) -> Result<TokenRecord>;
    /// Rotates a token.
    fn rotate(&self, id: TokenId, rotation: Rotation) -> Result<TokenWithSecret>;
    /// Creates a user.
    fn create_user(&self, request: &UserRequest) -> Result<CreatedUserResponse>;
    /// Lists the users.
    fn list_users(&self) -> Result<Vec<UserResponse>>;
    /// Looks up a user.
    fn user(&self, login: &Login) -> Result<UserResponse>;
    /// Disables a user, or enables it again.
    fn set_disabled(&self, login: &Login, disabled: bool) -> Result;
    /// Sets the roles of a user.
    fn set_roles(&self, login: &Login, roles: &Roles) -> Result;
    /// Sets the storage quota of a user, or removes it.
    fn set_quota(&self, login: &Login, quota: Option<ByteSize>) -> Result;
    /// Deletes a user with its tokens.
    fn delete_user(&self, login: &Login) -> Result;
    /// Lists the grants of a user.
    fn list_grants(&self, login: &Login) -> Result<Vec<LocatedScope>>;
    /// Grants a user a permission on a path.
    fn create_grant(&self, login: &Login, grant: &Grant) -> Result;
    /// Removes a grant.
    fn revoke_grant(&self, login: &Login, target: &GrantTarget) -> Result;
    /// Returns the node at a path, which gets an id if it has none.
    fn node_at(&self, path: &TreePath) -> Result<NodeResponse>;
    /// Looks up a node by its id.
    fn node(&self, id: NodeId) -> Result<NodeResponse>;
    /// Lists the nodes below a path that have an id.
    fn list_nodes(&self, under: &TreePath) -> Result<Vec<NodeResponse>>;
    /// Returns the policy.
    fn policy(&self) -> Result<PolicyResponse>;
    /// Changes one key of the policy.
    fn set_policy(&self, setting: PolicySetting) -> Result<PolicyResponse>;
    /// Lists the bans in force.
    fn bans(&self) -> Result<Vec<BanResponse>>;
    /// Bans a network.
    fn add_ban(&self, request: &BanRequest) -> Result<BanResponse>;
    /// Removes a ban.
    fn remove_ban(&self, network: BannedNetwork) -> Result;
    /// Returns the matching events from a cursor on.
    fn list_events(&self, filter: &EventFilter, cursor: EventCursor, limit: usize) -> Result<Vec<EventResponse>>;
    /// Returns up to `limit` rows of the audit trail with their hash chain, from the one after `after` on, oldest first.
    fn audit_chain(&self, after: u64, limit: usize) -> Result<ChainPage>;
    /// Explains whether a token may carry out an operation.
    fn explain(&self, token: TokenId, query: &AccessQuery) -> Result<ExplainResponse>;
}
