//! PROPFIND (RFC 4918 section 9.1): properties of an entry and of those in it, written while they are read.

mod live_property;
mod plan;
mod request;
mod traversal;

use std::sync::Arc;

use http::{HeaderValue, Response};

pub(super) use self::live_property::LiveProperty;
pub(super) use self::plan::{PropfindPlan, PropfindRow};
use self::request::PropfindRequest;
use self::traversal::PropfindTraversal;
use super::error::{Error, Result, run_blocking, run_cpu_bound};
use super::headers::{self, DepthHeader};
use super::request_context::RequestContext;
use super::{WebdavOptions, multistatus, read_small_body, xml};
use crate::http::{RequestBody, ResponseBody, full, streamed_body};

/// As much of an answer of infinite depth is held until it is whole; of one that is longer the rest is counted, and all
/// of it made again while it is sent.
const PROPFIND_BUFFER_BYTES: usize = 4 << 20;

/// Answers PROPFIND.
///
/// # Errors
/// [`Error::Malformed`] for a body that can't be read, [`Error::InfiniteDepth`], and what the tree says.
pub(super) async fn handle(
    call: &Arc<RequestContext>,
    body: &mut RequestBody,
    options: WebdavOptions,
) -> Result<Response<ResponseBody>> {
    let depth = headers::depth(&call.headers)?.unwrap_or(DepthHeader::Infinity);
    let bytes = read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let work = Arc::clone(call);
    let answer = move || {
        let call = work;
        let mut response = respond(&call, &bytes, depth, options)?;
        if headers::prefers_minimal(&call.headers) {
            response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=minimal"));
        }
        Ok(response)
    };
    match depth {
        DepthHeader::Zero => run_blocking(answer).await,
        DepthHeader::One | DepthHeader::Infinity => run_cpu_bound(&call.view, answer).await,
    }
}

fn respond(
    call: &Arc<RequestContext>,
    bytes: &[u8],
    depth: DepthHeader,
    options: WebdavOptions,
) -> Result<Response<ResponseBody>> {
    let wanted =
        PropfindRequest::parse(bytes).ok_or_else(|| Error::from_unreadable_xml(bytes, "the body is no propfind"))?;
    let entry = call.view.stat(&call.path)?;
    call.conditions.evaluate_if_header(call.if_context(), &call.path)?;
    let plan = || wanted.clone().into_plan().with_minimal_return(headers::prefers_minimal(&call.headers));
    let mut walk = PropfindTraversal::new(Arc::clone(call), plan(), depth, &entry)?;
    if depth == DepthHeader::Infinity && entry.is_directory() {
        walk.limit_entries(options.propfind_infinity_entries);
    }
    let first = walk.fill_block()?;
    if walk.is_done() {
        return Ok(multistatus::response(full(first)));
    }
    if depth != DepthHeader::Infinity {
        return Ok(multistatus::response(streamed_body(call.view.session(), first, walk)));
    }
    let mut held = Vec::from(first);
    while held.len() <= PROPFIND_BUFFER_BYTES {
        held.extend_from_slice(&walk.fill_block()?);
        if walk.is_done() {
            return Ok(multistatus::response(full(held)));
        }
    }
    drop(held);
    walk.count_remaining()?;
    let mut walk = PropfindTraversal::new(Arc::clone(call), plan(), depth, &entry)?;
    let first = walk.fill_block()?;
    Ok(multistatus::response(streamed_body(call.view.session(), first, walk)))
}
