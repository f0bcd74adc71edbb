//! PROPFIND (RFC 4918 section 9.1): properties of an entry and of those in it, written while they are read.

mod live;
mod plan;
mod request;
mod walk;

use std::sync::Arc;

use http::Response;
use hyper::body::Incoming;

pub(super) use self::live::Live;
use self::request::Wanted;
use self::walk::Walk;
use super::call::Call;
use super::error::{Error, Result};
use super::fields::{self, Depth};
use super::stream::{self, blocking};
use super::{multistatus, small_body, xml};
use crate::http::{Body, full};

/// The most entries and bytes that an answer of infinite depth has: it is made before it is sent.
const MAX_ENDLESS: (usize, usize) = (10_000, 16 << 20);

/// Answers PROPFIND.
///
/// # Errors
/// [`Error::Malformed`] for a body that can't be read, [`Error::Endless`], and what the tree says.
pub(super) async fn answer(call: &Arc<Call>, body: &mut Incoming) -> Result<Response<Body>> {
    let depth = fields::depth(&call.headers)?.unwrap_or(Depth::Infinity);
    let bytes = small_body(body, xml::MAX_BODY).await?;
    let call = Arc::clone(call);
    blocking(move || find(&call, &bytes, depth)).await
}

fn find(call: &Arc<Call>, bytes: &[u8], depth: Depth) -> Result<Response<Body>> {
    let wanted = Wanted::parse(bytes).ok_or(Error::Malformed("the body is no propfind"))?;
    let entry = call.view.stat(&call.path)?;
    call.conditions.judge_listed(call.around(), &call.path)?;
    let mut walk = Walk::new(Arc::clone(call), wanted.plan(), depth, &entry)?;
    let first = walk.block()?;
    if walk.is_done() {
        return Ok(multistatus::response(full(first)));
    }
    if depth != Depth::Infinity {
        return Ok(multistatus::response(stream::body(call.view.session(), first, walk)));
    }
    let mut whole = Vec::from(first);
    while !walk.is_done() {
        whole.extend_from_slice(&walk.block()?);
        if walk.entries() > MAX_ENDLESS.0 || whole.len() > MAX_ENDLESS.1 {
            return Err(Error::Endless);
        }
    }
    Ok(multistatus::response(full(whole)))
}
