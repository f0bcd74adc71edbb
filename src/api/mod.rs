//! REST: JSON in terms of [`crate::tokens`] and a [`crate::tree::View`].
//!
//! Every request but that for the OpenAPI document passes [`guard`] first, which proves the caller. A
//! handler reads what is asked for, calls the rooms to its left off the runtime, and shows what they
//! say; [`error`] turns what was refused into a problem (RFC 9457), last. No rule is known here: who may
//! do what is for `tokens` to say.

mod error;
mod guard;
mod schema;
pub mod shape;
mod tokens;

use std::convert::Infallible;

use axum::Router;
use axum::body::HttpBody;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tower_service::Service;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Authenticator;
use crate::http::{Body, BodyError, Origin};
use crate::tokens::Tokens;
use crate::tree::Tree;

use error::{Error, Result};

/// Answers `/api/…` and `/auth/…`; clones share all state.
#[derive(Clone)]
pub struct Api {
    router: Router,
}

/// What the handlers work with.
#[derive(Clone)]
struct Room {
    tokens: Tokens,
    tree: Tree,
    auth: Authenticator,
}

impl Api {
    /// Answers callers that `auth` proves.
    pub fn new(tokens: Tokens, tree: Tree, auth: Authenticator) -> Self {
        let room = Room { tokens, tree, auth };
        let (routes, _document) = OpenApiRouter::new().routes(routes!(tokens::own)).split_for_parts();
        let router = Router::new()
            .nest("/api/v1", routes)
            .fallback(async || Error::NothingHere)
            .method_not_allowed_fallback(async || Error::NotAllowed)
            .layer(axum::middleware::from_fn_with_state(room.clone(), guard::guard))
            .with_state(room);
        Self { router }
    }

    /// Answers one request.
    pub async fn answer<B>(&self, mut request: Request<B>, origin: Origin) -> Response<Body>
    where
        B: HttpBody<Data = Bytes> + Send + 'static,
        B::Error: Into<axum::BoxError>,
    {
        request.extensions_mut().insert(origin);
        let answer: std::result::Result<_, Infallible> = self.router.clone().call(request).await;
        let Ok(response) = answer;
        response.map(|body| body.map_err(|error| BodyError(error.to_string())).boxed_unsync())
    }
}
