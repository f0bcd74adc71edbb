//! `/audit`: what happened, newest first.

use axum::extract::State;
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::QueryParams;
use super::openapi::{CommonResponses, QueryResponses, ResourceResponses};
use super::pagination::{self, PageResponse};
use super::schema;
use super::types::{EventResponse, TextValue};
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::{EventKind, Login, TokenId, UnixMillis};
use crate::store::{EventCursor, EventFilter};
use crate::tokens;

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListEventsQuery {
    /// Those at this instant or later.
    #[param(value_type = Option<schema::Time>)]
    since: Option<TextValue<UnixMillis>>,
    /// Those that concern this user.
    #[param(value_type = Option<schema::Login>)]
    user: Option<Login>,
    /// Those that concern this token.
    #[param(value_type = Option<schema::TokenId>)]
    token: Option<TokenId>,
    /// Those of this kind.
    #[param(value_type = Option<schema::EventKind>)]
    event: Option<TextValue<EventKind>>,
    /// How many at most.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Where to go on: from the `Link` of the page before.
    #[param(minimum = 0, maximum = 9223372036854775807u64)]
    cursor: Option<u64>,
    /// In place of `cursor`: those noted after this one, oldest first.
    #[param(minimum = 0, maximum = 9223372036854775807u64)]
    after: Option<u64>,
}

/// Lists what happened, newest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", operation_id = "audit", params(ListEventsQuery),
    responses(
        (status = 200, description = "A page", body = [EventResponse],
            headers(("Link" = String, description = "The next page, where there is one"))),
        CommonResponses, QueryResponses, ResourceResponses
    )
)]
pub(super) async fn list(
    State(state): State<ApiState>,
    caller: ApiCaller,
    uri: Uri,
    QueryParams(params): QueryParams<ListEventsQuery>,
) -> Result<PageResponse<EventResponse>> {
    let limit = pagination::page_limit(params.limit)?;
    if params.cursor.max(params.after).is_some_and(|number| i64::try_from(number).is_err()) {
        return Err(Error::InvalidValue("no event has so high a number".to_owned()));
    }
    let cursor = match (params.after, params.cursor) {
        (Some(after), _) => EventCursor::After(after),
        (None, Some(before)) => EventCursor::Before(before),
        (None, None) => EventCursor::Latest,
    };
    let filter = EventFilter {
        since: params.since.map(|since| since.0),
        user: params.user,
        token: params.token,
        kind: params.event.map(|event| event.0),
    };
    let permit = caller.light_permit();
    let read_events =
        move |state: &ApiState| Ok(state.tokens.events(&caller.principal(), &filter, cursor, limit + 1)?);
    let mut page =
        tokens::ResultPage::from_items(state.run_blocking(permit, read_events).await?, limit, |recorded| recorded.id);
    // Whoever follows what happens goes on after the last event, and not back.
    page.next = page.next.filter(|_| params.after.is_none());
    Ok(PageResponse::new(&uri, page, |id| id.to_string(), EventResponse::from_stored))
}
