//! LOCK and UNLOCK (RFC 4918 sections 9.10 and 9.11).

use std::sync::Arc;

use http::{HeaderName, Response, StatusCode};

use super::error::{Error, Result, run_blocking};
use super::headers::{self, DepthHeader};
use super::request_context::RequestContext;
use super::response::{empty_response, set_header};
use super::xml::XmlElement;
use super::{multistatus, read_small_body};
use crate::http::{RequestBody, ResponseBody};
use crate::tree::{self, DavLock, LockRequest};

/// The longest body of LOCK that is taken.
const LOCK_BODY_MAX_BYTES: usize = 64 * 1024;
/// The longest owner element that is kept.
const LOCK_OWNER_MAX_BYTES: usize = 8 * 1024;

/// Answers LOCK: a new lock, or with an empty body new life for one.
///
/// # Errors
/// [`Error::Malformed`] for a body or headers that can't be read, and what the tree says.
pub(super) async fn lock(call: &Arc<RequestContext>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let deep = match headers::depth(&call.headers)? {
        None | Some(DepthHeader::Infinity) => true,
        Some(DepthHeader::Zero) => false,
        Some(DepthHeader::One) => return Err(Error::Malformed("Depth can't be 1 here")),
    };
    let bytes = read_small_body(body, LOCK_BODY_MAX_BYTES).await?;
    let call = Arc::clone(call);
    if bytes.trim_ascii().is_empty() {
        return run_blocking(move || refresh(&call)).await;
    }
    let request = parse_lockinfo(&call, &bytes, deep)?;
    run_blocking(move || create_lock(&call, &request)).await
}

fn parse_lockinfo(call: &RequestContext, bytes: &[u8], deep: bool) -> Result<LockRequest> {
    let malformed = Error::from_unreadable_xml(bytes, "the body is no lockinfo");
    let Ok(info) = XmlElement::parse(bytes) else { return Err(malformed) };
    let scope = info.child("lockscope").filter(|_| info.is_dav("lockinfo"));
    let exclusive = match scope.map(|scope| (scope.child("exclusive"), scope.child("shared"))) {
        Some((Some(_), None)) => true,
        Some((None, Some(_))) => false,
        _ => return Err(malformed),
    };
    if info.child("locktype").and_then(|kind| kind.child("write")).is_none() {
        return Err(malformed);
    }
    let owner = info.child("owner").map(XmlElement::to_xml).unwrap_or_default();
    if owner.len() > LOCK_OWNER_MAX_BYTES {
        return Err(Error::BodyTooLarge);
    }
    Ok(LockRequest { exclusive, depth_infinity: deep, owner, timeout: headers::timeout(&call.headers) })
}

fn create_lock(call: &RequestContext, request: &LockRequest) -> Result<Response<ResponseBody>> {
    let (lock, created) = call.with_preconditions(|claim| call.view.lock(&call.path, request, claim))?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = lock_response(call, status, &lock);
    set_header(response.headers_mut(), HeaderName::from_static("lock-token"), format!("<{}>", lock.token));
    Ok(response)
}

fn refresh(call: &RequestContext) -> Result<Response<ResponseBody>> {
    if call.submitted_lock_tokens().is_empty() {
        return Err(Error::Malformed("a lock is refreshed by its token in the If header"));
    }
    call.evaluate_conditions()?;
    let timeout = headers::timeout(&call.headers);
    for token in call.submitted_lock_tokens() {
        match call.view.refresh_lock(&call.path, token, timeout) {
            Ok(lock) => return Ok(lock_response(call, StatusCode::OK, &lock)),
            Err(tree::Error::PreconditionFailed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::NoSuchLock)
}

fn lock_response(call: &RequestContext, status: StatusCode, lock: &DavLock) -> Response<ResponseBody> {
    let folder = call.view.stat(&call.path).is_ok_and(|entry| entry.is_directory());
    let mut inner = String::new();
    multistatus::write_lock_discovery(call, &call.path, folder, std::slice::from_ref(lock), &mut inner);
    multistatus::prop_response(status, &inner)
}

/// Answers UNLOCK.
///
/// # Errors
/// [`Error::NoSuchLock`] when the token names no lock here, and what the tree says.
pub(super) async fn unlock(call: &Arc<RequestContext>) -> Result<Response<ResponseBody>> {
    let token = headers::lock_token(&call.headers)?;
    let call = Arc::clone(call);
    run_blocking(move || {
        call.evaluate_conditions()?;
        match call.view.unlock(&call.path, &token) {
            Ok(()) => Ok(empty_response(StatusCode::NO_CONTENT)),
            Err(tree::Error::PreconditionFailed) => Err(Error::NoSuchLock),
            Err(error) => Err(error.into()),
        }
    })
    .await
}
