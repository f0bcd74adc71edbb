//! GET and HEAD: a file, whole or in ranges (RFC 9110 sections 9.3.1 and 14), or the index page of a directory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::adaptive_blocking::AdaptiveBlocking;
use super::conditions::{ConditionOutcome, Validators};
use super::error::{Error, Result, run_blocking, run_cpu_bound};
use super::method::DavMethod;
use super::range::{self, RangeSelection};
use super::request_context::RequestContext;
use super::response::{etag_value, set_header};
use super::{checksum, date, directory_index};
use crate::domain::TreePath;
use crate::http::{
    BlockBufferPool, BlockProducer, BodyError, FileTransfer, MAX_FILE_RANGE_BYTES, ResponseBody, empty, full,
    streamed_body,
};

use crate::tree::{self, CachedFile, Entry, FileReader, MediaTypeLookup};

/// Maximum number of bytes read at once; a file that is not larger takes a single step off the runtime.
const READ_BLOCK_BYTES: u64 = 256 * 1024;

/// Minimum size of a response that goes from the page cache to the socket. A smaller one is written with its head, in one
/// system call.
const MIN_TRANSFER_BYTES: u64 = 64 * 1024;

/// Number of headers that a response with a file usually has at most.
const MAX_FILE_HEADERS: usize = 12;

const WANT_REPR_DIGEST: &str = "want-repr-digest";

/// Handles GET and HEAD.
///
/// # Errors
/// The errors of the tree, and [`tree::Error::PreconditionFailed`].
pub(super) async fn handle(
    context: &Arc<RequestContext>,
    lookups: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    // First without blocking. Only successes: every refusal is left to the slow path, which finds its reason.
    if let Some(response) = respond_from_cache(context) {
        return Ok(response);
    }
    // Clients ask for a file before they create it. The directory is in memory then, but not that the name is missing.
    let looked_up = lookups.try_inline(|| Ok(context.view.stat(&context.path)?));
    if matches!(looked_up, Some(Err(Error::Tree(tree::Error::Absent)))) {
        return open_and_respond(context);
    }
    let task_context = Arc::clone(context);
    match context.headers.contains_key(WANT_REPR_DIGEST) {
        // The digest is a header: the whole file is read before the first byte is sent.
        true => run_cpu_bound(&context.view, move || open_and_respond(&task_context)).await,
        false => {
            let lookups = lookups.clone();
            run_blocking(move || lookups.run_timed(|| open_and_respond(&task_context))).await
        }
    }
}

/// Responds without leaving the runtime when everything needed is in memory: a step off it costs more than reading a
/// small file. `None` for everything else, errors included.
fn respond_from_cache(context: &RequestContext) -> Option<Response<ResponseBody>> {
    // An `If` header may need other entries, and a digest needs the whole file: both may block.
    if context.conditions.has_if_header() || context.headers.contains_key(WANT_REPR_DIGEST) {
        return None;
    }
    let file = context.view.open_cached(&context.path)?;
    // Nearly every file is small and wanted whole: it is read and closed at once.
    if file.entry().size < MIN_TRANSFER_BYTES && !context.headers.contains_key(header::RANGE) {
        return respond_whole(context, file).ok();
    }
    respond(context, file.into_reader(&context.view).ok()?, FileReader::read_cached_at).ok()
}

fn respond_whole(context: &RequestContext, file: CachedFile) -> Result<Response<ResponseBody>> {
    if let Some(response) = unless_proceeding(context, file.entry())? {
        return Ok(response);
    }
    let mut response = full_response_head(context, file.entry())?;
    if context.method == DavMethod::Get && file.entry().size > 0 {
        *response.body_mut() = full(file.read_whole()?);
    }
    Ok(response)
}

/// Function that reads a block: blocking, or from memory only.
type ReadAtFn = fn(&FileReader, &mut [u8], u64) -> tree::Result<usize>;

