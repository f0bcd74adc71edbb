//! PUT: an upload that appears whole or not at all (RFC 9110 section 9.3.4), and PUT and PATCH of a part.
//!
//! A body that fits one block is staged, written and committed in a single step, a small one on the spot where that
//! waits for nothing ([`Streak`]); a longer one is written block by block while the next is being received. A client that waits for `100 Continue`
//! gets every refusal that is known before it sends anything. What changes a part of a file is staged as a
//! copy of all of it, so that it appears in one step too and every limit is judged at the one commit.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as _;

use super::call::Call;
use super::checksum::{self, Checksums, Of};
use super::error::{Error, Result, blocking, in_turn};
use super::fields::LengthOf;
use super::get::set;
use super::part::Part;
use super::pour::{BLOCK, Sink, pour};
use super::streak::Streak;
use super::{date, fields};
use crate::http::{RequestBody, ResponseBody, empty};
use crate::tree::{self, AttributeChanges, CommittedUpload, Entry, StagedUpload, Timestamp};

/// Answers PUT.
///
/// # Errors
/// Whatever is wrong with the request, its body or its place; nothing has changed then.
pub(super) async fn answer(
    call: &Arc<Call>,
    body: &mut RequestBody,
    streak: &Streak,
) -> Result<Response<ResponseBody>> {
    let part = fields::one(&call.headers, header::CONTENT_RANGE)?.map(|value| Part::of_content_range(value.as_bytes()));
    let transfer = Transfer::new(call, body.size_hint().exact(), part.transpose()?)?;
    if !transfer.is_small() {
        return send(transfer, body).await;
    }
    let (ready, blocks) = pour(body, call.view.session(), std::future::pending(), transfer).await?;
    streak.run(move || ready.finish(&blocks)).await
}

/// Answers PATCH of a part of a file (`X-Update-Range`).
///
/// # Errors
/// As [`answer`]; [`Error::Unsupported`] for any other kind of body.
pub(super) async fn patch(call: &Arc<Call>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some(PART_TYPE) {
        return Err(Error::Unsupported("PATCH takes application/x-sabredav-partialupdate with X-Update-Range"));
    }
    let range = fields::one(&call.headers, "x-update-range")?.ok_or(Error::Malformed("X-Update-Range is missing"))?;
    let part = Part::of_update_range(range.as_bytes())?;
    send(Transfer::new(call, body.size_hint().exact(), Some(part))?, body).await
}

/// How long a small body is at most.
const SMALL: u64 = 64 * 1024;
/// The media type of a part of a file in PATCH.
const PART_TYPE: &str = "application/x-sabredav-partialupdate";

async fn send(mut transfer: Transfer, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let call = Arc::clone(&transfer.call);
    let large = transfer.announced.is_some_and(|length| length > BLOCK as u64);
    if large || call.headers.contains_key(header::EXPECT) {
        transfer = blocking(move || transfer.stage()).await?;
    }
    let (ready, blocks) = pour(body, call.view.session(), std::future::pending(), transfer).await?;
    let is_part = ready.part.is_some();
    conclude(&call, is_part, move || ready.finish(&blocks)).await
}

/// Runs the end of an upload: in a turn of its user where the file is to be read back for the checksums that the request
/// announces of all of it, and cancelled then when the connection goes.
///
/// # Errors
/// What `work` says; [`Error::Busy`].
pub(super) async fn conclude<T: Send + 'static>(
    call: &Call,
    reads_back: bool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match reads_back && !Checksums::announced(&call.headers, Of::Whole).is_empty() {
        true => in_turn(&call.view, work).await,
        false => blocking(work).await,
    }
}

/// An upload under way.
struct Transfer {
    call: Arc<Call>,
    announced: Option<u64>,
    /// Length that other headers than `Content-Length` announce.
    expected: Option<u64>,
    part: Option<Part>,
    modified: Option<Timestamp>,
    sums: Checksums,
    upload: Option<StagedUpload>,
    start: u64,
    written: u64,
}

impl Transfer {
    /// Reads what the headers say of the content.
    fn new(call: &Arc<Call>, announced: Option<u64>, part: Option<Part>) -> Result<Self> {
        if call.slash && !call.is_root() {
            return Err(tree::Error::IsADirectory.into());
        }
        let whole = if part.is_some() { LengthOf::Part } else { LengthOf::File };
        let tags = fields::tags(&call.headers)?;
        call.view.check_tags(tags.as_deref().unwrap_or_default())?;
        Ok(Self {
            call: Arc::clone(call),
            announced,
            expected: fields::expected_length(&call.headers, whole)?,
            modified: fields::modified(&call.headers)?,
            sums: Checksums::announced(&call.headers, if part.is_some() { Of::Part } else { Of::All }),
            part,
            upload: None,
            start: 0,
            written: 0,
        })
    }

