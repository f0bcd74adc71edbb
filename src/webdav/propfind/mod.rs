//! PROPFIND (RFC 4918 section 9.1): properties of an entry and its members, written while they are read.

mod live_property;
mod plan;
mod request;
mod traversal;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response};

pub(super) use self::live_property::LiveProperty;
pub(super) use self::plan::{PropfindPlan, PropfindRow};
use self::request::PropfindRequest;
use self::traversal::PropfindTraversal;
use super::error::{Error, Result, run_blocking, run_cpu_bound};
use super::headers::{self, DepthHeader};
use super::request_context::RequestContext;
use super::{WebdavOptions, multistatus, read_small_body, xml};
use crate::domain::{UserQuotaLimits, UserQuotas};
use crate::http::{RequestBody, ResponseBody, bytes_with_reservation, full, streamed_body};

/// Maximum size of a buffered response of infinite depth. For a longer one the remaining entries are only counted, and
/// the response is produced again while it is sent.
const PROPFIND_BUFFER_BYTES: usize = 4 << 20;
/// Bounds on such responses that are held until their clients have taken them. At a bound a response is not held but
/// counted and made again.
const PROPFIND_BUFFER_LIMITS: UserQuotaLimits = UserQuotaLimits { per_user: 16 << 20, total: 256 << 20 };

/// Settings and memory of PROPFIND. Clones share the memory.
#[derive(Clone)]
pub(super) struct PropfindLimits {
    /// Maximum number of entries in a response of infinite depth; 0 refuses them all.
    max_entries: usize,
    buffers: UserQuotas,
}

impl PropfindLimits {
    /// Creates the limits of a service.
    pub(super) fn new(options: WebdavOptions) -> Self {
        Self { max_entries: options.propfind_infinity_entries, buffers: UserQuotas::new(PROPFIND_BUFFER_LIMITS) }
    }
}

/// Handles PROPFIND.
///
/// # Errors
/// [`Error::Malformed`] for a malformed body, [`Error::InfiniteDepth`], and the errors of the tree.
pub(super) async fn handle(
    context: &Arc<RequestContext>,
    body: &mut RequestBody,
    limits: &PropfindLimits,
) -> Result<Response<ResponseBody>> {
    // A missing Depth means infinity (RFC 4918 section 9.1).
    let depth = headers::depth(&context.headers)?.unwrap_or(DepthHeader::Infinity);
    let bytes = read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let (task_context, limits) = (Arc::clone(context), limits.clone());
    let build_response = move || {
        let context = task_context;
        let mut response = respond(&context, &bytes, depth, &limits)?;
        if headers::prefers_minimal(&context.headers) {
            response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=minimal"));
        }
        Ok(response)
    };
    match depth {
        // A single entry needs no permit, and does not queue behind listings.
        DepthHeader::Zero => run_blocking(build_response).await,
        DepthHeader::One | DepthHeader::Infinity => run_cpu_bound(&context.view, build_response).await,
    }
}

fn respond(
    context: &Arc<RequestContext>,
    bytes: &[u8],
    depth: DepthHeader,
    limits: &PropfindLimits,
) -> Result<Response<ResponseBody>> {
    let propfind_request = PropfindRequest::parse(bytes)
        .ok_or_else(|| Error::from_unreadable_xml(bytes, "the body is not a DAV:propfind element"))?;
    let requested = context.view.resolve(&context.path)?;
    // After that: a false condition must not reveal an entry that the session can't see.
    context.conditions.evaluate_if_header(context.if_context(), &context.path)?;
    let plan = || propfind_request.clone().into_plan().with_minimal_return(headers::prefers_minimal(&context.headers));
    let is_directory = requested.entry().is_directory();
    let mut traversal = PropfindTraversal::new(Arc::clone(context), plan(), depth, requested)?;
    if depth == DepthHeader::Infinity && is_directory {
        traversal.limit_entries(limits.max_entries);
    }
    // Errors up to here become a status; once the response is streamed they can only end it early.
    let first = traversal.fill_block()?;
    if traversal.is_done() {
        return Ok(multistatus::response(full(first)));
    }
    // One directory needs no limit: it is streamed, whatever its size.
    if depth != DepthHeader::Infinity {
        return Ok(multistatus::response(streamed_body(context.view.session(), first, traversal)));
    }
    // The limit is checked before anything is sent: a 403 can't follow the start of a 207.
    if let Some(whole) = buffer_whole(context, first, &mut traversal, &limits.buffers)? {
        return Ok(multistatus::response(full(whole)));
    }
    traversal.count_remaining()?;
    // Without a limit: the tree may have grown since, and a response in progress is not broken off for that.
    let requested = context.view.resolve(&context.path)?;
    let mut traversal = PropfindTraversal::new(Arc::clone(context), plan(), depth, requested)?;
    let first = traversal.fill_block()?;
    Ok(multistatus::response(streamed_body(context.view.session(), first, traversal)))
}

/// Returns a response that begins with `first`, where all of it may be held; otherwise the traversal goes on.
fn buffer_whole(
    context: &RequestContext,
    first: Bytes,
    traversal: &mut PropfindTraversal,
    buffers: &UserQuotas,
) -> Result<Option<Bytes>> {
    let Some(reservation) = buffers.try_reserve(context.view.session().login(), PROPFIND_BUFFER_BYTES as u64) else {
        return Ok(None);
    };
    let mut buffered = Vec::from(first);
    while buffered.len() <= PROPFIND_BUFFER_BYTES {
        buffered.extend_from_slice(&traversal.fill_block()?);
        if traversal.is_done() {
            // However slowly the client takes it.
            return Ok(Some(bytes_with_reservation(buffered.into(), Some(&Arc::new(reservation)))));
        }
    }
    Ok(None)
}
