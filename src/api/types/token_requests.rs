//! Requests to rotate and revoke tokens.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::domain::{Lifetime, Login, TokenId, schema};

/// Options of a rotation.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateTokenRequest {
    /// Grace period during which the old secret is still accepted, 24 h at most; by default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Duration>)]
    pub grace: Option<Lifetime>,
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
