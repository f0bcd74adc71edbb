//! Uploads: a file by itself from the page's script, or any number of them from a form.
//!
//! Either way each file is staged, appears whole or not at all, and replaces another only where that was asked for.

use std::sync::Arc;

use askama::Template;
use axum::body::Body;
use axum::extract::{FromRequestParts, Query, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, StatusCode, Uri, header};
use serde::Deserialize;

use super::ConsoleState;
use super::blocking::run_blocking;
use super::error::{ConsoleError, Result};
use super::files::parse_name;
use super::guard::{ConsoleCaller, ScriptRequest, require_same_origin};
use super::layout::{self, PageFrame, render_page};
use super::multipart::{MultipartForm, MultipartPart, read_body_chunk};
use super::paths;
use crate::auth::SessionEnded;
use crate::domain::TreePath;
use crate::tree::{self, StagedUpload, View, WriteConditions};

/// As much of a file as is written at once.
const WRITE_BLOCK_BYTES: usize = 256 * 1024;
/// The longest value of a field beside the files.
const FIELD_VALUE_BYTES: usize = 1024;
/// How many files a form may hold.
const MAX_FILES_PER_FORM: usize = 1000;

/// What the address of a file asks for.
#[derive(Deserialize)]
pub(super) struct UploadQuery {
    replace: Option<String>,
}

/// What a file comes from, piece by piece.
trait ChunkSource {
    /// Returns the next piece; `None` at the end.
    async fn next_chunk(&mut self) -> Result<Option<Bytes>>;
}

impl ChunkSource for Body {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        read_body_chunk(self).await
    }
}

impl ChunkSource for MultipartForm {
    async fn next_chunk(&mut self) -> Result<Option<Bytes>> {
        MultipartForm::read_chunk(self).await
    }
}

/// A file that is to be made.
struct UploadTarget {
    path: TreePath,
    content_length: Option<u64>,
    replace: bool,
}

/// What became of a file.
struct UploadResultRow {
    name: String,
    /// Why it was not taken; `None` where it was.
    fault: Option<String>,
}

#[derive(Template)]
#[template(path = "uploaded.html")]
struct UploadResultPage {
    frame: PageFrame,
    rows: Vec<UploadResultRow>,
    back: String,
}

/// Takes a file from the page's script.
pub(super) async fn put(
    uri: Uri,
    Query(asked): Query<UploadQuery>,
    headers: HeaderMap,
    caller: Result<ScriptRequest>,
    mut body: Body,
) -> Result<StatusCode> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let taken = async {
        let ScriptRequest(caller) = caller?;
        let target =
            UploadTarget { path: paths::from_uri(&uri)?, content_length: announced, replace: asked.replace.is_some() };
        until_session_ends(&caller, receive_file(&caller, target, &mut body)).await
    };
    taken.await.map(|()| StatusCode::CREATED)
}

/// Takes files from a form, which says who sent it before the first of them.
pub(super) async fn post(uri: Uri, State(shared): State<Arc<ConsoleState>>, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let (caller, boundary) = authenticate_form(&mut parts, &shared).await?;
    receive_form(&caller, &uri, &mut MultipartForm::new(&boundary, body)).await
}

/// Returns who sends a form with files, and what stands between its parts.
async fn authenticate_form(parts: &mut Parts, shared: &Arc<ConsoleState>) -> Result<(ConsoleCaller, String)> {
    require_same_origin(&parts.extensions, &parts.headers)?;
    let caller = ConsoleCaller::from_request_parts(parts, shared).await?;
    Ok((caller, MultipartForm::boundary_from_headers(&parts.headers)?))
}

async fn receive_form(caller: &ConsoleCaller, uri: &Uri, form: &mut MultipartForm) -> Result<Response> {
    let first = form.next_part().await?.filter(|part| part.field_name == "csrf").ok_or(ConsoleError::CrossSite)?;
    if first.file_name.is_some() || !caller.browser_session.is_csrf_token(&form.read_text(FIELD_VALUE_BYTES).await?) {
        return Err(ConsoleError::CrossSite);
    }
    let folder = paths::from_uri(uri)?;
    let back = format!("/console/files{}", paths::encode(&folder));
    let (rows, status) = until_session_ends(caller, receive_files(caller, &folder, form)).await?;
    match status {
        None if rows.is_empty() => Err(ConsoleError::InvalidForm("Choose a file first.".to_owned())),
        None => Ok(Redirect::to(&back).into_response()),
        Some(status) => render_page(
            status,
            &UploadResultPage { frame: PageFrame::new(caller, layout::ConsoleSection::Files), rows, back },
        ),
    }
}

