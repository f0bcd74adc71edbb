//! Requests to create, narrow, rotate and revoke tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::{Error, Result};
use crate::domain::{
    Lifetime, Login, Roles, ScopeTarget, TextValue, TokenId, TokenLimits, UnixMillis, deserialize_object, schema,
};
use crate::tokens::{NarrowRequest, RequestedLifetime, TokenLabel, TokenRequest};

/// A token to create. Omitted fields take the default of the policy, or narrow nothing.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// Login of the owner; by default the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    pub owner: Option<Login>,
    /// Name for people; by default `OWNER_api_token`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub name: Option<TextValue<TokenLabel>>,
    /// Description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub description: Option<TextValue<TokenLabel>>,
    /// Lifetime: a duration, `never` for no expiration, or `default` for the default of the policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Lifetime>)]
    pub lifetime: Option<String>,
    /// Expiration, in place of `lifetime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<TextValue<UnixMillis>>,
    /// Sliding window: each use moves the expiration to now + window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub window: Option<TextValue<Lifetime>>,
    /// Scopes; by default all access of the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Scope>>)]
    pub scopes: Option<Vec<TextValue<ScopeTarget>>>,
    /// Limits.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub limits: TokenLimits,
    /// Roles.
    #[serde(default, skip_serializing_if = "Roles::is_empty")]
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
}

impl CreateTokenRequest {
    /// Converts a request, with all fields given.
    pub fn from_token_request(request: &TokenRequest) -> Self {
        let (lifetime, expires_at) = match request.lifetime {
            RequestedLifetime::Default => (None, None),
            RequestedLifetime::For(lifetime) => (Some(lifetime.to_string()), None),
            RequestedLifetime::Until(at) => (None, Some(TextValue(at))),
            RequestedLifetime::Never => (Some("never".to_owned()), None),
        };
        Self {
            owner: Some(request.owner.clone()),
            name: request.name.clone().map(TextValue),
            description: Some(TextValue(request.description.clone())),
            lifetime,
            expires_at,
            window: request.window.map(TextValue),
            scopes: request.scopes.clone().map(|scopes| scopes.into_iter().map(TextValue).collect()),
            limits: request.limits.clone(),
            roles: request.roles.clone(),
        }
    }

    /// Converts to a request of a caller, who is the default owner.
    ///
    /// # Errors
    /// [`Error::InvalidValue`] for an unparsable lifetime, or for both `lifetime` and `expires_at`.
    pub(in crate::api) fn into_token_request(self, caller: &Login) -> Result<TokenRequest> {
        let lifetime = match (self.lifetime.as_deref(), self.expires_at) {
            (None | Some("default"), None) => RequestedLifetime::Default,
            (Some("never"), None) => RequestedLifetime::Never,
            (Some(text), None) => RequestedLifetime::For(text.parse().map_err(invalid_value)?),
            (None, Some(TextValue(at))) => RequestedLifetime::Until(at),
            (Some(_), Some(_)) => {
                return Err(Error::InvalidValue(
                    "lifetime and expires_at can't be combined: give one of them".to_owned(),
                ));
            }
        };
        // The default owner is the caller's user; whether another one is allowed is for `tokens` to decide.
        let owner = self.owner.unwrap_or_else(|| caller.clone());
        Ok(TokenRequest {
            name: self.name.map(|name| name.0),
            description: self.description.map(|text| text.0).unwrap_or_default(),
            lifetime,
            window: self.window.map(|window| window.0),
            scopes: self.scopes.map(scope_targets),
            limits: self.limits,
            roles: self.roles,
            ..TokenRequest::new(owner)
        })
    }
}

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

fn invalid_value(why: impl ToString) -> Error {
    Error::InvalidValue(why.to_string())
}
