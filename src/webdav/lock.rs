//! LOCK and UNLOCK (RFC 4918 sections 9.10 and 9.11).

use std::sync::Arc;

use http::{HeaderName, Response, StatusCode};

use super::call::Call;
use super::error::{Error, Result, blocking};
use super::fields::{self, Depth};
use super::folder::done;
use super::get::set;
use super::xml::Element;
use super::{multistatus, small_body};
use crate::http::{RequestBody, ResponseBody};
use crate::tree::{self, DavLock, LockRequest};

/// The longest body of LOCK that is taken.
const MAX_BODY: usize = 64 * 1024;
/// The longest owner element that is kept.
const MAX_OWNER: usize = 8 * 1024;

/// Answers LOCK: a new lock, or with an empty body new life for one.
///
/// # Errors
/// [`Error::Malformed`] for a body or headers that can't be read, and what the tree says.
pub(super) async fn lock(call: &Arc<Call>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let deep = match fields::depth(&call.headers)? {
        None | Some(Depth::Infinity) => true,
        Some(Depth::Zero) => false,
        Some(Depth::One) => return Err(Error::Malformed("Depth can't be 1 here")),
    };
    let bytes = small_body(body, MAX_BODY).await?;
    let call = Arc::clone(call);
    if bytes.trim_ascii().is_empty() {
        return blocking(move || refresh(&call)).await;
    }
    let request = requested(&call, &bytes, deep)?;
    blocking(move || take(&call, &request)).await
}

fn requested(call: &Call, bytes: &[u8], deep: bool) -> Result<LockRequest> {
    let malformed = Error::unreadable(bytes, "the body is no lockinfo");
    let Ok(info) = Element::parse(bytes) else { return Err(malformed) };
    let scope = info.child("lockscope").filter(|_| info.is("lockinfo"));
    let exclusive = match scope.map(|scope| (scope.child("exclusive"), scope.child("shared"))) {
        Some((Some(_), None)) => true,
        Some((None, Some(_))) => false,
        _ => return Err(malformed),
    };
    if info.child("locktype").and_then(|kind| kind.child("write")).is_none() {
        return Err(malformed);
    }
    let owner = info.child("owner").map(Element::to_xml).unwrap_or_default();
    if owner.len() > MAX_OWNER {
        return Err(Error::TooLong);
    }
    Ok(LockRequest { exclusive, depth_infinity: deep, owner, timeout: fields::timeout(&call.headers) })
}

fn take(call: &Call, request: &LockRequest) -> Result<Response<ResponseBody>> {
    let (lock, created) = call.claiming(|claim| call.view.lock(&call.path, request, claim))?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    let mut response = shown(call, status, &lock);
    set(response.headers_mut(), HeaderName::from_static("lock-token"), format!("<{}>", lock.token));
    Ok(response)
}

fn refresh(call: &Call) -> Result<Response<ResponseBody>> {
    if call.tokens().is_empty() {
        return Err(Error::Malformed("a lock is refreshed by its token in the If header"));
    }
    call.judge()?;
    let timeout = fields::timeout(&call.headers);
    for token in call.tokens() {
        match call.view.refresh_lock(&call.path, token, timeout) {
            Ok(lock) => return Ok(shown(call, StatusCode::OK, &lock)),
            Err(tree::Error::PreconditionFailed) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::NoSuchLock)
}

fn shown(call: &Call, status: StatusCode, lock: &DavLock) -> Response<ResponseBody> {
    let folder = call.view.stat(&call.path).is_ok_and(|entry| entry.is_directory());
    let mut inner = String::new();
    multistatus::lock_discovery(call, &call.path, folder, std::slice::from_ref(lock), &mut inner);
    multistatus::prop(status, &inner)
}

/// Answers UNLOCK.
///
/// # Errors
/// [`Error::NoSuchLock`] when the token names no lock here, and what the tree says.
pub(super) async fn unlock(call: &Arc<Call>) -> Result<Response<ResponseBody>> {
    let token = fields::lock_token(&call.headers)?;
    let call = Arc::clone(call);
    blocking(move || {
        call.judge()?;
        match call.view.unlock(&call.path, &token) {
            Ok(()) => Ok(done(StatusCode::NO_CONTENT)),
            Err(tree::Error::PreconditionFailed) => Err(Error::NoSuchLock),
            Err(error) => Err(error.into()),
        }
    })
    .await
}
