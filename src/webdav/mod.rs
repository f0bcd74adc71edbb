//! WebDAV: HTTP verbs in terms of a [`crate::tree::View`].

use hyper::body::Incoming;

use crate::auth::Authenticator;
use crate::http::{Body, Origin};
use crate::tree::Tree;

/// Answers `/dav/` and `/node/UUID/`; clones share all state.
#[derive(Clone)]
pub struct Webdav {}

impl Webdav {
    /// Serves a tree to callers that `auth` proves.
    pub fn new(_tree: Tree, _auth: Authenticator) -> Self {
        todo!()
    }

    /// Answers one request.
    pub async fn answer(&self, _request: ::http::Request<Incoming>, _origin: Origin) -> ::http::Response<Body> {
        todo!()
    }
}
