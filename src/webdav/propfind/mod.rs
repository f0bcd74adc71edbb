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
pub(super) use self::request::PropfindRequest;
use self::traversal::PropfindTraversal;
use super::adaptive_blocking::AdaptiveBlocking;
use super::error::{Error, Result, run_blocking, run_streamed};
use super::headers::{self, DepthHeader};
use super::request_context::RequestContext;
use super::{WebdavOptions, multistatus, read_small_body, xml};
use crate::domain::{UserQuotaLimits, UserQuotas};
use crate::http::{BodyStart, RequestBody, ResponseBody, bytes_with_reservation, full};

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
            let (task_context, is_short) = (Arc::clone(context), is_short(&bytes));
            let respond = move || respond_with_entry(&task_context, &bytes);
            if is_short { limits.adaptive_blocking.run(respond).await? } else { run_blocking(respond).await? }
        }
        DepthHeader::One => respond_with_members(context, bytes, limits).await?,
        DepthHeader::Infinity => {
            let (task_context, limits) = (Arc::clone(context), limits.clone());
            let respond = move |_| respond_with_tree(&task_context, &bytes, &limits);
            run_streamed(&context.view, None::<()>, respond).await.map(multistatus::response)?
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

/// Responds for a single entry.
fn respond_with_entry(context: &Arc<RequestContext>, bytes: &[u8]) -> Result<Response<ResponseBody>> {
    let mut traversal = start_traversal(context, &parse_request(bytes)?, DepthHeader::Zero)?;
    Ok(multistatus::response(full(traversal.fill_block()?)))
}

/// Responds for a directory and its members. A small one is listed inline where that is fast: neither a switch to another
/// thread nor a permit of work is needed for it. A larger one goes on from there.
async fn respond_with_members(
    context: &Arc<RequestContext>,
    bytes: Vec<u8>,
    limits: &PropfindLimits,
) -> Result<Response<ResponseBody>> {
    let is_short = is_short(&bytes);
    let mut begun = match is_short {
        true => limits.adaptive_blocking.try_inline(|| begin_listing(context, &bytes)).transpose()?,
        false => None,
    };
    if let Some(mut traversal) = begun.take_if(|traversal| traversal.is_done()) {
        return Ok(multistatus::response(full(traversal.fill_block()?)));
    }
    // Where nothing is known of the speed yet, or the last ones were slow: the speed of this one decides about the next.
    let is_measured = is_short && begun.is_none();
    let (task_context, limits) = (Arc::clone(context), limits.clone());
    let start = move |begun: Option<PropfindTraversal>| {
        let mut traversal = match begun {
            Some(traversal) => traversal,
            None if is_measured => limits.adaptive_blocking.run_timed(|| begin_listing(&task_context, &bytes))?,
            None => start_traversal(&task_context, &parse_request(&bytes)?, DepthHeader::One)?,
        };
        traversal.set_permitted();
        let first = traversal.fill_block()?;
        // One directory needs no limit: it is streamed, whatever its size.
        Ok(if traversal.is_done() { BodyStart::Whole(first) } else { BodyStart::Partial(first, traversal) })
    };
    Ok(multistatus::response(run_streamed(&context.view, begun, start).await?))
}

/// Begins to list an entry and its members, with [`SMALL_LISTING_ENTRIES`] of them at most.
fn begin_listing(context: &Arc<RequestContext>, bytes: &[u8]) -> Result<PropfindTraversal> {
    let mut traversal = start_traversal(context, &parse_request(bytes)?, DepthHeader::One)?;
    traversal.write_members(SMALL_LISTING_ENTRIES)?;
    Ok(traversal)
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

/// Responds for an entry and all that is below it.
fn respond_with_tree(
    context: &Arc<RequestContext>,
    bytes: &[u8],
    limits: &PropfindLimits,
) -> Result<BodyStart<PropfindTraversal>> {
    let propfind_request = parse_request(bytes)?;
    let mut traversal = start_traversal(context, &propfind_request, DepthHeader::Infinity)?;
    traversal.limit_entries(limits.max_entries);
    traversal.set_permitted();
    // Errors up to here become a status; once the response is streamed they can only end it early.
    let first = traversal.fill_block()?;
    if traversal.is_done() {
        return Ok(BodyStart::Whole(first));
    }
    // The limit is checked before anything is sent: a 403 can't follow the start of a 207.
    if let Some(whole) = buffer_whole(context, first, &mut traversal, &limits.buffers)? {
        return Ok(BodyStart::Whole(whole));
    }
    traversal.count_remaining()?;
    // Without a limit: the tree may have grown since, and a response in progress is not broken off for that.
    let mut traversal = start_traversal(context, &propfind_request, DepthHeader::Infinity)?;
    traversal.set_permitted();
    let first = traversal.fill_block()?;
    Ok(BodyStart::Partial(first, traversal))
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
