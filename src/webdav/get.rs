//! GET and HEAD: a file whole or in ranges (RFC 9110 sections 9.3.1 and 14), a folder as a page.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use super::call::Call;
use super::conditions::{Validators, Verdict};
use super::error::{Result, blocking, in_turn};
use super::range::{self, Selection};
use super::verb::Verb;
use super::{checksum, date, page};
use crate::domain::TreePath;
use crate::http::{BlockBufferPool, BlockProducer, BodyError, ResponseBody, empty, full, streamed_body};
use crate::tree::{self, Entry, FileReader};

/// As much of a file as is read at once; a file that is no longer takes a single step off the runtime.
const BLOCK: u64 = 256 * 1024;

const WANT_DIGEST: &str = "want-repr-digest";

/// Answers GET and HEAD.
///
/// # Errors
/// What the tree says, and [`tree::Error::Precondition`].
pub(super) async fn answer(call: &Arc<Call>) -> Result<Response<ResponseBody>> {
    if let Some(response) = at_once(call) {
        return Ok(response);
    }
    let work = Arc::clone(call);
    match call.headers.contains_key(WANT_DIGEST) {
        // The whole file is read before the first byte is sent.
        true => in_turn(&call.view, move || open(&work)).await,
        false => blocking(move || open(&work)).await,
    }
}

/// Answers without leaving the runtime when all that is needed is in memory; a step off it costs more
/// than a small file. None for everything else, errors included.
fn at_once(call: &Call) -> Option<Response<ResponseBody>> {
    if call.conditions.look_around() || call.headers.contains_key(WANT_DIGEST) {
        return None;
    }
    let reader = call.view.read_cached(&call.path)?;
    respond(call, reader, FileReader::read_cached_at).ok()
}

/// How a block is read.
type ReadAt = fn(&FileReader, &mut [u8], u64) -> tree::Result<usize>;

fn open(call: &Call) -> Result<Response<ResponseBody>> {
    let reader = match call.view.read(&call.path) {
        Ok(reader) => reader,
        Err(tree::Error::IsADirectory) => return page::answer(call),
        Err(tree::Error::Forbidden) if call.view.stat(&call.path)?.is_directory() => return page::answer(call),
        Err(error) => return Err(error.into()),
    };
    call.conditions.judge_listed(call.around(), &call.path)?;
    let digest = checksum::wanted(&call.headers, &reader, call.view.cancellation())?;
    let mut response = respond(call, reader, FileReader::read_at)?;
    if let Some(digest) = digest.filter(|_| response.status().is_success()) {
        response.headers_mut().insert("repr-digest", digest);
    }
    Ok(response)
}

fn respond(call: &Call, reader: FileReader, read: ReadAt) -> Result<Response<ResponseBody>> {
    let current = Validators::from(reader.entry());
    match call.conditions.judge(Some(&current), true) {
        Verdict::Go => {}
        Verdict::Unchanged => return Ok(described(StatusCode::NOT_MODIFIED, reader.entry(), empty())),
        Verdict::Failed => return Err(tree::Error::PreconditionFailed.into()),
    }
    let size = reader.entry().size;
    match selection(call, &current, size) {
        Selection::Whole => whole(call, reader, read),
        Selection::Unsatisfiable => {
            let mut response = described(StatusCode::RANGE_NOT_SATISFIABLE, reader.entry(), empty());
            set(response.headers_mut(), header::CONTENT_RANGE, format!("bytes */{size}"));
            Ok(response)
        }
        Selection::Parts(parts) => partial(call, reader, &parts, read),
    }
}

fn selection(call: &Call, current: &Validators, size: u64) -> Selection {
    let Some(ranges) = call.headers.get(header::RANGE).filter(|_| call.verb == Verb::Get) else {
        return Selection::Whole;
    };
    let now = call.now.as_millis().div_euclid(1000);
    if call.conditions.ranges_hold(current, now) { range::select(ranges.as_bytes(), size) } else { Selection::Whole }
}

