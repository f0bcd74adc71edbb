//! The page that shows a secret, once, with guides for clients.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use qrcode::QrCode;
use qrcode::render::svg;
use zeroize::Zeroizing;

use super::super::error::{ConsoleError, Result};
use super::super::guard::ConsoleCaller;
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::TokenDetails;
use crate::domain::client_guides::{self, ClientGuide, ClientProgram, ConnectionDetails, GuideCode};
use crate::domain::{Login, TokenText};
use crate::store::TokenRecord;

/// How a secret was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SecretReason {
    /// With a new token.
    Created,
    /// By rotation.
    Rotated,
}

#[derive(Template)]
#[template(path = "token_created.html")]
struct TokenSecretPage {
    frame: PageFrame,
    token: TokenDetails,
    rotated: bool,
    secret: Zeroizing<String>,
    code: String,
    client_guides: Vec<ClientGuide>,
}

/// Shows the secret of a new or rotated token, once; where an SSH key proves it, the token's page.
///
/// # Errors
/// As [`secret_page`].
pub(super) fn created_page(
    caller: &ConsoleCaller,
    text: Option<&TokenText>,
    record: &TokenRecord,
    reason: SecretReason,
) -> Result<Response> {
    match text {
        Some(text) => secret_page(caller, text, record, reason),
        None => Ok(Redirect::to(&format!("/console/tokens/{}", record.id)).into_response()),
    }
}

/// Renders the secret of a token, with a QR code.
///
/// # Errors
/// [`ConsoleError::Internal`] when the QR code can't be made.
fn secret_page(
    caller: &ConsoleCaller,
    text: &TokenText,
    record: &TokenRecord,
    reason: SecretReason,
) -> Result<Response> {
    // Our copy is wiped on drop; the rendered page, which holds the secret as well, is sent with `no-store`.
    let secret = Zeroizing::new(text.reveal().to_string());
    let code = QrCode::new(secret.as_bytes()).map_err(|_| ConsoleError::Internal)?;
    let code = code.render::<svg::Color<'_>>().min_dimensions(200, 200).quiet_zone(true).build();
    // An XML declaration is not allowed within HTML.
    let code = code.split_once("?>").map_or(code.clone(), |(_, code)| code.to_owned());
    let page = TokenSecretPage {
        frame: PageFrame::new(caller, ConsoleSection::Tokens),
        token: TokenDetails::new(record, caller.session().token(), &caller.state.auth),
        rotated: reason == SecretReason::Rotated,
        secret,
        code,
        client_guides: client_guides(caller, &record.owner, record),
    };
    render_page(if reason == SecretReason::Created { StatusCode::CREATED } else { StatusCode::OK }, &page)
}

/// Returns the guides for all clients; none if the server's public address is unknown.
pub(super) fn client_guides(caller: &ConsoleCaller, login: &Login, record: &TokenRecord) -> Vec<ClientGuide> {
    let scheme = if caller.is_encrypted { "https" } else { "http" };
    let path = match record.scopes.as_deref() {
        // With a single scope, clients start at its node instead of walking down from the root.
        Some([only]) => format!("/node/{}/", only.node),
        Some(_) | None => "/dav/".to_owned(),
    };
    let Some(server) = caller.public_address.names().first() else { return Vec::new() };
    let url = format!("{scheme}://{server}{}{path}", caller.public_address.prefix());
    let host = server.host();
    let sftp = caller.state.sftp_address.map(|address| format!("{host}:{}", address.port()));
    let connection = ConnectionDetails::new(&url, sftp.as_deref(), login.clone());
    connection
        .map(|connection| {
            ClientProgram::ALL.into_iter().map(|client| client_guides::client_guide(client, &connection)).collect()
        })
        .unwrap_or_default()
}
