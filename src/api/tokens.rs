//! `/tokens`: create, list, look up, narrow, rotate and revoke tokens.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{self, PathParam, QueryParams};
use super::openapi::{BodyResponses, CommonResponses, QueryResponses, ResourceResponses};
use super::pagination::{self, PageResponse};
use super::types::{RevokeTokensRequest, RevokedTokensResponse, RotateTokenRequest, TokenWithSecret};
use super::{ApiCaller, ApiState, Error, Result, created};
use crate::domain::{Login, TokenId, TokenText, schema};
use crate::store::TokenRecord;
use crate::tokens::{NarrowRequest, Rotation, StateFilter, TokenQuery, TokenRequest};

/// Maximum number of tokens that one request revokes.
const MAX_TOKENS_PER_REVOCATION: usize = 1000;

/// Filter and page of the list of tokens.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListTokensQuery {
    /// Only tokens of this user.
    #[param(value_type = Option<schema::Login>)]
    owner: Option<Login>,
    /// Only tokens in this state.
    #[param(value_type = Option<schema::StateFilter>)]
    state: Option<String>,
    /// Only tokens with this text in id, name, description or owner.
    text: Option<String>,
    /// Maximum number of tokens.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Start of the page, from the `Link` header of the previous one.
    #[param(value_type = Option<schema::TokenId>)]
    cursor: Option<TokenId>,
}

/// Creates a token: for the caller a child of the caller's token, for another user with the role
/// `security.generate_tokens`. No other response ever holds the secret. With `sshKey` there is none.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", operation_id = "createToken", request_body = TokenRequest,
    responses(
        (status = 201, description = "Created", body = TokenWithSecret,
            headers(("Location" = String, description = "URI of the token"),
                    ("ETag" = String, description = "Its version"))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(request): extract::JsonBody<TokenRequest>,
) -> Result<Response> {
    // Queued: argon2 runs on a bounded pool, in turn for each user, and not on this thread.
    let issued = state.tokens.issue_queued(caller.principal(), request, || ()).await?;
    let location = format!("/api/v1/tokens/{}", issued.record.id);
    Ok(created(&location, secret_response(issued.text.as_ref(), issued.record)))
}

/// Lists the tokens that the caller may look up, ordered by id.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens", operation_id = "listTokens", params(ListTokensQuery),
    responses(
        (status = 200, description = "A page of tokens", body = [TokenRecord],
            headers(("Link" = String, description = "The next page, if there is one"))),
        CommonResponses, QueryResponses, ResourceResponses
    )
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: ApiCaller,
    uri: Uri,
    QueryParams(params): QueryParams<ListTokensQuery>,
) -> Result<PageResponse<TokenRecord>> {
    let ListTokensQuery { owner, state: state_filter, text, limit, cursor } = params;
    let state_filter = state_filter.map(|text| StateFilter::from_str(&text)).transpose().map_err(Error::Malformed)?;
    let (query, limit) =
        (TokenQuery { owner, state: state_filter, text, after: cursor, before: None }, pagination::page_limit(limit)?);
    let found = state
        .run_blocking(caller.light_permit(), move |state| Ok(state.tokens.list(&caller.principal(), &query, limit)?))
        .await?;
    Ok(PageResponse::new(&uri, found, |id| id.to_string(), |record| record))
}

/// Looks up the caller's token.
#[utoipa::path(
    get, path = "/api/v1/tokens/self", tag = "tokens", operation_id = "ownToken",
    responses((status = 200, description = "The token", body = TokenRecord, headers(("ETag" = String))), CommonResponses)
)]
pub(super) async fn find_self(State(state): State<ApiState>, caller: ApiCaller) -> Result<Response> {
    let permit = caller.light_permit();
    let find = move |state: &ApiState| Ok(state.tokens.find(&caller.principal(), caller.token_id())?);
    Ok(token_response(state.run_blocking(permit, find).await?))
}

/// Looks up a token. One that the caller may not look up is answered like an unknown one.
#[utoipa::path(
    get, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "findToken",
    params(("id" = schema::TokenId, Path, description = "The token")),
    responses((status = 200, description = "The token", body = TokenRecord, headers(("ETag" = String))), CommonResponses, ResourceResponses)
)]
pub(super) async fn find(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(id): PathParam<TokenId>,
) -> Result<Response> {
    Ok(token_response(
        state.run_blocking(caller.light_permit(), move |state| Ok(state.tokens.find(&caller.principal(), id)?)).await?,
    ))
}

