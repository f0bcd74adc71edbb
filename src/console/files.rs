//! Files: a folder page by page, and a file with its preview.

pub(super) mod directory_picker;
mod edit;
mod entry_page;

use std::fmt::Write;

use askama::Template;
use axum::extract::Query;
use axum::response::Response;
use http::{StatusCode, Uri};
use serde::Deserialize;

pub(super) use edit::{confirm_delete, create_directory, delete, rename, rename_form};

use super::blocking::run_on_tree;
use super::content::{self, PreviewKind};
use super::error::{ConsoleError, Result};
use super::format::{DisplaySize, DisplayTime, format_grouped};
use super::guard::ConsoleCaller;
use super::layout::{ConsoleSection, PageFrame, render_page};
use super::paths;
use crate::domain::{Permission, TreePath, UnixMillis};
use crate::tree::{self, Entry, View};

use entry_page::{EntryPage, PageStart};

/// Number of entries on a page.
const ENTRIES_PER_PAGE: usize = 200;
/// Number of bytes of a text that its preview shows.
const PREVIEW_TEXT_BYTES: usize = 64 * 1024;

/// Query parameters of a folder's URL.
#[derive(Deserialize)]
pub(super) struct DirectoryQuery {
    after: Option<String>,
    before: Option<String>,
    find: Option<String>,
}

/// An ancestor of the entry that is shown, or the entry itself.
struct PathBreadcrumb {
    name: String,
    href: String,
}

/// A directory entry as the page shows it.
struct DirectoryEntryRow {
    name: String,
    href: String,
    is_directory: bool,
    is_image: bool,
    size: String,
    modified: Option<DisplayTime>,
    permission: Permission,
    rename: Option<String>,
    delete: Option<String>,
}

#[derive(Template)]
#[template(path = "directory.html")]
struct DirectoryPage {
    frame: PageFrame,
    title: String,
    crumbs: Vec<PathBreadcrumb>,
    url_path: String,
    permission: Permission,
    rows: Vec<DirectoryEntryRow>,
    count: String,
    find: String,
    previous_page: Option<String>,
    next_page: Option<String>,
    writable: bool,
}

#[derive(Template)]
#[template(path = "file.html")]
struct FilePage {
    frame: PageFrame,
    title: String,
    crumbs: Vec<PathBreadcrumb>,
    url_path: String,
    size: String,
    bytes: String,
    modified: DisplayTime,
    kind: &'static str,
    permission: Permission,
    is_image: bool,
    text: Option<String>,
    truncated: bool,
    is_removable: bool,
}

/// Shows a folder or a file.
pub(super) async fn show(caller: ConsoleCaller, Query(params): Query<DirectoryQuery>, uri: Uri) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let frame = PageFrame::new(&caller, ConsoleSection::Files);
    let (view, now) = (caller.view(), caller.state.auth.now());
    run_on_tree(view, move |view| {
        let entry = view.stat(&path)?;
        if entry.is_directory() {
            render_page(StatusCode::OK, &directory_page(frame, view, &path, &entry, &params, now)?)
        } else {
            render_page(StatusCode::OK, &file_page(frame, view, &path, &entry, now)?)
        }
    })
    .await
}

fn directory_page(
    frame: PageFrame,
    view: &View,
    path: &TreePath,
    entry: &Entry,
    params: &DirectoryQuery,
    now: UnixMillis,
) -> Result<DirectoryPage> {
    let start = match (&params.after, &params.before) {
        (Some(after), _) => PageStart::After(entry_page::parse_cursor(after)?),
        (None, Some(before)) => PageStart::Before(entry_page::parse_cursor(before)?),
        (None, None) => PageStart::Beginning,
    };
    let find = params.find.as_deref().unwrap_or_default().trim().to_owned();
    let page = EntryPage::from_listing(view.list(path, true)?, &start, &find, ENTRIES_PER_PAGE)?;
    let base_url = format!("/console/files{}", paths::encode(path));
    let find_param =
        if find.is_empty() { String::new() } else { format!("&find={}", paths::encode_query(find.as_bytes())) };
    let page_url = |name: &str, entry: Option<&Entry>| {
        entry.map(|entry| {
            format!("{base_url}?{name}={}{find_param}", paths::encode_query(entry_page::write_cursor(entry).as_bytes()))
        })
    };
    let writable = entry.permission.allows(Permission::W);
    Ok(DirectoryPage {
        frame,
        title: page_title(path),
        crumbs: breadcrumbs(path),
        url_path: paths::encode(path),
        permission: entry.permission,
        count: format_grouped(page.total),
        previous_page: page_url("before", page.entries.first().filter(|_| page.has_previous)),
        next_page: page_url("after", page.entries.last().filter(|_| page.has_next)),
        rows: page.entries.iter().filter_map(|entry| entry_row(path, entry, writable, now)).collect(),
        find,
        writable,
    })
}

