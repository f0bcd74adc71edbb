//! Files: a folder page by page, a file with its preview, and what can be done with either.

mod change;
mod folder;
pub(super) mod picker;

use std::fmt::Write;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Deserialize;

pub(super) use change::{ask_delete, ask_rename, delete, make_folder, rename};

use super::content::{self, Look};
use super::fault::{Fault, Result, on_tree};
use super::guard::Caller;
use super::page::{Frame, Part, render};
use super::place;
use super::words::{Moment, Size, grouped};
use crate::domain::{Permission, TreePath, UnixMillis};
use crate::tree::{self, Entry, View};

use folder::{Block, From};

/// Entries on a page.
const PAGE: usize = 200;
/// As much of a text as a page shows.
const TEXT: usize = 64 * 1024;

/// What the address of a folder asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    after: Option<String>,
    before: Option<String>,
    find: Option<String>,
}

/// A step of the way to a folder or file.
struct Crumb {
    name: String,
    href: String,
}

/// An entry as the page shows it.
struct Row {
    name: String,
    href: String,
    folder: bool,
    picture: bool,
    size: String,
    changed: Option<Moment>,
    permission: Permission,
    rename: Option<String>,
    delete: Option<String>,
}

#[derive(Template)]
#[template(path = "folder.html")]
struct FolderPage {
    frame: Frame,
    title: String,
    crumbs: Vec<Crumb>,
    place: String,
    permission: Permission,
    rows: Vec<Row>,
    count: String,
    find: String,
    previous: Option<String>,
    next: Option<String>,
    changes: bool,
}

#[derive(Template)]
#[template(path = "file.html")]
struct FilePage {
    frame: Frame,
    title: String,
    crumbs: Vec<Crumb>,
    place: String,
    size: String,
    bytes: String,
    changed: Moment,
    kind: &'static str,
    permission: Permission,
    picture: bool,
    text: Option<String>,
    cut: bool,
    removable: bool,
}

/// Shows a folder or a file.
pub(super) async fn show(caller: Caller, Query(asked): Query<Asked>, uri: Uri) -> Result<Response> {
    let path = place::of(&uri)?;
    let frame = Frame::new(&caller, Part::Files);
    let (view, now) = (caller.view(), caller.shared.auth.now());
    on_tree(view, move |view| {
        let entry = view.stat(&path)?;
        if entry.is_directory() {
            render(StatusCode::OK, &folder_page(frame, view, &path, &entry, &asked, now)?)
        } else {
            render(StatusCode::OK, &file_page(frame, view, &path, &entry, now)?)
        }
    })
    .await
}

fn folder_page(
    frame: Frame,
    view: &View,
    path: &TreePath,
    entry: &Entry,
    asked: &Asked,
    now: UnixMillis,
) -> Result<FolderPage> {
    let from = match (&asked.after, &asked.before) {
        (Some(after), _) => From::After(folder::key_of(after)?),
        (None, Some(before)) => From::Before(folder::key_of(before)?),
        (None, None) => From::Start,
    };
    let find = asked.find.as_deref().unwrap_or_default().trim().to_owned();
    let block = Block::of(view.list(path, true)?, &from, &find, PAGE)?;
    let base = format!("/console/files{}", place::encode(path));
    let sought = if find.is_empty() { String::new() } else { format!("&find={}", place::query(find.as_bytes())) };
    let turn = |name: &str, entry: Option<&Entry>| {
        entry.map(|entry| format!("{base}?{name}={}{sought}", place::query(folder::cursor(entry).as_bytes())))
    };
    let changes = entry.permission.allows(Permission::W);
    Ok(FolderPage {
        frame,
        title: title(path),
        crumbs: crumbs(path),
        place: place::encode(path),
        permission: entry.permission,
        count: grouped(block.count),
        previous: turn("before", block.entries.first().filter(|_| block.earlier)),
        next: turn("after", block.entries.last().filter(|_| block.later)),
        rows: block.entries.iter().filter_map(|entry| row(path, entry, changes, now)).collect(),
        find,
        changes,
    })
}

