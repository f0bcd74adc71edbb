//! A secret, for the one time that it is shown, and how to connect with it.

use askama::Template;
use axum::response::Response;
use http::StatusCode;
use qrcode::QrCode;
use qrcode::render::svg;
use zeroize::Zeroizing;

use super::super::fault::{Fault, Result};
use super::super::guard::Caller;
use super::super::page::{Frame, Part, render};
use super::Shown;
use crate::domain::client_guides::{self, ClientGuide, ClientProgram, ConnectionDetails, GuideCode};
use crate::domain::{Login, TokenText};
use crate::store::TokenRecord;

/// How a secret came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Birth {
    /// With its token.
    New,
    /// In place of another.
    Rotated,
}

#[derive(Template)]
#[template(path = "token_made.html")]
struct Page {
    frame: Frame,
    token: Shown,
    rotated: bool,
    secret: Zeroizing<String>,
    code: String,
    setups: Vec<ClientGuide>,
}

/// Shows a secret.
///
/// # Errors
/// [`Fault::Lost`].
pub(super) fn page(caller: &Caller, text: &TokenText, record: &TokenRecord, birth: Birth) -> Result<Response> {
    let secret = Zeroizing::new(text.reveal().to_string());
    let code = QrCode::new(secret.as_bytes()).map_err(|_| Fault::Lost)?;
    let code = code.render::<svg::Color<'_>>().min_dimensions(200, 200).quiet_zone(true).build();
    // The declaration in front of it has no place within a page.
    let code = code.split_once("?>").map_or(code.clone(), |(_, code)| code.to_owned());
    let page = Page {
        frame: Frame::new(caller, Part::Tokens),
        token: Shown::new(record, caller.session().token(), &caller.shared.auth),
        rotated: birth == Birth::Rotated,
        secret,
        code,
        setups: setups(caller, &record.login, record),
    };
    render(if birth == Birth::New { StatusCode::CREATED } else { StatusCode::OK }, &page)
}

/// Returns how to connect with each client, where the browser's own address can be made one of the gateway.
pub(super) fn setups(caller: &Caller, login: &Login, record: &TokenRecord) -> Vec<ClientGuide> {
    let scheme = if caller.encrypted { "https" } else { "http" };
    let path = match record.scopes.as_deref() {
        Some([only]) => format!("/node/{}/", only.scope.node),
        Some(_) | None => "/dav/".to_owned(),
    };
    let Some(server) = caller.server.names().first() else { return Vec::new() };
    let url = format!("{scheme}://{server}{}{path}", caller.server.prefix());
    let name = server.host();
    let sftp = caller.shared.sftp.map(|address| format!("{name}:{}", address.port()));
    let site = ConnectionDetails::new(&url, sftp.as_deref(), login.clone());
    site.map(|site| ClientProgram::ALL.into_iter().map(|client| client_guides::client_guide(client, &site)).collect())
        .unwrap_or_default()
}
