//! File content, shown inline or downloaded.
//!
//! No stored file may run as a script on the console's origin. Only images are sent under their own media type, text is
//! sent as `text/plain`, anything else is a download, and all of it carries `Content-Security-Policy: sandbox`.

use axum::body::Body;
use axum::extract::Query;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Uri, header};
use serde::Deserialize;

use super::blocking::run_blocking;
use super::error::{ConsoleError, Result};
use super::guard::ConsoleCaller;
use super::paths;
use crate::domain::TreePath;
use crate::http::{AuthenticatedSession, BlockProducer, BodyError, streamed_body};
use crate::tree::{self, FileReader, View};

/// Number of bytes that are read from a file at once.
const READ_BLOCK_BYTES: usize = 256 * 1024;
/// Content security policy of stored files: no script, no origin, no subresources except inline ones.
const STORED_FILE_CSP: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:";

/// How the console shows the content of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreviewKind {
    /// Shown as an image.
    Image,
    /// Shown as text.
    Text,
    /// Not shown, as far as the name tells.
    Other,
}

/// Returns how the content of a file of this name is shown.
pub(super) fn preview_kind(name: &[u8]) -> PreviewKind {
    match media_type(name) {
        "image/png" | "image/jpeg" | "image/gif" | "image/webp" | "image/avif" | "image/bmp" | "image/x-icon"
        | "image/svg+xml" => PreviewKind::Image,
        content_type if content_type.starts_with("text/") => PreviewKind::Text,
        "application/json"
        | "application/xml"
        | "application/javascript"
        | "application/toml"
        | "application/x-sh"
        | "application/sql" => PreviewKind::Text,
        _ => PreviewKind::Other,
    }
}

/// Guesses the media type from the extension of a file name.
pub(super) fn media_type(name: &[u8]) -> &'static str {
    let extension = memchr::memrchr(b'.', name).and_then(|dot| std::str::from_utf8(&name[dot + 1..]).ok());
    let guess = extension.and_then(|extension| mime_guess::from_ext(extension).first_raw());
    guess.unwrap_or("application/octet-stream")
}

/// Query parameters of a file's URL.
#[derive(Deserialize)]
pub(super) struct ContentQuery {
    download: Option<String>,
}

/// Sends a file: images and text inline, anything else, or all with `?download`, as an attachment.
pub(super) async fn get(uri: Uri, Query(params): Query<ContentQuery>, caller: ConsoleCaller) -> Result<Response> {
    let path = paths::from_uri(&uri)?;
    let view = caller.view();
    let session = caller.session().clone();
    let name = path.name().ok_or(ConsoleError::NotFound)?;
    // The first block is read before headers are sent, so that an unreadable file is an error page and not an empty
    // download.
    let (content, first) = run_blocking(move || FileContent::open(&view, &path)).await?;
    let preview = preview_kind(name.as_bytes());
    let is_inline = preview != PreviewKind::Other && params.download.is_none();
    let content_type = match preview {
        // SVG images may contain scripts; the sandbox policy below keeps them from running.
        PreviewKind::Image if is_inline => media_type(name.as_bytes()),
        // HTML, too, is shown as its source and never rendered.
        PreviewKind::Text if is_inline => "text/plain; charset=utf-8",
        PreviewKind::Image | PreviewKind::Text | PreviewKind::Other => "application/octet-stream",
    };
    let disposition_type = if is_inline { "inline" } else { "attachment" };
    let disposition =
        // RFC 6266 section 4.3 and RFC 8187; a slash, which the encoder leaves, is not allowed in that parameter.
        format!("{disposition_type}; filename*=UTF-8''{}", paths::encode_query(name.as_bytes()).replace('/', "%2F"));
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(content.reader.entry().size));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(STORED_FILE_CSP));
    headers
        .insert(header::CONTENT_DISPOSITION, HeaderValue::try_from(disposition).map_err(|_| ConsoleError::Internal)?);
    let mut response = (headers, Body::new(streamed_body(&session, first, content))).into_response();
    // Lets the connection abort the transfer when the session ends.
    response.extensions_mut().insert(AuthenticatedSession(session));
    Ok(response)
}

/// A file under transfer, read block by block.
struct FileContent {
    reader: FileReader,
    offset: u64,
    remaining: u64,
}

impl FileContent {
    /// Opens a file and reads its first block.
    fn open(view: &View, path: &TreePath) -> Result<(Self, Bytes)> {
        let reader = view.read(path)?;
        let remaining = reader.entry().size;
        let mut content = Self { reader, offset: 0, remaining };
        let first = content.next_block()?.unwrap_or_default();
        Ok((content, first))
    }

    fn next_block(&mut self) -> tree::Result<Option<Bytes>> {
        let length =
            usize::try_from(self.remaining).map_or(READ_BLOCK_BYTES, |remaining| remaining.min(READ_BLOCK_BYTES));
        if length == 0 {
            return Ok(None);
        }
        let mut buffer = vec![0; length];
        let count = self.reader.read_at(&mut buffer, self.offset)?;
        // The file has shrunk. Content-Length has been sent, so the transfer has to fail: padding would be silent
        // corruption.
        if count < length {
            return Err(tree::Error::Filesystem(std::io::ErrorKind::UnexpectedEof.into()));
        }
        self.offset += length as u64;
        self.remaining -= length as u64;
        Ok(Some(buffer.into()))
    }
}

impl BlockProducer for FileContent {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        self.next_block().map_err(|error| BodyError(error.to_string()))
    }

    fn remaining_bytes(&self) -> Option<u64> {
        Some(self.remaining)
    }
}