fn whole(call: &Call, reader: FileReader, read: ReadAt) -> Result<Response<ResponseBody>> {
    let entry = reader.entry().clone();
    let mut response = described(StatusCode::OK, &entry, empty());
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type(&call.path)));
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(entry.size));
    if let Some(sum) = call.view.checksum(&entry)? {
        set(response.headers_mut(), header::HeaderName::from_static("oc-checksum"), checksum::first(&sum).to_owned());
    }
    if call.verb == Verb::Get && entry.size > 0 {
        *response.body_mut() = content(call, Pieces::new(reader, [Piece::Bytes(0..entry.size)]), read)?;
    }
    Ok(response)
}

fn partial(call: &Call, reader: FileReader, parts: &[Range<u64>], read: ReadAt) -> Result<Response<ResponseBody>> {
    let entry = reader.entry().clone();
    let kind = content_type(&call.path);
    let mut response = described(StatusCode::PARTIAL_CONTENT, &entry, empty());
    let headers = response.headers_mut();
    let pieces = if let [part] = parts {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
        set(headers, header::CONTENT_RANGE, content_range(part, entry.size));
        Pieces::new(reader, [Piece::Bytes(part.clone())])
    } else {
        let boundary = uuid::Uuid::new_v4().simple().to_string();
        set(headers, header::CONTENT_TYPE, format!("multipart/byteranges; boundary={boundary}"));
        Pieces::new(reader, multipart(parts, &boundary, kind, entry.size))
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(pieces.length()));
    *response.body_mut() = content(call, pieces, read)?;
    Ok(response)
}

/// Lays out several parts (RFC 9110 section 14.6, RFC 2046 section 5.1.1).
fn multipart(parts: &[Range<u64>], boundary: &str, kind: &str, size: u64) -> Vec<Piece> {
    let mut pieces = Vec::with_capacity(parts.len() * 2 + 1);
    for (index, part) in parts.iter().enumerate() {
        let start = if index == 0 { "" } else { "\r\n" };
        let range = content_range(part, size);
        let text = format!("{start}--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {range}\r\n\r\n");
        pieces.push(Piece::Text(text.into()));
        pieces.push(Piece::Bytes(part.clone()));
    }
    pieces.push(Piece::Text(format!("\r\n--{boundary}--\r\n").into()));
    pieces
}

fn content_range(part: &Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end.saturating_sub(1))
}

/// Reads the first block, and leaves the rest to the body where there is more.
fn content(call: &Call, mut pieces: Pieces, read: ReadAt) -> Result<ResponseBody> {
    let first = pieces.block(read)?.unwrap_or_default();
    let session = call.view.session();
    Ok(if pieces.queue.is_empty() { full(first) } else { streamed_body(session, first, pieces) })
}

/// Returns an answer that tells of a file: its tag, its time, and that ranges can be asked for.
fn described(status: StatusCode, entry: &Entry, body: ResponseBody) -> Response<ResponseBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    set(headers, header::LAST_MODIFIED, date::http_date(entry.modified));
    if let Some(etag) = entry.etag {
        set(headers, header::ETAG, format!("\"{etag}\""));
    }
    response
}

/// Sets a header to text that was made here; text that no header can hold is left out.
pub(super) fn set(headers: &mut HeaderMap, name: header::HeaderName, text: String) {
    if let Ok(value) = HeaderValue::try_from(text) {
        headers.insert(name, value);
    }
}

/// Returns the media type that a name stands for.
pub(super) fn content_type(path: &TreePath) -> &'static str {
    let name = path.components().next_back().unwrap_or_default();
    tree::media_type(name)
}

#[derive(Clone, Debug)]
enum Piece {
    Text(Bytes),
    Bytes(Range<u64>),
}

/// The pieces of an answer that are still to be sent, read from the file as they are asked for.
struct Pieces {
    reader: FileReader,
    queue: VecDeque<Piece>,
    buffers: BlockBufferPool,
}

impl Pieces {
    fn new(reader: FileReader, pieces: impl IntoIterator<Item = Piece>) -> Self {
        Self { reader, queue: pieces.into_iter().collect(), buffers: BlockBufferPool::default() }
    }

