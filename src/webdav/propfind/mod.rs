//! PROPFIND (RFC 4918 section 9.1): properties of an entry and of those in it, written while they are read.

mod live;
mod plan;
mod request;
mod walk;

use std::sync::Arc;

use http::{HeaderValue, Response};

pub(super) use self::live::Live;
pub(super) use self::plan::{Plan, Row};
use self::request::Wanted;
use self::walk::Walk;
use super::call::Call;
use super::error::{Error, Result, blocking, in_turn};
use super::fields::{self, Depth};
use super::{WebdavOptions, multistatus, small_body, xml};
use crate::http::{RequestBody, ResponseBody, full, streamed_body};

/// As much of an answer of infinite depth is held until it is whole; of one that is longer the rest is counted, and all
/// of it made again while it is sent.
const HELD: usize = 4 << 20;

/// Answers PROPFIND.
///
/// # Errors
/// [`Error::Malformed`] for a body that can't be read, [`Error::Endless`], and what the tree says.
pub(super) async fn answer(
    call: &Arc<Call>,
    body: &mut RequestBody,
    options: WebdavOptions,
) -> Result<Response<ResponseBody>> {
    let depth = fields::depth(&call.headers)?.unwrap_or(Depth::Infinity);
    let bytes = small_body(body, xml::MAX_BODY).await?;
    let work = Arc::clone(call);
    let answer = move || {
        let call = work;
        let mut response = find(&call, &bytes, depth, options)?;
        if fields::wants_little(&call.headers) {
            response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=minimal"));
        }
        Ok(response)
    };
    match depth {
        Depth::Zero => blocking(answer).await,
        Depth::One | Depth::Infinity => in_turn(&call.view, answer).await,
    }
}

fn find(call: &Arc<Call>, bytes: &[u8], depth: Depth, options: WebdavOptions) -> Result<Response<ResponseBody>> {
    let wanted = Wanted::parse(bytes).ok_or_else(|| Error::unreadable(bytes, "the body is no propfind"))?;
    let entry = call.view.stat(&call.path)?;
    call.conditions.judge_listed(call.around(), &call.path)?;
    let plan = || wanted.clone().plan().brief(fields::wants_little(&call.headers));
    let mut walk = Walk::new(Arc::clone(call), plan(), depth, &entry)?;
    if depth == Depth::Infinity && entry.is_directory() {
        walk.stop_after(options.deep_listing);
    }
    let first = walk.block()?;
    if walk.is_done() {
        return Ok(multistatus::response(full(first)));
    }
    if depth != Depth::Infinity {
        return Ok(multistatus::response(streamed_body(call.view.session(), first, walk)));
    }
    let mut held = Vec::from(first);
    while held.len() <= HELD {
        held.extend_from_slice(&walk.block()?);
        if walk.is_done() {
            return Ok(multistatus::response(full(held)));
        }
    }
    drop(held);
    walk.count_rest()?;
    let mut walk = Walk::new(Arc::clone(call), plan(), depth, &entry)?;
    let first = walk.block()?;
    Ok(multistatus::response(streamed_body(call.view.session(), first, walk)))
}