    /// Tells whether staging, writing and committing it is little work, in which nothing is written to the store.
    fn is_small(&self) -> bool {
        let beside = ["expect", "x-patgate-tags"].into_iter().any(|name| self.call.headers.contains_key(name));
        let short = self.announced.is_some_and(|length| length <= SMALL);
        short && self.part.is_none() && self.sums.is_empty() && !beside
    }

    /// Asks for rights, limits, locks and conditions, and makes room for the content.
    fn stage(mut self) -> Result<Self> {
        let call = Arc::clone(&self.call);
        let Some(part) = &self.part else {
            self.upload = Some(call.staging(|claim| call.view.stage(&call.path, self.announced, claim))?);
            return Ok(self);
        };
        if part.is_update() {
            call.view.stat(&call.path)?;
        }
        let (upload, size) = call.staging(|claim| call.view.stage_existing(&call.path, claim))?;
        self.start = part.start(size)?;
        self.upload = Some(upload);
        Ok(self)
    }

    fn finish(mut self, blocks: &[Bytes]) -> Result<Response<ResponseBody>> {
        if self.announced.is_none() && self.upload.is_none() {
            self.announced = Some(blocks.iter().map(|block| block.len() as u64).sum());
        }
        let done = self.write(blocks)?;
        let Some(upload) = done.upload else { return Err(Error::Lost) };
        if done.announced.is_some_and(|length| length != done.written) {
            return Err(Error::Cut);
        }
        if done.expected.is_some_and(|length| done.written < length) {
            return Err(Error::Length);
        }
        let mut kept = done.sums.finish()?;
        if let Some(part) = &done.part {
            part.fits(done.written)?;
            let size = part.cut_to(upload.stat()?.size);
            upload.set_attributes(&AttributeChanges { size, ..AttributeChanges::default() })?;
            kept = verify(&done.call, &upload)?;
        }
        commit(&done.call, upload, done.modified, kept)
    }
}

impl Sink for Transfer {
    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        if self.upload.is_none() {
            self = self.stage()?;
        }
        let Some(upload) = &self.upload else { return Err(Error::Lost) };
        for block in blocks {
            self.sums.update(block);
            upload.write_at(block, self.start + self.written)?;
            self.written += block.len() as u64;
        }
        self.call.view.session().record_use();
        Ok(self)
    }
}

/// Compares all that an upload will be with the checksums that a request announces of the whole file. Returns those that
/// are to be kept. It reads the whole file: see [`conclude`].
///
/// # Errors
/// [`Error::Checksum`], and what the tree says while it is read back; [`tree::Error::SessionEnded`] once the request is cancelled.
pub(super) fn verify(call: &Call, upload: &StagedUpload) -> Result<Option<String>> {
    let mut sums = Checksums::announced(&call.headers, Of::Whole);
    if sums.is_empty() {
        return Ok(None);
    }
    let mut buffer = vec![0; BLOCK];
    let mut offset = 0;
    loop {
        call.view.cancellation().check()?;
        match upload.read_at(&mut buffer, offset)? {
            0 => break,
            count => {
                sums.update(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
    sums.finish()
}

/// Puts an upload, of which all checksums hold, in its place, and says so. A checksum that a sync client gave is kept.
///
/// # Errors
/// What the tree says; the old content stands then.
pub(super) fn commit(
    call: &Call,
    upload: StagedUpload,
    modified: Option<Timestamp>,
    kept: Option<String>,
) -> Result<Response<ResponseBody>> {
    if let Some(tags) = fields::tags(&call.headers)? {
        upload.set_tags(tags)?;
    }
    if modified.is_some() {
        upload.set_attributes(&AttributeChanges { modified, ..AttributeChanges::default() }).map_err(Error::of_time)?;
    }
    let CommittedUpload { entry, replaced } = call.claiming(|claim| upload.commit(claim))?;
    let mut response = accepted(replaced, &entry, modified.is_some());
    if let Some(kept) = kept {
        call.view.keep_checksum(&entry, &kept)?;
        set(response.headers_mut(), HeaderName::from_static("oc-checksum"), checksum::first(&kept).to_owned());
    }
    Ok(response)
}

fn accepted(replaced: bool, entry: &Entry, dated: bool) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    let headers = response.headers_mut();
    if let Some(etag) = entry.etag {
        set(headers, header::ETAG, format!("\"{etag}\""));
        set(headers, HeaderName::from_static("oc-etag"), format!("\"{etag}\""));
    }
    set(headers, header::LAST_MODIFIED, date::http_date(entry.modified));
    if dated {
        headers.insert("x-oc-mtime", HeaderValue::from_static("accepted"));
    }
    response
}
