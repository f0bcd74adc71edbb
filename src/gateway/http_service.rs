//! Routing of HTTP requests to the module that answers their path.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use hyper::body::Body as _;

use super::http2_budgets::Http2Budgets;
use super::readiness::ReadinessCheck;
use super::reload::LiveSettings;
use super::{cors, cross_origin};
use crate::api::Api;
use crate::auth::Authenticator;
use crate::console::Console;
use crate::domain::AllowedOrigins;
use crate::http::{
    RequestBody, RequestSource, ResponseBody, TrustedProxies, empty, full, has_content_coding, is_path_within,
    set_retry_after, text_response,
};
use crate::telemetry::{HttpArea, OperationRecorder};
use crate::tree::{OUTAGE_RETRY_AFTER, Tree};
use crate::webdav::Webdav;

const ABOUT_PAGE: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>patgate</title>\
    <h1>patgate</h1><p>A gateway to a directory tree. Mount <code>/dav/</code> as WebDAV, with your user name and a \
    personal access token as the password. Manage tokens in the <a href=\"/console/\">console</a>.</p></html>\n";

/// Router of HTTP requests. Clones share all state.
#[derive(Clone)]
pub(super) struct HttpService {
    pub(super) auth: Authenticator,
    pub(super) webdav: Webdav,
    pub(super) api: Api,
    pub(super) console: Console,
    pub(super) readiness: ReadinessCheck,
    pub(super) tree: Tree,
    pub(super) live_settings: Arc<ArcSwap<LiveSettings>>,
    pub(super) proxies: Arc<TrustedProxies>,
    pub(super) recorder: Arc<OperationRecorder>,
    pub(super) allow_cleartext: bool,
    pub(super) idle_timeout: Duration,
    pub(super) transfer_rate_window: Duration,
    pub(super) http2_budgets: Http2Budgets,
}

impl HttpService {
    pub(super) async fn route(
        &self,
        request: Box<Request<RequestBody>>,
        origin: RequestSource,
        allowed: &AllowedOrigins,
    ) -> Response<ResponseBody> {
        // Before authentication: browsers send preflights without credentials.
        if let Some(response) = cors::preflight_response(allowed, &request) {
            return response;
        }
        let path = request.uri().path();
        let is_api = is_api_path(path);
        // The console checks its own forms, which carry a CSRF secret as well.
        if !is_path_within(path, "/console") && cross_origin::is_refused(allowed, &request, origin) {
            let message = cross_origin::REFUSAL_MESSAGE;
            return if is_api {
                Api::cross_origin_response(message)
            } else {
                text_response(StatusCode::FORBIDDEN, message)
            };
        }
        // WebDAV refuses content codings itself, after authentication.
        if Webdav::serves_path(path) {
            return pin!(self.webdav.handle(request, origin)).await;
        }
        // Stored or parsed as it is, a coded body would be garbage; decoding it would invite decompression bombs.
        if !request.body().is_end_stream() && has_content_coding(request.headers()) {
            return content_coding_unsupported();
        }
        // In boxes: otherwise the future of a request over WebDAV, which is copied, has room for these.
        if is_api {
            return Box::pin(self.api.handle(*request, origin)).await;
        }
        if is_path_within(path, "/console") {
            return Box::pin(self.console.handle(*request, origin)).await;
        }
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        match path {
            _ if request.method() == Method::OPTIONS && matches!(path, "/" | "*") => options_response(),
            "/" if is_read => about_response(),
            "/healthz" if is_read => text_response(StatusCode::OK, "ok"),
            "/readyz" if is_read => Box::pin(self.readiness_response()).await,
            "/" => method_not_allowed("OPTIONS, GET, HEAD"),
            "/healthz" | "/readyz" => method_not_allowed("GET, HEAD"),
            _ => text_response(StatusCode::NOT_FOUND, "there is nothing at this path: the tree is at /dav/"),
        }
    }

    async fn readiness_response(&self) -> Response<ResponseBody> {
        if let Some(problem) = self.readiness.problem().await {
            return text_response(StatusCode::SERVICE_UNAVAILABLE, problem);
        }
        // The client is not authenticated: no path is named to it. The log names it.
        let Some((path, outage)) = self.tree.outages().into_iter().next() else {
            return text_response(StatusCode::OK, "ready");
        };
        let subject = if path.is_root() { "the served folder" } else { "a file system in the served folder" };
        let mut response =
            text_response(StatusCode::SERVICE_UNAVAILABLE, format!("{subject} is not available: {outage}"));
        set_retry_after(response.headers_mut(), OUTAGE_RETRY_AFTER);
        response
    }
}

fn is_api_path(path: &str) -> bool {
    is_path_within(path, "/api") || is_path_within(path, "/auth") || path == "/metrics"
}

/// Returns the part of the server that answers a path, as [`HttpService::route`] chooses it.
pub(super) fn area_of_path(path: &str) -> HttpArea {
    match path {
        _ if Webdav::serves_path(path) => HttpArea::Webdav,
        _ if is_api_path(path) => HttpArea::Api,
        _ if is_path_within(path, "/console") => HttpArea::Console,
        _ => HttpArea::Other,
    }
}

/// Refuses a body in a content coding (RFC 9110 section 15.5.16).
fn content_coding_unsupported() -> Response<ResponseBody> {
    let mut response = text_response(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body in a content coding is not supported");
    response.headers_mut().insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    response
}

/// Refuses a method other than the allowed ones (RFC 9110 section 15.5.6).
fn method_not_allowed(allowed: &'static str) -> Response<ResponseBody> {
    let mut response = text_response(StatusCode::METHOD_NOT_ALLOWED, "this page can only be read");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Answers OPTIONS at the host's root, which some clients send before they use their own path.
fn options_response() -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    let headers = response.headers_mut();
    headers.insert("dav", HeaderValue::from_static("1, 2, 3"));
    headers.insert("ms-author-via", HeaderValue::from_static("DAV"));
    headers.insert(header::ALLOW, HeaderValue::from_static("OPTIONS, GET, HEAD"));
    response
}

fn about_response() -> Response<ResponseBody> {
    let mut response = Response::new(full(ABOUT_PAGE));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}
