//! The web console at `/console/`: server-rendered pages over the same calls as the REST API.
//!
//! It knows no rule of its own. A request passes [`guard`] first, which proves the caller and, for
//! whatever changes something, that a page of this console asked for it; a page is a file that turns
//! it into calls of [`crate::tokens`] and [`crate::tree`]; [`fault`] turns a refusal into a page, last.

mod assets;
mod audit;
mod content;
mod door;
mod explain;
mod fault;
mod files;
mod guard;
mod multipart;
mod page;
mod people;
mod place;
mod policy;
mod sessions;
mod tokens;
mod upload;
mod visits;
mod words;

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
use crate::http::{BodyError, RequestBody, RequestSource, ResponseBody, set_retry_after};
use crate::tokens::TokenService;
use crate::tree::Tree;

use fault::Said;
use page::Frame;
use visits::Visits;

/// The longest form that is read.
const FORM: usize = 256 * 1024;
/// How long a browser is told to wait when the server is busy.
const BUSY: Duration = Duration::from_secs(1);
/// What a page of the console may load and do: what this server serves, and nothing inline.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
    connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Answers `/console/`; clones share all state.
#[derive(Clone)]
pub struct Console {
    router: Router,
    shared: Arc<Shared>,
}

/// What all pages share.
struct Shared {
    tree: Tree,
    auth: Authenticator,
    visits: Visits,
    tokens: TokenService,
    sftp: Option<SocketAddr>,
}

impl Console {
    /// Shows tokens and a tree to callers that `auth` proves. `sftp` is where SFTP is answered, for
    /// the set-ups of clients.
    pub fn new(tokens: TokenService, tree: Tree, auth: Authenticator, clock: Clock, sftp: Option<SocketAddr>) -> Self {
        let shared = Arc::new(Shared { tree, auth, tokens, visits: Visits::new(clock), sftp });
        Self { router: router().with_state(shared.clone()), shared }
    }

    /// Answers one request.
    pub async fn answer(&self, mut request: Request<RequestBody>, origin: RequestSource) -> Response<ResponseBody> {
        request.extensions_mut().insert(origin);
        let headers = request.headers().clone();
        // The router never fails.
        let Ok(mut response) = self.router.clone().call(request).await;
        if let Some(said) = response.extensions_mut().remove::<Said>() {
            let visit = guard::visit(&self.shared, origin, &headers).await;
            let frame = visit.ok().flatten().map(|visit| Frame::around(&self.shared, &visit, None));
            response = said.page(response.status(), frame);
        }
        let mut response = response.map(|body| body.map_err(|error| BodyError(error.to_string())).boxed_unsync());
        stamp(response.headers_mut());
        if response.status() == StatusCode::SERVICE_UNAVAILABLE {
            set_retry_after(response.headers_mut(), BUSY);
        }
        response
    }
}

fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/console", get(door::home))
        .route("/console/", get(door::home))
        .route("/console/sign-in", get(door::ask).post(door::sign_in))
        .route("/console/sign-out", post(door::sign_out))
        .route("/console/assets/{name}", get(assets::answer))
        .route("/console/files", get(files::show))
        .route("/console/files/{*path}", get(files::show))
        .route("/console/folder", post(files::make_folder))
        .route("/console/folder/{*path}", post(files::make_folder))
        .route("/console/rename/{*path}", get(files::ask_rename).post(files::rename))
        .route("/console/delete/{*path}", get(files::ask_delete).post(files::delete))
        .route("/console/raw/{*path}", get(content::get).put(upload::put))
        .route("/console/upload", post(upload::post))
        .route("/console/upload/{*path}", post(upload::post))
        .route("/console/folders", get(files::picker::answer))
        .route("/console/folders/{*path}", get(files::picker::answer))
        .route("/console/tokens", get(tokens::list))
        .route("/console/tokens/new", get(tokens::ask).post(tokens::make))
        .route("/console/tokens/{id}", get(tokens::show))
        .route("/console/tokens/{id}/change", get(tokens::ask_change).post(tokens::change))
        .route("/console/tokens/{id}/rotate", get(tokens::ask_rotate).post(tokens::rotate))
        .route("/console/tokens/{id}/revoke", get(tokens::ask_revoke).post(tokens::revoke))
        .route("/console/revoke-all/{owner}", get(tokens::ask_revoke_all).post(tokens::revoke_all))
        .route("/console/people", get(people::list))
        .route("/console/people/new", get(people::ask_new).post(people::make))
        .route("/console/people/{login}", get(people::show))
        .route("/console/people/{login}/delete", get(people::ask_delete).post(people::delete))
        .route("/console/people/{login}/{what}", post(people::act))
        .route("/console/policy", get(policy::show).post(policy::change))
        .route("/console/audit", get(audit::show))
        .route("/console/explain", get(explain::show))
        .route("/console/sessions", get(sessions::list))
        .route("/console/sessions/end", post(sessions::end))
        .fallback(fault::nothing_here)
        .method_not_allowed_fallback(fault::nothing_here)
        .layer(DefaultBodyLimit::max(FORM))
}

/// Keeps pages out of caches and frames, and browsers from guessing types.
fn stamp(headers: &mut HeaderMap) {
    let defaults = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    for (name, value) in defaults {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}
