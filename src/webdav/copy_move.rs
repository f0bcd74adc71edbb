//! COPY and MOVE (RFC 4918 sections 9.8 and 9.9).

use std::sync::Arc;

use http::{Response, StatusCode};

use super::error::{Error, Result, run_cpu_bound};
use super::headers::{self, DepthHeader};
use super::method::DavMethod;
use super::request_context::RequestContext;
use super::response::empty_response;
use crate::domain::{Permission, TreePath};
use crate::http::ResponseBody;
use crate::tree::{self, OverwriteMode};

/// Answers COPY and MOVE.
///
/// # Errors
/// [`Error::ForeignDestination`], [`Error::EffectiveGrant`] and [`Error::InvalidDestination`] for destinations that can't be, and what the tree
/// says of the source.
pub(super) async fn handle(call: &Arc<RequestContext>) -> Result<Response<ResponseBody>> {
    let below = call.destination()?;
    let overwrite = if headers::overwrite(&call.headers)? { OverwriteMode::Replace } else { OverwriteMode::Refuse };
    let depth = headers::depth(&call.headers)?;
    if call.method == DavMethod::Move && call.is_root() {
        return Err(Error::RootProtected);
    }
    let view = call.view.clone();
    let call = Arc::clone(call);
    run_cpu_bound(&view, move || {
        let deep = is_recursive(&call, depth)?;
        let to = resolve_target(&call, &below);
        let transferred = call.with_preconditions(|claim| match call.method {
            DavMethod::Move => call.view.rename(&call.path, &to, overwrite, claim),
            _ => call.view.copy(&call.path, &to, deep, overwrite, claim),
        });
        let replaced = transferred.map_err(|error| attribute_error(&call, &to, error))?;
        Ok(empty_response(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    })
    .await
}

/// Tells whether a folder goes with all in it. `Depth` matters to folders alone: what has nothing in it is copied and
/// moved with any (RFC 4918 sections 9.8.3 and 9.9.3).
///
/// # Errors
/// [`Error::Malformed`] for a folder that would be moved without what is in it, or copied with a part of it;
/// [`tree::Error::Absent`].
fn is_recursive(call: &RequestContext, depth: Option<DepthHeader>) -> Result<bool> {
    match (depth, call.method) {
        (None | Some(DepthHeader::Infinity), _) => Ok(true),
        (Some(DepthHeader::Zero), DavMethod::Copy) => Ok(false),
        (Some(_), verb) if call.view.link_stat(&call.path)?.is_directory() => Err(Error::Malformed(match verb {
            DavMethod::Copy => "a folder is copied with all in it or with nothing: Depth must be infinity or 0",
            _ => "a folder is moved with all in it: Depth must be infinity",
        })),
        (Some(_), _) => Ok(true),
    }
}

/// Returns the place that a destination names.
fn resolve_target(call: &RequestContext, below: &TreePath) -> TreePath {
    let root = call.client_root.root();
    let existing = call.view.existing_spelling(root, below);
    match call.method {
        DavMethod::Move => tree::move_destination(&call.path, existing, below),
        _ => existing,
    }
}

/// Tells a fault of the destination from one of the source, once there is one: what is missing may be either.
fn attribute_error(call: &RequestContext, to: &TreePath, error: Error) -> Error {
    match error {
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) if call.view.link_stat(&call.path).is_err() => Error::Tree(tree::Error::Absent),
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) => Error::into_destination_error(error),
        Error::Tree(tree::Error::Forbidden) if !can_write_in_parent(call, to) => Error::into_destination_error(error),
        _ => error,
    }
}

/// Tells whether the caller may write in the folder that would hold an entry, as far as it can be seen.
fn can_write_in_parent(call: &RequestContext, path: &TreePath) -> bool {
    let folder = path.parent().and_then(|folder| call.view.stat(&folder).ok());
    folder.is_none_or(|folder| folder.permission.allows(Permission::W))
}