/// Takes the files of a form one after the other; returns what became of each, and the status of the first refusal.
async fn receive_files(
    caller: &ConsoleCaller,
    folder: &TreePath,
    form: &mut MultipartForm,
) -> Result<(Vec<UploadResultRow>, Option<StatusCode>)> {
    let (mut rows, mut status, mut replace) = (Vec::new(), None, false);
    while let Some(MultipartPart { field_name: field, file_name: file }) = form.next_part().await? {
        match file {
            None if field == "replace" => replace = !form.read_text(FIELD_VALUE_BYTES).await?.is_empty(),
            Some(file) if field == "file" && !file.is_empty() => {
                if rows.len() == MAX_FILES_PER_FORM {
                    return Err(ConsoleError::InvalidForm(format!(
                        "A form takes {MAX_FILES_PER_FORM} files at most: the others were not looked at."
                    )));
                }
                let taken = match parse_name(&file) {
                    Ok(name) => {
                        let target = UploadTarget { path: folder.child(&name), content_length: None, replace };
                        receive_file(caller, target, form).await
                    }
                    Err(fault) => Err(fault),
                };
                // What failed inside the server, or with the session, concerns what comes after it, too.
                let fault = match taken {
                    Err(fault) if fault.status().is_server_error() => return Err(fault),
                    Err(fault @ ConsoleError::Tree(tree::Error::SessionEnded(_))) => return Err(fault),
                    other => other.err(),
                };
                status = status.or(fault.as_ref().map(ConsoleError::status));
                rows.push(UploadResultRow { name: file, fault: fault.as_ref().map(ConsoleError::public_message) });
            }
            Some(_) | None => {}
        }
    }
    Ok((rows, status))
}

/// Takes one file, which appears whole or not at all.
async fn receive_file(caller: &ConsoleCaller, target: UploadTarget, source: &mut impl ChunkSource) -> Result<()> {
    let UploadTarget { path, content_length: announced, replace } = target;
    let view = caller.view();
    let (begun, path) = {
        let view = view.clone();
        run_blocking(move || {
            let path = view.existing_spelling(&TreePath::root(), &path);
            let begun = with_overwrite_check(&view, &path, replace, |claim| view.stage(&path, announced, claim))?;
            Ok((begun, path))
        })
        .await?
    };
    let staged = write_content(caller, source, begun).await?;
    run_blocking(move || Ok(with_overwrite_check(&view, &path, replace, |claim| staged.commit(claim).map(drop))?)).await
}

/// Runs an operation under the condition that nothing is replaced that was not to be.
fn with_overwrite_check<T>(
    view: &View,
    path: &TreePath,
    replace: bool,
    work: impl FnOnce(&WriteConditions<'_>) -> tree::Result<T>,
) -> tree::Result<T> {
    let judge = || match view.stat(path) {
        Ok(_) if !replace => Err(tree::Error::AlreadyExists),
        _ => Ok(()),
    };
    judge()?;
    work(&WriteConditions { lock_tokens: &[], evaluate: &judge })
}

/// Works as long as the session lives; what was not committed by its end is discarded.
async fn until_session_ends<T>(caller: &ConsoleCaller, work: impl Future<Output = Result<T>>) -> Result<T> {
    let session = caller.session().clone();
    tokio::select! {
        done = work => done,
        () = session.closed() => Err(tree::Error::SessionEnded(SessionEnded).into()),
    }
}

/// Receives a file into an upload, block by block.
async fn write_content(
    caller: &ConsoleCaller,
    source: &mut impl ChunkSource,
    mut upload: StagedUpload,
) -> Result<StagedUpload> {
    let mut written = 0u64;
    loop {
        let (mut block, mut last) = (Vec::new(), false);
        while block.len() < WRITE_BLOCK_BYTES && !last {
            match source.next_chunk().await? {
                None => last = true,
                Some(piece) => block.extend_from_slice(&piece),
            }
        }
        let length = block.len() as u64;
        let at = written;
        upload = run_blocking(move || {
            upload.write_at(&block, at)?;
            Ok(upload)
        })
        .await?;
        caller.session().record_use();
        written += length;
        if last {
            return Ok(upload);
        }
    }
}
