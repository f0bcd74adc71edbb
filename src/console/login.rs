//! Sign-in with user name and token, and sign-out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::ConsoleState;
use super::assets::{ASSET_URLS, AssetUrls};
use super::error::{ConsoleError, Result};
use super::guard::{self, ConsoleCaller, SubmittedForm, session_cookie_name};
use super::layout::render_page;
use crate::auth::{AuthError, Credential};
use crate::http::{AuthenticatedSession, ConnectionHandle};

const UNENCRYPTED_CONNECTION_MESSAGE: &str = "Sign-in is disabled because this connection is not encrypted. Connect with https://, \
    or from the server’s own machine.";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct SignInPage<'a> {
    assets: &'a AssetUrls,
    login: String,
    next: String,
    error: Option<String>,
    is_confidential: bool,
}

/// Query parameters of the page.
#[derive(Deserialize)]
pub(super) struct SignInQuery {
    next: Option<String>,
}

/// Redirects to the first page.
pub(super) async fn redirect_to_tokens(_: ConsoleCaller) -> Redirect {
    Redirect::to("/console/tokens")
}

/// Shows the sign-in form.
pub(super) async fn sign_in_form(Query(params): Query<SignInQuery>, request: Request) -> Result<Response> {
    let (parts, _) = request.into_parts();
    let is_confidential = guard::request_origin(&parts)?.is_confidential();
    let error = (!is_confidential).then(|| UNENCRYPTED_CONNECTION_MESSAGE.to_owned());
    let page = SignInPage {
        assets: &ASSET_URLS,
        login: String::new(),
        next: local_redirect_target(params.next.as_deref().unwrap_or_default()),
        error,
        is_confidential,
    };
    render_page(StatusCode::OK, &page)
}

/// Authenticates user name and token, and opens a browser session.
pub(super) async fn sign_in(State(state): State<Arc<ConsoleState>>, request: Request) -> Result<Response> {
    // Otherwise another site could sign a browser in as the attacker, who would then see what the victim uploads (login
    // CSRF).
    guard::require_same_origin(request.extensions(), request.headers())?;
    let (parts, body) = request.into_parts();
    let source = guard::request_origin(&parts)?;
    let peer = guard::peer(source, &parts.headers);
    let extensions = parts.extensions.clone();
    let fields = guard::read_form(Request::from_parts(parts, body)).await?;
    let login = fields.text("login").unwrap_or_default().to_owned();
    let next = local_redirect_target(fields.text("next").unwrap_or_default());
    let retry_page = |status, error: String, is_confidential| {
        render_page(
            status,
            &SignInPage {
                assets: &ASSET_URLS,
                login: login.clone(),
                next: next.clone(),
                error: Some(error),
                is_confidential,
            },
        )
    };
    // The token was sent already, but answering as usual would teach users to send it in cleartext.
    if !source.is_confidential() {
        return retry_page(StatusCode::FORBIDDEN, UNENCRYPTED_CONNECTION_MESSAGE.to_owned(), false);
    }
    let token = Zeroizing::new(fields.text("token").unwrap_or_default().as_bytes().to_vec());
    let session = match state.auth.authenticate(Credential { login: Some(login.clone()), token }, peer).await {
        Ok(session) => session,
        // Not an error of what was typed: an error page instead of the form.
        Err(AuthError::Store(error)) => return Err(error.into()),
        Err(refusal) => {
            let refusal = ConsoleError::Authentication(refusal);
            return retry_page(refusal.status(), refusal.public_message(), true);
        }
    };
    ConnectionHandle::notify_authenticated(&extensions, &session)?;
    session.record_use();
    // Every sign-in gets a new cookie, so that a cookie planted before is worth nothing (session fixation).
    let Ok(cookie) = state.browser_sessions.open(session.clone())? else { return Err(AuthError::Busy.into()) };
    let mut response = Redirect::to(&next).into_response();
    response.headers_mut().insert(header::SET_COOKIE, set_cookie_header(&cookie, source.encrypted)?);
    response.extensions_mut().insert(AuthenticatedSession(session));
    Ok(response)
}

/// Closes the browser session, and with it the authenticated session.
pub(super) async fn sign_out(submitted: SubmittedForm) -> Result<Response> {
    submitted.caller.browser_session.close();
    let mut response = Redirect::to("/console/sign-in").into_response();
    response.headers_mut().insert(header::SET_COOKIE, set_cookie_header("", submitted.caller.is_encrypted)?);
    Ok(response)
}

/// Returns the `Set-Cookie` header of a browser session; an empty value deletes the cookie.
fn set_cookie_header(value: &str, encrypted: bool) -> Result<HeaderValue> {
    let (name, path) = session_cookie_name(encrypted);
    let secure = if encrypted { "; Secure" } else { "" };
    let expiry = if value.is_empty() { "; Max-Age=0" } else { "" };
    let cookie = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}{expiry}");
    HeaderValue::try_from(cookie).map_err(|_| ConsoleError::Internal)
}

/// Returns `next` if it is a URL of this console, else the first page: no open redirect.
fn local_redirect_target(next: &str) -> String {
    let local_uri = next.parse::<Uri>().ok().filter(|uri| uri.authority().is_none() && next.starts_with("/console/"));
    // Browsers treat a backslash as a slash and resolve dot segments, also encoded ones, and so could leave the
    // console.
    let safe_uri = local_uri.filter(|uri| !uri.path().contains('\\') && !uri.path().split('/').any(is_dot_segment));
    safe_uri.map_or_else(|| "/console/".to_owned(), |uri| uri.to_string())
}

/// Tells whether browsers resolve a path segment as `.` or `..` (URL standard, section 4.4).
fn is_dot_segment(segment: &str) -> bool {
    matches!(&*percent_decode_str(segment).collect::<Vec<u8>>(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_redirects_only_within_the_console() {
        let cases = [
            ("/console/files/a%20b?after=c", "/console/files/a%20b?after=c"),
            ("", "/console/"),
            ("//evil.example/console/", "/console/"),
            ("https://evil.example/console/", "/console/"),
            ("/dav/", "/console/"),
            ("/console/\r\nset-cookie: x", "/console/"),
            ("\\\\evil", "/console/"),
            ("/\\evil.example/console/", "/console/"),
            ("%2f%2fevil.example/console/", "/console/"),
            ("/%2fevil.example/console/", "/console/"),
            ("/console", "/console/"),
            ("/consolex/", "/console/"),
            ("/console/../dav/page.html", "/console/"),
            ("/console/x/%2e%2E/../dav/page.html", "/console/"),
            ("/console/.%2e/dav/page.html", "/console/"),
            ("/console/..\\dav", "/console/"),
            ("/console/\t/../dav", "/console/"),
            ("/console/files/..a/b..", "/console/files/..a/b.."),
            ("/console/files/a%5Cb?x=../..", "/console/files/a%5Cb?x=../.."),
        ];
        for (next, expected) in cases {
            assert_eq!(local_redirect_target(next), expected, "{next}");
        }
    }
}