fn open_and_respond(context: &RequestContext) -> Result<Response<ResponseBody>> {
    let reader = match context.view.read(&context.path) {
        Ok(reader) => reader,
        Err(tree::Error::IsADirectory) => return directory_index::handle(context),
        // Directories above a scope, and drop boxes, can be listed without being readable: `list` decides on their
        // content.
        Err(tree::Error::Forbidden | tree::Error::RefusedByHost(_))
            if context.view.stat(&context.path)?.is_directory() =>
        {
            return directory_index::handle(context);
        }
        Err(error) => return Err(error.into()),
    };
    // Before the digest, so that a false condition doesn't cost a read of the whole file.
    context.conditions.evaluate_if_header(context.if_context(), &context.path)?;
    let digest = checksum::repr_digest(&context.headers, &reader, context.view.cancellation())?;
    let mut response = respond(context, reader, FileReader::read_at)?;
    // Of the whole file, also in a 206 (RFC 9530 section 3).
    if let Some(digest) = digest.filter(|_| response.status().is_success()) {
        response.headers_mut().insert("repr-digest", digest);
    }
    Ok(response)
}

fn respond(context: &RequestContext, reader: FileReader, read: ReadAtFn) -> Result<Response<ResponseBody>> {
    // Before the ranges: If-Range and Range come last (RFC 9110 section 13.2.2).
    if let Some(response) = unless_proceeding(context, reader.entry())? {
        return Ok(response);
    }
    let size = reader.entry().size;
    match requested_ranges(context, reader.entry()) {
        RangeSelection::FullFile => full_response(context, reader, read),
        RangeSelection::Unsatisfiable => {
            let mut response = file_response(StatusCode::RANGE_NOT_SATISFIABLE, reader.entry(), empty());
            set_header(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{size}"));
            Ok(response)
        }
        RangeSelection::Ranges(parts) => partial_response(context, reader, &parts, read),
    }
}

/// Evaluates the conditions of the request; returns the response where they end it.
///
/// # Errors
/// [`tree::Error::PreconditionFailed`].
fn unless_proceeding(context: &RequestContext, entry: &Entry) -> Result<Option<Response<ResponseBody>>> {
    if !context.conditions.apply_to_reads() {
        return Ok(None);
    }
    match context.conditions.evaluate(Some(&Validators::from(entry)), true) {
        ConditionOutcome::Proceed => Ok(None),
        ConditionOutcome::NotModified => Ok(Some(file_response(StatusCode::NOT_MODIFIED, entry, empty()))),
        ConditionOutcome::PreconditionFailed => Err(tree::Error::PreconditionFailed.into()),
    }
}

fn requested_ranges(context: &RequestContext, entry: &Entry) -> RangeSelection {
    // Only GET has ranges (RFC 9110 section 14.2).
    let Some(ranges) = context.headers.get(header::RANGE).filter(|_| context.method == DavMethod::Get) else {
        return RangeSelection::FullFile;
    };
    let now = context.now.as_millis().div_euclid(1000);
    if context.conditions.if_range_holds(&Validators::from(entry), now) {
        range::select_ranges(ranges.as_bytes(), entry.size)
    } else {
        RangeSelection::FullFile
    }
}

fn full_response(context: &RequestContext, reader: FileReader, read: ReadAtFn) -> Result<Response<ResponseBody>> {
    let size = reader.entry().size;
    let mut response = full_response_head(context, reader.entry())?;
    if context.method == DavMethod::Get && size > 0 {
        *response.body_mut() =
            content_body(context, ContentPieces::new(reader, [ContentPiece::FileRange(0..size)]), read)?;
    }
    Ok(response)
}

/// Returns the response with a whole file, still without its content.
fn full_response_head(context: &RequestContext, entry: &Entry) -> Result<Response<ResponseBody>> {
    let mut response = file_response(StatusCode::OK, entry, empty());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&context.path)));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(entry.size));
    if let Some(checksum) = context.view.checksum(entry)? {
        set_header(
            response.headers_mut(),
            header::HeaderName::from_static("oc-checksum"),
            checksum::first_stored_checksum(&checksum).to_owned(),
        );
    }
    Ok(response)
}

