//! `/audit`: the events of the audit trail, newest first, and with their hash chain, oldest first.

use axum::extract::State;
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::QueryParams;
use super::openapi::{CommonResponses, QueryResponses, ResourceResponses};
use super::pagination::{self, PageResponse};
use super::types::EventResponse;
use super::{ApiCaller, ApiState, Error, Result};
use crate::domain::{EventKind, Login, TextValue, TokenId, UnixMillis, schema};
use crate::store::{ChainItem, EventCursor, EventFilter};
use crate::tokens;

/// Filter and page of the audit trail.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListEventsQuery {
    /// Only events at this time or later.
    #[param(value_type = Option<schema::Time>)]
    since: Option<TextValue<UnixMillis>>,
    /// Only events that concern this user.
    #[param(value_type = Option<schema::Login>)]
    user: Option<Login>,
    /// Only events that concern this token.
    #[param(value_type = Option<schema::TokenId>)]
    token: Option<TokenId>,
    /// Only events of this kind.
    #[param(value_type = Option<schema::EventKind>)]
    event: Option<TextValue<EventKind>>,
    /// Maximum number of events.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Start of the page, from the `Link` header of the previous one.
    #[param(minimum = 0, maximum = 9223372036854775807u64)]
    cursor: Option<u64>,
    /// In place of `cursor`: only events that were recorded after this one, oldest first.
    #[param(minimum = 0, maximum = 9223372036854775807u64)]
    after: Option<u64>,
}

/// Lists the events of the audit trail, newest first.
#[utoipa::path(
    get, path = "/api/v1/audit", tag = "audit", operation_id = "audit", params(ListEventsQuery),
    responses(
        (status = 200, description = "A page of events", body = [EventResponse],
            headers(("Link" = String, description = "The next page, if there is one"))),
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
    // Ids are signed 64-bit integers in the store, which a larger number does not fit into.
    if params.cursor.max(params.after).is_some_and(|number| i64::try_from(number).is_err()) {
        return Err(Error::InvalidValue("cursor and after are at most 9223372036854775807".to_owned()));
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
    // One more than is shown tells whether there is a next page.
    let read_events =
        move |state: &ApiState| Ok(state.tokens.events(&caller.principal(), &filter, cursor, limit + 1)?);
    let mut page =
        tokens::ResultPage::from_items(state.run_blocking(permit, read_events).await?, limit, |recorded| recorded.id);
    // A client that follows with `after` continues at its last event; a `Link` would lead it back in time.
    page.next = page.next.filter(|_| params.after.is_none());
    Ok(PageResponse::new(&uri, page, |id| id.to_string(), EventResponse::from_stored))
}

/// Page of the audit trail with its chain.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListChainQuery {
    /// Maximum number of rows.
    #[param(minimum = 1, maximum = 500, default = 100)]
    limit: Option<usize>,
    /// Only rows with higher numbers than this one, such as from the `Link` header of the previous page.
    #[param(minimum = 0, maximum = 9223372036854775807u64)]
    cursor: Option<u64>,
}

/// Lists the rows of the audit trail with their hash chain, oldest first, and what retention removed of them.
#[utoipa::path(
    get, path = "/api/v1/audit/chain", tag = "audit", operation_id = "audit_chain", params(ListChainQuery),
    responses(
        (status = 200, description = "A page of rows", body = [ChainItem],
            headers(("Link" = String, description = "The next page, if there is one"))),
        CommonResponses, QueryResponses, ResourceResponses
    )
)]
pub(super) async fn chain(
    State(state): State<ApiState>,
    caller: ApiCaller,
    uri: Uri,
    QueryParams(params): QueryParams<ListChainQuery>,
) -> Result<PageResponse<ChainItem>> {
    let limit = pagination::page_limit(params.limit)?;
    let after = params.cursor.unwrap_or_default();
    // Ids are signed 64-bit integers in the store, which a larger number does not fit into.
    if i64::try_from(after).is_err() {
        return Err(Error::InvalidValue("cursor is at most 9223372036854775807".to_owned()));
    }
    let permit = caller.light_permit();
    let read_chain = move |state: &ApiState| Ok(state.tokens.audit_chain(&caller.principal(), after, limit + 1)?);
    let items = state.run_blocking(permit, read_chain).await?.items;
    let page = tokens::ResultPage::from_items(items, limit, ChainItem::number);
    Ok(PageResponse::new(&uri, page, |number| number.to_string(), |item| item))
}
