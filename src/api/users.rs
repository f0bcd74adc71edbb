//! `/users`: create, list, look up, change and delete users, and their grants.

use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{self, PathParam, QueryParams};
use super::openapi::{BodyResponses, CommonResponses, QueryResponses, ResourceResponses};
use super::pagination::{self, PageResponse};
use super::types::{CreateGrantRequest, CreateUserRequest, CreatedUserResponse, UpdateUserRequest, UserResponse};
use super::{ApiCaller, ApiState, Result, created};
use crate::domain::{Login, NodeId, TextValue, schema};
use crate::store::LocatedScope;
use crate::tokens::{Error, Grant, GrantTarget};

/// Page of the list of users.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListUsersQuery {
    /// Maximum number of users.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Start of the page, from the `Link` header of the previous one.
    #[param(value_type = Option<schema::Login>)]
    cursor: Option<Login>,
}

/// Lists the users, ordered by login.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "users", operation_id = "listUsers", params(ListUsersQuery),
    responses(
        (status = 200, description = "A page of users", body = [UserResponse],
            headers(("Link" = String, description = "The next page, if there is one"))),
        CommonResponses, QueryResponses, ResourceResponses
    )
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: ApiCaller,
    uri: Uri,
    QueryParams(params): QueryParams<ListUsersQuery>,
) -> Result<PageResponse<UserResponse>> {
    let limit = pagination::page_limit(params.limit)?;
    let permit = caller.light_permit();
    let read = move |state: &ApiState| Ok(state.tokens.profiles(&caller.principal(), params.cursor.as_ref(), limit)?);
    Ok(PageResponse::new(
        &uri,
        state.run_blocking(permit, read).await?,
        |login| login.to_string(),
        UserResponse::from_profile,
    ))
}

/// Creates a user.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "users", operation_id = "createUser", request_body = CreateUserRequest,
    responses(
        (status = 201, description = "Created", body = CreatedUserResponse,
            headers(("Location" = String, description = "URI of the user"))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn create(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(request): extract::JsonBody<CreateUserRequest>,
) -> Result<Response> {
    let permit = caller.light_permit();
    let create = move |state: &ApiState| {
        let (principal, login) = (caller.principal(), request.login.clone());
        let created = state.tokens.create_user(&principal, &request.into())?;
        Ok(CreatedUserResponse::new(UserResponse::from_profile(state.tokens.profile(&principal, &login)?), &created))
    };
    let user = state.run_blocking(permit, create).await?;
    let location = format!("/api/v1/users/{}", user.user.login);
    Ok(created(&location, axum::Json(user)))
}

/// Looks up a user.
#[utoipa::path(
    get, path = "/api/v1/users/{login}", tag = "users", operation_id = "findUser",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The user", body = UserResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn find(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(login): PathParam<Login>,
) -> Result<axum::Json<UserResponse>> {
    let user = state
        .run_blocking(caller.light_permit(), move |state| Ok(state.tokens.profile(&caller.principal(), &login)?))
        .await?;
    Ok(axum::Json(UserResponse::from_profile(user)))
}

/// Disables or enables a user, or sets its roles: all given changes or none.
#[utoipa::path(
    patch, path = "/api/v1/users/{login}", tag = "users", operation_id = "changeUser", request_body = UpdateUserRequest,
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The changed user", body = UserResponse), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn change(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(login): PathParam<Login>,
    extract::JsonBody(update): extract::JsonBody<UpdateUserRequest>,
) -> Result<axum::Json<UserResponse>> {
    let update = update.into();
    let user = state
        .run_blocking(caller.revocation_permit(), move |state| {
            Ok(state.tokens.update_user(&caller.principal(), &login, &update)?)
        })
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
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(login): PathParam<Login>,
) -> Result<StatusCode> {
    state
        .run_blocking(caller.revocation_permit(), move |state| {
            Ok(state.tokens.delete_user(&caller.principal(), &login)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists the grants of a user, dangling ones included.
#[utoipa::path(
    get, path = "/api/v1/users/{login}/grants", tag = "users", operation_id = "listGrants",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The grants", body = [LocatedScope]), CommonResponses, ResourceResponses)
)]
pub(super) async fn list_grants(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(login): PathParam<Login>,
) -> Result<axum::Json<Vec<LocatedScope>>> {
    let grants = state
        .run_blocking(caller.light_permit(), move |state| Ok(state.tokens.grants(&caller.principal(), &login)?))
        .await?;
    Ok(axum::Json(grants))
}

/// Grants a user a permission on a path, in place of its present grant there.
#[utoipa::path(
    post, path = "/api/v1/users/{login}/grants", tag = "users", operation_id = "grant", request_body = CreateGrantRequest,
    params(("login" = schema::Login, Path, description = "The user")),
    responses(
        (status = 201, description = "Created", body = LocatedScope,
            headers(("Location" = String, description = "URI of the grant"))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn create_grant(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(login): PathParam<Login>,
    extract::JsonBody(request): extract::JsonBody<CreateGrantRequest>,
) -> Result<Response> {
    let grants_url = format!("/api/v1/users/{login}/grants");
    let permit = caller.light_permit();
    let create_grant = move |state: &ApiState| {
        let (principal, grant) = (caller.principal(), Grant::from(request));
        let node = state.tokens.grant(&principal, &login, &grant)?;
        Ok(LocatedScope { node, permission: grant.permission, path: Some(grant.path) })
    };
    let created_grant = state.run_blocking(permit, create_grant).await?;
    Ok(created(&format!("{grants_url}/{}", created_grant.node), axum::Json(created_grant)))
}

/// Looks up a grant.
#[utoipa::path(
    get, path = "/api/v1/users/{login}/grants/{node}", tag = "users", operation_id = "findGrant",
    params(("login" = schema::Login, Path, description = "The user"), ("node" = schema::NodeId, Path, description = "Id of its node")),
    responses((status = 200, description = "The grant", body = LocatedScope), CommonResponses, ResourceResponses)
)]
pub(super) async fn find_grant(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam((login, TextValue(node))): PathParam<(Login, TextValue<NodeId>)>,
) -> Result<axum::Json<LocatedScope>> {
    let permit = caller.light_permit();
    let find = move |state: &ApiState| {
        let grants = state.tokens.grants(&caller.principal(), &login)?;
        let found = grants.into_iter().find(|grant| grant.node == node);
        Ok(found.ok_or_else(|| Error::GrantNotFound { login, place: GrantTarget::Node(node).to_string() })?)
    };
    Ok(axum::Json(state.run_blocking(permit, find).await?))
}

/// Removes a grant, which may be dangling.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}/grants/{node}", tag = "users", operation_id = "revokeGrant",
    params(("login" = schema::Login, Path, description = "The user"), ("node" = schema::NodeId, Path, description = "Id of its node")),
    responses((status = 204, description = "Removed"), CommonResponses, ResourceResponses)
)]
pub(super) async fn revoke_grant(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam((login, TextValue(node))): PathParam<(Login, TextValue<NodeId>)>,
) -> Result<StatusCode> {
    let target = GrantTarget::Node(node);
    state
        .run_blocking(caller.revocation_permit(), move |state| {
            Ok(state.tokens.revoke_grant(&caller.principal(), &login, &target)?)
        })
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
