//! `POST /explain`: whether a token may carry out an operation, and which rule decides.

use axum::Json;
use axum::extract::State;

use super::extract;
use super::openapi::{BodyResponses, CommonResponses, ResourceResponses};
use super::types::{ExplainRequest, ExplainResponse};
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::AccessQuery;

/// Tells whether a token may carry out an operation, and which grant, scope, limit or expiration decides. Limits on
/// properties that the request leaves out are not evaluated, but listed.
#[utoipa::path(
    post, path = "/api/v1/explain", tag = "explain", operation_id = "explain", request_body = ExplainRequest,
    responses((status = 200, description = "The explanation", body = ExplainResponse), CommonResponses, BodyResponses, ResourceResponses)
)]
pub(super) async fn explain(
    State(state): State<ApiState>,
    caller: ApiCaller,
    extract::JsonBody(request): extract::JsonBody<ExplainRequest>,
) -> Result<Json<ExplainResponse>> {
    let token = request.token.unwrap_or_else(|| caller.token_id());
    let query = AccessQuery::try_from(request).map_err(|error| Error::InvalidValue(error.to_string()))?;
    let explanation = state
        .run_blocking(caller.light_permit(), move |state| {
            Ok(state.tokens.explain(&caller.principal(), token, &query)?)
        })
        .await?;
    Ok(Json(ExplainResponse::from_explanation(&explanation)))
}
