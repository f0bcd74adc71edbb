//! `/audit`: what happened, newest first.

use axum::extract::State;
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use super::document::{Common, Known, Read};
use super::extract::Asked;
use super::page::{self, Page};
use super::schema;
use super::shape::{EventShown, Text};
use super::{Error, Result, Room, Who};
use crate::domain::{EventKind, Login, TokenId, UnixMillis};
use crate::store::{EventCursor, EventFilter};
use crate::tokens;

/// Which events to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Listed {
    /// Those at this instant or later.
    #[param(value_type = Option<schema::Time>)]
    since: Option<Text<UnixMillis>>,
    /// Those that concern this user.
    #[param(value_type = Option<schema::Login>)]
    user: Option<Login>,
    /// Those that concern this token.
    #[param(value_type = Option<schema::TokenId>)]
    token: Option<TokenId>,
    /// Those of this kind.
    #[param(value_type = Option<schema::EventKind>)]
    event: Option<Text<EventKind>>,
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
    get, path = "/api/v1/audit", tag = "audit", operation_id = "audit", params(Listed),
    responses(
        (status = 200, description = "A page", body = [EventShown],
            headers(("Link" = String, description = "The next page, where there is one"))),
        Common, Read, Known
    )
)]
pub(super) async fn list(
    State(room): State<Room>,
    who: Who,
    uri: Uri,
    Asked(listed): Asked<Listed>,
) -> Result<Page<EventShown>> {
    let limit = page::limit(listed.limit)?;
    if listed.cursor.max(listed.after).is_some_and(|number| i64::try_from(number).is_err()) {
        return Err(Error::Unfit("no event has so high a number".to_owned()));
    }
    let cursor = match (listed.after, listed.cursor) {
        (Some(after), _) => EventCursor::After(after),
        (None, Some(before)) => EventCursor::Before(before),
        (None, None) => EventCursor::Latest,
    };
    let filter = EventFilter {
        since: listed.since.map(|since| since.0),
        user: listed.user,
        token: listed.token,
        kind: listed.event.map(|event| event.0),
    };
    let turn = who.light();
    let read = move |room: &Room| Ok(room.tokens.events(&who.authority(), &filter, cursor, limit + 1)?);
    let mut page = tokens::ResultPage::from_items(room.work(turn, read).await?, limit, |noted| noted.id);
    // Whoever follows what happens goes on after the last event, and not back.
    page.next = page.next.filter(|_| listed.after.is_none());
    Ok(Page::of(&uri, page, |id| id.to_string(), EventShown::of))
}
