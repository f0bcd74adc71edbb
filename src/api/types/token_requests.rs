//! Requests to narrow, rotate and revoke tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{
    Lifetime, Login, Roles, ScopeTarget, TextValue, TokenId, TokenLimits, UnixMillis, deserialize_object, schema,
};
use crate::tokens::{NarrowRequest, TokenLabel};

/// Changes of a token. Omitted fields are not changed, and no field may widen the token.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTokenRequest {
    /// New name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub name: Option<TextValue<TokenLabel>>,
    /// New description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub description: Option<TextValue<TokenLabel>>,
    /// Scopes in place of the present ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Scope>>)]
    pub scopes: Option<Vec<TextValue<ScopeTarget>>>,
    /// Limits, each in place of the present one.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub limits: TokenLimits,
    /// Roles to keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Role>>)]
    pub roles: Option<Roles>,
    /// Earlier expiration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<TextValue<UnixMillis>>,
}

impl UpdateTokenRequest {
    /// Converts a request to narrow a token.
    pub fn from_narrowing(change: &NarrowRequest) -> Self {
        let NarrowRequest { name, description, scopes, limits, roles, expires_at: expires } = change.clone();
        Self {
            name: name.map(TextValue),
            description: description.map(TextValue),
            scopes: scopes.map(|scopes| scopes.into_iter().map(TextValue).collect()),
            limits,
            roles,
            expires_at: expires.map(TextValue),
        }
    }

    /// Converts to a request to narrow a token.
    pub(in crate::api) fn into_narrowing(self) -> NarrowRequest {
        NarrowRequest {
            name: self.name.map(|name| name.0),
            description: self.description.map(|text| text.0),
            scopes: self.scopes.map(scope_targets),
            limits: self.limits,
            roles: self.roles,
            expires_at: self.expires_at.map(|at| at.0),
        }
    }
}

/// Options of a rotation.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateTokenRequest {
    /// Grace period during which the old secret is still accepted, 24 h at most; by default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub grace: Option<TextValue<Lifetime>>,
}

/// Tokens to revoke together.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeTokensRequest {
    /// Ids of the tokens.
    #[schema(value_type = Vec<schema::TokenId>, max_items = 1000)]
    pub ids: Vec<TokenId>,
}

/// Number of revoked tokens.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[schema(as = RevokedTokens)]
pub struct RevokedTokensResponse {
    /// Login of the owner.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// Number of tokens that had not been revoked before.
    pub revoked: usize,
}

fn scope_targets(scopes: Vec<TextValue<ScopeTarget>>) -> Vec<ScopeTarget> {
    scopes.into_iter().map(|scope| scope.0).collect()
}
