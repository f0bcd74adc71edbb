//! `POST /explain`: whether a token may do something, and which rule decides.

use axum::Json;
use axum::extract::State;

use super::extract;
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::types::{ExplainRequest, ExplainResponse};
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::AccessQuery;

/// Tells whether a token may do something, and which grant, scope, limit or expiry decides. What is not said
/// of the caller and the upload is left open.
#[utoipa::path(
    post, path = "/api/v1/explain", tag = "explain", operation_id = "explain", request_body = ExplainRequest,
    responses((status = 200, description = "The answer", body = ExplainResponse), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn explain(
    State(room): State<ApiState>,
    who: ApiCaller,
    extract::JsonBody(order): extract::JsonBody<ExplainRequest>,
) -> Result<Json<ExplainResponse>> {
    let token = order.token.unwrap_or_else(|| who.token_id());
    let question = AccessQuery::try_from(order).map_err(|fault| Error::InvalidValue(fault.to_string()))?;
    let verdict = room
        .run_blocking(who.light(), move |room| Ok(room.tokens.explain(&who.authority(), token, &question)?))
        .await?;
    Ok(Json(ExplainResponse::from_explanation(&verdict)))
}
