//! The REST API: JSON over [`crate::tokens`] and [`crate::tree::View`].
//!
//! Every request but that for the OpenAPI document passes [`guard`] first, which authenticates the caller. A handler
//! parses the request ([`extract`]), calls the modules to its left on a blocking thread, and returns their results as
//! JSON ([`types`]); [`error`] turns an error into problem details (RFC 9457), last. There are no access rules here:
//! `tokens` decides who may do what.

mod audit;
mod bans;
mod error;
mod explain;
mod extract;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod guard;
mod metrics;
mod nodes;
mod oauth;
mod openapi;
mod pagination;
mod policy;
#[cfg(test)]
mod schema_tests;
mod tokens;
pub mod types;
mod upload_service;
mod users;
mod verify;

use std::convert::Infallible;

use axum::Router;
use axum::body::HttpBody;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tower_service::Service;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::{Authenticator, WorkPermit};
use crate::http::{BodyError, RequestSource, ResponseBody};
use crate::tokens::TokenService;
use crate::tree::Tree;

use error::{Error, Result};
use guard::ApiCaller;
pub use metrics::MetricsRenderer;

/// Maximum size of a request body.
const REQUEST_BODY_BYTES: usize = 64 * 1024;

/// The handler of `/api/…`, `/auth/…` and `/metrics`; clones share all state.
#[derive(Clone)]
pub struct Api {
    router: Router,
}

/// Options of the REST API.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApiOptions {
    /// Whether the calls of the upload service accept a token in `?_token=`.
    pub query_token: bool,
}

/// State that all handlers share.
#[derive(Clone)]
struct ApiState {
    tokens: TokenService,
    tree: Tree,
    auth: Authenticator,
    options: ApiOptions,
    metrics: Option<MetricsRenderer>,
}

impl ApiState {
    /// Runs work on a blocking thread under a work permit of the caller. Work whose caller has disconnected while it
    /// waited for the permit is not started.
    async fn run_blocking<T: Send + 'static>(
        &self,
        permit: impl Future<Output = Result<WorkPermit>>,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (permit, state) = (permit.await?, self.clone());
        let work = move || {
            // Held until the work has ended, even if the caller has disconnected: the limit is on running work.
            let _permit = permit;
            work(&state)
        };
        tokio::task::spawn_blocking(work).await.map_err(|_| Error::Internal)?
    }
}

impl Api {
    /// Creates the handler, without metrics.
    pub fn new(tokens: TokenService, tree: Tree, auth: Authenticator, options: ApiOptions) -> Self {
        Self::for_state(ApiState { tokens, tree, auth, options, metrics: None })
    }

    /// Creates the handler, with the maker of the page of metrics.
    pub fn with_metrics(
        tokens: TokenService,
        tree: Tree,
        auth: Authenticator,
        options: ApiOptions,
        metrics: MetricsRenderer,
    ) -> Self {
        Self::for_state(ApiState { tokens, tree, auth, options, metrics: Some(metrics) })
    }

    fn for_state(state: ApiState) -> Self {
        let (routes, document) = authenticated_routes().split_for_parts();
        let document = Bytes::from(document.to_json().unwrap_or_default());
        let router = routes
            // Added before the authentication layer, which therefore covers unknown paths too: they answer 401 like all
            // others.
            .fallback(async || Error::RouteNotFound)
            .method_not_allowed_fallback(async || Error::MethodNotAllowed)
            .layer(middleware::from_fn_with_state(state.clone(), guard::authenticate))
            // Added after it, and so public: the document is the same for everybody.
            .route("/api/v1/openapi.json", get(async move || extract::json_response(document)))
            .layer(DefaultBodyLimit::max(REQUEST_BODY_BYTES))
            // Outermost, so that errors of the layers below get the headers as well.
            .layer(middleware::map_response(guard::set_security_headers))
            .with_state(state);
        Self { router }
    }

    /// Answers one request. `source` is the peer of the connection.
    pub async fn handle<B>(&self, mut request: Request<B>, source: RequestSource) -> Response<ResponseBody>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        request.extensions_mut().insert(source);
        let result: std::result::Result<_, Infallible> = self.router.clone().call(request).await;
        let Ok(response) = result;
        box_body(response)
    }

    /// Returns the problem that refuses a state-changing request of a page of another origin.
    pub fn cross_origin_response(words: &str) -> Response<ResponseBody> {
        box_body(Error::CrossOrigin(words.to_owned()).into_response())
    }
}

fn box_body(response: axum::response::Response) -> Response<ResponseBody> {
    response.map(|body| body.map_err(|error| BodyError(error.to_string())).boxed_unsync())
}

/// Returns all routes that need an authenticated caller.
fn authenticated_routes() -> OpenApiRouter<ApiState> {
    OpenApiRouter::with_openapi(openapi::base_document())
        .routes(routes!(tokens::create, tokens::list))
        .routes(routes!(tokens::find_self))
        .routes(routes!(tokens::find, tokens::narrow, tokens::revoke))
        .routes(routes!(tokens::rotate))
        .routes(routes!(tokens::revoke_many))
        .routes(routes!(users::list, users::create))
        .routes(routes!(users::find, users::change, users::delete))
        .routes(routes!(users::list_grants, users::create_grant))
        .routes(routes!(users::find_grant, users::revoke_grant))
        .routes(routes!(tokens::revoke_all))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::find))
        .routes(routes!(policy::show, policy::change))
        .routes(routes!(bans::list, bans::add))
        .routes(routes!(bans::remove))
        .routes(routes!(audit::list))
        .routes(routes!(metrics::show))
        .routes(routes!(audit::chain))
        .routes(routes!(explain::explain))
        .routes(routes!(oauth::introspect))
        .routes(routes!(oauth::revoke))
        .routes(routes!(verify::verify))
        .routes(routes!(upload_service::generate))
        .routes(routes!(upload_service::find, upload_service::revoke))
}

/// Returns a response with status 201 and a `Location` header.
fn created(location: &str, body: impl IntoResponse) -> axum::response::Response {
    let mut response = (StatusCode::CREATED, body).into_response();
    // Ids and logins are ASCII, so this does not fail; if it did, the resource would exist all the same.
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}
