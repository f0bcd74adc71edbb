//! `/users`: made, listed, looked up, changed and deleted, and what they may reach.

use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{self, PathParam, QueryParams};
use super::openapi::{BodyResponses, CommonResponses, QueryResponses, ResourceResponses};
use super::pagination::{self, PageResponse};
use super::schema;
use super::types::{
    CreateGrantRequest, CreateUserRequest, CreatedUserResponse, NodePermission, TextValue, UpdateUserRequest,
    UserResponse,
};
use super::{ApiCaller, ApiState, Result, created};
use crate::domain::{Login, NodeId};
use crate::tokens::{Error, Grant, GrantTarget};

/// Which users to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListUsersQuery {
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Where to go on: from the `Link` of the page before.
    #[param(value_type = Option<schema::Login>)]
    cursor: Option<Login>,
}

/// Lists the users in the order of their logins.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "users", operation_id = "listUsers", params(ListUsersQuery),
    responses(
        (status = 200, description = "A page", body = [UserResponse],
            headers(("Link" = String, description = "The next page, where there is one"))),
        CommonResponses, QueryResponses, ResourceResponses
    )
)]
pub(super) async fn list(
    State(room): State<ApiState>,
    who: ApiCaller,
    uri: Uri,
    QueryParams(listed): QueryParams<ListUsersQuery>,
) -> Result<PageResponse<UserResponse>> {
    let limit = pagination::page_limit(listed.limit)?;
    let turn = who.light();
    let read = move |room: &ApiState| Ok(room.tokens.profiles(&who.authority(), listed.cursor.as_ref(), limit)?);
    Ok(PageResponse::new(
        &uri,
        room.run_blocking(turn, read).await?,
        |login| login.to_string(),
        UserResponse::from_profile,
    ))
}

/// Makes a user.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "users", operation_id = "createUser", request_body = CreateUserRequest,
    responses(
        (status = 201, description = "Made", body = CreatedUserResponse,
            headers(("Location" = String, description = "Where the user is looked up"))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn create(
    State(room): State<ApiState>,
    who: ApiCaller,
    extract::JsonBody(order): extract::JsonBody<CreateUserRequest>,
) -> Result<Response> {
    let turn = who.light();
    let create = move |room: &ApiState| {
        let (who, login) = (who.authority(), order.login.clone());
        let created = room.tokens.create_user(&who, &order.into())?;
        Ok(CreatedUserResponse::new(UserResponse::from_profile(room.tokens.profile(&who, &login)?), &created))
    };
    let user = room.run_blocking(turn, create).await?;
    let location = format!("/api/v1/users/{}", user.user.login);
    Ok(created(&location, axum::Json(user)))
}

/// Looks a user up.
#[utoipa::path(
    get, path = "/api/v1/users/{login}", tag = "users", operation_id = "findUser",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The user", body = UserResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn find(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam(login): PathParam<Login>,
) -> Result<axum::Json<UserResponse>> {
    let user = room.run_blocking(who.light(), move |room| Ok(room.tokens.profile(&who.authority(), &login)?)).await?;
    Ok(axum::Json(UserResponse::from_profile(user)))
}

/// Disables or enables a user, or gives it other roles: all that is asked for, or nothing.
#[utoipa::path(
    patch, path = "/api/v1/users/{login}", tag = "users", operation_id = "changeUser", request_body = UpdateUserRequest,
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The user as it is now", body = UserResponse), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn change(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam(login): PathParam<Login>,
    extract::JsonBody(change): extract::JsonBody<UpdateUserRequest>,
) -> Result<axum::Json<UserResponse>> {
    let change = change.into();
    let user = room
        .run_blocking(who.revoking(), move |room| Ok(room.tokens.update_user(&who.authority(), &login, &change)?))
        .await?;
    Ok(axum::Json(UserResponse::from_profile(user)))
}

/// Deletes a user with its tokens and grants; its files stay.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}", tag = "users", operation_id = "deleteUser",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 204, description = "Deleted"), CommonResponses, ResourceResponses)
)]
pub(super) async fn delete(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam(login): PathParam<Login>,
) -> Result<StatusCode> {
    room.run_blocking(who.revoking(), move |room| Ok(room.tokens.delete_user(&who.authority(), &login)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists what a user may reach, dangling grants too.
#[utoipa::path(
    get, path = "/api/v1/users/{login}/grants", tag = "users", operation_id = "listGrants",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "All of them", body = [NodePermission]), CommonResponses, ResourceResponses)
)]
pub(super) async fn list_grants(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam(login): PathParam<Login>,
) -> Result<axum::Json<Vec<NodePermission>>> {
    let grants = room.run_blocking(who.light(), move |room| Ok(room.tokens.grants(&who.authority(), &login)?)).await?;
    Ok(axum::Json(grants.iter().map(NodePermission::from_located_scope).collect()))
}

/// Gives a user a permission at a path, in place of the one it had there.
#[utoipa::path(
    post, path = "/api/v1/users/{login}/grants", tag = "users", operation_id = "grant", request_body = CreateGrantRequest,
    params(("login" = schema::Login, Path, description = "The user")),
    responses(
        (status = 201, description = "Given", body = NodePermission,
            headers(("Location" = String, description = "Where the grant is looked up"))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn create_grant(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam(login): PathParam<Login>,
    extract::JsonBody(order): extract::JsonBody<CreateGrantRequest>,
) -> Result<Response> {
    let above = format!("/api/v1/users/{login}/grants");
    let turn = who.light();
    let give = move |room: &ApiState| {
        let (who, grant) = (who.authority(), Grant::from(order));
        let node = room.tokens.grant(&who, &login, &grant)?;
        Ok(NodePermission { node, permission: grant.permission, path: Some(grant.path.to_string()) })
    };
    let reach = room.run_blocking(turn, give).await?;
    Ok(created(&format!("{above}/{}", reach.node), axum::Json(reach)))
}

/// Looks a grant up.
#[utoipa::path(
    get, path = "/api/v1/users/{login}/grants/{node}", tag = "users", operation_id = "findGrant",
    params(("login" = schema::Login, Path, description = "The user"), ("node" = schema::NodeId, Path, description = "Its node")),
    responses((status = 200, description = "The grant", body = NodePermission), CommonResponses, ResourceResponses)
)]
pub(super) async fn find_grant(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam((login, TextValue(node))): PathParam<(Login, TextValue<NodeId>)>,
) -> Result<axum::Json<NodePermission>> {
    let turn = who.light();
    let find = move |room: &ApiState| {
        let grants = room.tokens.grants(&who.authority(), &login)?;
        let found = grants.iter().find(|grant| grant.scope.node == node).map(NodePermission::from_located_scope);
        Ok(found.ok_or_else(|| Error::GrantNotFound { login, place: GrantTarget::Node(node).to_string() })?)
    };
    Ok(axum::Json(room.run_blocking(turn, find).await?))
}

/// Takes a grant back, a dangling one too.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}/grants/{node}", tag = "users", operation_id = "revokeGrant",
    params(("login" = schema::Login, Path, description = "The user"), ("node" = schema::NodeId, Path, description = "Its node")),
    responses((status = 204, description = "Taken back"), CommonResponses, ResourceResponses)
)]
pub(super) async fn revoke_grant(
    State(room): State<ApiState>,
    who: ApiCaller,
    PathParam((login, TextValue(node))): PathParam<(Login, TextValue<NodeId>)>,
) -> Result<StatusCode> {
    let place = GrantTarget::Node(node);
    room.run_blocking(who.revoking(), move |room| Ok(room.tokens.revoke_grant(&who.authority(), &login, &place)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
