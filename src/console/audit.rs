//! The audit trail: what happened, filtered, and how much of it over time.

mod chart;

use std::str::FromStr;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::fault::{Fault, Result, in_turn};
use super::guard::Caller;
use super::page::{Frame, Part, render};
use super::place;
use super::words::Moment;
use crate::auth::Authenticator;
use crate::domain::{AuditEvent, EventKind, Protocol, UnixMillis, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter, RecordedEvent};
use crate::tokens::{Principal, TokenService};

use chart::{Chart, Series, Span};

/// Events on a page.
const PAGE: usize = 100;
/// How many events that fit a filter the chart is made of; of more, the latest.
const CHARTED: usize = 20_000;
/// The spans that can be looked at.
const SPANS: [Span; 4] = [
    Span { name: "day", text: "24 hours", step: "hour", hours: 1, bars: 24 },
    Span { name: "week", text: "7 days", step: "4 hours", hours: 4, bars: 42 },
    Span { name: "month", text: "30 days", step: "day", hours: 24, bars: 30 },
    Span { name: "quarter", text: "90 days", step: "day", hours: 24, bars: 90 },
];
/// What is counted of everybody.
const COUNTED: &[Series] = &[
    Series { title: "WebDAV", label: "WebDAV", panel: 0 },
    Series { title: "SFTP", label: "SFTP", panel: 0 },
    Series { title: "API, console", label: "API and console", panel: 0 },
    Series { title: "WebDAV", label: "WebDAV, refused", panel: 1 },
    Series { title: "SFTP", label: "SFTP, refused", panel: 1 },
    Series { title: "API, console", label: "API and console, refused", panel: 1 },
];
/// What is counted where a filter leaves only events.
const FILTERED: &[Series] =
    &[Series { title: "Events", label: "Events", panel: 0 }, Series { title: "Refusals", label: "Refusals", panel: 1 }];

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
    program: String,
    count: u64,
    detail: String,
}

impl Row {
    fn new(event: &AuditEvent, now: UnixMillis) -> Self {
        let protocol = event.protocol.map(|protocol| protocol.to_string());
        let from = [protocol, event.address.clone()];
        let detail = [event.path.clone(), event.detail.clone()];
        Self {
            at: Moment::new(event.at, now),
            kind: event.kind.as_str(),
            bad: refused(event.kind),
            user: event.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            token: event.token.map(|token| token.to_string()).unwrap_or_default(),
            by: event.by.as_ref().map(ToString::to_string).unwrap_or_default(),
            from: from.into_iter().flatten().collect::<Vec<_>>().join(", "),
            program: event.client.clone().unwrap_or_default(),
            count: event.count,
            detail: detail.into_iter().flatten().collect::<Vec<_>>().join(": "),
        }
    }
}

/// Tells whether an event is a refusal.
fn refused(kind: EventKind) -> bool {
    matches!(kind, EventKind::AttemptRefused | EventKind::AccessDenied | EventKind::DeadSecretUsed)
}

/// Returns the column of [`COUNTED`] that a count belongs to.
fn column(count: &UsageCount) -> usize {
    let protocol = match count.protocol {
        Protocol::Webdav => 0,
        Protocol::Sftp => 1,
        Protocol::Api => 2,
    };
    match count.kind {
        UsageKind::Use => protocol,
        UsageKind::Refusal => 3 + protocol,
    }
}

#[derive(Template)]
#[template(path = "audit.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    chart: Chart,
    /// Whether a filter leaves events alone; uses are counted of everybody.
    filtered: bool,
    /// Whether the chart lacks the older ones of the events that fit.
    cut: bool,
    spans: &'static [Span],
    span: &'static Span,
    typed: Typed,
    kinds: Vec<&'static str>,
    next: Option<String>,
    first: Option<String>,
}

/// What a form asks for, as it was typed.
struct Typed {
    user: String,
    token: String,
    event: String,
}

impl Typed {
    fn new(asked: &Asked) -> Self {
        let given = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        Self { user: given(&asked.user), token: given(&asked.token), event: given(&asked.event) }
    }

