//! COPY and MOVE (RFC 4918 sections 9.8 and 9.9).

use std::sync::Arc;

use http::{Response, StatusCode};

use super::call::Call;
use super::error::{Error, Result, blocking};
use super::fields::{self, Depth};
use super::folder::done;
use super::verb::Verb;
use crate::http::Body;
use crate::tree::Overwrite;

/// Answers COPY and MOVE.
///
/// # Errors
/// [`Error::Foreign`] and [`Error::Root`] for destinations that can't be, and what the tree says.
pub(super) async fn answer(call: &Arc<Call>) -> Result<Response<Body>> {
    let to = call.destination()?;
    let overwrite = if fields::overwrite(&call.headers)? { Overwrite::Yes } else { Overwrite::No };
    let deep = match fields::depth(&call.headers)? {
        None | Some(Depth::Infinity) => true,
        Some(Depth::Zero) if call.verb == Verb::Copy => false,
        Some(_) => return Err(Error::Malformed("Depth can't be that here")),
    };
    if call.verb == Verb::Move && call.is_root() {
        return Err(Error::Root);
    }
    let call = Arc::clone(call);
    blocking(move || {
        let replaced = call.claiming(|claim| match call.verb {
            Verb::Move => call.view.rename(&call.path, &to, overwrite, claim),
            _ => call.view.copy(&call.path, &to, deep, overwrite, claim),
        })?;
        Ok(done(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    })
    .await
}
