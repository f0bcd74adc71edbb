//! MKCOL and DELETE (RFC 4918 sections 9.3 and 9.6).

use std::sync::Arc;

use http::{HeaderValue, Response, StatusCode, header};

use super::adaptive_blocking::AdaptiveBlocking;
use super::error::{Error, Result, run_blocking};
use super::headers::{self, DepthHeader};
use super::proppatch::{self, ProppatchInstruction};
use super::request_context::RequestContext;
use super::response::empty_response;
use super::{multistatus, read_small_body, xml};
use crate::http::{RequestBody, ResponseBody, full};
use crate::tree::{self, AttributeChanges, PropertyChange, View, WriteConditions};

/// Handles MKCOL, also with properties (RFC 5689).
///
/// # Errors
/// [`Error::UnsupportedMediaType`] for a body that is not XML, and the errors of the tree.
pub(super) async fn mkcol(
    context: &Arc<RequestContext>,
    body: &mut RequestBody,
    name_changes: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    let modified = headers::oc_mtime(&context.headers)?;
    let bytes = read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let content_type =
        context.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    // A body that is not understood must not be ignored: 415 (RFC 4918 section 9.3).
    if !bytes.is_empty()
        && !matches!(content_type.split(';').next().map(str::trim), Some("text/xml" | "application/xml"))
    {
        return Err(Error::UnsupportedMediaType("the body of MKCOL must be empty or XML"));
    }
    let context = Arc::clone(context);
    let attributes = AttributeChanges { modified, ..AttributeChanges::default() };
    if !bytes.is_empty() {
        // Properties are written to the store.
        return run_blocking(move || extended_mkcol(&context, &bytes, attributes)).await;
    }
    let view = context.view.clone();
    name_changes.run_in_view(&view, move |view| create_directory(&context, view, &attributes)).await
}

fn create_directory(
    context: &RequestContext,
    view: &View,
    attributes: &AttributeChanges,
) -> Result<Response<ResponseBody>> {
    let is_timed = attributes.modified.is_some();
    let created = context.with_preconditions(|conditions| view.create_directory(&context.path, attributes, conditions));
    // Without a requested time, "not supported" has another cause, and keeps its status.
    created.map_err(|error| if is_timed { Error::from_time_error(error) } else { error })?;
    let mut response = empty_response(StatusCode::CREATED);
    if is_timed {
        response.headers_mut().insert("x-oc-mtime", HeaderValue::from_static("accepted"));
    }
    Ok(response)
}

/// Creates a directory with properties (extended MKCOL, RFC 5689): with all of them, or not at all.
fn extended_mkcol(
    context: &RequestContext,
    bytes: &[u8],
    mut attributes: AttributeChanges,
) -> Result<Response<ResponseBody>> {
    let mut instructions = proppatch::parse_mkcol_instructions(bytes)
        .ok_or_else(|| Error::from_unreadable_xml(bytes, "the body is not a DAV:mkcol element"))?;
    let refused = instructions.iter().any(ProppatchInstruction::is_refused);
    let changes: Vec<PropertyChange> =
        instructions.iter().filter_map(|instruction| instruction.collect_change(&mut attributes)).collect();
    // Permissions, locks and conditions come before a property at fault: a client that may not create anything here
    // must not learn more.
    context
        .with_preconditions(|conditions| context.view.check_create_directory(&context.path, &changes, conditions))?;
    if refused {
        return Ok(multistatus::xml_response(StatusCode::FORBIDDEN, full(mkcol_response_body(&instructions, refused))));
    }
    // In two steps, since properties can only be stored for an existing directory: a failure of the second undoes the
    // first.
    context.with_preconditions(|conditions| {
        context.view.create_directory(&context.path, &AttributeChanges::default(), conditions)
    })?;
    // Without the conditions: `If-None-Match: *` was true before the directory existed, and would be false now.
    let conditions = WriteConditions { lock_tokens: context.submitted_lock_tokens(), ..WriteConditions::none() };
    if let Err(error) = context.view.set_properties(&context.path, &changes, &attributes, &conditions) {
        // Not `remove_all`: what another client has already put into the directory must not be lost.
        context.view.remove_directory(&context.path, &conditions)?;
        if matches!(error, tree::Error::Unsupported) && ProppatchInstruction::refuse_times(&mut instructions) {
            return Ok(multistatus::xml_response(
                StatusCode::FORBIDDEN,
                full(mkcol_response_body(&instructions, true)),
            ));
        }
        return Err(error.into());
    }
    Ok(match headers::prefers_minimal(&context.headers) {
        true => empty_response(StatusCode::CREATED),
        false => multistatus::xml_response(StatusCode::CREATED, full(mkcol_response_body(&instructions, refused))),
    })
}

/// Returns the body with the status of each property (RFC 5689 section 3).
fn mkcol_response_body(instructions: &[ProppatchInstruction], refused: bool) -> String {
    let mut out = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<D:mkcol-response xmlns:D=\"DAV:\">");
    instructions.iter().for_each(|instruction| instruction.write_propstat(refused, &mut out));
    out += "</D:mkcol-response>\n";
    out
}

/// Handles DELETE.
///
/// # Errors
/// [`Error::RootProtected`] for the root of the client, [`Error::Malformed`] for a directory with a finite `Depth`, and
/// the errors of the tree.
pub(super) async fn delete(
    context: &Arc<RequestContext>,
    name_changes: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    let depth = headers::depth(&context.headers)?;
    // The root of this URL, which may be a node: DELETE would remove the directory that the client has mounted.
    if context.is_root() {
        return Err(Error::RootProtected);
    }
    let context = Arc::clone(context);
    let view = context.view.clone();
    let delete = move |view: &View| {
        // `link_stat`: a link to a directory is deleted as a link, with any `Depth`.
        if !matches!(depth, None | Some(DepthHeader::Infinity)) && view.link_stat(&context.path)?.is_directory() {
            return Err(Error::Malformed("a directory is deleted with all its members: Depth must be infinity"));
        }
        context.with_preconditions(|conditions| view.remove_all(&context.path, conditions))?;
        Ok(empty_response(StatusCode::NO_CONTENT))
    };
    name_changes.run_in_view(&view, delete).await
}
