//! `/tokens`: made, listed, looked up, narrowed, given new secrets and revoked.

use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::document::{Common, Known, Read, WithBody};
use super::extract::{self, Asked, At};
use super::page::{self, Page};
use super::schema;
use super::shape::{NewToken, Rotation, Token, TokenChange, TokenOrder};
use super::{Error, Result, Room, Who, made};
use crate::domain::{Login, TokenId};
use crate::store::TokenRecord;
use crate::tokens::{StateFilter, TokenQuery};

/// Maximum number of tokens that one request revokes.
const MAX_REVOKED_TOGETHER: usize = 1000;

/// Which tokens to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listed {
    /// Those of this user.
    #[param(value_type = Option<schema::Login>)]
    owner: Option<Login>,
    /// Those in this state.
    #[param(value_type = Option<schema::StateFilter>)]
    state: Option<String>,
    /// Those with this text in their id, name, description or owner.
    text: Option<String>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Where to go on: from the `Link` of the page before.
    #[param(value_type = Option<schema::TokenId>)]
    cursor: Option<TokenId>,
}

/// Makes a token: for oneself the child of the one that asks, for somebody else with the role
/// `security.generate_tokens`. The answer is the only one that ever holds the secret.
#[utoipa::path(
    post, path = "/api/v1/tokens", tag = "tokens", operation_id = "createToken", request_body = TokenOrder,
    responses(
        (status = 201, description = "Made", body = NewToken,
            headers(("Location" = String, description = "Where the token is looked up"),
                    ("ETag" = String, description = "Its version"))),
        Common, WithBody, Known
    )
)]
pub(super) async fn create(
    State(room): State<Room>,
    who: Who,
    extract::Json(order): extract::Json<TokenOrder>,
) -> Result<Response> {
    let request = order.request(who.login())?;
    let issued = room.tokens.issue_queued(who.authority(), request, || ()).await?;
    let location = format!("/api/v1/tokens/{}", issued.record.id);
    Ok(made(&location, reveal(issued.text.reveal().as_str(), &issued.record)))
}

/// Lists the tokens that the caller may look at, in the order of their ids.
#[utoipa::path(
    get, path = "/api/v1/tokens", tag = "tokens", operation_id = "listTokens", params(Listed),
    responses(
        (status = 200, description = "A page", body = [Token],
            headers(("Link" = String, description = "The next page, where there is one"))),
        Common, Read, Known
    )
)]
pub(super) async fn list(
    State(room): State<Room>,
    who: Who,
    uri: Uri,
    Asked(listed): Asked<Listed>,
) -> Result<Page<Token>> {
    let Listed { owner, state, text, limit, cursor } = listed;
    let state = state.map(|state| StateFilter::from_str(&state)).transpose().map_err(Error::Malformed)?;
    let (query, limit) = (TokenQuery { owner, state, text, after: cursor, before: None }, page::limit(limit)?);
    let found = room.work(who.light(), move |room| Ok(room.tokens.list(&who.authority(), &query, limit)?)).await?;
    Ok(Page::of(&uri, found, |id| id.to_string(), |record| Token::of(&record)))
}

/// Looks up the token that asks.
#[utoipa::path(
    get, path = "/api/v1/tokens/self", tag = "tokens", operation_id = "ownToken",
    responses((status = 200, description = "The token", body = Token, headers(("ETag" = String))), Common)
)]
pub(super) async fn own(State(room): State<Room>, who: Who) -> Result<Response> {
    let turn = who.light();
    let find = move |room: &Room| Ok(room.tokens.find(&who.authority(), who.token())?);
    Ok(shown(&room.work(turn, find).await?))
}

/// Looks up a token; one that the caller may not look at is not there.
#[utoipa::path(
    get, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "findToken",
    params(("id" = schema::TokenId, Path, description = "The token")),
    responses((status = 200, description = "The token", body = Token, headers(("ETag" = String))), Common, Known)
)]
pub(super) async fn find(State(room): State<Room>, who: Who, At(id): At<TokenId>) -> Result<Response> {
    Ok(shown(&room.work(who.light(), move |room| Ok(room.tokens.find(&who.authority(), id)?)).await?))
}

/// Changes a token's name, and makes it narrower: fewer scopes, tighter limits, fewer roles, an earlier
/// end. What is left out stays.
#[utoipa::path(
    patch, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "narrowToken", request_body = TokenChange,
    params(
        ("id" = schema::TokenId, Path, description = "The token"),
        ("If-Match" = Option<String>, Header, description = "The version that the change is meant for, or *",
            example = "\"1\"")
    ),
    responses(
        (status = 200, description = "The token as it is now", body = Token, headers(("ETag" = String))),
        (status = 412, description = "It has another version", content_type = "application/problem+json",
            body = super::error::Problem),
        Common, WithBody, Known
    )
)]
pub(super) async fn narrow(
    State(room): State<Room>,
    who: Who,
    At(id): At<TokenId>,
    headers: HeaderMap,
    extract::Json(change): extract::Json<TokenChange>,
) -> Result<Response> {
    let expected = expected(&headers);
    let change = change.narrowing();
    let turn = who.revoking();
    let narrow = move |room: &Room| {
        let who = who.authority();
        let Expected::OneOf(versions) = expected else { return Ok(room.tokens.narrow(&who, id, &change, None)?) };
        let version = room.tokens.find(&who, id)?.version;
        match versions.contains(&version) {
            true => Ok(room.tokens.narrow(&who, id, &change, Some(version))?),
            false => Err(Error::Changed),
        }
    };
    Ok(shown(&room.work(turn, narrow).await?))
}

