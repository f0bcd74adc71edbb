//! The folders in a folder, for the script that picks one in a tree.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::Uri;
use serde::Serialize;

use super::super::fault::{Result, on_tree};
use super::super::guard::Caller;
use super::super::place;
use super::folder::{Block, From};
use crate::domain::TreePath;

/// How many entries are looked at; who has more types the path.
const MOST: usize = 500;

#[derive(Serialize)]
struct Folder {
    /// What it is called.
    name: String,
    /// What a form takes for it; none where its path is no text.
    path: Option<String>,
    /// Where the folders in it are asked for.
    below: String,
    /// What may be done there.
    permission: String,
}

#[derive(Serialize)]
struct Answer {
    folders: Vec<Folder>,
    more: bool,
}

/// Answers with the folders in a folder that the caller may see.
pub(in super::super) async fn answer(caller: Caller, uri: Uri) -> Result<Response> {
    let path = place::of(&uri)?;
    let view = caller.view();
    on_tree(view, move |view| {
        let block = Block::of(view.list(&path, true)?, &From::Start, "", MOST)?;
        let folders = block.entries.iter().filter(|entry| entry.is_directory());
        let folders = folders.filter_map(|entry| {
            let name = entry.valid_name()?;
            Some(folder(&path.child(&name), name.to_string(), entry.permission.to_string()))
        });
        Ok(Json(Answer { folders: folders.collect(), more: block.later }).into_response())
    })
    .await
}

fn folder(path: &TreePath, name: String, permission: String) -> Folder {
    Folder {
        name,
        path: std::str::from_utf8(path.as_bytes()).ok().map(|text| format!("/{text}")),
        below: format!("/console/folders{}", place::encode(path)),
        permission,
    }
}