fn row(folder: &TreePath, entry: &Entry, changes: bool, now: UnixMillis) -> Option<Row> {
    let name = entry.valid_name()?;
    let at = place::encode(&folder.child(&name));
    let known = entry.permission != Permission::NONE;
    Some(Row {
        name: name.to_string(),
        href: format!("/console/files{at}"),
        folder: entry.is_directory(),
        picture: content::look(name.as_bytes()) == Look::Picture,
        size: if entry.is_directory() { String::new() } else { Size(entry.size).to_string() },
        changed: known.then(|| Moment::of_file(entry.modified, now)),
        permission: entry.permission,
        rename: changes.then(|| format!("/console/rename{at}")),
        delete: changes.then(|| format!("/console/delete{at}")),
    })
}

fn file_page(frame: Frame, view: &View, path: &TreePath, entry: &Entry, now: UnixMillis) -> Result<FilePage> {
    let look = content::look(&entry.name);
    let readable = entry.permission.allows(Permission::R);
    let (text, cut) = match look {
        Look::Picture => (None, false),
        Look::Text | Look::Other if readable => beginning(view, path, look)?,
        Look::Text | Look::Other => (None, false),
    };
    let parent = path.parent().unwrap_or_default();
    Ok(FilePage {
        frame,
        title: title(path),
        crumbs: crumbs(path),
        place: place::encode(path),
        size: Size(entry.size).to_string(),
        bytes: grouped(usize::try_from(entry.size).unwrap_or(usize::MAX)),
        changed: Moment::of_file(entry.modified, now),
        kind: content::kind(&entry.name),
        permission: entry.permission,
        picture: readable && look == Look::Picture,
        text,
        cut,
        removable: view.stat(&parent).is_ok_and(|folder| folder.permission.allows(Permission::W)),
    })
}

/// Reads the beginning of a file that may be text; tells whether there is more of it.
fn beginning(view: &View, path: &TreePath, look: Look) -> Result<(Option<String>, bool)> {
    let reader = match view.read(path) {
        Err(tree::Error::Forbidden) => return Ok((None, false)),
        other => other?,
    };
    let mut buffer = vec![0; TEXT];
    let count = reader.read_at(&mut buffer, 0)?;
    buffer.truncate(count);
    let cut = reader.entry().size > count as u64;
    if buffer.contains(&0) {
        return Ok((None, false));
    }
    let text = match std::str::from_utf8(&buffer) {
        Ok(text) => text.to_owned(),
        // The cut may have gone through a character.
        Err(error) if cut && buffer.len() - error.valid_up_to() < 4 => {
            String::from_utf8_lossy(&buffer[..error.valid_up_to()]).into_owned()
        }
        Err(_) if look == Look::Text => String::from_utf8_lossy(&buffer).into_owned(),
        Err(_) => return Ok((None, false)),
    };
    Ok((Some(visible(&text)), cut))
}

/// Shows control characters, and those that turn the direction of writing, as escapes.
fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || turns {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn title(path: &TreePath) -> String {
    path.name().map_or_else(|| "Files".to_owned(), |name| name.to_string())
}

/// Returns the way to a path, from the root to itself.
fn crumbs(path: &TreePath) -> Vec<Crumb> {
    let mut at = TreePath::root();
    let mut crumbs = vec![Crumb { name: "Files".to_owned(), href: "/console/files".to_owned() }];
    for name in path.names() {
        at = at.child(&name);
        crumbs.push(Crumb { name: name.to_string(), href: format!("/console/files{}", place::encode(&at)) });
    }
    crumbs
}

/// Refuses to rename, remove or make what can't be named.
///
/// # Errors
/// [`Fault::Form`].
pub(super) fn name(text: &str) -> Result<crate::domain::EntryName> {
    crate::domain::EntryName::new(text.as_bytes())
        .map_err(|why| Fault::Form(format!("This name can’t be used: {why}.")))
}