    /// Reads which events are asked for.
    fn filter(&self, since: UnixMillis) -> Result<EventFilter> {
        fn read<T>(text: &str) -> Result<Option<T>>
        where
            T: FromStr,
            T::Err: ToString,
        {
            let some = Some(text).filter(|text| !text.is_empty());
            some.map(|text| text.parse().map_err(|why: T::Err| Fault::Form(why.to_string()))).transpose()
        }
        let (user, token, kind) = (read(&self.user)?, read(&self.token)?, read(&self.event)?);
        Ok(EventFilter { since: Some(since), user, token, kind })
    }

    fn is_empty(&self) -> bool {
        self.user.is_empty() && self.token.is_empty() && self.event.is_empty()
    }

    /// Returns the address of the page that shows the same.
    fn address(&self, span: &Span) -> String {
        let mut address = format!("/console/audit?span={}", span.name);
        for (name, value) in [("user", &self.user), ("token", &self.token), ("event", &self.event)] {
            if !value.is_empty() {
                address += &format!("&{name}={}", place::query(value.as_bytes()));
            }
        }
        address
    }
}

/// What a chart is drawn from.
struct Source {
    tokens: TokenService,
    who: Principal,
    auth: Authenticator,
    span: &'static Span,
    now: UnixMillis,
}

impl Source {
    /// Draws how often everybody came in or was refused.
    fn all(&self) -> Result<Chart> {
        let written = self.tokens.usage_counts(&self.who, self.span.begin(self.now))?;
        let counts = written.into_iter().chain(self.auth.unflushed_counts());
        let happened = counts.map(|count| (count.hour, column(&count), count.count));
        Ok(Chart::new([("Uses", "uses"), ("Refusals", "refusals")], COUNTED, happened, self.span, self.now))
    }

    /// Draws the events that fit a filter; tells whether there are older ones.
    fn filtered(&self, filter: &EventFilter) -> Result<(Chart, bool)> {
        let events = self.tokens.events(&self.who, filter, EventCursor::Latest, CHARTED)?;
        let happened = events.iter().map(|RecordedEvent { event, .. }| {
            let column = usize::from(refused(event.kind));
            (event.at, column, event.count)
        });
        let panels = [("Events", "uses"), ("Refusals", "refusals")];
        Ok((Chart::new(panels, FILTERED, happened, self.span, self.now), events.len() == CHARTED))
    }
}

/// Shows what happened.
pub(super) async fn show(caller: Caller, Query(asked): Query<Asked>) -> Result<Response> {
    let frame = Frame::new(&caller, Part::Audit);
    let typed = Typed::new(&asked);
    let span = SPANS.iter().find(|span| asked.span.as_deref() == Some(span.name)).unwrap_or(&SPANS[1]);
    let now = caller.shared.auth.now();
    let filter = typed.filter(span.begin(now))?;
    let (tokens, auth) = (caller.shared.tokens.clone(), caller.shared.auth.clone());
    let source = Source { tokens, who: caller.authority(), auth, span, now };
    in_turn(caller.light(), move || {
        let cursor = asked.before.map_or(EventCursor::Latest, EventCursor::Before);
        let mut events = source.tokens.events(&source.who, &filter, cursor, PAGE + 1)?;
        let more = events.len() > PAGE;
        events.truncate(PAGE);
        let filtered = !typed.is_empty();
        let (chart, cut) = if filtered { source.filtered(&filter)? } else { (source.all()?, false) };
        let address = typed.address(span);
        let page = Page {
            frame,
            chart,
            filtered,
            cut,
            next: events.last().filter(|_| more).map(|last| format!("{address}&before={}", last.id)),
            first: asked.before.map(|_| address),
            rows: events.iter().map(|noted| Row::new(&noted.event, now)).collect(),
            spans: &SPANS,
            span,
            typed,
            kinds: EventKind::ALL.iter().map(|kind| kind.as_str()).collect(),
        };
        render(StatusCode::OK, &page)
    })
    .await
}
