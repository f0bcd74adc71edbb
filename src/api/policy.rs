//! `/policy`: what tokens may ask for.

use axum::Json;
use axum::extract::State;

use super::document::{Common, Known, WithBody};
use super::extract;
use super::shape::{PolicyChange, PolicyShown};
use super::{Result, Room, Who};

/// Shows the policy.
#[utoipa::path(
    get, path = "/api/v1/policy", tag = "policy", operation_id = "policy",
    responses((status = 200, description = "All of it", body = PolicyShown), Common, Known)
)]
pub(super) async fn show(State(room): State<Room>, who: Who) -> Result<Json<PolicyShown>> {
    let policy = room.work(who.light(), move |room| Ok(room.tokens.policy(&who.authority())?)).await?;
    Ok(Json(policy.into()))
}

/// Changes the policy, all that is asked for or nothing; tokens that live already stay as they are.
#[utoipa::path(
    patch, path = "/api/v1/policy", tag = "policy", operation_id = "changePolicy", request_body = PolicyChange,
    responses((status = 200, description = "The policy as it is now", body = PolicyShown), Common, WithBody, Known)
)]
pub(super) async fn change(
    State(room): State<Room>,
    who: Who,
    extract::Json(change): extract::Json<PolicyChange>,
) -> Result<Json<PolicyShown>> {
    let settings = change.settings();
    let policy =
        room.work(who.light(), move |room| Ok(room.tokens.change_policy(&who.authority(), &settings)?)).await?;
    Ok(Json(policy.into()))
}
