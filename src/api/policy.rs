//! `/policy`: limits for new tokens.

use axum::Json;
use axum::extract::State;

use super::extract;
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::types::{PolicyResponse, UpdatePolicyRequest};
use super::{ApiCaller, ApiState, Result};

/// Returns the policy.
#[utoipa::path(
    get, path = "/api/v1/policy", tag = "policy", operation_id = "policy",
    responses((status = 200, description = "The policy", body = PolicyResponse), CommonResponses, ResourceResponses)
)]
pub(super) async fn show(State(state): State<ApiState>, caller: ApiCaller) -> Result<Json<PolicyResponse>> {
    let policy =
        state.run_blocking(caller.light_permit(), move |state| Ok(state.tokens.policy(&caller.principal())?)).await?;
    Ok(Json(policy.into()))
}

/// Changes the policy, all given keys or none. Existing tokens are not changed.
#[utoipa::path(
    patch, path = "/api/v1/policy", tag = "policy", operation_id = "changePolicy", request_body = UpdatePolicyRequest,
    responses((status = 200, description = "The changed policy", body = PolicyResponse), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn change(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(change): extract::JsonBody<UpdatePolicyRequest>,
) -> Result<Json<PolicyResponse>> {
    let settings = change.into_settings();
    let policy = state
        .run_blocking(caller.light_permit(), move |state| {
            Ok(state.tokens.change_policy(&caller.principal(), &settings)?)
        })
        .await?;
    Ok(Json(policy.into()))
}
