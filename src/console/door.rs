//! Signing in with user name and token, and out.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{HeaderValue, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::Shared;
use super::assets::{ASSETS, Assets};
use super::fault::{Fault, Result};
use super::guard::{self, Caller, Sent, cookie_name};
use super::page::render;
use crate::auth::{AuthError, Credential};
use crate::http::{AuthenticatedSession, ConnectionHandle};

const CLEARTEXT: &str = "This page can’t take a token: it came over an unencrypted connection. Connect with https://, \
    or from the server’s own machine.";

#[derive(Template)]
#[template(path = "sign_in.html")]
struct Page<'a> {
    assets: &'a Assets,
    login: String,
    next: String,
    fault: Option<String>,
    open: bool,
}

/// What the address of the page asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    next: Option<String>,
}

/// Leads to the first page.
pub(super) async fn home(_: Caller) -> Redirect {
    Redirect::to("/console/tokens")
}

/// Asks for user name and token.
pub(super) async fn ask(Query(asked): Query<Asked>, request: Request) -> Result<Response> {
    let (parts, _) = request.into_parts();
    let open = guard::origin(&parts)?.is_confidential();
    let fault = (!open).then(|| CLEARTEXT.to_owned());
    let page = Page {
        assets: &ASSETS,
        login: String::new(),
        next: here(asked.next.as_deref().unwrap_or_default()),
        fault,
        open,
    };
    render(StatusCode::OK, &page)
}

/// Takes user name and token.
pub(super) async fn sign_in(State(shared): State<Arc<Shared>>, request: Request) -> Result<Response> {
    guard::at_home(request.extensions(), request.headers())?;
    let (parts, body) = request.into_parts();
    let origin = guard::origin(&parts)?;
    let peer = guard::peer(origin, &parts.headers);
    let extensions = parts.extensions.clone();
    let fields = guard::fields(Request::from_parts(parts, body)).await?;
    let login = fields.text("login").unwrap_or_default().to_owned();
    let next = here(fields.text("next").unwrap_or_default());
    let again = |status, fault: String, open| {
        render(status, &Page { assets: &ASSETS, login: login.clone(), next: next.clone(), fault: Some(fault), open })
    };
    if !origin.is_confidential() {
        return again(StatusCode::FORBIDDEN, CLEARTEXT.to_owned(), false);
    }
    let token = Zeroizing::new(fields.text("token").unwrap_or_default().as_bytes().to_vec());
    let session = match shared.auth.authenticate(Credential { login: Some(login.clone()), token }, peer).await {
        Ok(session) => session,
        Err(AuthError::Store(error)) => return Err(error.into()),
        Err(refusal) => {
            let text = Fault::Denied(refusal);
            return again(text.status(), text.told(), true);
        }
    };
    ConnectionHandle::notify_authenticated(&extensions, &session)?;
    session.record_use();
    let Ok(cookie) = shared.visits.open(session.clone())? else { return Err(AuthError::Busy.into()) };
    let mut response = Redirect::to(&next).into_response();
    response.headers_mut().insert(header::SET_COOKIE, set_cookie(&cookie, origin.encrypted)?);
    response.extensions_mut().insert(AuthenticatedSession(session));
    Ok(response)
}

/// Ends the visit, and with it the session.
pub(super) async fn sign_out(sent: Sent) -> Result<Response> {
    sent.caller.visit.close();
    let mut response = Redirect::to("/console/sign-in").into_response();
    response.headers_mut().insert(header::SET_COOKIE, set_cookie("", sent.caller.encrypted)?);
    Ok(response)
}

/// Returns what sets the cookie of a visit; takes it away for no value.
fn set_cookie(value: &str, encrypted: bool) -> Result<HeaderValue> {
    let (name, path) = cookie_name(encrypted);
    let secure = if encrypted { "; Secure" } else { "" };
    let gone = if value.is_empty() { "; Max-Age=0" } else { "" };
    let cookie = format!("{name}={value}; Path={path}; HttpOnly; SameSite=Strict{secure}{gone}");
    HeaderValue::try_from(cookie).map_err(|_| Fault::Lost)
}

/// Returns the page of this console that an address names; its first one for any other address.
fn here(next: &str) -> String {
    let named = next.parse::<Uri>().ok().filter(|uri| uri.authority().is_none() && next.starts_with("/console/"));
    let inside = named.filter(|uri| !uri.path().contains('\\') && !uri.path().split('/').any(is_dots));
    inside.map_or_else(|| "/console/".to_owned(), |uri| uri.to_string())
}

/// Tells whether browsers take a part of a path for the directory itself or the one above (URL standard, section 4.4).
fn is_dots(part: &str) -> bool {
    matches!(&*percent_decode_str(part).collect::<Vec<u8>>(), b"." | b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signing_in_leads_nowhere_else() {
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
            assert_eq!(here(next), expected, "{next}");
        }
    }
}