fn entry_row(parent: &TreePath, entry: &Entry, writable: bool, now: UnixMillis) -> Option<DirectoryEntryRow> {
    let name = entry.valid_name()?;
    let url_path = paths::encode(&parent.child(&name));
    // A directory that is only on the way to a permitted one has constant metadata: its time would be meaningless.
    let is_accessible = entry.permission != Permission::NONE;
    Some(DirectoryEntryRow {
        name: name.to_string(),
        href: format!("/console/files{url_path}"),
        is_directory: entry.is_directory(),
        is_image: content::preview_kind(name.as_bytes()) == PreviewKind::Image,
        size: if entry.is_directory() { String::new() } else { DisplaySize(entry.size).to_string() },
        modified: is_accessible.then(|| DisplayTime::from_file_time(entry.modified, now)),
        permission: entry.permission,
        rename: writable.then(|| format!("/console/rename{url_path}")),
        delete: writable.then(|| format!("/console/delete{url_path}")),
    })
}

fn file_page(frame: PageFrame, view: &View, path: &TreePath, entry: &Entry, now: UnixMillis) -> Result<FilePage> {
    let preview = content::preview_kind(&entry.name);
    let readable = entry.permission.allows(Permission::R);
    let (text, truncated) = match preview {
        PreviewKind::Image => (None, false),
        PreviewKind::Text | PreviewKind::Other if readable => text_preview(view, path, preview)?,
        PreviewKind::Text | PreviewKind::Other => (None, false),
    };
    let parent = path.parent().unwrap_or_default();
    Ok(FilePage {
        frame,
        title: page_title(path),
        crumbs: breadcrumbs(path),
        url_path: paths::encode(path),
        size: DisplaySize(entry.size).to_string(),
        bytes: format_grouped(usize::try_from(entry.size).unwrap_or(usize::MAX)),
        modified: DisplayTime::from_file_time(entry.modified, now),
        kind: content::media_type(&entry.name),
        permission: entry.permission,
        is_image: readable && preview == PreviewKind::Image,
        text,
        truncated,
        is_removable: view.stat(&parent).is_ok_and(|parent| parent.permission.allows(Permission::W)),
    })
}

/// Reads the beginning of a file that may be text. Returns the text, if it is one, and whether it is truncated.
fn text_preview(view: &View, path: &TreePath, preview: PreviewKind) -> Result<(Option<String>, bool)> {
    let reader = match view.read(path) {
        Err(tree::Error::Forbidden | tree::Error::RefusedByHost(_)) => return Ok((None, false)),
        other => other?,
    };
    let mut buffer = vec![0; PREVIEW_TEXT_BYTES];
    let count = reader.read_at(&mut buffer, 0)?;
    buffer.truncate(count);
    let truncated = reader.entry().size > count as u64;
    // NUL bytes mark binary content, whatever the name says.
    if buffer.contains(&0) {
        return Ok((None, false));
    }
    let text = match std::str::from_utf8(&buffer) {
        Ok(text) => text.to_owned(),
        // Truncation may have split the last character.
        Err(error) if truncated && buffer.len() - error.valid_up_to() < 4 => {
            String::from_utf8_lossy(&buffer[..error.valid_up_to()]).into_owned()
        }
        // By its name it is text, so it is in another encoding: replacement characters are better than no preview.
        Err(_) if preview == PreviewKind::Text => String::from_utf8_lossy(&buffer).into_owned(),
        Err(_) => return Ok((None, false)),
    };
    Ok((Some(escape_control_characters(&text)), truncated))
}

/// Escapes control characters, and those that change the direction of writing.
fn escape_control_characters(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        let is_bidi_control = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if (c.is_control() && !matches!(c, '\n' | '\r' | '\t')) || is_bidi_control {
            // Writing to a string does not fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

fn page_title(path: &TreePath) -> String {
    path.name().map_or_else(|| "Files".to_owned(), |name| name.to_string())
}

/// Returns the ancestors of a path from the root on, and the path itself.
fn breadcrumbs(path: &TreePath) -> Vec<PathBreadcrumb> {
    let mut ancestor = TreePath::root();
    let mut crumbs = vec![PathBreadcrumb { name: "Files".to_owned(), href: "/console/files".to_owned() }];
    for name in path.names() {
        ancestor = ancestor.child(&name);
        crumbs.push(PathBreadcrumb {
            name: name.to_string(),
            href: format!("/console/files{}", paths::encode(&ancestor)),
        });
    }
    crumbs
}

/// Parses the name of an entry from a form.
///
/// # Errors
/// [`ConsoleError::InvalidForm`].
pub(super) fn parse_name(text: &str) -> Result<crate::domain::EntryName> {
    crate::domain::EntryName::new(text.as_bytes())
        .map_err(|why| ConsoleError::InvalidForm(format!("This name can’t be used: {why}.")))
}
