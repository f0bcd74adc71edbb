//! `/oauth`: token introspection (RFC 7662) and token revocation (RFC 7009).

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::FormBody;
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::types::RevealedSecret;
use super::{ApiCaller, ApiState, Error, Result};
use crate::auth::{AuthError, Credential};
use crate::domain::{ForeignRoles, Login, TokenId, schema};
use crate::store::TokenState;
use crate::tokens::{self, EffectiveToken, Principal};

/// A token with its secret.
#[derive(Deserialize, ToSchema)]
pub(super) struct TokenForm {
    /// The token.
    #[schema(value_type = String)]
    token: RevealedSecret,
    /// Hint about the type of the token; ignored, since there is one type.
    #[serde(default, rename = "token_type_hint")]
    _hint: Option<String>,
}

/// State of a token. An expired, revoked, unknown or mistyped token, and one that the caller may not look up, is just
/// not active.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = Introspection)]
pub(super) struct IntrospectionResponse {
    /// Whether the token is accepted.
    active: bool,
    /// Effective scopes and roles, intersected with those of its owner and its parents; absent if it has neither.
    /// `scopes` tells its access.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// Effective scopes alone. Absent: it has all access of its owner; empty: it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// Roles of another service, which grant nothing here.
    #[serde(skip_serializing_if = "ForeignRoles::is_empty")]
    #[schema(value_type = Option<Vec<schema::ForeignRole>>)]
    foreign_roles: ForeignRoles,
    /// Login of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    username: Option<Login>,
    /// Login of its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    sub: Option<Login>,
    /// Always `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// Expiration in seconds since 1970, unless a use moves it; absent for a token without expiration.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// Time of creation in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// Id of the token.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::TokenId>)]
    jti: Option<TokenId>,
}

impl IntrospectionResponse {
    fn from_effective(EffectiveToken { record, scopes, roles }: &EffectiveToken) -> Self {
        let scopes: Option<Vec<_>> = scopes.as_ref().map(|scopes| scopes.iter().map(ToString::to_string).collect());
        let parts: Vec<_> = scopes.iter().flatten().cloned().chain(roles.iter().map(|role| role.to_string())).collect();
        Self {
            active: true,
            scope: (scopes.is_some() || !parts.is_empty()).then(|| parts.join(" ")),
            scopes,
            foreign_roles: record.foreign_roles.clone(),
            username: Some(record.owner.clone()),
            sub: Some(record.owner.clone()),
            token_type: Some("Bearer"),
            exp: record.expires_at.map(|at| at.as_millis().div_euclid(1000)),
            iat: Some(record.created_at.as_millis().div_euclid(1000)),
            jti: Some(record.id),
        }
    }
}

/// Tells a caller who may look up the token whether it is active (RFC 7662).
#[utoipa::path(
    post, path = "/api/v1/oauth/introspect", tag = "oauth", operation_id = "introspect",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "State of the token", body = IntrospectionResponse), CommonResponses, BodyResponses)
)]
pub(super) async fn introspect(
    State(state): State<ApiState>,
    caller: ApiCaller,
    FormBody(form): FormBody<TokenForm>,
) -> Result<Json<IntrospectionResponse>> {
    // Verifies the secret without opening a session: introspection by others must not count as a use of the token.
    let Some(id) = state.auth.identify_token(form.token.as_str().as_bytes()).await? else {
        return Ok(Json(IntrospectionResponse::default()));
    };
    let permit = caller.light_permit();
    let find = move |state: &ApiState| match state.tokens.find_effective(&caller.principal(), id) {
        Ok(found) if found.record.state != TokenState::Revoked => Ok(IntrospectionResponse::from_effective(&found)),
        // RFC 7662 section 2.2: an inactive token and one that the caller may not know of get the same response.
        Ok(_) | Err(tokens::Error::UnknownToken(_)) => Ok(IntrospectionResponse::default()),
        Err(other) => Err(other.into()),
    };
    Ok(Json(state.run_blocking(permit, find).await?))
}

/// Revokes a token by its secret (RFC 7009), which is authorization enough. An expired, revoked or unknown token is no
/// error.
#[utoipa::path(
    post, path = "/api/v1/oauth/revoke", tag = "oauth", operation_id = "revokeShown",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "The token is not accepted any more"), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn revoke(
    State(state): State<ApiState>,
    caller: ApiCaller,
    FormBody(form): FormBody<TokenForm>,
) -> Result<StatusCode> {
    // RFC 7009 section 2.2: an invalid token is answered with 200, since the purpose of the call is fulfilled.
    let Some(id) = state.auth.identify_token(form.token.as_str().as_bytes()).await? else { return Ok(StatusCode::OK) };
    let peer = caller.0.peer().clone();
    let (caller_permit, token_permit) = (caller.revocation_permit(), caller.revocation_permit());
    // Tried with the caller's own rights first: a role to revoke needs no use of the token itself.
    let result =
        state.run_blocking(caller_permit, move |state| Ok(state.tokens.revoke(&caller.principal(), &[id]))).await?;
    match result {
        Ok(()) => return Ok(StatusCode::OK),
        Err(tokens::Error::UnknownToken(_) | tokens::Error::Forbidden(_)) => {}
        Err(other) => return Err(other.into()),
    }
    let token = zeroize::Zeroizing::new(form.token.as_str().as_bytes().to_vec());
    // Otherwise possession of the token is enough, but its own limits on addresses and protocols still hold.
    let principal = match state.auth.authenticate(Credential { login: None, token }, peer).await {
        Ok(session) => Principal::Session(session),
        Err(AuthError::Denied) => {
            return Err(Error::Forbidden("the token's limits don't allow its use from this client: revoke it from an allowed one, or with a role".into()));
        }
        Err(other) => return Err(other.into()),
    };
    state.run_blocking(token_permit, move |state| Ok(state.tokens.revoke(&principal, &[id])?)).await?;
    Ok(StatusCode::OK)
}
