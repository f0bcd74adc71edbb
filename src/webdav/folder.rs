//! MKCOL and DELETE (RFC 4918 sections 9.3 and 9.6).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use super::call::Call;
use super::error::{Error, Result, blocking};
use super::fields::{self, Depth};
use super::proppatch::{self, Step};
use super::{multistatus, small_body, xml};
use crate::http::{RequestBody, ResponseBody, empty, full};
use crate::tree::{self, AttributeChanges, PropertyChange, WriteConditions};

/// Answers MKCOL.
///
/// # Errors
/// [`Error::Unsupported`] for a body of any kind, and what the tree says.
pub(super) async fn make(call: &Arc<Call>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let modified = fields::modified(&call.headers)?;
    let bytes = small_body(body, xml::MAX_BODY).await?;
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !bytes.is_empty() && !matches!(kind.split(';').next().map(str::trim), Some("text/xml" | "application/xml")) {
        return Err(Error::Unsupported("MKCOL takes no body but one of XML"));
    }
    let call = Arc::clone(call);
    blocking(move || {
        let attributes = AttributeChanges { modified, ..AttributeChanges::default() };
        if !bytes.is_empty() {
            return make_with(&call, &bytes, attributes);
        }
        let made = call.claiming(|claim| call.view.create_directory(&call.path, &attributes, claim));
        made.map_err(|error| if modified.is_some() { Error::of_time(error) } else { error })?;
        let mut response = done(StatusCode::CREATED);
        if modified.is_some() {
            response.headers_mut().insert("x-oc-mtime", HeaderValue::from_static("accepted"));
        }
        Ok(response)
    })
    .await
}

/// Makes a folder with properties (extended MKCOL, RFC 5689): with all of them or not at all.
fn make_with(call: &Call, bytes: &[u8], mut attributes: AttributeChanges) -> Result<Response<ResponseBody>> {
    let mut steps = proppatch::first_steps(bytes).ok_or_else(|| Error::unreadable(bytes, "the body is no mkcol"))?;
    let refused = steps.iter().any(Step::is_refused);
    let changes: Vec<PropertyChange> = steps.iter().filter_map(|step| step.apply(&mut attributes)).collect();
    // Rights, locks and conditions are asked before a property that can't be set is told of.
    call.claiming(|claim| call.view.check_create_directory(&call.path, &changes, claim))?;
    if refused {
        return Ok(multistatus::answer(StatusCode::FORBIDDEN, full(told(&steps, refused))));
    }
    call.claiming(|claim| call.view.create_directory(&call.path, &AttributeChanges::default(), claim))?;
    let claim = WriteConditions { lock_tokens: call.tokens(), ..WriteConditions::none() };
    if let Err(error) = call.view.set_properties(&call.path, &changes, &attributes, &claim) {
        call.view.remove_directory(&call.path, &claim)?;
        if matches!(error, tree::Error::Unsupported) && Step::refuse_times(&mut steps) {
            return Ok(multistatus::answer(StatusCode::FORBIDDEN, full(told(&steps, true))));
        }
        return Err(error.into());
    }
    Ok(match fields::wants_little(&call.headers) {
        true => done(StatusCode::CREATED),
        false => multistatus::answer(StatusCode::CREATED, full(told(&steps, refused))),
    })
}

/// Writes what came of each property (RFC 5689 section 3).
fn told(steps: &[Step], refused: bool) -> String {
    let mut told = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:mkcol-response xmlns:D=\"DAV:\">");
    steps.iter().for_each(|step| step.tell(refused, &mut told));
    told += "</D:mkcol-response>\n";
    told
}

/// Answers DELETE.
///
/// # Errors
/// [`Error::EffectiveGrant`] for the client's root, [`Error::Malformed`] for a folder without all in it, and what the
/// tree says.
pub(super) async fn delete(call: &Arc<Call>) -> Result<Response<ResponseBody>> {
    let depth = fields::depth(&call.headers)?;
    if call.is_root() {
        return Err(Error::Root);
    }
    let call = Arc::clone(call);
    blocking(move || {
        if !matches!(depth, None | Some(Depth::Infinity)) && call.view.link_stat(&call.path)?.is_directory() {
            return Err(Error::Malformed("a folder is removed with all in it: Depth must be infinity"));
        }
        call.claiming(|claim| call.view.remove_all(&call.path, claim))?;
        Ok(done(StatusCode::NO_CONTENT))
    })
    .await
}

/// Returns an answer without a body.
pub(super) fn done(status: StatusCode) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = status;
    response
}