/// Changes the name of a token, and narrows it: fewer scopes, tighter limits, fewer roles, an earlier expiration.
/// Omitted fields are not changed.
#[utoipa::path(
    patch, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "narrowToken", request_body = NarrowRequest,
    params(
        ("id" = schema::TokenId, Path, description = "The token"),
        ("If-Match" = Option<String>, Header, description = "The version that the change applies to, or *",
            example = "\"1\"")
    ),
    responses(
        (status = 200, description = "The changed token", body = TokenRecord, headers(("ETag" = String))),
        (status = 412, description = "The token has another version", content_type = "application/problem+json",
            body = super::error::ProblemDetails),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn narrow(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(id): PathParam<TokenId>,
    headers: HeaderMap,
    extract::JsonBody(update): extract::JsonBody<NarrowRequest>,
) -> Result<Response> {
    let if_match = parse_if_match(&headers);
    let permit = caller.revocation_permit();
    let narrow = move |state: &ApiState| {
        let principal = caller.principal();
        let IfMatch::Versions(versions) = if_match else {
            return Ok(state.tokens.narrow(&principal, id, &update, None)?);
        };
        // The version that matched is handed on, and compared again in the transaction of the change: no lost update in
        // between.
        let version = state.tokens.find(&principal, id)?.version;
        match versions.contains(&version) {
            true => Ok(state.tokens.narrow(&principal, id, &update, Some(version))?),
            false => Err(Error::PreconditionFailed),
        }
    };
    Ok(token_response(state.run_blocking(permit, narrow).await?))
}

/// Rotates a token: it gets a new secret, or another SSH key, and the old one is refused at once or after a grace period of
/// 24 h at most.
#[utoipa::path(
    post, path = "/api/v1/tokens/{id}/rotate", tag = "tokens", operation_id = "rotateToken",
    request_body = Option<RotateTokenRequest>, params(("id" = schema::TokenId, Path, description = "The token")),
    responses(
        (status = 200, description = "The token with its new secret", body = TokenWithSecret, headers(("ETag" = String))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn rotate(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(id): PathParam<TokenId>,
    request: Option<extract::JsonBody<RotateTokenRequest>>,
) -> Result<Response> {
    let RotateTokenRequest { grace, ssh_key } = request.map(|extract::JsonBody(request)| request).unwrap_or_default();
    let rotated = state.tokens.rotate_queued(caller.principal(), id, Rotation { grace, ssh_key }, || ()).await?;
    Ok(secret_response(rotated.text.as_ref(), rotated.record))
}

/// Revokes a token and its children. Revoking a revoked token is no error.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "revokeToken",
    params(("id" = schema::TokenId, Path, description = "The token")),
    responses((status = 204, description = "Revoked"), CommonResponses, ResourceResponses)
)]
pub(super) async fn revoke(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(id): PathParam<TokenId>,
) -> Result<StatusCode> {
    state
        .run_blocking(caller.revocation_permit(), move |state| Ok(state.tokens.revoke(&caller.principal(), &[id])?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes several tokens; none if one of them is unknown or not the caller's to revoke.
#[utoipa::path(
    post, path = "/api/v1/tokens/revoke", tag = "tokens", operation_id = "revokeTokens",
    request_body = RevokeTokensRequest,
    responses((status = 204, description = "Revoked"), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn revoke_many(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(RevokeTokensRequest { ids }): extract::JsonBody<RevokeTokensRequest>,
) -> Result<StatusCode> {
    // One transaction for all of them holds the write lock of the store.
    if ids.len() > MAX_TOKENS_PER_REVOCATION {
        return Err(Error::InvalidValue(format!("at most {MAX_TOKENS_PER_REVOCATION} tokens can be revoked together")));
    }
    state
        .run_blocking(caller.revocation_permit(), move |state| Ok(state.tokens.revoke(&caller.principal(), &ids)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Revokes all tokens of a user.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}/tokens", tag = "tokens", operation_id = "revokeTokensOf",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "Revoked", body = RevokedTokensResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn revoke_all(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(owner): PathParam<Login>,
) -> Result<Json<RevokedTokensResponse>> {
    let permit = caller.revocation_permit();
    let revoke = move |state: &ApiState| {
        let revoked = state.tokens.revoke_all(&caller.principal(), &owner)?;
        Ok(RevokedTokensResponse { owner, revoked })
    };
    Ok(Json(state.run_blocking(permit, revoke).await?))
}

/// The precondition of a change.
enum IfMatch {
    Any,
    Versions(Vec<u64>),
}

/// Parses `If-Match` (RFC 9110 section 13.1.1); a foreign entity tag matches no version.
fn parse_if_match(headers: &HeaderMap) -> IfMatch {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return IfMatch::Any;
    }
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    let mut versions = Vec::new();
    for tag in tags {
        // Any version of an existing resource: `narrow` itself answers for an unknown one.
        if tag == "*" {
            return IfMatch::Any;
        }
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        versions.extend(version.and_then(|version| version.parse().ok()).into_iter().collect::<Vec<u64>>());
    }
    IfMatch::Versions(versions)
}

fn token_response(record: TokenRecord) -> Response {
    let version = record.version;
    with_etag(version, Json(record).into_response())
}

fn secret_response(text: Option<&TokenText>, record: TokenRecord) -> Response {
    let version = record.version;
    with_etag(version, Json(TokenWithSecret::new(text, record)).into_response())
}

/// Adds the version of a token as an entity tag. Every change moves it, uses don't.
fn with_etag(version: u64, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{version}\"")) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
