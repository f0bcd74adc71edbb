//! `/bans`: networks from which nothing is accepted.

use axum::Json;
use axum::extract::State;
use http::StatusCode;

use super::extract::{self, PathParam};
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::types::{BanResponse, CreateBanRequest};
use super::{ApiCaller, ApiState, Result, created};
use crate::domain::{BannedNetwork, TextValue, schema};

/// Lists the bans in force, the latest first.
#[utoipa::path(
    get, path = "/api/v1/bans", tag = "bans", operation_id = "bans",
    responses((status = 200, description = "The bans", body = [BanResponse]), CommonResponses, ResourceResponses)
)]
pub(super) async fn list(State(state): State<ApiState>, caller: ApiCaller) -> Result<Json<Vec<BanResponse>>> {
    let bans =
        state.run_blocking(caller.light_permit(), move |state| Ok(state.tokens.bans(&caller.principal())?)).await?;
    Ok(Json(bans.into_iter().map(BanResponse::from).collect()))
}

/// Bans an address or network, in place of a ban that it has; its sessions end within a second.
#[utoipa::path(
    post, path = "/api/v1/bans", tag = "bans", operation_id = "addBan", request_body = CreateBanRequest,
    responses(
        (status = 201, description = "The ban", body = BanResponse,
            headers(("Location" = String, description = "The ban, to be removed"))),
        CommonResponses, BodyResponses, ResourceResponses
    )
)]
pub(super) async fn add(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(request): extract::JsonBody<CreateBanRequest>,
) -> Result<axum::response::Response> {
    let request = request.into();
    let ban = state
        .run_blocking(caller.light_permit(), move |state| Ok(state.tokens.add_ban(&caller.principal(), &request)?))
        .await?;
    Ok(created(&format!("/api/v1/bans/{}", ban.network), Json(BanResponse::from(ban))))
}

/// Removes a ban. The network may contain a slash as it is, or percent-encoded.
#[utoipa::path(
    delete, path = "/api/v1/bans/{network}", tag = "bans", operation_id = "removeBan",
    params(("network" = schema::Network, Path, description = "The banned network, as it is listed")),
    responses((status = 204, description = "Removed"), CommonResponses, ResourceResponses)
)]
pub(super) async fn remove(
    State(state): State<ApiState>,
    caller: ApiCaller,
    PathParam(TextValue(network)): PathParam<TextValue<BannedNetwork>>,
) -> Result<StatusCode> {
    state
        .run_blocking(caller.light_permit(), move |state| Ok(state.tokens.remove_ban(&caller.principal(), network)?))
        .await?;
    Ok(StatusCode::NO_CONTENT)
}
