//! LOCK and UNLOCK (RFC 4918 sections 9.10 and 9.11).

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::error::{Error, Result, run_blocking};
use super::headers::{self, DepthHeader};
use super::request_context::RequestContext;
use super::response::{empty_response, set_header};
use super::xml::XmlElement;
use super::{multistatus, read_small_body};
use crate::http::{RequestBody, ResponseBody};
use crate::tree::{self, AcquiredLock, DavLock, LockRequest};

/// Maximum size of the body of LOCK.
const LOCK_BODY_MAX_BYTES: usize = 64 * 1024;
/// Maximum size of the `owner` element, which is stored with the lock.
const LOCK_OWNER_MAX_BYTES: usize = 8 * 1024;

/// Handles LOCK: creates a lock, or refreshes one where the body is empty.
///
/// # Errors
/// [`Error::Malformed`] for a malformed body or headers, and the errors of the tree.
pub(super) async fn lock(context: &Arc<RequestContext>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let bytes = read_small_body(body, LOCK_BODY_MAX_BYTES).await?;
    let context = Arc::clone(context);
    // Without a body, LOCK refreshes, and ignores any Depth (RFC 4918 section 9.10.2).
    if bytes.trim_ascii().is_empty() {
        return run_blocking(move || refresh(&context)).await;
    }
    // Without Depth it is infinity, and 1 is not allowed (RFC 4918 section 9.10.3).
    let depth_infinity = match headers::depth(&context.headers)? {
        None | Some(DepthHeader::Infinity) => true,
        Some(DepthHeader::Zero) => false,
        Some(DepthHeader::One) => return Err(Error::Malformed("Depth of LOCK must be 0 or infinity")),
    };
    let request = parse_lockinfo(&context.headers, &bytes, depth_infinity)?;
    run_blocking(move || create_lock(&context, &request)).await
}

/// Parses the body of LOCK.
///
/// # Errors
/// [`Error::Malformed`] for another body, [`Error::BodyTooLarge`] for an owner that is too long.
pub(super) fn parse_lockinfo(headers: &HeaderMap, bytes: &[u8], depth_infinity: bool) -> Result<LockRequest> {
    let malformed = Error::from_unreadable_xml(bytes, "the body is not a DAV:lockinfo element");
    let Ok(lockinfo) = XmlElement::parse(bytes) else { return Err(malformed) };
    let scope = lockinfo.child("lockscope").filter(|_| lockinfo.is_dav("lockinfo"));
    let exclusive = match scope.map(|scope| (scope.child("exclusive"), scope.child("shared"))) {
        Some((Some(_), None)) => true,
        Some((None, Some(_))) => false,
        _ => return Err(malformed),
    };
    if lockinfo.child("locktype").and_then(|locktype| locktype.child("write")).is_none() {
        return Err(malformed);
    }
    // With its own namespace declarations, since `lockdiscovery` copies it into other documents.
    let owner = lockinfo.child("owner").map(XmlElement::to_xml).unwrap_or_default();
    if owner.len() > LOCK_OWNER_MAX_BYTES {
        return Err(Error::BodyTooLarge);
    }
    Ok(LockRequest { exclusive, depth_infinity, owner, timeout: headers::timeout(headers) })
}

fn create_lock(context: &RequestContext, request: &LockRequest) -> Result<Response<ResponseBody>> {
    let AcquiredLock { lock, is_directory, has_created_file } =
        context.with_preconditions(|conditions| context.view.lock(&context.path, request, conditions))?;
    // 201 where LOCK created an empty file (RFC 4918 section 9.10.4).
    let status = if has_created_file { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = lock_response(context, status, &lock, is_directory);
    set_header(response.headers_mut(), HeaderName::from_static("lock-token"), format!("<{}>", lock.token));
    Ok(response)
}

fn refresh(context: &RequestContext) -> Result<Response<ResponseBody>> {
    if context.submitted_lock_tokens().is_empty() {
        return Err(Error::Malformed("LOCK without a body refreshes a lock: send its token in the If header"));
    }
    context.evaluate_conditions()?;
    let timeout = headers::timeout(&context.headers);
    // The header may contain tokens of other resources too: the one that matches this resource is refreshed.
    for token in context.submitted_lock_tokens() {
        match context.view.refresh_lock(&context.path, token, timeout) {
            Ok(lock) => {
                let is_directory = context.view.stat(&context.path).is_ok_and(|entry| entry.is_directory());
                return Ok(lock_response(context, StatusCode::OK, &lock, is_directory));
            }
            Err(tree::Error::PreconditionFailed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::NoSuchLock)
}

fn lock_response(
    context: &RequestContext,
    status: StatusCode,
    lock: &DavLock,
    is_directory: bool,
) -> Response<ResponseBody> {
    let mut inner = String::new();
    multistatus::write_lock_discovery(context, &context.path, is_directory, std::slice::from_ref(lock), &mut inner);
    multistatus::prop_response(status, &inner)
}

/// Handles UNLOCK.
///
/// # Errors
/// [`Error::NoSuchLock`] when the token matches no lock on the resource, and the errors of the tree.
pub(super) async fn unlock(context: &Arc<RequestContext>) -> Result<Response<ResponseBody>> {
    let token = headers::lock_token(&context.headers)?;
    let context = Arc::clone(context);
    run_blocking(move || {
        context.evaluate_conditions()?;
        match context.view.unlock(&context.path, &token) {
            Ok(()) => Ok(empty_response(StatusCode::NO_CONTENT)),
            Err(tree::Error::PreconditionFailed) => Err(Error::NoSuchLock),
            Err(error) => Err(error.into()),
        }
    })
    .await
}
