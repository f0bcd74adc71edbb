//! The list of bans, each with a button that removes it, and a form for another one.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::blocking::run_with_permit;
use super::error::{ConsoleError, Result};
use super::format::DisplayTime;
use super::guard::{ConsoleCaller, SubmittedForm};
use super::layout::{ConsoleSection, PageFrame, render_page};
use crate::domain::{Ban, BanOrigin, BannedNetwork, Lifetime};
use crate::tokens::{BanRequest, Error};

/// Maximum number of bans on the page, the latest first.
const MAX_LISTED_BANS: usize = 500;

struct BanRow {
    network: String,
    since: DisplayTime,
    until: Option<DisplayTime>,
    is_automatic: bool,
    reason: String,
}

/// What was typed into the form, shown again where it was refused.
#[derive(Default)]
struct BanFields {
    network: String,
    duration: String,
    reason: String,
}

#[derive(Template)]
#[template(path = "bans.html")]
struct BanListPage {
    frame: PageFrame,
    rows: Vec<BanRow>,
    count: usize,
    truncated: bool,
    fields: BanFields,
    error: Option<String>,
}

/// Lists the bans in force.
pub(super) async fn list(caller: ConsoleCaller) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Bans);
    let (state, principal) = (caller.state.clone(), caller.principal());
    run_with_permit(caller.light_permit(), move || {
        let bans = state.tokens.bans(&principal)?;
        render_list(StatusCode::OK, frame, &bans, state.auth.now(), BanFields::default(), None)
    })
    .await
}

/// Adds a ban.
pub(super) async fn add(submitted: SubmittedForm) -> Result<Response> {
    let frame = PageFrame::new(&submitted.caller, ConsoleSection::Bans);
    let (state, principal) = (submitted.caller.state.clone(), submitted.caller.principal());
    let text = |name| submitted.fields.text(name).unwrap_or_default().trim().to_owned();
    let fields = BanFields { network: text("network"), duration: text("duration"), reason: text("reason") };
    run_with_permit(submitted.caller.light_permit(), move || {
        // The role first: a caller without it learns nothing.
        let bans = state.tokens.bans(&principal)?;
        match parse_request(&fields).map(|request| state.tokens.add_ban(&principal, &request)) {
            Ok(Ok(_)) => Ok(Redirect::to("/console/bans").into_response()),
            Ok(Err(Error::InvalidBan(reason))) | Err(reason) => {
                let error = Some(super::error::to_sentence(&reason));
                render_list(StatusCode::UNPROCESSABLE_ENTITY, frame, &bans, state.auth.now(), fields, error)
            }
            Ok(Err(error)) => Err(error.into()),
        }
    })
    .await
}

/// Removes a ban.
pub(super) async fn remove(submitted: SubmittedForm) -> Result<Response> {
    let network = submitted.fields.text("network").unwrap_or_default().parse::<BannedNetwork>();
    let network = network.map_err(|_| ConsoleError::NotFound)?;
    let (tokens, principal) = (submitted.caller.state.tokens.clone(), submitted.caller.principal());
    run_with_permit(submitted.caller.light_permit(), move || match tokens.remove_ban(&principal, network) {
        // It may have ended, or somebody else was faster: it is gone either way.
        Ok(()) | Err(Error::UnknownBan(_)) => Ok(Redirect::to("/console/bans").into_response()),
        Err(error) => Err(error.into()),
    })
    .await
}

fn parse_request(fields: &BanFields) -> std::result::Result<BanRequest, String> {
    let network = fields.network.parse()?;
    let duration = match fields.duration.as_str() {
        "" => None,
        text => Some(text.parse::<Lifetime>().map_err(|error| error.to_string())?),
    };
    Ok(BanRequest { network, duration, reason: fields.reason.clone() })
}

fn render_list(
    status: StatusCode,
    frame: PageFrame,
    bans: &[Ban],
    now: crate::domain::UnixMillis,
    fields: BanFields,
    error: Option<String>,
) -> Result<Response> {
    let row = |ban: &Ban| BanRow {
        network: ban.network.to_string(),
        since: DisplayTime::new(ban.since, now),
        until: ban.until.map(|until| DisplayTime::new(until, now)),
        is_automatic: ban.origin == BanOrigin::Automatic,
        reason: ban.reason.clone(),
    };
    let rows = bans.iter().take(MAX_LISTED_BANS).map(row).collect();
    let truncated = bans.len() > MAX_LISTED_BANS;
    render_page(status, &BanListPage { frame, rows, count: bans.len(), truncated, fields, error })
}
