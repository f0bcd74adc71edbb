//! What is asked for: a token to be made, narrowed or given a new secret.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::super::{Error, Result, schema};
use super::{TextValue, TokenLimitsJson, deserialize_object};
use crate::domain::{Lifetime, Login, Roles, ScopeTarget, TokenId, UnixMillis};
use crate::tokens::{NarrowRequest, RequestedLifetime, TokenLabel, TokenRequest};

/// A token to be made; all that is left out is as the policy has it, or not narrowed.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTokenRequest {
    /// The owner; the caller unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    pub owner: Option<Login>,
    /// A name for people; `OWNER_api_token` unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub name: Option<TextValue<TokenLabel>>,
    /// A description for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub description: Option<TextValue<TokenLabel>>,
    /// How long it lives, `never`, or `default` for as long as the policy has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Lifetime>)]
    pub lifetime: Option<String>,
    /// When it dies, in place of `lifetime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<TextValue<UnixMillis>>,
    /// The sliding window: each use moves its expiry to now + window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub window: Option<TextValue<Lifetime>>,
    /// What to narrow it to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Scope>>)]
    pub scopes: Option<Vec<TextValue<ScopeTarget>>>,
    /// What to limit it to.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub limits: TokenLimitsJson,
    /// What it may do beyond its own tokens.
    #[serde(default, skip_serializing_if = "Roles::is_empty")]
    #[schema(value_type = Vec<schema::Role>)]
    pub roles: Roles,
}

impl CreateTokenRequest {
    /// Writes down what is asked for in full.
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
            limits: request.limits.clone().into(),
            roles: request.roles.clone(),
        }
    }

    /// Reads what is asked for by a caller.
    ///
    /// # Errors
    /// [`Error::InvalidValue`].
    pub(in crate::api) fn into_token_request(self, caller: &Login) -> Result<TokenRequest> {
        let lifetime = match (self.lifetime.as_deref(), self.expires_at) {
            (None | Some("default"), None) => RequestedLifetime::Default,
            (Some("never"), None) => RequestedLifetime::Never,
            (Some(text), None) => RequestedLifetime::For(text.parse().map_err(invalid_value)?),
            (None, Some(TextValue(at))) => RequestedLifetime::Until(at),
            (Some(_), Some(_)) => return Err(Error::InvalidValue("give lifetime or expires_at, not both".to_owned())),
        };
        let owner = self.owner.unwrap_or_else(|| caller.clone());
        Ok(TokenRequest {
            name: self.name.map(|name| name.0),
            description: self.description.map(|text| text.0).unwrap_or_default(),
            lifetime,
            window: self.window.map(|window| window.0),
            scopes: self.scopes.map(scope_targets),
            limits: self.limits.into(),
            roles: self.roles,
            ..TokenRequest::new(owner)
        })
    }
}

/// What to change about a token; what is left out stays, and nothing makes it wider.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTokenRequest {
    /// Another name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub name: Option<TextValue<TokenLabel>>,
    /// Another description.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Label>)]
    pub description: Option<TextValue<TokenLabel>>,
    /// What to narrow it to, in place of its scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Scope>>)]
    pub scopes: Option<Vec<TextValue<ScopeTarget>>>,
    /// Limits to set; each that is given takes the place of the present one.
    #[serde(default, deserialize_with = "deserialize_object")]
    pub limits: TokenLimitsJson,
    /// The roles to leave it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<schema::Role>>)]
    pub roles: Option<Roles>,
    /// When it is to die at the latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Time>)]
    pub expires_at: Option<TextValue<UnixMillis>>,
}

impl UpdateTokenRequest {
    /// Writes down what is asked for.
    pub fn from_narrowing(change: &NarrowRequest) -> Self {
        let NarrowRequest { name, description, scopes, limits, roles, expires_at: expires } = change.clone();
        Self {
            name: name.map(TextValue),
            description: description.map(TextValue),
            scopes: scopes.map(|scopes| scopes.into_iter().map(TextValue).collect()),
            limits: limits.into(),
            roles,
            expires_at: expires.map(TextValue),
        }
    }

    /// Reads what is asked for.
    pub(in crate::api) fn into_narrowing(self) -> NarrowRequest {
        NarrowRequest {
            name: self.name.map(|name| name.0),
            description: self.description.map(|text| text.0),
            scopes: self.scopes.map(scope_targets),
            limits: self.limits.into(),
            roles: self.roles,
            expires_at: self.expires_at.map(|at| at.0),
        }
    }
}

/// A new secret to be made.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateTokenRequest {
    /// How long the old secret is accepted still, 24 h at most; not at all unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub grace: Option<TextValue<Lifetime>>,
}

/// Tokens to be revoked together.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevokeTokensRequest {
    /// Their ids.
    #[schema(value_type = Vec<schema::TokenId>, max_items = 1000)]
    pub ids: Vec<TokenId>,
}

/// How many tokens were revoked.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct RevokedTokensResponse {
    /// Whose.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// How many had not been revoked before.
    pub revoked: usize,
}

fn scope_targets(scopes: Vec<TextValue<ScopeTarget>>) -> Vec<ScopeTarget> {
    scopes.into_iter().map(|scope| scope.0).collect()
}

fn invalid_value(why: impl ToString) -> Error {
    Error::InvalidValue(why.to_string())
}
