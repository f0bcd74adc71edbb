//! The list of open sessions, each with a button that closes it.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::blocking::run_with_permit;
use super::error::{ConsoleError, Result};
use super::format::{DisplayTime, format_grouped};
use super::guard::{ConsoleCaller, SubmittedForm};
use super::layout::{ConsoleSection, PageFrame, render_page};
use crate::domain::TokenId;

/// Maximum number of sessions on the page, the latest first.
const MAX_LISTED_SESSIONS: usize = 500;

struct SessionRow {
    number: u64,
    token: String,
    login: String,
    protocol: String,
    address: String,
    program: String,
    opened: DisplayTime,
    is_own: bool,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionListPage {
    frame: PageFrame,
    rows: Vec<SessionRow>,
    count: String,
    truncated: bool,
}

/// Lists the open sessions that the caller may see.
pub(super) async fn list(caller: ConsoleCaller) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Sessions);
    let (state, principal, own_number) = (caller.state.clone(), caller.principal(), caller.session().number());
    run_with_permit(caller.light_permit(), move || {
        let sessions = state.tokens.sessions(&principal, &state.auth)?;
        let now = state.auth.now();
        let row = |session: &crate::auth::OpenSession| SessionRow {
            number: session.number,
            token: session.token.to_string(),
            login: session.login.to_string(),
            protocol: session.peer.protocol.to_string(),
            address: session.peer.address.to_string(),
            program: session.peer.user_agent.clone().unwrap_or_default(),
            opened: DisplayTime::new(session.opened_at, now),
            is_own: session.number == own_number,
        };
        let rows = sessions.iter().take(MAX_LISTED_SESSIONS).map(row).collect();
        render_page(
            StatusCode::OK,
            &SessionListPage {
                frame,
                rows,
                count: format_grouped(sessions.len()),
                truncated: sessions.len() > MAX_LISTED_SESSIONS,
            },
        )
    })
    .await
}

/// Closes one session, or all sessions of a token.
pub(super) async fn close(submitted: SubmittedForm) -> Result<Response> {
    let token: TokenId = submitted.fields.parse("token")?.ok_or(ConsoleError::NotFound)?;
    // Without a number all sessions of the token are closed.
    let number = submitted.fields.parse("number")?;
    let (state, principal) = (submitted.caller.state.clone(), submitted.caller.principal());
    run_with_permit(submitted.caller.revocation_permit(), move || {
        Ok(state.tokens.close_sessions(&principal, &state.auth, token, number)?)
    })
    .await?;
    Ok(Redirect::to("/console/sessions").into_response())
}
