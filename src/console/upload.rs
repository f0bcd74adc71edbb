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

use super::Shared;
use super::fault::{Fault, Result, blocking};
use super::files::name;
use super::guard::{Caller, Scripted, at_home};
use super::multipart::{Multipart, Part, piece};
use super::page::{self, Frame, render};
use super::place;
use crate::auth::SessionEnded;
use crate::domain::TreePath;
use crate::tree::{self, StagedUpload, View, WriteConditions};

/// As much of a file as is written at once.
const BLOCK: usize = 256 * 1024;
/// The longest value of a field beside the files.
const FIELD: usize = 1024;
/// How many files a form may hold.
const FILES: usize = 1000;

/// What the address of a file asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    replace: Option<String>,
}

/// What a file comes from, piece by piece.
trait Source {
    /// Returns the next piece; `None` at the end.
    async fn piece(&mut self) -> Result<Option<Bytes>>;
}

impl Source for Body {
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        piece(self).await
    }
}

impl Source for Multipart {
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        Multipart::piece(self).await
    }
}

/// A file that is to be made.
struct Target {
    path: TreePath,
    announced: Option<u64>,
    replace: bool,
}

/// What became of a file.
struct Row {
    name: String,
    /// Why it was not taken; `None` where it was.
    fault: Option<String>,
}

#[derive(Template)]
#[template(path = "uploaded.html")]
struct Page {
    frame: Frame,
    rows: Vec<Row>,
    back: String,
}

/// Takes a file from the page's script.
pub(super) async fn put(
    uri: Uri,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
    caller: Result<Scripted>,
    mut body: Body,
) -> Result<StatusCode> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let taken = async {
        let Scripted(caller) = caller?;
        let target = Target { path: place::of(&uri)?, announced, replace: asked.replace.is_some() };
        alive(&caller, take(&caller, target, &mut body)).await
    };
    taken.await.map(|()| StatusCode::CREATED)
}

/// Takes files from a form, which says who sent it before the first of them.
pub(super) async fn post(uri: Uri, State(shared): State<Arc<Shared>>, request: Request) -> Result<Response> {
    let (mut parts, body) = request.into_parts();
    let (caller, boundary) = sender(&mut parts, &shared).await?;
    answer(&caller, &uri, &mut Multipart::new(&boundary, body)).await
}

/// Returns who sends a form with files, and what stands between its parts.
async fn sender(parts: &mut Parts, shared: &Arc<Shared>) -> Result<(Caller, String)> {
    at_home(&parts.extensions, &parts.headers)?;
    let caller = Caller::from_request_parts(parts, shared).await?;
    Ok((caller, Multipart::boundary(&parts.headers)?))
}

async fn answer(caller: &Caller, uri: &Uri, form: &mut Multipart) -> Result<Response> {
    let first = form.part().await?.filter(|part| part.name == "csrf").ok_or(Fault::Foreign)?;
    if first.file.is_some() || !caller.visit.fits(&form.text(FIELD).await?) {
        return Err(Fault::Foreign);
    }
    let folder = place::of(uri)?;
    let back = format!("/console/files{}", place::encode(&folder));
    let (rows, status) = alive(caller, files(caller, &folder, form)).await?;
    match status {
        None if rows.is_empty() => Err(Fault::Form("Choose a file first.".to_owned())),
        None => Ok(Redirect::to(&back).into_response()),
        Some(status) => render(status, &Page { frame: Frame::new(caller, page::Part::Files), rows, back }),
    }
}

/// Takes the files of a form one after the other; returns what became of each, and the status of the first refusal.
async fn files(caller: &Caller, folder: &TreePath, form: &mut Multipart) -> Result<(Vec<Row>, Option<StatusCode>)> {
    let (mut rows, mut status, mut replace) = (Vec::new(), None, false);
    while let Some(Part { name: field, file }) = form.part().await? {
        match file {
            None if field == "replace" => replace = !form.text(FIELD).await?.is_empty(),
            Some(file) if field == "file" && !file.is_empty() => {
                if rows.len() == FILES {
                    return Err(Fault::Form(format!(
                        "A form takes {FILES} files at most: the others were not looked at."
                    )));
                }
                let taken = match name(&file) {
                    Ok(name) => {
                        let target = Target { path: folder.child(&name), announced: None, replace };
                        take(caller, target, form).await
                    }
                    Err(fault) => Err(fault),
                };
                // What failed inside the server, or with the session, concerns what comes after it, too.
                let fault = match taken {
                    Err(fault) if fault.status().is_server_error() => return Err(fault),
                    Err(fault @ Fault::Tree(tree::Error::SessionEnded(_))) => return Err(fault),
                    other => other.err(),
                };
                status = status.or(fault.as_ref().map(Fault::status));
                rows.push(Row { name: file, fault: fault.as_ref().map(Fault::told) });
            }
            Some(_) | None => {}
        }
    }
    Ok((rows, status))
}

/// Takes one file, which appears whole or not at all.
async fn take(caller: &Caller, target: Target, source: &mut impl Source) -> Result<()> {
    let Target { path, announced, replace } = target;
    let view = caller.view();
    let (begun, path) = {
        let view = view.clone();
        blocking(move || {
            let path = view.existing_spelling(&TreePath::root(), &path);
            let begun = claiming(&view, &path, replace, |claim| view.stage(&path, announced, claim))?;
            Ok((begun, path))
        })
        .await?
    };
    let staged = receive(caller, source, begun).await?;
    blocking(move || Ok(claiming(&view, &path, replace, |claim| staged.commit(claim).map(drop))?)).await
}

/// Runs an operation under the condition that nothing is replaced that was not to be.
fn claiming<T>(
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
async fn alive<T>(caller: &Caller, work: impl Future<Output = Result<T>>) -> Result<T> {
    let session = caller.session().clone();
    tokio::select! {
        done = work => done,
        () = session.closed() => Err(tree::Error::SessionEnded(SessionEnded).into()),
    }
}

/// Receives a file into an upload, block by block.
async fn receive(caller: &Caller, source: &mut impl Source, mut upload: StagedUpload) -> Result<StagedUpload> {
    let mut written = 0u64;
    loop {
        let (mut block, mut last) = (Vec::new(), false);
        while block.len() < BLOCK && !last {
            match source.piece().await? {
                None => last = true,
                Some(piece) => block.extend_from_slice(&piece),
            }
        }
        let length = block.len() as u64;
        let at = written;
        upload = blocking(move || {
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
