//! The bytes of files: shown in a page, downloaded.
//!
//! Whatever is stored, nothing of it runs: pictures and text alone are named as what they are, all under
//! `Content-Security-Policy: sandbox`, and everything else is a download.

use axum::body::Body;
use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde::Deserialize;

use super::fault::{Fault, Result, blocking};
use super::guard::Caller;
use super::place;
use crate::domain::TreePath;
use crate::http::{AuthenticatedSession, BlockProducer, BodyError, streamed_body};
use crate::tree::{self, FileReader, View};

/// As much of a file as is read at once.
const BLOCK: usize = 256 * 1024;
/// What a stored file may do in a browser: nothing.
const SANDBOX: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// How a file can be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// As a picture.
    Picture,
    /// As text.
    Text,
    /// By its name, not at all.
    Other,
}

/// Tells how a file of this name can be looked at.
pub(super) fn look(name: &[u8]) -> Look {
    match kind(name) {
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif" | "image/bmp" | "image/x-icon"
        | "image/svg+xml" => Look::Picture,
        kind if kind.starts_with("text/") => Look::Text,
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/toml"
        | "application/x-sh"
        | "application/sql" => Look::Text,
        _ => Look::Other,
    }
}

/// Returns the media type that a name stands for.
pub(super) fn kind(name: &[u8]) -> &'static str {
    let extension = memchr::memrchr(b'.', name).and_then(|dot| std::str::from_utf8(&name[dot + 1..]).ok());
    let guess = extension.and_then(|extension| mime_guess::from_ext(extension).first_raw());
    guess.unwrap_or("application/octet-stream")
}

/// What the address of a file asks for.
#[derive(Deserialize)]
pub(super) struct Asked {
    download: Option<String>,
}

/// Sends a file: a picture or text to be looked at, anything else (and what is asked for so) to be kept.
pub(super) async fn get(uri: Uri, Query(asked): Query<Asked>, caller: Caller) -> Result<Response> {
    let path = place::of(&uri)?;
    let view = caller.view();
    let session = caller.session().clone();
    let name = path.name().ok_or(Fault::Nothing)?;
    let (content, first) = blocking(move || Content::open(&view, &path)).await?;
    let look = look(name.as_bytes());
    let shown = look != Look::Other && asked.download.is_none();
    let kind = match look {
        Look::Picture if shown => kind(name.as_bytes()),
        Look::Text if shown => "text/plain; charset=utf-8",
        Look::Picture | Look::Text | Look::Other => "application/octet-stream",
    };
    let manner = if shown { "inline" } else { "attachment" };
    let disposition = format!("{manner}; filename*=UTF-8''{}", place::query(name.as_bytes()).replace('/', "%2F"));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.reader.entry().size));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(SANDBOX));
    headers.insert(header::CONTENT_DISPOSITION, HeaderValue::try_from(disposition).map_err(|_| Fault::Lost)?);
    let mut response = (headers, Body::new(streamed_body(&session, first, content))).into_response();
    response.extensions_mut().insert(AuthenticatedSession(session));
    Ok(response)
}

/// A file that is read block by block.
struct Content {
    reader: FileReader,
    at: u64,
    left: u64,
}

impl Content {
    /// Opens a file; returns also its first block.
    fn open(view: &View, path: &TreePath) -> Result<(Self, Bytes)> {
        let reader = view.read(path)?;
        let left = reader.entry().size;
        let mut content = Self { reader, at: 0, left };
        let first = content.block()?.unwrap_or_default();
        Ok((content, first))
    }

    fn block(&mut self) -> tree::Result<Option<Bytes>> {
        let length = usize::try_from(self.left).map_or(BLOCK, |left| left.min(BLOCK));
        if length == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; length];
        let count = self.reader.read_at(&mut buffer, self.at)?;
        if count < length {
            return Err(tree::Error::Filesystem(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.at += length as u64;
        self.left -= length as u64;
        Ok(Some(buffer.into()))
    }
}

impl BlockProducer for Content {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        self.block().map_err(|error| BodyError(error.to_string()))
    }

    fn remaining_bytes(&self) -> Option<u64> {
        Some(self.left)
    }
}
