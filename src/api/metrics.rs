//! `/metrics`: the metrics of the server, for callers with the role to read them.

use std::sync::Arc;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::header;

use super::openapi::{CommonResponses, ResourceResponses};
use super::{ApiCaller, ApiState, Error, Result};

/// Maker of the page of metrics. It may block.
pub type MetricsRenderer = Arc<dyn Fn() -> String + Send + Sync>;

/// Media type of Prometheus' text format.
const TEXT_FORMAT: &str = "text/plain; version=0.0.4";

/// Returns the metrics in Prometheus' text format.
#[utoipa::path(
    get, path = "/metrics", tag = "metrics", operation_id = "metrics",
    responses(
        (status = 200, description = "The metrics", body = String, content_type = "text/plain"),
        CommonResponses, ResourceResponses
    )
)]
pub(super) async fn show(State(state): State<ApiState>, caller: ApiCaller) -> Result<Response> {
    let page = state
        .run_blocking(caller.light_permit(), move |state| {
            state.tokens.authorize_metrics(&caller.principal())?;
            let renderer = state.metrics.as_ref().ok_or(Error::RouteNotFound)?;
            Ok(renderer())
        })
        .await?;
    Ok(([(header::CONTENT_TYPE, TEXT_FORMAT)], page).into_response())
}
