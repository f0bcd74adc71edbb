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
use super::adaptive_blocking::AdaptiveBlocking;
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

/// Maximum size of a request that is parsed without leaving the runtime.
const SHORT_REQUEST_BYTES: usize = 8 << 10;
/// Maximum number of entries of a directory that is listed without leaving the runtime.
const SMALL_LISTING_ENTRIES: usize = 32;

/// Settings and memory of PROPFIND. Clones share the memory.
#[derive(Clone)]
pub(super) struct PropfindLimits {
    /// Maximum number of entries in a response of infinite depth; 0 refuses them all.
    max_entries: usize,
    buffers: UserQuotas,
    /// Where single entries and small directories are read.
    adaptive_blocking: AdaptiveBlocking,
}

impl PropfindLimits {
    /// Creates the limits of a service.
    pub(super) fn new(options: WebdavOptions) -> Self {
        Self {
            max_entries: options.propfind_infinity_entries,
            buffers: UserQuotas::new(PROPFIND_BUFFER_LIMITS),
            adaptive_blocking: AdaptiveBlocking::default(),
        }
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
    let response = match depth {
        // A single entry needs no permit, and does not queue behind listings.
        DepthHeader::Zero => {
            let (task_context, task_limits, is_short) = (Arc::clone(context), limits.clone(), is_short(&bytes));
            let respond = move || respond(&task_context, &bytes, depth, &task_limits);
            if is_short { limits.adaptive_blocking.run(respond).await? } else { run_blocking(respond).await? }
        }
        DepthHeader::One => respond_with_members(context, bytes, limits).await?,
        DepthHeader::Infinity => {
            let (task_context, limits) = (Arc::clone(context), limits.clone());
            let respond = move || respond(&task_context, &bytes, depth, &limits);
            run_cpu_bound(&context.view, respond).await?
        }
    };
    Ok(if headers::prefers_minimal(&context.headers) { with_preference_applied(response) } else { response })
}

/// Tells whether a request is read so fast that a runtime thread can do it.
fn is_short(bytes: &[u8]) -> bool {
    bytes.len() <= SHORT_REQUEST_BYTES
}

/// Tells the client that `return=minimal` was honored (RFC 7240 section 3).
fn with_preference_applied(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    response.headers_mut().insert("preference-applied", HeaderValue::from_static("return=minimal"));
    response
}

/// Responds for a directory and its members. A small one is listed inline where that is fast: neither a switch to another
/// thread nor a permit of work is needed for it.
async fn respond_with_members(
    context: &Arc<RequestContext>,
    bytes: Vec<u8>,
    limits: &PropfindLimits,
) -> Result<Response<ResponseBody>> {
    let attempt = match is_short(&bytes) {
        true => limits.adaptive_blocking.try_inline(|| respond_if_small(context, &bytes)),
        false => None,
    };
    // Where nothing is known of the speed yet, or the last ones were slow.
    let is_small_untried = is_short(&bytes) && attempt.is_none();
    if let Some(response) = attempt.transpose()?.flatten() {
        return Ok(response);
    }
    let (task_context, limits) = (Arc::clone(context), limits.clone());
    let respond = move || {
        let context = task_context;
        // Tried here: its speed decides about the next.
        if is_small_untried
            && let Some(response) = limits.adaptive_blocking.run_timed(|| respond_if_small(&context, &bytes))?
        {
            return Ok(response);
        }
        respond(&context, &bytes, DepthHeader::One, &limits)
    };
    run_cpu_bound(&context.view, respond).await
}

/// Responds for an entry and its members if they are [`SMALL_LISTING_ENTRIES`] at most, and fit in one block.
fn respond_if_small(context: &Arc<RequestContext>, bytes: &[u8]) -> Result<Option<Response<ResponseBody>>> {
    let mut traversal = start_traversal(context, &parse_request(bytes)?, DepthHeader::One)?;
    let text = traversal.fill_small_block(SMALL_LISTING_ENTRIES)?;
    Ok(traversal.is_done().then(|| multistatus::response(full(text))))
}

fn parse_request(bytes: &[u8]) -> Result<PropfindRequest> {
    PropfindRequest::parse(bytes)
        .ok_or_else(|| Error::from_unreadable_xml(bytes, "the body is not a DAV:propfind element"))
}

/// Starts with the entry that the request names.
fn start_traversal(
    context: &Arc<RequestContext>,
    propfind_request: &PropfindRequest,
    depth: DepthHeader,
) -> Result<PropfindTraversal> {
    let requested = context.view.resolve(&context.path)?;
    // After that: a false condition must not reveal an entry that the session can't see.
    context.conditions.evaluate_if_header(context.if_context(), &context.path)?;
    let plan = propfind_request.clone().into_plan().with_minimal_return(headers::prefers_minimal(&context.headers));
    Ok(PropfindTraversal::new(Arc::clone(context), plan, depth, requested)?)
}

fn respond(
    context: &Arc<RequestContext>,
    bytes: &[u8],
    depth: DepthHeader,
    limits: &PropfindLimits,
) -> Result<Response<ResponseBody>> {
    let propfind_request = parse_request(bytes)?;
    let mut traversal = start_traversal(context, &propfind_request, depth)?;
    if depth == DepthHeader::Infinity {
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
    let mut traversal = start_traversal(context, &propfind_request, depth)?;
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
