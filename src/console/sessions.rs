//! Sessions that are open, each with a button that ends it.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::blocking::in_turn;
use super::error::{ConsoleError, Result};
use super::format::{DisplayTime, format_grouped};
use super::guard::{ConsoleCaller, SubmittedForm};
use super::layout::{ConsoleSection, PageFrame, render_page};
use crate::domain::TokenId;

/// Sessions on the page: the latest ones.
const MAX_LISTED_SESSIONS: usize = 500;

struct SessionRow {
    number: u64,
    token: String,
    login: String,
    protocol: String,
    address: String,
    program: String,
    since: DisplayTime,
    own: bool,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct SessionListPage {
    frame: PageFrame,
    rows: Vec<SessionRow>,
    count: String,
    cut: bool,
}

/// Shows the open sessions that the caller may see.
pub(super) async fn list(caller: ConsoleCaller) -> Result<Response> {
    let frame = PageFrame::new(&caller, ConsoleSection::Sessions);
    let (shared, who, own) = (caller.state.clone(), caller.authority(), caller.session().number());
    in_turn(caller.light(), move || {
        let sessions = shared.tokens.sessions(&who, &shared.auth)?;
        let now = shared.auth.now();
        let row = |session: &crate::auth::OpenSession| SessionRow {
            number: session.number,
            token: session.token.to_string(),
            login: session.login.to_string(),
            protocol: session.peer.protocol.to_string(),
            address: session.peer.address.to_string(),
            program: session.peer.user_agent.clone().unwrap_or_default(),
            since: DisplayTime::new(session.opened_at, now),
            own: session.number == own,
        };
        let rows = sessions.iter().take(MAX_LISTED_SESSIONS).map(row).collect();
        render_page(
            StatusCode::OK,
            &SessionListPage {
                frame,
                rows,
                count: format_grouped(sessions.len()),
                cut: sessions.len() > MAX_LISTED_SESSIONS,
            },
        )
    })
    .await
}

/// Ends one session, or all of a token.
pub(super) async fn close(sent: SubmittedForm) -> Result<Response> {
    let token: TokenId = sent.fields.parse("token")?.ok_or(ConsoleError::NotFound)?;
    let number = sent.fields.parse("number")?;
    let (shared, who) = (sent.caller.state.clone(), sent.caller.authority());
    in_turn(sent.caller.revoking(), move || Ok(shared.tokens.close_sessions(&who, &shared.auth, token, number)?))
        .await?;
    Ok(Redirect::to("/console/sessions").into_response())
}
