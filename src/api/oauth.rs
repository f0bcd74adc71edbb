//! `/oauth`: whether a token is live (RFC 7662), and taking one back by showing it (RFC 7009).

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::FormBody;
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::schema;
use super::types::RevealedSecret;
use super::{ApiCaller, ApiState, Error, Result};
use crate::auth::{AuthError, Credential};
use crate::domain::{ForeignRoles, Login, TokenId};
use crate::store::TokenState;
use crate::tokens::{self, EffectiveToken, Principal};

/// A token that is shown.
#[derive(Deserialize, ToSchema)]
pub(super) struct TokenForm {
    /// The token.
    #[schema(value_type = String)]
    token: RevealedSecret,
    /// What kind of token it is thought to be; there is one kind.
    #[serde(default, rename = "token_type_hint")]
    _hint: Option<String>,
}

/// What there is to know of a token; of one that is dead, unknown, mistyped or hidden, only that it is
/// not active.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct IntrospectionResponse {
    /// Whether it is accepted.
    active: bool,
    /// What is left of its scopes, and of its roles, once those of its owner and of the tokens above it are
    /// counted in; none where it has neither. `scopes` tells what it reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    /// What is left of its scopes alone. None: it reaches all that its owner may; empty: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// Roles of another service that are kept on it and grant nothing here.
    #[serde(skip_serializing_if = "ForeignRoles::is_empty")]
    #[schema(value_type = Option<Vec<schema::ForeignRole>>)]
    foreign_roles: ForeignRoles,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    username: Option<Login>,
    /// Its owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<schema::Login>)]
    sub: Option<Login>,
    /// `Bearer`.
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    /// When it dies unless it is used before, in seconds since 1970; none: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// When it was made, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    /// Its id.
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
            username: Some(record.login.clone()),
            sub: Some(record.login.clone()),
            token_type: Some("Bearer"),
            exp: record.expires_at().map(|at| at.as_millis().div_euclid(1000)),
            iat: Some(record.created_at.as_millis().div_euclid(1000)),
            jti: Some(record.id),
        }
    }
}

/// Tells whether a token is live, to one who may look it up (RFC 7662).
#[utoipa::path(
    post, path = "/api/v1/oauth/introspect", tag = "oauth", operation_id = "introspect",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "What there is to know", body = IntrospectionResponse), CommonResponses, BodyResponses)
)]
pub(super) async fn introspect(
    State(state): State<ApiState>,
    caller: ApiCaller,
    FormBody(form): FormBody<TokenForm>,
) -> Result<Json<IntrospectionResponse>> {
    let Some(id) = state.auth.identify_token(form.token.as_str().as_bytes()).await? else {
        return Ok(Json(IntrospectionResponse::default()));
    };
    let permit = caller.light_permit();
    let find = move |state: &ApiState| match state.tokens.find_effective(&caller.principal(), id) {
        Ok(found) if found.record.state != TokenState::Revoked => Ok(IntrospectionResponse::from_effective(&found)),
        Ok(_) | Err(tokens::Error::UnknownToken(_)) => Ok(IntrospectionResponse::default()),
        Err(other) => Err(other.into()),
    };
    Ok(Json(state.run_blocking(permit, find).await?))
}

/// Revokes the token that is shown (RFC 7009): whoever holds it may, and one that is dead stays so.
#[utoipa::path(
    post, path = "/api/v1/oauth/revoke", tag = "oauth", operation_id = "revokeShown",
    request_body(content = TokenForm, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "It is not accepted any more"), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn revoke(
    State(state): State<ApiState>,
    caller: ApiCaller,
    FormBody(form): FormBody<TokenForm>,
) -> Result<StatusCode> {
    let Some(id) = state.auth.identify_token(form.token.as_str().as_bytes()).await? else { return Ok(StatusCode::OK) };
    let peer = caller.0.peer().clone();
    let (caller_permit, token_permit) = (caller.revocation_permit(), caller.revocation_permit());
    let result =
        state.run_blocking(caller_permit, move |state| Ok(state.tokens.revoke(&caller.principal(), &[id]))).await?;
    match result {
        Ok(()) => return Ok(StatusCode::OK),
        Err(tokens::Error::UnknownToken(_) | tokens::Error::Forbidden(_)) => {}
        Err(other) => return Err(other.into()),
    }
    let token = zeroize::Zeroizing::new(form.token.as_str().as_bytes().to_vec());
    let principal = match state.auth.authenticate(Credential { login: None, token }, peer).await {
        Ok(session) => Principal::Session(session),
        Err(AuthError::Denied) => {
            return Err(Error::Forbidden("the token's limits don't allow to revoke it from here".into()));
        }
        Err(other) => return Err(other.into()),
    };
    state.run_blocking(token_permit, move |state| Ok(state.tokens.revoke(&principal, &[id])?)).await?;
    Ok(StatusCode::OK)
}
