//! `/users`: made, listed, looked up, changed and deleted, and what they may reach.

use axum::extract::State;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Deserialize;
use utoipa::IntoParams;

use super::document::{Common, Known, Read, WithBody};
use super::extract::{self, Asked, At};
use super::page::{self, Page};
use super::schema;
use super::shape::{GrantOrder, NewUser, Reach, Text, UserChange, UserOrder, UserShown};
use super::{Result, Room, Who, made};
use crate::domain::{Login, NodeId};
use crate::tokens::{Error, Grant, GrantTarget};

/// Which users to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listed {
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Where to go on: from the `Link` of the page before.
    #[param(value_type = Option<schema::Login>)]
    cursor: Option<Login>,
}

/// Lists the users in the order of their logins.
#[utoipa::path(
    get, path = "/api/v1/users", tag = "users", operation_id = "listUsers", params(Listed),
    responses(
        (status = 200, description = "A page", body = [UserShown],
            headers(("Link" = String, description = "The next page, where there is one"))),
        Common, Read, Known
    )
)]
pub(super) async fn list(
    State(room): State<Room>,
    who: Who,
    uri: Uri,
    Asked(listed): Asked<Listed>,
) -> Result<Page<UserShown>> {
    let limit = page::limit(listed.limit)?;
    let turn = who.light();
    let read = move |room: &Room| Ok(room.tokens.profiles(&who.authority(), listed.cursor.as_ref(), limit)?);
    Ok(Page::of(&uri, room.work(turn, read).await?, |login| login.to_string(), UserShown::of))
}

/// Makes a user.
#[utoipa::path(
    post, path = "/api/v1/users", tag = "users", operation_id = "createUser", request_body = UserOrder,
    responses(
        (status = 201, description = "Made", body = NewUser,
            headers(("Location" = String, description = "Where the user is looked up"))),
        Common, WithBody, Known
    )
)]
pub(super) async fn create(
    State(room): State<Room>,
    who: Who,
    extract::Json(order): extract::Json<UserOrder>,
) -> Result<Response> {
    let turn = who.light();
    let create = move |room: &Room| {
        let (who, login) = (who.authority(), order.login.clone());
        let created = room.tokens.create_user(&who, &order.into())?;
        Ok(NewUser::of(UserShown::of(room.tokens.profile(&who, &login)?), &created))
    };
    let user = room.work(turn, create).await?;
    let location = format!("/api/v1/users/{}", user.user.login);
    Ok(made(&location, axum::Json(user)))
}

/// Looks a user up.
#[utoipa::path(
    get, path = "/api/v1/users/{login}", tag = "users", operation_id = "findUser",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The user", body = UserShown), Common, Known)
)]
pub(super) async fn find(State(room): State<Room>, who: Who, At(login): At<Login>) -> Result<axum::Json<UserShown>> {
    let user = room.work(who.light(), move |room| Ok(room.tokens.profile(&who.authority(), &login)?)).await?;
    Ok(axum::Json(UserShown::of(user)))
}

/// Disables or enables a user, or gives it other roles: all that is asked for, or nothing.
#[utoipa::path(
    patch, path = "/api/v1/users/{login}", tag = "users", operation_id = "changeUser", request_body = UserChange,
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "The user as it is now", body = UserShown), Common, WithBody, Known)
)]
pub(super) async fn change(
    State(room): State<Room>,
    who: Who,
    At(login): At<Login>,
    extract::Json(change): extract::Json<UserChange>,
) -> Result<axum::Json<UserShown>> {
    let change = change.into();
    let user =
        room.work(who.revoking(), move |room| Ok(room.tokens.update_user(&who.authority(), &login, &change)?)).await?;
    Ok(axum::Json(UserShown::of(user)))
}

/// Deletes a user with its tokens and grants; its files stay.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}", tag = "users", operation_id = "deleteUser",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 204, description = "Deleted"), Common, Known)
)]
pub(super) async fn delete(State(room): State<Room>, who: Who, At(login): At<Login>) -> Result<StatusCode> {
    room.work(who.revoking(), move |room| Ok(room.tokens.delete_user(&who.authority(), &login)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Lists what a user may reach, dangling grants too.
#[utoipa::path(
    get, path = "/api/v1/users/{login}/grants", tag = "users", operation_id = "listGrants",
    params(("login" = schema::Login, Path, description = "The user")),
    responses((status = 200, description = "All of them", body = [Reach]), Common, Known)
)]
pub(super) async fn grants(State(room): State<Room>, who: Who, At(login): At<Login>) -> Result<axum::Json<Vec<Reach>>> {
    let grants = room.work(who.light(), move |room| Ok(room.tokens.grants(&who.authority(), &login)?)).await?;
    Ok(axum::Json(grants.iter().map(Reach::of).collect()))
}

/// Gives a user a permission at a path, in place of the one it had there.
#[utoipa::path(
    post, path = "/api/v1/users/{login}/grants", tag = "users", operation_id = "grant", request_body = GrantOrder,
    params(("login" = schema::Login, Path, description = "The user")),
    responses(
        (status = 201, description = "Given", body = Reach,
            headers(("Location" = String, description = "Where the grant is looked up"))),
        Common, WithBody, Known
    )
)]
pub(super) async fn grant(
    State(room): State<Room>,
    who: Who,
    At(login): At<Login>,
    extract::Json(order): extract::Json<GrantOrder>,
) -> Result<Response> {
    let above = format!("/api/v1/users/{login}/grants");
    let turn = who.light();
    let give = move |room: &Room| {
        let (who, grant) = (who.authority(), Grant::from(order));
        let node = room.tokens.grant(&who, &login, &grant)?;
        Ok(Reach { node, permission: grant.permission, path: Some(grant.path.to_string()) })
    };
    let reach = room.work(turn, give).await?;
    Ok(made(&format!("{above}/{}", reach.node), axum::Json(reach)))
}

/// Looks a grant up.
#[utoipa::path(
    get, path = "/api/v1/users/{login}/grants/{node}", tag = "users", operation_id = "findGrant",
    params(("login" = schema::Login, Path, description = "The user"), ("node" = schema::NodeId, Path, description = "Its node")),
    responses((status = 200, description = "The grant", body = Reach), Common, Known)
)]
pub(super) async fn find_grant(
    State(room): State<Room>,
    who: Who,
    At((login, Text(node))): At<(Login, Text<NodeId>)>,
) -> Result<axum::Json<Reach>> {
    let turn = who.light();
    let find = move |room: &Room| {
        let grants = room.tokens.grants(&who.authority(), &login)?;
        let found = grants.iter().find(|grant| grant.scope.node == node).map(Reach::of);
        Ok(found.ok_or_else(|| Error::GrantNotFound { login, place: GrantTarget::Node(node).to_string() })?)
    };
    Ok(axum::Json(room.work(turn, find).await?))
}

/// Takes a grant back, a dangling one too.
#[utoipa::path(
    delete, path = "/api/v1/users/{login}/grants/{node}", tag = "users", operation_id = "revokeGrant",
    params(("login" = schema::Login, Path, description = "The user"), ("node" = schema::NodeId, Path, description = "Its node")),
    responses((status = 204, description = "Taken back"), Common, Known)
)]
pub(super) async fn revoke_grant(
    State(room): State<Room>,
    who: Who,
    At((login, Text(node))): At<(Login, Text<NodeId>)>,
) -> Result<StatusCode> {
    let place = GrantTarget::Node(node);
    room.work(who.revoking(), move |room| Ok(room.tokens.revoke_grant(&who.authority(), &login, &place)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
