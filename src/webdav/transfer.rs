//! COPY and MOVE (RFC 4918 sections 9.8 and 9.9).

use std::sync::Arc;

use http::{Response, StatusCode};

use super::call::Call;
use super::error::{Error, Result, in_turn};
use super::fields::{self, Depth};
use super::folder::done;
use super::verb::Verb;
use crate::domain::{Permission, TreePath};
use crate::http::ResponseBody;
use crate::tree::{self, OverwriteMode};

/// Answers COPY and MOVE.
///
/// # Errors
/// [`Error::Foreign`], [`Error::EffectiveGrant`] and [`Error::Destination`] for destinations that can't be, and what the tree
/// says of the source.
pub(super) async fn answer(call: &Arc<Call>) -> Result<Response<ResponseBody>> {
    let below = call.destination()?;
    let overwrite = if fields::overwrite(&call.headers)? { OverwriteMode::Replace } else { OverwriteMode::Refuse };
    let depth = fields::depth(&call.headers)?;
    if call.verb == Verb::Move && call.is_root() {
        return Err(Error::Root);
    }
    let view = call.view.clone();
    let call = Arc::clone(call);
    in_turn(&view, move || {
        let deep = is_deep(&call, depth)?;
        let to = target(&call, &below);
        let transferred = call.claiming(|claim| match call.verb {
            Verb::Move => call.view.rename(&call.path, &to, overwrite, claim),
            _ => call.view.copy(&call.path, &to, deep, overwrite, claim),
        });
        let replaced = transferred.map_err(|error| at_fault(&call, &to, error))?;
        Ok(done(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    })
    .await
}

/// Tells whether a folder goes with all in it. `Depth` matters to folders alone: what has nothing in it is copied and
/// moved with any (RFC 4918 sections 9.8.3 and 9.9.3).
///
/// # Errors
/// [`Error::Malformed`] for a folder that would be moved without what is in it, or copied with a part of it;
/// [`tree::Error::Absent`].
fn is_deep(call: &Call, depth: Option<Depth>) -> Result<bool> {
    match (depth, call.verb) {
        (None | Some(Depth::Infinity), _) => Ok(true),
        (Some(Depth::Zero), Verb::Copy) => Ok(false),
        (Some(_), verb) if call.view.link_stat(&call.path)?.is_directory() => Err(Error::Malformed(match verb {
            Verb::Copy => "a folder is copied with all in it or with nothing: Depth must be infinity or 0",
            _ => "a folder is moved with all in it: Depth must be infinity",
        })),
        (Some(_), _) => Ok(true),
    }
}

/// Returns the place that a destination names.
fn target(call: &Call, below: &TreePath) -> TreePath {
    let root = call.mount.root();
    let existing = call.view.existing_spelling(root, below);
    match call.verb {
        Verb::Move => tree::move_destination(&call.path, existing, below),
        _ => existing,
    }
}

/// Tells a fault of the destination from one of the source, once there is one: what is missing may be either.
fn at_fault(call: &Call, to: &TreePath, error: Error) -> Error {
    match error {
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) if call.view.link_stat(&call.path).is_err() => Error::Tree(tree::Error::Absent),
        Error::Tree(
            tree::Error::Absent | tree::Error::NoParent | tree::Error::NotADirectory | tree::Error::InvalidName,
        ) => Error::of_destination(error),
        Error::Tree(tree::Error::Forbidden) if !may_write_in(call, to) => Error::of_destination(error),
        _ => error,
    }
}

/// Tells whether the caller may write in the folder that would hold an entry, as far as it can be seen.
fn may_write_in(call: &Call, path: &TreePath) -> bool {
    let folder = path.parent().and_then(|folder| call.view.stat(&folder).ok());
    folder.is_none_or(|folder| folder.permission.allows(Permission::W))
}
