//! Tokens and their access in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RevealedSecret;
use crate::domain::{
    ForeignRoles, Login, NodeId, Permission, Protocol, Roles, TokenExpiry, TokenId, TokenLimits, schema,
};
use crate::store::{LocatedScope, TokenRecord, TokenState};

/// A grant or scope; without a path it is dangling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePermission {
    /// Id of the node.
    #[schema(value_type = schema::NodeId)]
    pub node: NodeId,
    /// Permission on the node and below it.
    #[schema(value_type = schema::Permission)]
    pub permission: Permission,
    /// Present path of the node.
    #[schema(value_type = Option<schema::Path>)]
    pub path: Option<String>,
}

impl NodePermission {
    /// Converts a grant or scope.
    pub fn from_located_scope(located: &LocatedScope) -> Self {
        let path = located.path.as_ref().map(ToString::to_string);
        Self { node: located.scope.node, permission: located.scope.permission, path }
    }
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Token)]
pub struct TokenResponse {
    /// Public id.
    #[schema(value_type = schema::TokenId)]
    pub id: TokenId,
    /// Login of the owner.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// Name for people.
    pub name: String,
    /// Description for people.
    pub description: String,
    /// State of the token, which depends on its parents, too.
    #[schema(value_type = schema::State)]
    pub state: TokenState,
    /// Whether the node of a scope is gone.
    pub dangling: bool,
    /// Time of creation.
    #[schema(value_type = schema::Time)]
    pub created_at: String,
    /// Expiration, unless a use moves it; absent for a token without expiration.
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<String>,
    /// Latest expiration that uses can move it to; absent for a token without expiration.
    #[schema(value_type = Option<schema::Time>)]
    pub hard_limit: Option<String>,
    /// Sliding window in seconds; absent for a token without one.
    #[schema(minimum = 1)]
    pub window_seconds: Option<u64>,
    /// Time of its revocation.
    #[schema(value_type = Option<schema::Time>)]
    pub revoked_at: Option<String>,
    /// End of the grace period of the secret before the last rotation.
    #[schema(value_type = Option<schema::Time>)]
    pub old_secret_until: Option<String>,
    /// The token that it was created with.
    #[schema(value_type = Option<schema::TokenId>)]
    pub parent: Option<TokenId>,
    /// Last use.
    pub last_use: Option<LastUseResponse>,
    /// Scopes; absent for a token with all access of its owner.
    pub scopes: Option<Vec<NodePermission>>,
    /// Limits.
    pub limits: TokenLimits,
    /// Roles, which count only while its owner holds them.
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
    /// Roles of another service, which grant nothing here.
    #[serde(default, skip_serializing_if = "ForeignRoles::is_empty")]
    #[schema(value_type = Option<Vec<schema::ForeignRole>>)]
    pub foreign_roles: ForeignRoles,
}

/// A token with its secret, which no later response reveals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenWithSecret {
    /// The token with its secret.
    #[schema(value_type = schema::TokenText)]
    pub token: RevealedSecret,
    /// The token without its secret.
    #[serde(flatten)]
    pub record: TokenResponse,
}

/// The last use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = LastUse)]
pub struct LastUseResponse {
    /// Time of the use.
    #[schema(value_type = schema::Time)]
    pub at: String,
    /// Address of the client.
    pub from: Option<String>,
    /// User agent of the client.
    pub client: Option<String>,
    /// Protocol of the client.
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
}

impl TokenResponse {
    /// Converts the record of a token.
    pub fn from_record(record: &TokenRecord) -> Self {
        let last_use = record.last_use.as_ref().map(|last| LastUseResponse {
            at: last.at.to_string(),
            from: last.address.clone(),
            client: last.client.clone(),
            protocol: last.protocol,
        });
        let expires = record.expiry != TokenExpiry::Never;
        Self {
            id: record.id,
            owner: record.login.clone(),
            name: record.name.clone(),
            description: record.description.clone(),
            state: record.state,
            dangling: record.has_dangling_scopes(),
            created_at: record.created_at.to_string(),
            expires_at: record.expires_at().map(|at| at.to_string()),
            hard_limit: expires.then(|| record.expiry.hard_limit().to_string()),
            window_seconds: match record.expiry {
                TokenExpiry::Sliding { window_ms, .. } => Some(window_ms / 1000),
                TokenExpiry::Hard(_) | TokenExpiry::Never => None,
            },
            revoked_at: record.revoked_at.map(|at| at.to_string()),
            old_secret_until: record.grace_until.map(|at| at.to_string()),
            parent: record.parent,
            last_use,
            scopes: record
                .scopes
                .as_ref()
                .map(|scopes| scopes.iter().map(NodePermission::from_located_scope).collect()),
            limits: record.limits.clone(),
            roles: record.roles.clone(),
            foreign_roles: record.foreign_roles.clone(),
        }
    }
}
