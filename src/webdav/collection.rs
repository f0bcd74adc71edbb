//! MKCOL and DELETE (RFC 4918 sections 9.3 and 9.6).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use super::error::{Error, Result, run_blocking};
use super::headers::{self, DepthHeader};
use super::proppatch::{self, ProppatchInstruction};
use super::request_context::RequestContext;
use super::response::empty_response;
use super::{multistatus, read_small_body, xml};
use crate::http::{RequestBody, ResponseBody, full};
use crate::tree::{self, AttributeChanges, PropertyChange, WriteConditions};

/// Answers MKCOL.
///
/// # Errors
/// [`Error::UnsupportedMediaType`] for a body of any kind, and what the tree says.
pub(super) async fn mkcol(call: &Arc<RequestContext>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let modified = headers::oc_mtime(&call.headers)?;
    let bytes = read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !bytes.is_empty() && !matches!(kind.split(';').next().map(str::trim), Some("text/xml" | "application/xml")) {
        return Err(Error::UnsupportedMediaType("MKCOL takes no body but one of XML"));
    }
    let call = Arc::clone(call);
    run_blocking(move || {
        let attributes = AttributeChanges { modified, ..AttributeChanges::default() };
        if !bytes.is_empty() {
            return extended_mkcol(&call, &bytes, attributes);
        }
        let made = call.with_preconditions(|claim| call.view.create_directory(&call.path, &attributes, claim));
        made.map_err(|error| if modified.is_some() { Error::from_time_error(error) } else { error })?;
        let mut response = empty_response(StatusCode::CREATED);
        if modified.is_some() {
            response.headers_mut().insert("x-oc-mtime", HeaderValue::from_static("accepted"));
        }
        Ok(response)
    })
    .await
}

/// Makes a folder with properties (extended MKCOL, RFC 5689): with all of them or not at all.
fn extended_mkcol(
    call: &RequestContext,
    bytes: &[u8],
    mut attributes: AttributeChanges,
) -> Result<Response<ResponseBody>> {
    let mut steps = proppatch::parse_mkcol_instructions(bytes)
        .ok_or_else(|| Error::from_unreadable_xml(bytes, "the body is no mkcol"))?;
    let refused = steps.iter().any(ProppatchInstruction::is_refused);
    let changes: Vec<PropertyChange> = steps.iter().filter_map(|step| step.collect_change(&mut attributes)).collect();
    // Rights, locks and conditions are asked before a property that can't be set is told of.
    call.with_preconditions(|claim| call.view.check_create_directory(&call.path, &changes, claim))?;
    if refused {
        return Ok(multistatus::xml_response(StatusCode::FORBIDDEN, full(mkcol_response_body(&steps, refused))));
    }
    call.with_preconditions(|claim| call.view.create_directory(&call.path, &AttributeChanges::default(), claim))?;
    let claim = WriteConditions { lock_tokens: call.submitted_lock_tokens(), ..WriteConditions::none() };
    if let Err(error) = call.view.set_properties(&call.path, &changes, &attributes, &claim) {
        call.view.remove_directory(&call.path, &claim)?;
        if matches!(error, tree::Error::Unsupported) && ProppatchInstruction::refuse_times(&mut steps) {
            return Ok(multistatus::xml_response(StatusCode::FORBIDDEN, full(mkcol_response_body(&steps, true))));
        }
        return Err(error.into());
    }
    Ok(match headers::prefers_minimal(&call.headers) {
        true => empty_response(StatusCode::CREATED),
        false => multistatus::xml_response(StatusCode::CREATED, full(mkcol_response_body(&steps, refused))),
    })
}

/// Writes what came of each property (RFC 5689 section 3).
fn mkcol_response_body(steps: &[ProppatchInstruction], refused: bool) -> String {
    let mut told = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:mkcol-response xmlns:D=\"DAV:\">");
    steps.iter().for_each(|step| step.write_propstat(refused, &mut told));
    told += "</D:mkcol-response>\n";
    told
}

/// Answers DELETE.
///
/// # Errors
/// [`Error::EffectiveGrant`] for the client's root, [`Error::Malformed`] for a folder without all in it, and what the
/// tree says.
pub(super) async fn delete(call: &Arc<RequestContext>) -> Result<Response<ResponseBody>> {
    let depth = headers::depth(&call.headers)?;
    if call.is_root() {
        return Err(Error::RootProtected);
    }
    let call = Arc::clone(call);
    run_blocking(move || {
        if !matches!(depth, None | Some(DepthHeader::Infinity)) && call.view.link_stat(&call.path)?.is_directory() {
            return Err(Error::Malformed("a folder is removed with all in it: Depth must be infinity"));
        }
        call.with_preconditions(|claim| call.view.remove_all(&call.path, claim))?;
        Ok(empty_response(StatusCode::NO_CONTENT))
    })
    .await
}
