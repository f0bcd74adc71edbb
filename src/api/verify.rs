//! `GET /auth/verify`: authentication for another web server (nginx `auth_request`, Traefik, Caddy).
//!
//! It checks the credential and the limits of its token and, with `op` and `path`, the access to that node. The
//! response is 200 with headers that identify the user, or 401 or 403.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::QueryParams;
use super::openapi::{CommonResponses, QueryResponses};
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::{ForeignRole, TextValue, TreeOperation, TreePath, schema};

/// Operation and path to authorize, or nothing.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct VerifyQuery {
    /// Operation: stat, list, read, copy, write, create, delete, move or link; requires `path`.
    #[param(value_type = Option<schema::Operation>)]
    op: Option<TextValue<TreeOperation>>,
    /// Path of the node; requires `op`.
    #[param(value_type = Option<schema::Path>)]
    path: Option<TextValue<TreePath>>,
}

/// Authenticates a request by its `Authorization` header, and returns the user in headers.
#[utoipa::path(
    get, path = "/auth/verify", tag = "verify", operation_id = "verify", params(VerifyQuery),
    responses(
        (status = 200, description = "The request is allowed", headers(
            ("X-Patgate-User" = String, description = "The user"),
            ("Remote-User" = String, description = "The user"),
            ("X-Patgate-Token" = String, description = "The token's id"),
            ("X-Patgate-Foreign-Roles" = Option<String>, description = "Roles of another service that the token was \
                created with, separated by commas; patgate has not checked that its owner holds them"))),
        (status = 403, description = "No access to this node", content_type = "application/problem+json",
            body = super::error::ProblemDetails),
        CommonResponses, QueryResponses
    )
)]
pub(super) async fn verify(
    State(state): State<ApiState>,
    caller: ApiCaller,
    QueryParams(access): QueryParams<VerifyQuery>,
) -> Result<Response> {
    match (access.op, access.path) {
        (None, None) => {}
        (Some(TextValue(operation)), Some(TextValue(path))) => {
            let access = caller.0.access()?;
            let decision = operation.authorize(&access, &path);
            decision.map_err(|_| Error::Forbidden(format!("the token does not allow to {operation} at this path")))?;
        }
        // One without the other would silently skip the check of access that the caller asked for.
        _ => return Err(Error::InvalidValue("op and path require each other".to_owned())),
    }
    let principal = caller.principal();
    let foreign_roles =
        state.run_blocking(caller.light_permit(), move |state| Ok(state.tokens.foreign_roles(&principal)?)).await?;
    let foreign_roles = foreign_roles.iter().map(ForeignRole::as_str).collect::<Vec<_>>().join(",");
    let mut response = StatusCode::OK.into_response();
    let (user, token) = (caller.login().as_str(), caller.token_id());
    // `Remote-User` is the header that many applications behind a proxy look for.
    let identity = [("x-patgate-user", user), ("remote-user", user), ("x-patgate-token", token.as_str())];
    let foreign_header = (!foreign_roles.is_empty()).then_some(("x-patgate-foreign-roles", foreign_roles.as_str()));
    for (name, value) in identity.into_iter().chain(foreign_header) {
        // Logins and roles are ASCII, so no header is lost here.
        if let Ok(value) = HeaderValue::from_str(value) {
            response.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    Ok(response)
}
