//! `POST /explain`: whether a token may do something, and which rule decides.

use axum::Json;
use axum::extract::State;

use super::document::{Common, Known, WithBody};
use super::extract;
use super::shape::{QuestionOrder, VerdictShown};
use super::{Error, Result, Room, Who};
use crate::domain::AccessQuery;

/// Tells whether a token may do something, and which grant, scope, limit or expiry decides. What is not said
/// of the caller and the upload is left open.
#[utoipa::path(
    post, path = "/api/v1/explain", tag = "explain", operation_id = "explain", request_body = QuestionOrder,
    responses((status = 200, description = "The answer", body = VerdictShown), Common, WithBody, Known)
)]
pub(super) async fn explain(
    State(room): State<Room>,
    who: Who,
    extract::Json(order): extract::Json<QuestionOrder>,
) -> Result<Json<VerdictShown>> {
    let token = order.token.unwrap_or_else(|| who.token());
    let question = AccessQuery::try_from(order).map_err(|fault| Error::Unfit(fault.to_string()))?;
    let verdict =
        room.work(who.light(), move |room| Ok(room.tokens.explain(&who.authority(), token, &question)?)).await?;
    Ok(Json(VerdictShown::of(&verdict)))
}