fn partial_response(
    context: &RequestContext,
    reader: FileReader,
    parts: &[Range<u64>],
    read: ReadAtFn,
) -> Result<Response<ResponseBody>> {
    let (size, media_type) = (reader.entry().size, content_type(&context.path));
    let mut response = file_response(StatusCode::PARTIAL_CONTENT, reader.entry(), empty());
    let headers = response.headers_mut();
    let pieces = if let [part] = parts {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
        set_header(headers, header::CONTENT_RANGE, content_range(part, size));
        ContentPieces::new(reader, [ContentPiece::FileRange(part.clone())])
    } else {
        // Random, so that the content of a file can't be made to contain it.
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        set_header(headers, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
        ContentPieces::new(reader, multipart_pieces(parts, &boundary, media_type, size))
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(pieces.length()));
    *response.body_mut() = content_body(context, pieces, read)?;
    Ok(response)
}

/// Returns the pieces of a `multipart/byteranges` body (RFC 9110 section 14.6, RFC 2046 section 5.1.1).
fn multipart_pieces(parts: &[Range<u64>], boundary: &str, media_type: &str, size: u64) -> Vec<ContentPiece> {
    let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
    for (index, part) in parts.iter().enumerate() {
        // The line break belongs to the following boundary (RFC 2046 section 5.1.1); the first boundary starts the
        // body.
        let start = if index == 0 { "" } else { "\r\n" };
        let range = content_range(part, size);
        let text = format!("{start}--{boundary}\r\nContent-Type: {media_type}\r\nContent-Range: {range}\r\n\r\n");
        pieces.push(ContentPiece::Text(text.into()));
        pieces.push(ContentPiece::FileRange(part.clone()));
    }
    pieces.push(ContentPiece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// Reads the first block; the body reads the rest while it is sent.
fn content_body(context: &RequestContext, mut pieces: ContentPieces, read: ReadAtFn) -> Result<ResponseBody> {
    // An error of the first block still becomes a status; later ones can only end the body early.
    if pieces.length() >= MIN_TRANSFER_BYTES {
        pieces.transfer = context.file_transfer.clone();
    }
    let first = match pieces.next_transferred()? {
        Some(placeholder) => placeholder,
        None => pieces.read_block(read)?.unwrap_or_default(),
    };
    let session = context.view.session();
    Ok(if pieces.queue.is_empty() { full(first) } else { streamed_body(session, first, pieces) })
}

/// Returns a response with the validators of a file, and the statement that ranges are supported.
fn file_response(status: StatusCode, entry: &Entry, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    // Room for these, and for those that are added on the way out: the map would grow several times.
    let headers = response.headers_mut();
    headers.reserve(MAX_FILE_HEADERS);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set_header(headers, header::LAST_MODIFIED, date::format_http_date(entry.modified));
    if let Some(value) = entry.etag.and_then(etag_value) {
        headers.insert(header::ETAG, value);
    }
    response
}

/// Returns the media type for the name of a file.
pub(super) fn content_type(path: &TreePath) -> &'static str {
    // By name only: PROPFIND reports the type of every member, and must not read files for it.
    let name = path.components().next_back().unwrap_or_default();
    thread_local! {
        static MEDIA_TYPES: MediaTypeLookup = MediaTypeLookup::default();
    }
    MEDIA_TYPES.with(|media_types| media_types.media_type(name))
}

#[derive(Clone, Debug)]
enum ContentPiece {
    Text(Bytes),
    FileRange(Range<u64>),
}

/// Pieces of a response that are still to be sent, read from the file as they are needed.
struct ContentPieces {
    reader: FileReader,
    queue: VecDeque<ContentPiece>,
    buffer_pool: BlockBufferPool,
    /// The connection's files, if ranges of this one can go to its socket directly.
    transfer: Option<FileTransfer>,
}

impl ContentPieces {
    fn new(reader: FileReader, pieces: impl IntoIterator<Item = ContentPiece>) -> Self {
        Self { reader, queue: pieces.into_iter().collect(), buffer_pool: BlockBufferPool::default(), transfer: None }
    }

    fn length(&self) -> u64 {
        let lengths = self.queue.iter().map(|piece| match piece {
            ContentPiece::Text(text) => text.len() as u64,
            ContentPiece::FileRange(range) => range.end - range.start,
        });
        lengths.sum()
    }

    /// Returns the placeholder of the next range of the file; `None` where the next piece is a text, is not in the page
    /// cache, or can't go to the socket directly.
    fn next_transferred(&mut self) -> tree::Result<Option<Bytes>> {
        let (Some(transfer), Some(ContentPiece::FileRange(range))) = (&self.transfer, self.queue.front_mut()) else {
            return Ok(None);
        };
        let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(MAX_FILE_RANGE_BYTES);
        let Some(file) = self.reader.cached_range(range.start, length)? else {
            // The rest is read a block ahead of what is sent: a file that waits for a disk once is likely to do so again.
            self.transfer = None;
            return Ok(None);
        };
        let placeholder = transfer.placeholder(file, range.start, length);
        range.start += length as u64;
        if range.start >= range.end {
            self.queue.pop_front();
        }
        Ok(Some(placeholder))
    }

    fn read_block(&mut self, read: ReadAtFn) -> tree::Result<Option<Bytes>> {
        let range = match self.queue.pop_front() {
            None => return Ok(None),
            Some(ContentPiece::Text(text)) => return Ok(Some(text)),
            Some(ContentPiece::FileRange(range)) => range,
        };
        let end = range.end.min(range.start.saturating_add(READ_BLOCK_BYTES));
        let length = usize::try_from(end - range.start).unwrap_or(0);
        let mut buffer = self.buffer_pool.take(length);
        let count = read(&self.reader, &mut buffer, range.start)?;
        // The file was truncated while it was sent. Padding would corrupt it silently: the body ends early instead.
        if count < length {
            return Err(tree::Error::Filesystem(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if end < range.end {
            self.queue.push_front(ContentPiece::FileRange(end..range.end));
        }
        Ok(Some(self.buffer_pool.into_block(buffer, length)))
    }
}

impl BlockProducer for ContentPieces {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        // Never the cached read: later blocks may not be in memory any more.
        self.read_block(FileReader::read_at).map_err(|error| BodyError(error.to_string()))
    }

    fn has_ready_block(&self) -> bool {
        self.transfer.is_some()
    }

    fn next_ready_block(&mut self) -> Option<std::result::Result<Bytes, BodyError>> {
        self.next_transferred().map_err(|error| BodyError(error.to_string())).transpose()
    }

    fn remaining_bytes(&self) -> Option<u64> {
        Some(self.length())
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use http_body_util::BodyExt;

    use super::*;
    use crate::auth::Session;
    use crate::domain::Permission;
    use crate::http::{AuthenticatedConnection, ConnectionHandle, LastSession, TooManyConnections};

    use crate::tree::testing::TreeFixture;

    /// Returns a request for a sparse file of 64 MiB whose digest is wanted.
    fn digest_of_large_file(fixture: &TreeFixture, runtime: &tokio::runtime::Runtime) -> Arc<RequestContext> {
        fixture.create_user("alice", &[("/", Permission::RW)]);
        std::fs::File::create(fixture.root_path.join("f")).and_then(|file| file.set_len(64 << 20)).expect("made");
        let session = fixture.view("alice").session().clone();
        let head = http::Request::get("/dav/f")
            .header(WANT_REPR_DIGEST, "sha-512=9")
            .body(())
            .expect("a request")
            .into_parts()
            .0;
        let context =
            RequestContext::new(DavMethod::Get, Box::new(head), &fixture.tree, session, crate::store::testing::now());
        runtime.block_on(context).expect("read")
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(1)
            .enable_all()
            .build()
            .expect("runtime")
    }

    #[test]
    fn digest_waits_for_a_work_permit_of_its_user() {
        let (fixture, runtime) = (TreeFixture::new(&[]), runtime());
        let context = digest_of_large_file(&fixture, &runtime);
        let session = context.view.session().clone();
        let mut permits = Vec::new();
        runtime.block_on(async {
            let mut poll = Context::from_waker(Waker::noop());
            while let Poll::Ready(permit) = pin!(session.acquire_heavy_permit()).poll(&mut poll) {
                permits.push(permit.expect("a turn"));
            }
            let lookups = AdaptiveBlocking::default();
            let mut asked = pin!(handle(&context, &lookups));
            assert!(asked.as_mut().poll(&mut poll).is_pending());
            // The one thread for blocking work would have done it before this.
            tokio::task::spawn_blocking(|| ()).await.expect("done");
            assert!(asked.as_mut().poll(&mut poll).is_pending(), "it waits, and takes no thread");
            permits.clear();
            let response = asked.await.expect("answered");
            assert!(response.headers().contains_key("repr-digest"));
        });
    }

    #[test]
    fn digest_stops_when_its_request_is_dropped() {
        let (fixture, runtime) = (TreeFixture::new(&[]), runtime());
        let context = digest_of_large_file(&fixture, &runtime);
        context.view.read(&context.path).expect("there");
        context.view.cancellation().cancel();
        let error = runtime.block_on(handle(&context, &AdaptiveBlocking::default())).expect_err("cancelled");
        assert!(matches!(error, super::super::error::Error::Tree(tree::Error::SessionEnded(_))), "{error:?}");
    }

    #[test]
    fn large_file_is_not_read_where_the_connection_sends_it_by_itself() {
        #[derive(Default)]
        struct Connection(LastSession);
        impl AuthenticatedConnection for Connection {
            fn on_authenticated(&self, _: &Session) -> std::result::Result<(), TooManyConnections> {
                Ok(())
            }
            fn last_session(&self) -> &LastSession {
                &self.0
            }
        }
        let (fixture, runtime) = (TreeFixture::new(&[]), runtime());
        fixture.create_user("alice", &[("/", Permission::RW)]);
        for (file_transfer, size, is_read) in [
            (None, 3 << 20, true),
            (Some(FileTransfer::default()), 3 << 20, false),
            (Some(FileTransfer::default()), MIN_TRANSFER_BYTES as usize - 1, true),
        ] {
            std::fs::write(fixture.root_path.join("f"), vec![b'x'; size]).expect("written");
            let mut request = http::Request::get("/dav/f").body(()).expect("a request");
            let connection = Arc::new(Connection::default());
            request.extensions_mut().insert(ConnectionHandle { connection, file_transfer });
            let (head, session) = (request.into_parts().0, fixture.view("alice").session().clone());
            let now = crate::store::testing::now();
            let body = runtime.block_on(async {
                let context = RequestContext::new(DavMethod::Get, Box::new(head), &fixture.tree, session, now)
                    .await
                    .expect("read");
                let response = handle(&context, &AdaptiveBlocking::default()).await.expect("answered");
                response.into_body().collect().await.expect("whole").to_bytes()
            });
            assert_eq!(body.len(), size);
            // Placeholders are zeros. A file system that can't tell what is in the page cache has the file read.
            let reader = fixture.view("alice").read(&"/f".parse().expect("a path")).expect("there");
            let is_read = is_read || reader.cached_range(0, 1).expect("allowed").is_none();
            assert!(body.iter().all(|&byte| byte == if is_read { b'x' } else { 0 }), "{size} {is_read}");
        }
    }

    #[test]
    fn byteranges_parts_are_separated_by_crlf_and_boundary() {
        let pieces = multipart_pieces(&[0..10, 50..60], "b", "text/plain", 100);
        let mut text = String::new();
        for piece in &pieces {
            match piece {
                ContentPiece::Text(bytes) => text += std::str::from_utf8(bytes).expect("text"),
                ContentPiece::FileRange(range) => text += &format!("<{}>", range.end - range.start),
            }
        }
        let head = |range| format!("--b\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/100\r\n\r\n");
        assert_eq!(text, format!("{}<10>\r\n{}<10>\r\n--b--\r\n", head("0-9"), head("50-59")));
    }
}
