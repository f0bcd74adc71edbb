//! Tokens and what they reach in JSON: one shape for REST and for the command line.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::schema;
use super::RevealedSecret;
use crate::domain::{
    self, ByteSize, FileTag, ForeignRoles, IpNet, Login, MimePattern, NodeId, Permission, Protocol, Roles, TokenExpiry,
    TokenId, UserAgentPattern,
};
use crate::store::{LocatedScope, TokenRecord, TokenState};

/// A grant or scope, and where its node is; without a path it dangles.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodePermission {
    /// The node.
    #[schema(value_type = schema::NodeId)]
    pub node: NodeId,
    /// What is allowed there and below.
    #[schema(value_type = schema::Permission)]
    pub permission: Permission,
    /// Where the node is now.
    #[schema(value_type = Option<schema::Path>)]
    pub path: Option<String>,
}

impl NodePermission {
    /// Shows a grant or scope.
    pub fn from_located_scope(located: &LocatedScope) -> Self {
        let path = located.path.as_ref().map(ToString::to_string);
        Self { node: located.scope.node, permission: located.scope.permission, path }
    }
}

/// The limits on a token; an empty list, or none, limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenLimitsJson {
    /// The doors it opens.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Protocol>)]
    pub protocols: Vec<Protocol>,
    /// The addresses it may be used from.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_networks")]
    #[schema(value_type = Vec<schema::Network>)]
    pub ips: Vec<IpNet>,
    /// The programs it may be used by.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "deserialize_user_agents")]
    #[schema(value_type = Vec<schema::UserAgent>)]
    pub user_agents: Vec<UserAgentPattern>,
    /// The media types of what it may upload.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Mime>)]
    pub mimes: Vec<MimePattern>,
    /// The tags that its uploads may bear.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<schema::Tag>)]
    pub tags: Vec<FileTag>,
    /// The largest file it may make, in bytes.
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

/// Reads networks; an address stands for the network of itself.
fn deserialize_networks<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| domain::parse_network(text).map_err(serde::de::Error::custom)).collect()
}

/// Reads user agents; an empty one would allow nobody, and none is so long.
pub(in crate::api) fn deserialize_user_agents<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<UserAgentPattern>, D::Error> {
    let texts = Option::<Vec<String>>::deserialize(deserializer)?.unwrap_or_default();
    match texts.iter().any(|text| text.trim().is_empty() || text.chars().count() > 256) {
        true => {
            Err(serde::de::Error::custom("a user agent has 1 to 256 characters: leave it out to allow every program"))
        }
        false => Ok(texts.into_iter().map(UserAgentPattern::new).collect()),
    }
}

/// A token; never its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenResponse {
    /// The public id.
    #[schema(value_type = schema::TokenId)]
    pub id: TokenId,
    /// The owner.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// Its name for people.
    pub name: String,
    /// Its description for people.
    pub description: String,
    /// Whether it is accepted, as far as it and those above it decide.
    #[schema(value_type = schema::State)]
    pub state: TokenState,
    /// Whether a scope's node has ended.
    pub dangling: bool,
    /// When it was made.
    #[schema(value_type = schema::Time)]
    pub created_at: String,
    /// When it dies unless it is used before; none: never.
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<String>,
    /// The latest it can live by being used; none: without end.
    #[schema(value_type = Option<schema::Time>)]
    pub hard_limit: Option<String>,
    /// Its sliding window.
    #[schema(minimum = 1)]
    pub window_seconds: Option<u64>,
    /// When it was revoked.
    #[schema(value_type = Option<schema::Time>)]
    pub revoked_at: Option<String>,
    /// Until when the secret before the last rotation is accepted.
    #[schema(value_type = Option<schema::Time>)]
    pub old_secret_until: Option<String>,
    /// The token it was made with.
    #[schema(value_type = Option<schema::TokenId>)]
    pub parent: Option<TokenId>,
    /// Its last use.
    pub last_use: Option<LastUseResponse>,
    /// What it is narrowed to; none: all that its owner may reach.
    pub scopes: Option<Vec<NodePermission>>,
    /// What it is limited to.
    pub limits: TokenLimitsJson,
    /// What it may do beyond its own tokens, while its owner holds that.
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
    /// Roles of another service, which grant nothing here.
    #[serde(default, skip_serializing_if = "ForeignRoles::is_empty")]
    #[schema(value_type = Option<Vec<schema::ForeignRole>>)]
    pub foreign_roles: ForeignRoles,
}

/// A token and its secret, for the one time that it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenWithSecret {
    /// The secret.
    #[schema(value_type = schema::TokenText)]
    pub token: RevealedSecret,
    /// What is kept.
    #[serde(flatten)]
    pub record: TokenResponse,
}

/// When, whence and with what a token was last used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastUseResponse {
    /// When.
    #[schema(value_type = schema::Time)]
    pub at: String,
    /// From which address.
    pub from: Option<String>,
    /// With which program.
    pub client: Option<String>,
    /// By which door.
    #[schema(value_type = Option<schema::Protocol>)]
    pub protocol: Option<Protocol>,
}

impl TokenResponse {
    /// Shows what is kept of a token.
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
