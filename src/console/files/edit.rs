//! New folders, new names, and removal, each also without script.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, Uri};

use super::super::blocking::{in_turn, on_tree};
use super::super::error::{ConsoleError, Result};
use super::super::guard::{ConsoleCaller, SubmittedForm};
use super::super::layout::{ConsoleSection, PageFrame, render_page};
use super::super::paths;
use super::{PathBreadcrumb, breadcrumbs, parse_name};
use crate::domain::TreePath;
use crate::tree::{self, AttributeChanges, OverwriteMode, WriteConditions};

#[derive(Template)]
#[template(path = "rename.html")]
struct RenameEntryPage {
    frame: PageFrame,
    crumbs: Vec<PathBreadcrumb>,
    place: String,
    name: String,
    back: String,
}

#[derive(Template)]
#[template(path = "delete.html")]
struct DeleteEntryPage {
    frame: PageFrame,
    crumbs: Vec<PathBreadcrumb>,
    place: String,
    name: String,
    folder: bool,
    back: String,
}

/// Makes a folder.
pub(in super::super) async fn create_directory(uri: Uri, sent: SubmittedForm) -> Result<Response> {
    let folder = paths::from_uri(&uri)?;
    let path = folder.child(&parse_name(sent.fields.text("name").unwrap_or_default())?);
    let view = sent.caller.view();
    let path = in_turn(sent.caller.light(), move || {
        let path = view.existing_spelling(&TreePath::root(), &path);
        view.create_directory(&path, &AttributeChanges::default(), &WriteConditions::none())?;
        Ok(path)
    })
    .await?;
    Ok(redirect_to_directory(&path))
}

/// Asks for the new name of an entry.
pub(in super::super) async fn rename_form(uri: Uri, caller: ConsoleCaller) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Files);
    let view = caller.view();
    in_turn(caller.light(), move || {
        view.link_stat(&path)?;
        let name = path.name().ok_or(ConsoleError::NotFound)?;
        // A name that is no text can be replaced, but not be written into a field.
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        let page = RenameEntryPage {
            frame,
            crumbs: breadcrumbs(&path),
            place: paths::encode(&path),
            name,
            back: parent_url(&path),
        };
        render_page(StatusCode::OK, &page)
    })
    .await
}

/// Gives an entry another name in its folder; never in place of another entry.
pub(in super::super) async fn rename(uri: Uri, sent: SubmittedForm) -> Result<Response> {
    let from = paths::from_uri(&uri)?;
    let to =
        from.parent().ok_or(ConsoleError::NotFound)?.child(&parse_name(sent.fields.text("name").unwrap_or_default())?);
    let view = sent.caller.view();
    let back = parent_url(&from);
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
pub(in super::super) async fn confirm_delete(uri: Uri, caller: ConsoleCaller) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Files);
    let view = caller.view();
    in_turn(caller.light(), move || {
        let folder = view.link_stat(&path)?.is_directory();
        let name = path.name().ok_or(ConsoleError::NotFound)?.to_string();
        let (crumbs, back) = (breadcrumbs(&path), parent_url(&path));
        render_page(StatusCode::OK, &DeleteEntryPage { frame, crumbs, place: paths::encode(&path), name, folder, back })
    })
    .await
}

/// Removes an entry; a folder with all in it.
pub(in super::super) async fn delete(uri: Uri, sent: SubmittedForm) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let view = sent.caller.view();
    let back = parent_url(&path);
    on_tree(view, move |view| Ok(view.remove_all(&path, &WriteConditions::none())?)).await?;
    Ok(Redirect::to(&back).into_response())
}

fn redirect_to_directory(path: &TreePath) -> Response {
    Redirect::to(&format!("/console/files{}", paths::encode(path))).into_response()
}

fn parent_url(path: &TreePath) -> String {
    format!("/console/files{}", paths::encode(&path.parent().unwrap_or_default()))
}
