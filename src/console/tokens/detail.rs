//! One token: its details, rotation and revocation.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;

use super::super::blocking::run_with_permit;
use super::super::browser_sessions::random_token;
use super::super::error::{ConsoleError, Result};
use super::super::guard::{ConsoleCaller, SubmittedForm};
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::{TokenDetails, created, form};
use crate::domain::client_guides::{ClientGuide, GuideCode};
use crate::domain::{Login, TokenId};
use crate::store::TokenRecord;
use crate::tokens::Rotation;

#[derive(Template)]
#[template(path = "token.html")]
struct TokenPage {
    frame: PageFrame,
    token: TokenDetails,
    client_guides: Vec<ClientGuide>,
}

/// Asks for confirmation of a rotation or a revocation, which can't be undone.
#[derive(Template)]
#[template(path = "token_confirm.html")]
struct ConfirmTokenPage {
    frame: PageFrame,
    token: TokenDetails,
    rotate: bool,
    form_id: String,
}

#[derive(Template)]
#[template(path = "revoke_all.html")]
struct ConfirmRevokeAllPage {
    frame: PageFrame,
    owner: String,
    own: bool,
}

/// Parses the token id in a URL.
///
/// # Errors
/// [`ConsoleError::NotFound`].
pub(super) fn parse_id(id_text: &str) -> Result<TokenId> {
    id_text.parse().map_err(|_| ConsoleError::NotFound)
}

/// Looks up a token that the caller may see.
///
/// # Errors
/// [`ConsoleError::Tokens`] when it is unknown or not the caller's to see; [`ConsoleError::TooMuchWork`].
pub(super) async fn find_token(caller: &ConsoleCaller, id: TokenId) -> Result<TokenRecord> {
    let (tokens, principal) = (caller.state.tokens.clone(), caller.principal());
    run_with_permit(caller.light_permit(), move || Ok(tokens.find(&principal, id)?)).await
}

/// Shows a token.
pub(in super::super) async fn show(caller: ConsoleCaller, Path(id_text): Path<String>) -> Result<Response> {
    let record = find_token(&caller, parse_id(&id_text)?).await?;
    let client_guides = created::client_guides(&caller, &record.owner, &record);
    let token = TokenDetails::new(&record, caller.session().token(), &caller.state.auth);
    render_page(
        StatusCode::OK,
        &TokenPage { frame: PageFrame::new(&caller, ConsoleSection::Tokens), token, client_guides },
    )
}

async fn confirm_page(caller: ConsoleCaller, id_text: &str, rotate: bool) -> Result<Response> {
    let record = find_token(&caller, parse_id(id_text)?).await?;
    let token = TokenDetails::new(&record, caller.session().token(), &caller.state.auth);
    render_page(
        StatusCode::OK,
        &ConfirmTokenPage {
            frame: PageFrame::new(&caller, ConsoleSection::Tokens),
            token,
            rotate,
            form_id: random_token()?,
        },
    )
}

/// Asks for confirmation before a token is rotated.
pub(in super::super) async fn confirm_rotate(caller: ConsoleCaller, Path(id_text): Path<String>) -> Result<Response> {
    confirm_page(caller, &id_text, true).await
}

/// Asks for confirmation before a token is revoked.
pub(in super::super) async fn confirm_revoke(caller: ConsoleCaller, Path(id_text): Path<String>) -> Result<Response> {
    confirm_page(caller, &id_text, false).await
}

/// Rotates a token and shows its new secret, once.
pub(in super::super) async fn rotate(Path(id_text): Path<String>, submitted: SubmittedForm) -> Result<Response> {
    let id = parse_id(&id_text)?;
    let grace = form::parse_duration(&submitted.fields, "grace")?;
    let ssh_key = submitted.fields.parse("ssh_key")?;
    let form_id = submitted.fields.text("once").unwrap_or_default();
    let mut submission =
        submitted.caller.browser_session.start_submission(form_id).ok_or(ConsoleError::AlreadySubmitted)?;
    let (tokens, principal) = (submitted.caller.state.tokens.clone(), submitted.caller.principal());
    let rotated = tokens.rotate_queued(principal, id, Rotation { grace, ssh_key }, || submission.accept()).await?;
    created::created_page(&submitted.caller, rotated.text.as_ref(), &rotated.record, created::SecretReason::Rotated)
}

/// Revokes a token.
pub(in super::super) async fn revoke(Path(id_text): Path<String>, submitted: SubmittedForm) -> Result<Response> {
    let id = parse_id(&id_text)?;
    let (tokens, principal) = (submitted.caller.state.tokens.clone(), submitted.caller.principal());
    run_with_permit(submitted.caller.revocation_permit(), move || Ok(tokens.revoke(&principal, &[id])?)).await?;
    Ok(Redirect::to(&format!("/console/tokens/{id}")).into_response())
}

/// Asks for confirmation before all tokens of a user are revoked.
pub(in super::super) async fn confirm_revoke_all(caller: ConsoleCaller, Path(owner): Path<String>) -> Result<Response> {
    let owner: Login = owner.parse().map_err(|_| ConsoleError::NotFound)?;
    let own = owner == *caller.session().login();
    render_page(
        StatusCode::OK,
        &ConfirmRevokeAllPage { frame: PageFrame::new(&caller, ConsoleSection::Tokens), owner: owner.to_string(), own },
    )
}

/// Revokes all tokens of a user.
pub(in super::super) async fn revoke_all(Path(owner): Path<String>, submitted: SubmittedForm) -> Result<Response> {
    let owner: Login = owner.parse().map_err(|_| ConsoleError::NotFound)?;
    let (tokens, principal, login) =
        (submitted.caller.state.tokens.clone(), submitted.caller.principal(), owner.clone());
    run_with_permit(submitted.caller.revocation_permit(), move || Ok(tokens.revoke_all(&principal, &login)?)).await?;
    Ok(Redirect::to(&format!("/console/tokens?owner={owner}")).into_response())
}
