//! MKCOL and DELETE (RFC 4918 sections 9.3 and 9.6).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode};
use hyper::body::Incoming;

use super::call::Call;
use super::error::{Error, Result};
use super::fields::{self, Depth};
use super::small_body;
use super::stream::blocking;
use crate::http::{Body, empty};
use crate::tree::Attributes;

/// Answers MKCOL.
///
/// # Errors
/// [`Error::Unsupported`] for a body of any kind, and what the tree says.
pub(super) async fn make(call: &Arc<Call>, body: &mut Incoming) -> Result<Response<Body>> {
    let modified = fields::modified(&call.headers)?;
    match small_body(body, 0).await {
        Ok(_) => {}
        Err(Error::TooLong) => return Err(Error::Unsupported("MKCOL takes no body")),
        Err(error) => return Err(error),
    }
    let call = Arc::clone(call);
    blocking(move || {
        let attributes = Attributes { modified, ..Attributes::default() };
        call.claiming(|claim| call.view.make_folder(&call.path, &attributes, claim))?;
        let mut response = done(StatusCode::CREATED);
        if modified.is_some() {
            response.headers_mut().insert("x-oc-mtime", HeaderValue::from_static("accepted"));
        }
        Ok(response)
    })
    .await
}

/// Answers DELETE.
///
/// # Errors
/// [`Error::Root`] for the client's root, [`Error::Malformed`] for a folder without all in it, and what the
/// tree says.
pub(super) async fn delete(call: &Arc<Call>) -> Result<Response<Body>> {
    let depth = fields::depth(&call.headers)?;
    if call.is_root() {
        return Err(Error::Root);
    }
    let call = Arc::clone(call);
    blocking(move || {
        if !matches!(depth, None | Some(Depth::Infinity)) && call.view.link_stat(&call.path)?.is_folder() {
            return Err(Error::Malformed("a folder is removed with all in it: Depth must be infinity"));
        }
        call.claiming(|claim| call.view.remove_all(&call.path, claim))?;
        Ok(done(StatusCode::NO_CONTENT))
    })
    .await
}

/// Returns an answer without a body.
pub(super) fn done(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}
