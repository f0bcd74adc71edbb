//! Uploads: one file in a PUT request of the page's script, or several in a multipart form.
//!
//! Either way each file is staged, appears whole or not at all, and replaces an existing one only if `replace` is set.

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

/// Number of bytes that are written to a file at once.
const WRITE_BLOCK_BYTES: usize = 256 * 1024;
/// Maximum size of the value of a form field that is not a file.
const FIELD_VALUE_BYTES: usize = 1024;
/// Maximum number of files in one form.
const MAX_FILES_PER_FORM: usize = 1000;

/// Query parameters of an upload by script.
#[derive(Deserialize)]
pub(super) struct UploadQuery {
    replace: Option<String>,
}

/// A source of file content.
trait ChunkSource {
    /// Returns the next chunk; `None` at the end.
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

/// A file to be created.
struct UploadTarget {
    path: TreePath,
    content_length: Option<u64>,
    replace: bool,
}

/// The outcome for one file of a form.
struct UploadResultRow {
    name: String,
    /// The reason for a failure; `None` if the file was uploaded.
    error: Option<String>,
}

/// The outcome for the files of a form.
#[derive(Default)]
struct UploadResults {
    rows: Vec<UploadResultRow>,
    /// The status of the first failure; `None` if every file was uploaded.
    status: Option<StatusCode>,
    /// The reason why no further files of the form were received, if any.
    stop_reason: Option<String>,
}

#[derive(Template)]
#[template(path = "uploaded.html")]
struct UploadResultPage {
    frame: PageFrame,
    results: UploadResults,
    directory_url: String,
}

/// Receives one file from the page's script.
pub(super) async fn put(
    uri: Uri,
    Query(params): Query<UploadQuery>,
    headers: HeaderMap,
    // A `Result`, so that this handler owns the body when the caller is refused: a failed extractor drops it unread,
    // and a browser then reports a reset connection instead of the error page.
    caller: Result<ScriptRequest>,
    mut body: Body,
) -> Result<StatusCode> {
    let content_length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let result = async {
        let ScriptRequest(caller) = caller?;
        let target = UploadTarget { path: paths::from_uri(&uri)?, content_length, replace: params.replace.is_some() };
        until_session_ends(&caller, receive_file(&caller, target, &mut body)).await
    };
    result.await.map(|()| StatusCode::CREATED)
}

/// Receives the files of a form, whose first field is the CSRF token.
pub(super) async fn post(uri: Uri, State(state): State<Arc<ConsoleState>>, request: Request) -> Result<Response> {
    // The body is kept until the end for the same reason as in `put`.
    let (mut parts, body) = request.into_parts();
    let (caller, boundary) = authenticate_form(&mut parts, &state).await?;
    receive_form(&caller, &uri, &mut MultipartForm::new(&boundary, body)).await
}

/// Authenticates the sender of a multipart form, and returns the boundary of its parts as well.
async fn authenticate_form(parts: &mut Parts, state: &Arc<ConsoleState>) -> Result<(ConsoleCaller, String)> {
    require_same_origin(&parts.extensions, &parts.headers)?;
    let caller = ConsoleCaller::from_request_parts(parts, state).await?;
    Ok((caller, MultipartForm::boundary_from_headers(&parts.headers)?))
}

async fn receive_form(caller: &ConsoleCaller, uri: &Uri, form: &mut MultipartForm) -> Result<Response> {
    // The CSRF token must precede all files, so that nothing of a forged request is written.
    let first = form.next_part().await?.filter(|part| part.field_name == "csrf").ok_or(ConsoleError::CrossSite)?;
    if first.file_name.is_some() || !caller.browser_session.is_csrf_token(&form.read_text(FIELD_VALUE_BYTES).await?) {
        return Err(ConsoleError::CrossSite);
    }
    let directory = paths::from_uri(uri)?;
    let directory_url = format!("/console/files{}", paths::encode(&directory));
    let results = until_session_ends(caller, receive_files(caller, &directory, form)).await?;
    match results.status {
        None if results.rows.is_empty() => Err(ConsoleError::InvalidForm("Choose a file first.".to_owned())),
        None => Ok(Redirect::to(&directory_url).into_response()),
        Some(status) => render_page(
            status,
            &UploadResultPage { frame: PageFrame::new(caller, layout::ConsoleSection::Files), results, directory_url },
        ),
    }
}

/// Receives the files of a form one after the other. An error that concerns all that comes after it ends the upload;
/// the outcome of the files before it is not lost.
async fn receive_files(
    caller: &ConsoleCaller,
    directory: &TreePath,
    form: &mut MultipartForm,
) -> Result<UploadResults> {
    let (mut results, mut replace) = (UploadResults::default(), false);
    loop {
        match receive_part(caller, directory, form, &mut replace, &mut results).await {
            Ok(true) => {}
            Ok(false) => return Ok(results),
            // The error page says all. Without a session there can be no other one.
            Err(error) if results.rows.is_empty() => return Err(error),
            Err(error @ ConsoleError::Tree(tree::Error::SessionEnded(_))) => return Err(error),
            Err(error) => {
                // The status of a page that lists the files is an answer to the user: the log needs the details.
                if error.status() == StatusCode::INTERNAL_SERVER_ERROR {
                    tracing::error!(%error, "an upload by a form of the console failed");
                }
                results.status = results.status.or(Some(error.status()));
                results.stop_reason = Some(error.public_message());
                return Ok(results);
            }
        }
    }
}

/// Receives the next part of a form. Returns whether there was one.
///
/// # Errors
/// Any that concerns the parts after it, too.
async fn receive_part(
    caller: &ConsoleCaller,
    directory: &TreePath,
    form: &mut MultipartForm,
    replace: &mut bool,
    results: &mut UploadResults,
) -> Result<bool> {
    let Some(MultipartPart { field_name, file_name }) = form.next_part().await? else { return Ok(false) };
    match file_name {
        // Applies to the files that follow it: the form sends the checkbox first.
        None if field_name == "replace" => *replace = !form.read_text(FIELD_VALUE_BYTES).await?.is_empty(),
        Some(file_name) if field_name == "file" && !file_name.is_empty() => {
            if results.rows.len() == MAX_FILES_PER_FORM {
                return Err(ConsoleError::InvalidForm(format!("A form may hold at most {MAX_FILES_PER_FORM} files.")));
            }
            let result = match parse_name(&file_name) {
                Ok(name) => {
                    let target = UploadTarget { path: directory.child(&name), content_length: None, replace: *replace };
                    receive_file(caller, target, form).await
                }
                Err(error) => Err(error),
            };
            // What failed inside the server, or with the session, concerns what comes after it, too.
            let error = match result {
                Err(error) if error.status().is_server_error() => return Err(error),
                Err(error @ ConsoleError::Tree(tree::Error::SessionEnded(_))) => return Err(error),
                other => other.err(),
            };
            results.status = results.status.or(error.as_ref().map(ConsoleError::status));
            let error = error.as_ref().map(ConsoleError::public_message);
            results.rows.push(UploadResultRow { name: file_name, error });
        }
        Some(_) | None => {}
    }
    Ok(true)
}

/// Receives one file, which appears whole or not at all.
async fn receive_file(caller: &ConsoleCaller, target: UploadTarget, source: &mut impl ChunkSource) -> Result<()> {
    let UploadTarget { path, content_length, replace } = target;
    let view = caller.view();
    let (upload, path) = {
        let view = view.clone();
        run_blocking(move || {
            let path = view.existing_spelling(&TreePath::root(), &path);
            // No work permit is held: bodies arrive as slowly as clients like, and would block other work of the user.
            let upload = with_overwrite_check(&view, &path, replace, |conditions| {
                view.stage(&path, content_length, conditions)
            })?;
            Ok((upload, path))
        })
        .await?
    };
    let upload = write_content(caller, source, upload).await?;
    run_blocking(move || {
        Ok(with_overwrite_check(&view, &path, replace, |conditions| upload.commit(conditions).map(drop))?)
    })
    .await
}

/// Runs an operation under the condition that an existing file is replaced only if `replace` is set.
fn with_overwrite_check<T>(
    view: &View,
    path: &TreePath,
    replace: bool,
    operation: impl FnOnce(&WriteConditions<'_>) -> tree::Result<T>,
) -> tree::Result<T> {
    let check_overwrite = || match view.stat(path) {
        Ok(_) if !replace => Err(tree::Error::AlreadyExists),
        _ => Ok(()),
    };
    // Checked here for an early refusal, and by `evaluate` again under the lock of the name at the commit: another
    // client may have created the file while this one was received.
    check_overwrite()?;
    operation(&WriteConditions { lock_tokens: &[], evaluate: &check_overwrite })
}

/// Runs an upload until the session ends; an upload that has not been committed by then is discarded.
async fn until_session_ends<T>(caller: &ConsoleCaller, operation: impl Future<Output = Result<T>>) -> Result<T> {
    let session = caller.session().clone();
    tokio::select! {
        result = operation => result,
        () = session.closed() => Err(tree::Error::SessionEnded(SessionEnded).into()),
    }
}

/// Copies a source into a staged upload, block by block.
async fn write_content(
    caller: &ConsoleCaller,
    source: &mut impl ChunkSource,
    mut upload: StagedUpload,
) -> Result<StagedUpload> {
    let mut written = 0u64;
    loop {
        let (mut block, mut is_last) = (Vec::new(), false);
        while block.len() < WRITE_BLOCK_BYTES && !is_last {
            match source.next_chunk().await? {
                None => is_last = true,
                Some(chunk) => block.extend_from_slice(&chunk),
            }
        }
        let block_length = block.len() as u64;
        let offset = written;
        upload = run_blocking(move || {
            upload.write_at(&block, offset)?;
            Ok(upload)
        })
        .await?;
        // A block transferred is a use, so that the sliding window of the token does not run out during a long upload.
        caller.session().record_use();
        written += block_length;
        if is_last {
            return Ok(upload);
        }
    }
}
