//! The web console at `/console/`: server-rendered pages over the same calls as the REST API.
//!
//! It has no access rules of its own. A request passes [`guard`] first, which authenticates the caller and, for a
//! state-changing request, checks that a page of this console sent it. Each page is a file that translates the request
//! into calls of [`crate::tokens`] and [`crate::tree`]. [`error_page`] turns an error into a page, last.

mod assets;
mod audit;
mod bans;
mod blocking;
mod browser_sessions;
mod content;
mod error;
mod error_page;
mod explain;
mod files;
mod format;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod layout;
mod login;
mod multipart;
mod paths;
mod policy;
mod sessions;
mod tokens;
mod upload;
mod users;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tower_service::Service;

use crate::auth::{Authenticator, Clock};
use crate::http::{BodyError, RequestBody, RequestSource, RequestingSession, ResponseBody, set_retry_after};
use crate::tokens::TokenService;
use crate::tree::Tree;

use browser_sessions::BrowserSessions;
use error_page::ErrorMessage;
use guard::CallerSession;
use layout::PageFrame;

/// Maximum size of a form without files.
const FORM_BYTES: usize = 256 * 1024;
/// `Retry-After` of answers with status 503.
const BUSY_RETRY_AFTER: Duration = Duration::from_secs(1);
/// Content security policy of pages: resources of this origin only, and nothing inline.
const PAGE_CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The handler of `/console/`; clones share all state.
#[derive(Clone)]
pub struct Console {
    router: Router,
    state: Arc<ConsoleState>,
}

/// State that all pages share.
struct ConsoleState {
    tree: Tree,
    auth: Authenticator,
    browser_sessions: BrowserSessions,
    tokens: TokenService,
    sftp_address: Option<SocketAddr>,
}

impl Console {
    /// Creates the handler. `sftp` is the address of the SFTP listener, which the client guides name.
    pub fn new(tokens: TokenService, tree: Tree, auth: Authenticator, clock: Clock, sftp: Option<SocketAddr>) -> Self {
        let state = Arc::new(ConsoleState {
            tree,
            auth,
            tokens,
            browser_sessions: BrowserSessions::new(clock),
            sftp_address: sftp,
        });
        Self { router: router().with_state(state.clone()), state }
    }

    /// Answers one request. `source` is the peer of the connection.
    pub async fn handle(&self, mut request: Request<RequestBody>, source: RequestSource) -> Response<ResponseBody> {
        request.extensions_mut().insert(source);
        let caller_session = CallerSession::default();
        request.extensions_mut().insert(caller_session.clone());
        // The router consumes the request; the frame of an error page needs the cookie once more.
        let headers = request.headers().clone();
        // The router's error type is infallible.
        let Ok(mut response) = self.router.clone().call(request).await;
        // Errors become pages here and not in their handlers, because a refused extractor has no caller whose frame it
        // could use.
        if let Some(message) = response.extensions_mut().remove::<ErrorMessage>() {
            let browser_session = guard::find_browser_session(&self.state, source, &headers).await;
            let frame = browser_session
                .ok()
                .flatten()
                .map(|browser_session| PageFrame::for_browser_session(&self.state, &browser_session, None));
            response = message.into_page(response.status(), frame);
        }
        let mut response = response.map(|body| body.map_err(|error| BodyError(error.to_string())).boxed_unsync());
        if let Some(session) = caller_session.get() {
            response.extensions_mut().insert(RequestingSession(session.clone()));
        }
        set_security_headers(response.headers_mut());
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            set_retry_after(response.headers_mut(), BUSY_RETRY_AFTER);
        }
        response
    }
}

fn router() -> Router<Arc<ConsoleState>> {
    Router::new()
        .route("/console", get(login::redirect_to_tokens))
        .route("/console/", get(login::redirect_to_tokens))
        .route("/console/sign-in", get(login::sign_in_form).post(login::sign_in))
        .route("/console/sign-out", post(login::sign_out))
        .route("/console/assets/{name}", get(assets::serve))
        .route("/console/files", get(files::show))
        .route("/console/files/{*path}", get(files::show))
        .route("/console/folder", post(files::create_directory))
        .route("/console/folder/{*path}", post(files::create_directory))
        .route("/console/rename/{*path}", get(files::rename_form).post(files::rename))
        .route("/console/delete/{*path}", get(files::confirm_delete).post(files::delete))
        .route("/console/raw/{*path}", get(content::get).put(upload::put))
        .route("/console/upload", post(upload::post))
        .route("/console/upload/{*path}", post(upload::post))
        .route("/console/folders", get(files::directory_picker::list_directories))
        .route("/console/folders/{*path}", get(files::directory_picker::list_directories))
        .route("/console/tokens", get(tokens::list))
        .route("/console/tokens/new", get(tokens::create_form).post(tokens::create))
        .route("/console/tokens/{id}", get(tokens::show))
        .route("/console/tokens/{id}/change", get(tokens::edit_form).post(tokens::update))
        .route("/console/tokens/{id}/rotate", get(tokens::confirm_rotate).post(tokens::rotate))
        .route("/console/tokens/{id}/revoke", get(tokens::confirm_revoke).post(tokens::revoke))
        .route("/console/revoke-all/{owner}", get(tokens::confirm_revoke_all).post(tokens::revoke_all))
        // Labels may change, paths may not: they are in bookmarks. This section was once called people.
        .route("/console/people", get(users::list))
        .route("/console/people/new", get(users::create_form).post(users::create))
        .route("/console/people/{login}", get(users::show))
        .route("/console/people/{login}/delete", get(users::confirm_delete).post(users::delete))
        .route("/console/people/{login}/{what}", post(users::update))
        .route("/console/policy", get(policy::show).post(policy::update))
        .route("/console/bans", get(bans::list).post(bans::add))
        .route("/console/bans/remove", post(bans::remove))
        .route("/console/audit", get(audit::show))
        .route("/console/explain", get(explain::show))
        .route("/console/sessions", get(sessions::list))
        .route("/console/sessions/end", post(sessions::close))
        .fallback(error::not_found)
        .method_not_allowed_fallback(error::not_found)
        // Bounds what the form extractor buffers. Uploads take the raw body, which is streamed and has no limit here.
        .layer(DefaultBodyLimit::max(FORM_BYTES))
}

/// Adds headers that keep pages out of caches and frames, and browsers from sniffing types.
fn set_security_headers(headers: &mut HeaderMap) {
    let defaults = [
        (header::CONTENT_SECURITY_POLICY, PAGE_CSP),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in defaults {
        // Headers that a handler has set take precedence: stored files bring a stricter policy, assets may be cached.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
