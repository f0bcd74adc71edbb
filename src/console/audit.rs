//! The audit trail: events that match a filter, and a chart of counts over time.

mod chart;

use std::str::FromStr;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::StatusCode;
use serde::Deserialize;

use super::blocking::run_with_permit;
use super::error::{ConsoleError, Result};
use super::format::DisplayTime;
use super::guard::ConsoleCaller;
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use crate::auth::Authenticator;
use crate::domain::{AuditEvent, EventKind, Protocol, UnixMillis, UsageCount, UsageKind};
use crate::store::{EventCursor, EventFilter, RecordedEvent};
use crate::tokens::{Principal, TokenService};

use chart::{AuditChart, ChartSeries, ChartSpan};

/// Number of events on a page.
const EVENTS_PER_PAGE: usize = 100;
/// Maximum number of matching events that the chart counts; of more, the latest.
const MAX_CHART_EVENTS: usize = 20_000;
/// Time spans that the chart can cover.
const CHART_SPANS: [ChartSpan; 4] = [
    ChartSpan { name: "day", text: "24 hours", step: "hour", hours: 1, bars: 24 },
    ChartSpan { name: "week", text: "7 days", step: "4 hours", hours: 4, bars: 42 },
    ChartSpan { name: "month", text: "30 days", step: "day", hours: 24, bars: 30 },
    ChartSpan { name: "quarter", text: "90 days", step: "day", hours: 24, bars: 90 },
];
/// Series of the chart without a filter: usage counters of all users.
const USAGE_SERIES: &[ChartSeries] = &[
    ChartSeries { title: "WebDAV", label: "WebDAV", panel: 0 },
    ChartSeries { title: "SFTP", label: "SFTP", panel: 0 },
    ChartSeries { title: "API, console", label: "API and console", panel: 0 },
    ChartSeries { title: "WebDAV", label: "WebDAV, refused", panel: 1 },
    ChartSeries { title: "SFTP", label: "SFTP, refused", panel: 1 },
    ChartSeries { title: "API, console", label: "API and console, refused", panel: 1 },
];
/// Series of the chart with a filter: matching events.
const EVENT_SERIES: &[ChartSeries] = &[
    ChartSeries { title: "Events", label: "Events", panel: 0 },
    ChartSeries { title: "Refusals", label: "Refusals", panel: 1 },
];

/// Query parameters of the page.
#[derive(Deserialize)]
pub(super) struct AuditQuery {
    span: Option<String>,
    user: Option<String>,
    token: Option<String>,
    event: Option<String>,
    before: Option<u64>,
}

struct AuditEventRow {
    at: DisplayTime,
    kind: &'static str,
    is_refusal: bool,
    user: String,
    token: String,
    by: String,
    from: String,
    program: String,
    count: u64,
    detail: String,
}