/// Gives a token a new secret; the old one is dead at once, or after a grace of 24 h at most.
#[utoipa::path(
    post, path = "/api/v1/tokens/{id}/rotate", tag = "tokens", operation_id = "rotateToken",
    request_body = Option<Rotation>, params(("id" = schema::TokenId, Path, description = "The token")),
    responses(
        (status = 200, description = "The token with its new secret", body = NewToken, headers(("ETag" = String))),
        Common, WithBody, Known
    )
)]
pub(super) async fn rotate(
    State(room): State<Room>,
    who: Who,
    At(id): At<TokenId>,
    rotation: Option<extract::Json<Rotation>>,
) -> Result<Response> {
    let grace = rotation.and_then(|extract::Json(rotation)| rotation.grace).map(|grace| grace.0);
    let rotated = room.tokens.rotate_queued(who.authority(), id, grace, || ()).await?;
    Ok(reveal(rotated.text.reveal().as_str(), &rotated.record))
}

/// Revokes a token, and with it those made with it; one that is revoked already stays so.
#[utoipa::path(
    delete, path = "/api/v1/tokens/{id}", tag = "tokens", operation_id = "revokeToken",
    params(("id" = schema::TokenId, Path, description = "The token")),
    responses((status = 204, description = "Revoked"), Common, Known)
)]
pub(super) async fn revoke(State(room): State<Room>, who: Who, At(id): At<TokenId>) -> Result<StatusCode> {
    room.work(who.revoking(), move |room| Ok(room.tokens.revoke(&who.authority(), &[id])?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Tokens to be revoked together.
#[derive(Debug, serde::Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationOrder {
    /// Their ids.
    #[schema(value_type = Vec<schema::TokenId>, max_items = 1000)]
    pub ids: Vec<TokenId>,
}

/// Revokes several tokens, all of them or, where one is unknown or not the caller's to revoke, none.
#[utoipa::path(
    post, path = "/api/v1/tokens/revoke", tag = "tokens", operation_id = "revokeTokens",
    request_body = RevocationOrder,
    responses((status = 204, description = "Revoked"), Common, WithBody, Known)
)]
pub(super) async fn revoke_several(
    State(room): State<Room>,
    who: Who,
    extract::Json(RevocationOrder { ids }): extract::Json<RevocationOrder>,
) -> Result<StatusCode> {
    if ids.len() > MAX_REVOKED_TOGETHER {
        return Err(Error::Unfit(format!("{MAX_REVOKED_TOGETHER} tokens at most are revoked together")));
    }
    room.work(who.revoking(), move |room| Ok(room.tokens.revoke(&who.authority(), &ids)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// How many tokens were revoked.
#[derive(Debug, serde::Serialize, Deserialize, ToSchema)]
pub struct Revoked {
    /// Whose.
    #[schema(value_type = schema::Login)]
    pub owner: Login,
    /// How many had not been revoked before.
    pub revoked: usize,
}

/// Revokes all tokens of a user.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}/tokens", tag = "tokens", operation_id = "revokeTokensOf",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "Revoked", body = Revoked), Common, Known)
)]
pub(super) async fn revoke_all(State(room): State<Room>, who: Who, At(owner): At<Login>) -> Result<Json<Revoked>> {
    let turn = who.revoking();
    let revoke = move |room: &Room| {
        let revoked = room.tokens.revoke_all(&who.authority(), &owner)?;
        Ok(Revoked { owner, revoked })
    };
    Ok(Json(room.work(turn, revoke).await?))
}

/// Which versions a change is meant for.
enum Expected {
    Any,
    OneOf(Vec<u64>),
}

/// Reads `If-Match` (RFC 9110 section 13.1.1); a tag that is none of ours matches nothing.
fn expected(headers: &HeaderMap) -> Expected {
    let mut values = headers.get_all(header::IF_MATCH).iter().peekable();
    if values.peek().is_none() {
        return Expected::Any;
    }
    let tags = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).map(str::trim);
    let mut versions = Vec::new();
    for tag in tags {
        if tag == "*" {
            return Expected::Any;
        }
        let version = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
        versions.extend(version.and_then(|version| version.parse().ok()).into_iter().collect::<Vec<u64>>());
    }
    Expected::OneOf(versions)
}

fn shown(record: &TokenRecord) -> Response {
    tagged(record, Json(Token::of(record)).into_response())
}

fn reveal(text: &str, record: &TokenRecord) -> Response {
    let made = NewToken { token: text.to_owned().into(), record: Token::of(record) };
    tagged(record, Json(made).into_response())
}

/// Adds the token's version, which moves with all but its last use.
fn tagged(record: &TokenRecord, mut response: Response) -> Response {
    if let Ok(tag) = HeaderValue::try_from(format!("\"{}\"", record.version)) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}
