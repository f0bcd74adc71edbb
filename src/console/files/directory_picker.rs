//! The subfolders of a folder in JSON, for the script's folder picker.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde::Serialize;

use super::super::blocking::run_on_tree;
use super::super::error::Result;
use super::super::guard::ConsoleCaller;
use super::super::paths;
use super::entry_page::{EntryPage, PageStart};
use crate::domain::TreePath;

/// Maximum number of entries that are looked at; in a larger folder the user types the path.
const MAX_PICKER_ENTRIES: usize = 500;

#[derive(Serialize)]
struct PickerDirectory {
    /// Name of the folder.
    name: String,
    /// Value for a form field; `None` if the path is not UTF-8.
    path: Option<String>,
    /// URL that lists its subfolders.
    below: String,
    /// Permission of the caller there.
    permission: String,
}

#[derive(Serialize)]
struct PickerResponse {
    folders: Vec<PickerDirectory>,
    more: bool,
}

/// Lists the subfolders that the caller may see.
pub(in super::super) async fn list_directories(caller: ConsoleCaller, uri: Uri) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let view = caller.view();
    run_on_tree(view, move |view| {
        let page = EntryPage::from_listing(view.list(&path, true)?, &PageStart::Beginning, "", MAX_PICKER_ENTRIES)?;
        let folders = page.entries.iter().filter(|entry| entry.is_directory());
        let folders = folders.filter_map(|entry| {
            let name = entry.valid_name()?;
            Some(picker_directory(&path.child(&name), name.to_string(), entry.permission.to_string()))
        });
        Ok(Json(PickerResponse { folders: folders.collect(), more: page.has_next }).into_response())
    })
    .await
}

fn picker_directory(path: &TreePath, name: String, permission: String) -> PickerDirectory {
    PickerDirectory {
        name,
        path: std::str::from_utf8(path.as_bytes()).ok().map(|text| format!("/{text}")),
        below: format!("/console/folders{}", paths::encode(path)),
        permission,
    }
}
