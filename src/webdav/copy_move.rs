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
pub(super) async fn handle(context: &Arc<RequestContext>) -> Result<Response<ResponseBody>> {
    let relative_path = context.destination()?;
    let overwrite = if headers::overwrite(&context.headers)? { OverwriteMode::Replace } else { OverwriteMode::Refuse };
    let depth = headers::depth(&context.headers)?;
    if context.method == DavMethod::Move && context.is_root() {
        return Err(Error::RootProtected);
    }
    let view = context.view.clone();
    let context = Arc::clone(context);
    run_cpu_bound(&view, move || {
        let recursive = is_recursive(&context, depth)?;
        let target = resolve_target(&context, &relative_path);
        let result = context.with_preconditions(|conditions| match context.method {
            DavMethod::Move => context.view.rename(&context.path, &target, overwrite, conditions),
            _ => context.view.copy(&context.path, &target, recursive, overwrite, conditions),
        });
        let replaced = result.map_err(|error| attribute_error(&context, &target, error))?;
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
fn is_recursive(context: &RequestContext, depth: Option<DepthHeader>) -> Result<bool> {
    match (depth, context.method) {
        (None | Some(DepthHeader::Infinity), _) => Ok(true),
        (Some(DepthHeader::Zero), DavMethod::Copy) => Ok(false),
        (Some(_), method) if context.view.link_stat(&context.path)?.is_directory() => {
            Err(Error::Malformed(match method {
                DavMethod::Copy => "a folder is copied with all in it or with nothing: Depth must be infinity or 0",
                _ => "a folder is moved with all in it: Depth must be infinity",
            }))
        }
        (Some(_), _) => Ok(true),
    }
}

/// Returns the place that a destination names.
fn resolve_target(context: &RequestContext, relative_path: &TreePath) -> TreePath {
    let root = context.client_root.root();
    let existing = context.view.existing_spelling(root, relative_path);
    match context.method {
        DavMethod::Move => tree::move_destination(&context.path, existing, relative_path),
        _ => existing,
    }
}

/// Tells a fault of the destination from one of the source, once there is one: what is missing may be either.
fn attribute_error(context: &RequestContext, target: &TreePath, error: Error) -> Error {
    match error {
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) if context.view.link_stat(&context.path).is_err() => Error::Tree(tree::Error::Absent),
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) => Error::into_destination_error(error),
        Error::Tree(tree::Error::Forbidden) if !can_write_in_parent(context, target) => {
            Error::into_destination_error(error)
        }
        _ => error,
    }
}

/// Tells whether the caller may write in the folder that would hold an entry, as far as it can be seen.
fn can_write_in_parent(context: &RequestContext, path: &TreePath) -> bool {
    let parent = path.parent().and_then(|parent| context.view.stat(&parent).ok());
    parent.is_none_or(|parent| parent.permission.allows(Permission::W))
}