impl AuditEventRow {
    fn new(event: &AuditEvent, now: UnixMillis) -> Self {
        let protocol = event.protocol.map(|protocol| protocol.to_string());
        let from = [protocol, event.address.clone()];
        let detail = [event.path.clone(), event.detail.clone()];
        Self {
            at: DisplayTime::new(event.at, now),
            kind: event.kind.as_str(),
            is_refusal: is_refusal(event.kind),
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

/// Tells whether an event counts as a refusal.
fn is_refusal(kind: EventKind) -> bool {
    matches!(kind, EventKind::AttemptRefused | EventKind::AccessDenied | EventKind::DeadSecretUsed)
}

/// Returns the index in [`USAGE_SERIES`] that a usage counter belongs to.
fn usage_series_index(count: &UsageCount) -> usize {
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
struct AuditPage {
    frame: PageFrame,
    rows: Vec<AuditEventRow>,
    chart: AuditChart,
    /// Whether a filter is set, so that the chart counts events instead of uses.
    filtered: bool,
    /// Whether the chart leaves out older matching events.
    truncated: bool,
    spans: &'static [ChartSpan],
    span: &'static ChartSpan,
    form: AuditFilterForm,
    kinds: Vec<&'static str>,
    next_page: Option<String>,
    first_page: Option<String>,
}

/// Values of the filter form, as typed.
struct AuditFilterForm {
    user: String,
    token: String,
    event: String,
}

impl AuditFilterForm {
    fn from_query(params: &AuditQuery) -> Self {
        let trimmed = |text: &Option<String>| text.as_deref().unwrap_or_default().trim().to_owned();
        Self { user: trimmed(&params.user), token: trimmed(&params.token), event: trimmed(&params.event) }
    }

    /// Parses the values.
    fn event_filter(&self, since: UnixMillis) -> Result<EventFilter> {
        fn read<T>(text: &str) -> Result<Option<T>>
        where
            T: FromStr,
            T::Err: ToString,
        {
            let non_empty = Some(text).filter(|text| !text.is_empty());
            non_empty
                .map(|text| text.parse().map_err(|why: T::Err| ConsoleError::InvalidForm(why.to_string())))
                .transpose()
        }
        let (user, token, kind) = (read(&self.user)?, read(&self.token)?, read(&self.event)?);
        Ok(EventFilter { since: Some(since), user, token, kind })
    }

    fn is_empty(&self) -> bool {
        self.user.is_empty() && self.token.is_empty() && self.event.is_empty()
    }

    /// Returns the URL of the first page with this filter.
    fn page_url(&self, span: &ChartSpan) -> String {
        let mut address = format!("/console/audit?span={}", span.name);
        for (name, value) in [("user", &self.user), ("token", &self.token), ("event", &self.event)] {
            if !value.is_empty() {
                address += &format!("&{name}={}", paths::encode_query(value.as_bytes()));
            }
        }
        address
    }
}

/// Data sources of the chart.
struct ChartSource {
    tokens: TokenService,
    principal: Principal,
    auth: Authenticator,
    span: &'static ChartSpan,
    now: UnixMillis,
}

impl ChartSource {
    /// Returns the chart of uses and refusals of all users.
    fn usage_chart(&self) -> Result<AuditChart> {
        let flushed = self.tokens.usage_counts(&self.principal, self.span.start(self.now))?;
        // Usage counters are written with a delay; without those in memory the current bar would lag behind.
        let counts = flushed.into_iter().chain(self.auth.unflushed_counts());
        let occurrences = counts.map(|count| (count.hour, usage_series_index(&count), count.count));
        Ok(AuditChart::new(
            [("Uses", "uses"), ("Refusals", "refusals")],
            USAGE_SERIES,
            occurrences,
            self.span,
            self.now,
        ))
    }

    /// Returns the chart of the events that match a filter, and whether older ones are left out.
    fn event_chart(&self, filter: &EventFilter) -> Result<(AuditChart, bool)> {
        let events = self.tokens.events(&self.principal, filter, EventCursor::Latest, MAX_CHART_EVENTS)?;
        let occurrences = events.iter().map(|RecordedEvent { event, .. }| {
            let series = usize::from(is_refusal(event.kind));
            (event.at, series, event.count)
        });
        let panels = [("Events", "uses"), ("Refusals", "refusals")];
        Ok((AuditChart::new(panels, EVENT_SERIES, occurrences, self.span, self.now), events.len() == MAX_CHART_EVENTS))
    }
}

/// Shows the audit trail.
pub(super) async fn show(caller: ConsoleCaller, Query(params): Query<AuditQuery>) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Audit);
    let form = AuditFilterForm::from_query(&params);
    let span = CHART_SPANS.iter().find(|span| params.span.as_deref() == Some(span.name)).unwrap_or(&CHART_SPANS[1]);
    let now = caller.state.auth.now();
    let filter = form.event_filter(span.start(now))?;
    let (tokens, auth) = (caller.state.tokens.clone(), caller.state.auth.clone());
    let source = ChartSource { tokens, principal: caller.principal(), auth, span, now };
    run_with_permit(caller.light_permit(), move || {
        let cursor = params.before.map_or(EventCursor::Latest, EventCursor::Before);
        // One more than is shown tells whether there is a next page.
        let mut events = source.tokens.events(&source.principal, &filter, cursor, EVENTS_PER_PAGE + 1)?;
        let has_more = events.len() > EVENTS_PER_PAGE;
        events.truncate(EVENTS_PER_PAGE);
        let filtered = !form.is_empty();
        let (chart, truncated) = if filtered { source.event_chart(&filter)? } else { (source.usage_chart()?, false) };
        let address = form.page_url(span);
        let page = AuditPage {
            frame,
            chart,
            filtered,
            truncated,
            next_page: events.last().filter(|_| has_more).map(|last| format!("{address}&before={}", last.id)),
            first_page: params.before.map(|_| address),
            rows: events.iter().map(|recorded| AuditEventRow::new(&recorded.event, now)).collect(),
            spans: &CHART_SPANS,
            span,
            form,
            kinds: EventKind::ALL.iter().map(|kind| kind.as_str()).collect(),
        };
        render_page(StatusCode::OK, &page)
    })
    .await
}
