//! New folders, new names, and removal, each also without script.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, Uri};

use super::super::fault::{Fault, Result, in_turn, on_tree};
use super::super::guard::{Caller, Sent};
use super::super::page::{Frame, Part, render};
use super::super::place;
use super::{Crumb, crumbs, name};
use crate::domain::TreePath;
use crate::tree::{self, AttributeChanges, OverwriteMode, WriteConditions};

#[derive(Template)]
#[template(path = "rename.html")]
struct RenamePage {
    frame: Frame,
    crumbs: Vec<Crumb>,
    place: String,
    name: String,
    back: String,
}

#[derive(Template)]
#[template(path = "delete.html")]
struct DeletePage {
    frame: Frame,
    crumbs: Vec<Crumb>,
    place: String,
    name: String,
    folder: bool,
    back: String,
}

/// Makes a folder.
pub(in super::super) async fn make_folder(uri: Uri, sent: Sent) -> Result<Response> {
    let folder = place::of(&uri)?;
    let path = folder.child(&name(sent.fields.text("name").unwrap_or_default())?);
    let view = sent.caller.view();
    let path = in_turn(sent.caller.light(), move || {
        let path = view.existing_spelling(&TreePath::root(), &path);
        view.create_directory(&path, &AttributeChanges::default(), &WriteConditions::none())?;
        Ok(path)
    })
    .await?;
    Ok(shown(&path))
}

/// Asks for the new name of an entry.
pub(in super::super) async fn ask_rename(uri: Uri, caller: Caller) -> Result<Response> {
    let path = place::of(&uri)?;
    let frame = Frame::new(&caller, Part::Files);
    let view = caller.view();
    in_turn(caller.light(), move || {
        view.link_stat(&path)?;
        let name = path.name().ok_or(Fault::Nothing)?;
        // A name that is no text can be replaced, but not be written into a field.
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        let page = RenamePage { frame, crumbs: crumbs(&path), place: place::encode(&path), name, back: holder(&path) };
        render(StatusCode::OK, &page)
    })
    .await
}

/// Gives an entry another name in its folder; never in place of another entry.
pub(in super::super) async fn rename(uri: Uri, sent: Sent) -> Result<Response> {
    let from = place::of(&uri)?;
    let to = from.parent().ok_or(Fault::Nothing)?.child(&name(sent.fields.text("name").unwrap_or_default())?);
    let view = sent.caller.view();
    let back = holder(&from);
    if from != to {
        on_tree(view, move |view| {
            let to = tree::move_destination(&from, view.existing_spelling(&TreePath::root(), &to), &to);
            Ok(view.rename(&from, &to, OverwriteMode::Refuse, &WriteConditions::none())?)
        })
        .await?;
    }
    Ok(Redirect::to(&back).into_response())
}

/// Asks whether an entry is to be removed.
pub(in super::super) async fn ask_delete(uri: Uri, caller: Caller) -> Result<Response> {
    let path = place::of(&uri)?;
    let frame = Frame::new(&caller, Part::Files);
    let view = caller.view();
    in_turn(caller.light(), move || {
        let folder = view.link_stat(&path)?.is_directory();
        let name = path.name().ok_or(Fault::Nothing)?.to_string();
        let (crumbs, back) = (crumbs(&path), holder(&path));
        render(StatusCode::OK, &DeletePage { frame, crumbs, place: place::encode(&path), name, folder, back })
    })
    .await
}

/// Removes an entry; a folder with all in it.
pub(in super::super) async fn delete(uri: Uri, sent: Sent) -> Result<Response> {
    let path = place::of(&uri)?;
    let view = sent.caller.view();
    let back = holder(&path);
    on_tree(view, move |view| Ok(view.remove_all(&path, &WriteConditions::none())?)).await?;
    Ok(Redirect::to(&back).into_response())
}

fn shown(path: &TreePath) -> Response {
    Redirect::to(&format!("/console/files{}", place::encode(path))).into_response()
}

fn holder(path: &TreePath) -> String {
    format!("/console/files{}", place::encode(&path.parent().unwrap_or_default()))
}
