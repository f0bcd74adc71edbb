//! COPY and MOVE (RFC 4918 sections 9.8 and 9.9).

use std::sync::Arc;

use http::{Response, StatusCode};

use super::adaptive_blocking::AdaptiveBlocking;
use super::error::{Error, Result, run_cpu_bound};
use super::headers::{self, DepthHeader};
use super::method::DavMethod;
use super::request_context::RequestContext;
use super::response::empty_response;
use crate::domain::{Permission, TreePath};
use crate::http::ResponseBody;
use crate::tree::{self, OverwriteMode, View};

/// Handles COPY and MOVE.
///
/// # Errors
/// [`Error::ForeignDestination`], [`Error::RootProtected`] and [`Error::InvalidDestination`] for invalid destinations,
/// and the errors of the tree for the source.
pub(super) async fn handle(
    context: &Arc<RequestContext>,
    name_changes: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    let relative_path = context.destination()?;
    let overwrite = if headers::overwrite(&context.headers)? { OverwriteMode::Replace } else { OverwriteMode::Refuse };
    let depth = headers::depth(&context.headers)?;
    // COPY may read the root; MOVE would take away the directory that the client has mounted.
    if context.method == DavMethod::Move && context.is_root() {
        return Err(Error::RootProtected);
    }
    let view = context.view.clone();
    let context = Arc::clone(context);
    let is_move = context.method == DavMethod::Move;
    let transfer = move |view: &View| {
        let recursive = is_recursive(&context, depth)?;
        let target = resolve_target(&context, &relative_path);
        let result = context.with_preconditions(|conditions| match is_move {
            true => view.rename(&context.path, &target, overwrite, conditions),
            false => view.copy(&context.path, &target, recursive, overwrite, conditions),
        });
        let replaced = result.map_err(|error| attribute_error(&context, &target, error))?;
        Ok(empty_response(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    };
    if !is_move {
        // It reads whole directories.
        let copy_view = view.clone();
        return run_cpu_bound(&view, move || transfer(&copy_view)).await;
    }
    if let Some(result) = name_changes.try_in_view(&view, &transfer) {
        return result;
    }
    // A directory is walked, and copied where it moves to another file system: that needs a permit.
    let (moved_view, name_changes) = (view.clone(), name_changes.clone());
    run_cpu_bound(&view, move || name_changes.run_timed(|| transfer(&moved_view))).await
}

/// Tells whether a directory is transferred with its members. `Depth` applies to directories only: any value is
/// accepted for a file (RFC 4918 sections 9.8.3 and 9.9.2).
///
/// # Errors
/// [`Error::Malformed`] for a MOVE of a directory with a finite `Depth`, or a COPY of one with `Depth: 1`;
/// [`tree::Error::Absent`].
fn is_recursive(context: &RequestContext, depth: Option<DepthHeader>) -> Result<bool> {
    match (depth, context.method) {
        (None | Some(DepthHeader::Infinity), _) => Ok(true),
        (Some(DepthHeader::Zero), DavMethod::Copy) => Ok(false),
        // `link_stat`: a link is copied and moved as a link, with any `Depth`.
        (Some(_), method) if context.view.link_stat(&context.path)?.is_directory() => {
            Err(Error::Malformed(match method {
                DavMethod::Copy => {
                    "a directory is copied with all its members or with none: Depth must be infinity or 0"
                }
                _ => "a directory is moved with all its members: Depth must be infinity",
            }))
        }
        (Some(_), _) => Ok(true),
    }
}

/// Returns the path in the tree that a destination names.
fn resolve_target(context: &RequestContext, relative_path: &TreePath) -> TreePath {
    let root = context.client_root.root();
    let existing = context.view.existing_spelling(root, relative_path);
    match context.method {
        // A MOVE that only changes the Unicode normalization of a name must not resolve to the entry itself.
        DavMethod::Move => tree::move_destination(&context.path, existing, relative_path),
        _ => existing,
    }
}

/// Attributes an error to the destination or the source: the tree doesn't tell which of them is missing.
fn attribute_error(context: &RequestContext, target: &TreePath, error: Error) -> Error {
    // Looked up again only after an error: a request that succeeds must not pay for it.
    match error {
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) if context.view.link_stat(&context.path).is_err() => Error::Tree(tree::Error::Absent),
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) => Error::into_destination_error(error),
        // The destination is at fault if its parent explains the refusal; else it is the source.
        Error::Tree(tree::Error::Forbidden | tree::Error::RefusedByHost(_))
            if !can_write_in_parent(context, target) =>
        {
            Error::into_destination_error(error)
        }
        _ => error,
    }
}

/// Tells whether the session may write in the parent of an entry; true where the parent is not visible.
fn can_write_in_parent(context: &RequestContext, path: &TreePath) -> bool {
    let parent = path.parent().and_then(|parent| context.view.stat(&parent).ok());
    parent.is_none_or(|parent| parent.permission.allows(Permission::W))
}
