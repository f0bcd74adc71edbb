//! Sessions that are open, each with a button that ends it.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::fault::{Fault, Result, in_turn};
use super::guard::{Caller, Sent};
use super::page::{Frame, Part, render};
use super::words::{Moment, grouped};
use crate::domain::TokenId;

/// Sessions on the page: the latest ones.
const MOST: usize = 500;

struct Row {
    number: u64,
    token: String,
    login: String,
    protocol: String,
    address: String,
    program: String,
    since: Moment,
    own: bool,
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    count: String,
    cut: bool,
}

/// Shows the open sessions that the caller may see.
pub(super) async fn list(caller: Caller) -> Result<Response> {
    let frame = Frame::new(&caller, Part::Sessions);
    let (shared, who, own) = (caller.shared.clone(), caller.authority(), caller.session().number());
    in_turn(caller.light(), move || {
        let sessions = shared.tokens.sessions(&who, &shared.auth)?;
        let now = shared.auth.now();
        let row = |session: &crate::auth::OpenSession| Row {
            number: session.number,
            token: session.token.to_string(),
            login: session.login.to_string(),
            protocol: session.peer.protocol.to_string(),
            address: session.peer.address.to_string(),
            program: session.peer.user_agent.clone().unwrap_or_default(),
            since: Moment::new(session.opened_at, now),
            own: session.number == own,
        };
        let rows = sessions.iter().take(MOST).map(row).collect();
        render(StatusCode::OK, &Page { frame, rows, count: grouped(sessions.len()), cut: sessions.len() > MOST })
    })
    .await
}

/// Ends one session, or all of a token.
pub(super) async fn end(sent: Sent) -> Result<Response> {
    let token: TokenId = sent.fields.read("token")?.ok_or(Fault::Nothing)?;
    let number = sent.fields.read("number")?;
    let (shared, who) = (sent.caller.shared.clone(), sent.caller.authority());
    in_turn(sent.caller.revoking(), move || Ok(shared.tokens.close_sessions(&who, &shared.auth, token, number)?))
        .await?;
    Ok(Redirect::to("/console/sessions").into_response())
}
