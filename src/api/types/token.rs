//! Tokens, their limits and their access in JSON.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::RevealedSecret;
use crate::domain::{
    self, ByteSize, FileTag, ForeignRoles, IpNet, Login, MimePattern, NodeId, Permission, Protocol, Roles, TokenExpiry,
    TokenId, UserAgentPattern, schema,
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

/// Limits on a token; an absent or empty field limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TokenLimits)]
pub struct TokenLimitsJson {
    /// Protocols that the token may be used over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Protocol>)]
    pub protocols: Vec<Protocol>,
    /// Addresses and networks that it may be used from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_networks")]
    #[schema(value_type = Vec<schema::Network>)]
    pub ips: Vec<IpNet>,
    /// User agents that may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_user_agents")]
    #[schema(value_type = Vec<schema::UserAgent>)]
    pub user_agents: Vec<UserAgentPattern>,
    /// Media types that it may upload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Mime>)]
    pub mimes: Vec<MimePattern>,
    /// Tags that its uploads may have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Tag>)]
    pub tags: Vec<FileTag>,
    /// Maximum size of a file that it writes, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Bytes>)]
    pub max_file_size: Option<ByteSize>,
}

impl From<domain::TokenLimits> for TokenLimitsJson {
    fn from(limits: domain::TokenLimits) -> Self {
        let domain::TokenLimits { protocols, ips, user_agents, mimes, tags, max_file_size } = limits;
        Self { protocols, ips, user_agents, mimes, tags, max_file_size }
    }
}

impl From<TokenLimitsJson> for domain::TokenLimits {
    fn from(limits: TokenLimitsJson) -> Self {
        let TokenLimitsJson { protocols, ips, user_agents, mimes, tags, max_file_size } = limits;
        Self { protocols, ips, user_agents, mimes, tags, max_file_size }
    }
}

/// Deserializes networks; an address is a network of one.
fn deserialize_networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| domain::parse_network(text).map_err(serde::de::Error::custom)).collect()
}

/// Deserializes user agents. An empty one, which would match no client, and one of more than 256 characters are refused.
pub(in crate::api) fn deserialize_user_agents<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<UserAgentPattern>, D::Error> {
    // Null counts as absent: the upload service's clients send it.
    let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    match texts.iter().any(|text| text.trim().is_empty() || text.chars().count() > 256) {
        true => Err(serde::de::Error::custom(
            "a user agent has 1 to 256 characters: leave the field out to allow all clients",
        )),
        false => Ok(texts.into_iter().map(UserAgentPattern::new).collect()),
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
    pub limits: TokenLimitsJson,
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
            limits: record.limits.clone().into(),
            roles: record.roles.clone(),
            foreign_roles: record.foreign_roles.clone(),
        }
    }
}