    fn length(&self) -> u64 {
        let lengths = self.queue.iter().map(|piece| match piece {
            Piece::Text(text) => text.len() as u64,
            Piece::Bytes(range) => range.end - range.start,
        });
        lengths.sum()
    }

    fn block(&mut self, read: ReadAt) -> tree::Result<Option<Bytes>> {
        let range = match self.queue.pop_front() {
            None => return Ok(None),
            Some(Piece::Text(text)) => return Ok(Some(text)),
            Some(Piece::Bytes(range)) => range,
        };
        let end = range.end.min(range.start.saturating_add(BLOCK));
        let length = usize::try_from(end - range.start).unwrap_or(0);
        let mut buffer = self.buffers.take(length);
        let count = read(&self.reader, &mut buffer, range.start)?;
        if count < length {
            return Err(tree::Error::Filesystem(std::io::ErrorKind::UnexpectedEof.into()));
        }
        if end < range.end {
            self.queue.push_front(Piece::Bytes(end..range.end));
        }
        Ok(Some(self.buffers.into_block(buffer, length)))
    }
}

impl BlockProducer for Pieces {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        self.block(FileReader::read_at).map_err(|error| BodyError(error.to_string()))
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

    use super::*;
    use crate::domain::Permission;
    use crate::tree::testing::TreeFixture;

    /// Returns a request for a sparse file of 64 MiB whose digest is wanted.
    fn digest_of_large_file(house: &TreeFixture, runtime: &tokio::runtime::Runtime) -> Arc<Call> {
        house.create_user("alice", &[("/", Permission::RW)]);
        std::fs::File::create(house.root_path.join("f")).and_then(|file| file.set_len(64 << 20)).expect("made");
        let session = house.view("alice").session().clone();
        let head =
            http::Request::get("/dav/f").header(WANT_DIGEST, "sha-512=9").body(()).expect("a request").into_parts().0;
        let call = Call::new(Verb::Get, head, &house.tree, session, crate::store::testing::now());
        runtime.block_on(call).expect("read")
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
    fn digest_takes_its_turn_among_the_work_of_its_user() {
        let (house, runtime) = (TreeFixture::new(&[]), runtime());
        let call = digest_of_large_file(&house, &runtime);
        let session = call.view.session().clone();
        let mut turns = Vec::new();
        runtime.block_on(async {
            let mut poll = Context::from_waker(Waker::noop());
            while let Poll::Ready(turn) = pin!(session.acquire_work_permit()).poll(&mut poll) {
                turns.push(turn.expect("a turn"));
            }
            let mut asked = pin!(answer(&call));
            assert!(asked.as_mut().poll(&mut poll).is_pending());
            // The one thread for blocking work would have done it before this.
            tokio::task::spawn_blocking(|| ()).await.expect("done");
            assert!(asked.as_mut().poll(&mut poll).is_pending(), "it waits, and takes no thread");
            turns.clear();
            let response = asked.await.expect("answered");
            assert!(response.headers().contains_key("repr-digest"));
        });
    }

    #[test]
    fn digest_ends_when_its_request_is_dropped() {
        let (house, runtime) = (TreeFixture::new(&[]), runtime());
        let call = digest_of_large_file(&house, &runtime);
        call.view.read(&call.path).expect("there");
        call.view.cancellation().cancel();
        let error = runtime.block_on(answer(&call)).expect_err("cancelled");
        assert!(matches!(error, super::super::error::Error::Tree(tree::Error::SessionEnded(_))), "{error:?}");
    }

    #[test]
    fn parts_are_set_apart_by_crlf_and_the_boundary() {
        let pieces = multipart(&[0..10, 50..60], "b", "text/plain", 100);
        let mut text = String::new();
        for piece in &pieces {
            match piece {
                Piece::Text(bytes) => text += std::str::from_utf8(bytes).expect("text"),
                Piece::Bytes(range) => text += &format!("<{}>", range.end - range.start),
            }
        }
        let head = |range| format!("--b\r\nContent-Type: text/plain\r\nContent-Range: bytes {range}/100\r\n\r\n");
        assert_eq!(text, format!("{}<10>\r\n{}<10>\r\n--b--\r\n", head("0-9"), head("50-59")));
    }
}
