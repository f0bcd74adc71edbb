//! Creates folders, renames and deletes entries; each works without script.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, Uri};

use super::super::blocking::{run_on_tree, run_with_permit};
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
    url_path: String,
    name: String,
    parent_url: String,
}

#[derive(Template)]
#[template(path = "delete.html")]
struct DeleteEntryPage {
    frame: PageFrame,
    crumbs: Vec<PathBreadcrumb>,
    url_path: String,
    name: String,
    is_directory: bool,
    parent_url: String,
}

/// Creates a folder.
pub(in super::super) async fn create_directory(uri: Uri, submitted: SubmittedForm) -> Result<Response> {
    let directory = paths::from_uri(&uri)?;
    let path = directory.child(&parse_name(submitted.fields.text("name").unwrap_or_default())?);
    let view = submitted.caller.view();
    let path = run_with_permit(submitted.caller.light_permit(), move || {
        // A name that exists in another Unicode normalization (macOS sends NFD) is that entry, and not a second one.
        let path = view.existing_spelling(&TreePath::root(), &path);
        view.create_directory(&path, &AttributeChanges::default(), &WriteConditions::none())?;
        Ok(path)
    })
    .await?;
    Ok(redirect_to_directory(&path))
}

/// Shows the form for a new name.
pub(in super::super) async fn rename_form(uri: Uri, caller: ConsoleCaller) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Files);
    let view = caller.view();
    run_with_permit(caller.light_permit(), move || {
        view.link_stat(&path)?;
        let name = path.name().ok_or(ConsoleError::NotFound)?;
        // A name that is not UTF-8 can be changed, but can't be the value of a form field.
        let name = String::from_utf8_lossy(name.as_bytes()).into_owned();
        let page = RenameEntryPage {
            frame,
            crumbs: breadcrumbs(&path),
            url_path: paths::encode(&path),
            name,
            parent_url: parent_url(&path),
        };
        render_page(StatusCode::OK, &page)
    })
    .await
}

/// Renames an entry within its folder; never replaces another entry.
pub(in super::super) async fn rename(uri: Uri, submitted: SubmittedForm) -> Result<Response> {
    let source = paths::from_uri(&uri)?;
    let destination = source
        .parent()
        .ok_or(ConsoleError::NotFound)?
        .child(&parse_name(submitted.fields.text("name").unwrap_or_default())?);
    let view = submitted.caller.view();
    let parent_url = parent_url(&source);
    if source != destination {
        // A new name that differs from the old one only in Unicode normalization must change the spelling, and is no
        // conflict.
        run_on_tree(view, move |view| {
            let destination =
                tree::move_destination(&source, view.existing_spelling(&TreePath::root(), &destination), &destination);
            Ok(view.rename(&source, &destination, OverwriteMode::Refuse, &WriteConditions::none())?)
        })
        .await?;
    }
    Ok(Redirect::to(&parent_url).into_response())
}

/// Asks for confirmation before an entry is deleted.
pub(in super::super) async fn confirm_delete(uri: Uri, caller: ConsoleCaller) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Files);
    let view = caller.view();
    run_with_permit(caller.light_permit(), move || {
        let is_directory = view.link_stat(&path)?.is_directory();
        let name = path.name().ok_or(ConsoleError::NotFound)?.to_string();
        let (crumbs, parent_url) = (breadcrumbs(&path), parent_url(&path));
        render_page(
            StatusCode::OK,
            &DeleteEntryPage { frame, crumbs, url_path: paths::encode(&path), name, is_directory, parent_url },
        )
    })
    .await
}

/// Deletes an entry; a folder with all its content.
pub(in super::super) async fn delete(uri: Uri, submitted: SubmittedForm) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let view = submitted.caller.view();
    let parent_url = parent_url(&path);
    run_on_tree(view, move |view| Ok(view.remove_all(&path, &WriteConditions::none())?)).await?;
    Ok(Redirect::to(&parent_url).into_response())
}

fn redirect_to_directory(path: &TreePath) -> Response {
    Redirect::to(&format!("/console/files{}", paths::encode(path))).into_response()
}

fn parent_url(path: &TreePath) -> String {
    format!("/console/files{}", paths::encode(&path.parent().unwrap_or_default()))
}
