//! One token: all that is kept of it; another secret; its end.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::fault::{Fault, Result, in_turn};
use super::super::guard::{Caller, Sent};
use super::super::page::{Frame, Part, render};
use super::super::visits::draw;
use super::{Shown, form, made};
use crate::domain::client_guides::{ClientGuide, GuideCode};
use crate::domain::{Login, TokenId};
use crate::store::TokenRecord;

#[derive(Template)]
#[template(path = "token.html")]
struct Page {
    frame: Frame,
    token: Shown,
    setups: Vec<ClientGuide>,
}

/// What a page asks before it does something that can't be undone.
#[derive(Template)]
#[template(path = "token_sure.html")]
struct Sure {
    frame: Frame,
    token: Shown,
    rotate: bool,
    once: String,
}

#[derive(Template)]
#[template(path = "revoke_all.html")]
struct SureAll {
    frame: Frame,
    owner: String,
    own: bool,
}

/// Reads the id of an address.
///
/// # Errors
/// [`Fault::Nothing`].
pub(super) fn id(text: &str) -> Result<TokenId> {
    text.parse().map_err(|_| Fault::Nothing)
}

/// Finds a token that the caller may look at.
///
/// # Errors
/// What `tokens` says.
pub(super) async fn find(caller: &Caller, id: TokenId) -> Result<TokenRecord> {
    let (tokens, who) = (caller.shared.tokens.clone(), caller.authority());
    in_turn(caller.light(), move || Ok(tokens.find(&who, id)?)).await
}

/// Shows a token.
pub(in super::super) async fn show(caller: Caller, Path(text): Path<String>) -> Result<Response> {
    let record = find(&caller, id(&text)?).await?;
    let setups = made::setups(&caller, &record.login, &record);
    let token = Shown::new(&record, caller.session().token(), &caller.shared.auth);
    render(StatusCode::OK, &Page { frame: Frame::new(&caller, Part::Tokens), token, setups })
}

async fn sure(caller: Caller, text: &str, rotate: bool) -> Result<Response> {
    let record = find(&caller, id(text)?).await?;
    let token = Shown::new(&record, caller.session().token(), &caller.shared.auth);
    render(StatusCode::OK, &Sure { frame: Frame::new(&caller, Part::Tokens), token, rotate, once: draw()? })
}

/// Asks whether a token is to get another secret.
pub(in super::super) async fn ask_rotate(caller: Caller, Path(text): Path<String>) -> Result<Response> {
    sure(caller, &text, true).await
}

/// Asks whether a token is to be taken back.
pub(in super::super) async fn ask_revoke(caller: Caller, Path(text): Path<String>) -> Result<Response> {
    sure(caller, &text, false).await
}

/// Gives a token another secret, and shows it for the one time.
pub(in super::super) async fn rotate(Path(text): Path<String>, sent: Sent) -> Result<Response> {
    let id = id(&text)?;
    let grace = form::span(&sent.fields, "grace")?;
    let once = sent.fields.text("once").unwrap_or_default();
    let mut form = sent.caller.visit.first(once).ok_or(Fault::SentBefore)?;
    let (tokens, who) = (sent.caller.shared.tokens.clone(), sent.caller.authority());
    let rotated = tokens.rotate_queued(who, id, grace, || form.is_done()).await?;
    made::page(&sent.caller, &rotated.text, &rotated.record, made::Birth::Rotated)
}

/// Takes a token back.
pub(in super::super) async fn revoke(Path(text): Path<String>, sent: Sent) -> Result<Response> {
    let id = id(&text)?;
    let (tokens, who) = (sent.caller.shared.tokens.clone(), sent.caller.authority());
    in_turn(sent.caller.revoking(), move || Ok(tokens.revoke(&who, &[id])?)).await?;
    Ok(Redirect::to(&format!("/console/tokens/{id}")).into_response())
}

/// Asks whether all tokens of a user are to be taken back.
pub(in super::super) async fn ask_revoke_all(caller: Caller, Path(owner): Path<String>) -> Result<Response> {
    let owner: Login = owner.parse().map_err(|_| Fault::Nothing)?;
    let own = owner == *caller.session().login();
    render(StatusCode::OK, &SureAll { frame: Frame::new(&caller, Part::Tokens), owner: owner.to_string(), own })
}

/// Takes all tokens of a user back.
pub(in super::super) async fn revoke_all(Path(owner): Path<String>, sent: Sent) -> Result<Response> {
    let owner: Login = owner.parse().map_err(|_| Fault::Nothing)?;
    let (tokens, who, asked) = (sent.caller.shared.tokens.clone(), sent.caller.authority(), owner.clone());
    in_turn(sent.caller.revoking(), move || Ok(tokens.revoke_all(&who, &asked)?)).await?;
    Ok(Redirect::to(&format!("/console/tokens?owner={owner}")).into_response())
}
