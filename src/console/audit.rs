//! The audit trail: what happened, filtered, and how much of it over time.

mod chart;

use std::time::Duration;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::fault::{Fault, Result, blocking};
use super::guard::Caller;
use super::page::{Frame, Part, render};
use super::place;
use super::words::Moment;
use crate::domain::{Event, EventKind, Time};
use crate::store::{Cursor, EventFilter, Noted};

use chart::Chart;

/// Events on a page.
const PAGE: usize = 100;
/// How many events the chart is made of; of more, the latest.
const CHARTED: usize = 20_000;
/// The spans that can be looked at.
const SPANS: [(&str, &str, u64); 4] = [
    ("day", "24 hours", 86_400),
    ("week", "7 days", 7 * 86_400),
    ("month", "30 days", 30 * 86_400),
    ("quarter", "90 days", 90 * 86_400),
];

/// What the address of the page asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    span: Option<String>,
    user: Option<String>,
    token: Option<String>,
    event: Option<String>,
    before: Option<u64>,
}

struct Row {
    at: Moment,
    kind: &'static str,
    bad: bool,
    user: String,
    token: String,
    by: String,
    from: String,
    count: u64,
    detail: String,
}

impl Row {
    fn new(event: &Event, now: Time) -> Self {
        let protocol = event.protocol.map(|protocol| protocol.to_string());
        let from = [protocol, event.address.clone(), event.client.clone()];
        let detail = [event.path.clone(), event.detail.clone()];
        Self {
            at: Moment::new(event.at, now),
            kind: event.kind.as_str(),
            bad: refused(event.kind),
            user: event.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            token: event.token.map(|token| token.to_string()).unwrap_or_default(),
            by: event.by.as_ref().map(ToString::to_string).unwrap_or_default(),
            from: from.into_iter().flatten().collect::<Vec<_>>().join(", "),
            count: event.count,
            detail: detail.into_iter().flatten().collect::<Vec<_>>().join(": "),
        }
    }
}

/// Tells whether an event is a refusal.
fn refused(kind: EventKind) -> bool {
    matches!(kind, EventKind::AttemptRefused | EventKind::AccessDenied | EventKind::DeadSecretUsed)
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    chart: Chart,
    spans: [(&'static str, &'static str, u64); 4],
    span: &'static str,
    user: String,
    token: String,
    event: String,
    kinds: Vec<&'static str>,
    next: Option<String>,
    first: Option<String>,
}

/// Shows what happened.
pub(super) async fn show(caller: Caller, Query(asked): Query<Asked>) -> Result<Response> {
    let frame = Frame::new(&caller, Part::Audit);
    let given = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
    let (user, token, event) = (given(&asked.user), given(&asked.token), given(&asked.event));
    let fits = |(name, ..): &&(&str, &str, u64)| asked.span.as_deref() == Some(*name);
    let (span, _, seconds) = *SPANS.iter().find(fits).unwrap_or(&SPANS[1]);
    let now = caller.shared.auth.now();
    let since = Time::from_millis(now.as_millis().saturating_sub(i64::try_from(seconds * 1000).unwrap_or(i64::MAX)));
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let fault = |why: String| Fault::Form(why);
    let filter = EventFilter {
        since: Some(since),
        user: some(&user)
            .map(|text| text.parse())
            .transpose()
            .map_err(|why: crate::domain::LoginError| fault(why.to_string()))?,
        token: some(&token)
            .map(|text| text.parse())
            .transpose()
            .map_err(|why: crate::domain::TokenError| fault(why.to_string()))?,
        kind: some(&event).map(|text| text.parse()).transpose().map_err(fault)?,
    };
    let mut base = format!("/console/audit?span={span}");
    for (name, value) in [("user", &user), ("token", &token), ("event", &event)] {
        if !value.is_empty() {
            base += &format!("&{name}={}", place::query(value.as_bytes()));
        }
    }
    let (tokens, who) = (caller.shared.tokens.clone(), caller.authority());
    blocking(move || {
        let cursor = asked.before.map_or(Cursor::Latest, Cursor::Before);
        let mut page = tokens.events(&who, &filter, cursor, PAGE + 1)?;
        let more = page.len() > PAGE;
        page.truncate(PAGE);
        let charted = tokens.events(&who, &filter, Cursor::Latest, CHARTED)?;
        let happened = charted.iter().map(|Noted { event, .. }| (event.at, event.count, refused(event.kind)));
        let page = Page {
            frame,
            chart: Chart::new(happened, since, Duration::from_secs(seconds)),
            next: page.last().filter(|_| more).map(|last| format!("{base}&before={}", last.id)),
            first: asked.before.map(|_| base),
            rows: page.iter().map(|noted| Row::new(&noted.event, now)).collect(),
            spans: SPANS,
            span,
            user,
            token,
            kinds: EventKind::ALL.iter().map(|kind| kind.as_str()).collect(),
            event,
        };
        render(StatusCode::OK, &page)
    })
    .await
}
