//! PUT: an atomic upload (RFC 9110 section 9.3.4), and PUT and PATCH of a part of a file.
//!
//! A body that fits into one block is staged, written and committed in a single step, a small one on the runtime where
//! that doesn't block ([`AdaptiveBlocking`]); a longer one is written block by block while the next block is received.
//! A client that waits for `100 Continue` gets every refusal that is already known before it sends the body. A change
//! of a part of a file is staged as a copy of the whole file, so that it is atomic too, and all limits are checked at
//! the one commit.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as _;

use super::adaptive_blocking::AdaptiveBlocking;
use super::checksum::{self, ChecksumScope, ContentChecksums};
use super::error::{Error, Result, run_blocking, run_cpu_bound};
use super::headers::AnnouncedLength;
use super::receive_body::{BODY_BLOCK_BYTES, BodySink, receive_body};
use super::request_context::RequestContext;
use super::response::{etag_value, set_header};
use super::write_range::WriteRange;
use super::{date, headers};
use crate::http::{RequestBody, ResponseBody, empty};
use crate::tree::{self, AttributeChanges, CommittedUpload, Entry, StagedUpload, Timestamp};

/// Handles PUT.
///
/// # Errors
/// Any fault of the request, its body or its path; nothing has changed then.
pub(super) async fn handle(
    context: &Arc<RequestContext>,
    body: &mut RequestBody,
    adaptive_blocking: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    let write_range = headers::single_value(&context.headers, header::CONTENT_RANGE)?
        .map(|value| WriteRange::from_content_range(value.as_bytes()));
    let put_upload = PutUpload::new(context, body.size_hint().exact(), write_range.transpose()?)?;
    if !put_upload.is_small() {
        return receive_and_commit(put_upload, body).await;
    }
    // The whole body is in memory then, so that all other steps are one.
    let (put_upload, blocks) = receive_body(body, context.view.session(), std::future::pending(), put_upload).await?;
    adaptive_blocking.run(move || put_upload.upload_whole(&blocks)).await
}

/// Handles PATCH of a part of a file (`X-Update-Range`).
///
/// # Errors
/// As [`handle`]; [`Error::UnsupportedMediaType`] for any other media type.
pub(super) async fn patch(context: &Arc<RequestContext>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let content_type =
        context.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some(PARTIAL_UPDATE_MEDIA_TYPE) {
        return Err(Error::UnsupportedMediaType(
            "PATCH requires Content-Type: application/x-sabredav-partialupdate and X-Update-Range",
        ));
    }
    let range = headers::single_value(&context.headers, "x-update-range")?
        .ok_or(Error::Malformed("X-Update-Range is missing"))?;
    let write_range = WriteRange::from_update_range(range.as_bytes())?;
    receive_and_commit(PutUpload::new(context, body.size_hint().exact(), Some(write_range))?, body).await
}

/// Maximum length of a small body.
const SMALL_BODY_MAX_BYTES: u64 = 64 * 1024;
/// Media type of a partial update in PATCH.
const PARTIAL_UPDATE_MEDIA_TYPE: &str = "application/x-sabredav-partialupdate";

async fn receive_and_commit(mut put_upload: PutUpload, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let context = Arc::clone(&put_upload.context);
    let large = put_upload.content_length.is_some_and(|length| length > BODY_BLOCK_BYTES as u64);
    // Staged before the body is polled, which sends `100 Continue`: refusals must come first (RFC 9110 section 10.1.1).
    if large || context.headers.contains_key(header::EXPECT) {
        put_upload = run_blocking(move || put_upload.stage()).await?;
    }
    let (put_upload, blocks) = receive_body(body, context.view.session(), std::future::pending(), put_upload).await?;
    let is_part = put_upload.write_range.is_some();
    run_last_step(&context, is_part, move || put_upload.finish(&blocks)).await
}

/// Runs the last step of an upload: under a work permit of its user where the file must be read back for the checksums
/// of the whole file that the request announces, and cancelled in that case when the connection is closed.
///
/// # Errors
/// The error of `work`; [`Error::Busy`] when the queue for permits is full.
pub(super) async fn run_last_step<T: Send + 'static>(
    context: &RequestContext,
    reads_back: bool,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match reads_back && !ContentChecksums::from_headers(&context.headers, ChecksumScope::File).is_empty() {
        true => run_cpu_bound(&context.view, work).await,
        false => run_blocking(work).await,
    }
}

/// Upload in progress.
struct PutUpload {
    context: Arc<RequestContext>,
    content_length: Option<u64>,
    /// Length announced in other headers than `Content-Length`.
    expected_length: Option<u64>,
    write_range: Option<WriteRange>,
    modified: Option<Timestamp>,
    checksums: ContentChecksums,
    /// Boxed: the upload is moved from step to step.
    upload: Option<Box<StagedUpload>>,
    start_offset: u64,
    bytes_written: u64,
}

impl PutUpload {
    /// Parses what the headers announce about the content.
    fn new(
        context: &Arc<RequestContext>,
        content_length: Option<u64>,
        write_range: Option<WriteRange>,
    ) -> Result<Self> {
        // The URL of a directory: a file that is created there could not be reached under it.
        if context.has_trailing_slash && !context.is_root() {
            return Err(tree::Error::IsADirectory.into());
        }
        let length_kind = if write_range.is_some() { AnnouncedLength::Part } else { AnnouncedLength::File };
        let tags = headers::tags(&context.headers)?;
        // Before the body: tags that the token doesn't allow must not cost an upload.
        context.view.check_tags(tags.as_deref().unwrap_or_default())?;
        Ok(Self {
            context: Arc::clone(context),
            content_length,
            expected_length: headers::expected_length(&context.headers, length_kind)?,
            modified: headers::oc_mtime(&context.headers)?,
            checksums: ContentChecksums::from_headers(
                &context.headers,
                if write_range.is_some() { ChecksumScope::Body } else { ChecksumScope::BodyAndFile },
            ),
            write_range,
            upload: None,
            start_offset: 0,
            bytes_written: 0,
        })
    }

    /// Tells whether staging, writing and committing the upload is short work that doesn't write to the store.
    fn is_small(&self) -> bool {
        // Tags are written to the store, and Expect needs the staging above.
        let has_special_headers =
            ["expect", "x-patgate-tags"].into_iter().any(|name| self.context.headers.contains_key(name));
        let is_short = self.content_length.is_some_and(|length| length <= SMALL_BODY_MAX_BYTES);
        is_short && self.write_range.is_none() && self.checksums.is_empty() && !has_special_headers
    }

    /// Checks permissions, limits, locks and conditions, and creates the staged file.
    fn stage(mut self) -> Result<Self> {
        let context = Arc::clone(&self.context);
        let Some(write_range) = &self.write_range else {
            // What a client announces of a body without a length is a reason to refuse it as well.
            let announced_length = self.content_length.max(self.expected_length);
            let upload = context.stage_with_preconditions(|conditions| {
                context.view.stage(&context.path, announced_length, conditions)
            })?;
            self.upload = Some(Box::new(upload));
            return Ok(self);
        };
        // PATCH of a missing file is 404; PUT with Content-Range creates it.
        if write_range.requires_existing_file() {
            context.view.stat(&context.path)?;
        }
        let (upload, size) =
            context.stage_with_preconditions(|conditions| context.view.stage_existing(&context.path, conditions))?;
        // From the size of the copy, not of the file: that may have changed in between.
        self.start_offset = write_range.start_offset(size)?;
        self.upload = Some(Box::new(upload));
        Ok(self)
    }

    /// Stages, writes and commits a small body in one step.
    fn upload_whole(self, blocks: &[Bytes]) -> Result<Response<ResponseBody>> {
        // A time is set on the staged file, where one that the file system can't keep is refused.
        if self.modified.is_some() {
            return self.finish(blocks);
        }
        self.check_length(blocks.iter().map(|block| block.len() as u64).sum())?;
        let Self { context, .. } = self;
        let CommittedUpload { entry, replaced } =
            context.with_preconditions(|conditions| context.view.upload_whole(&context.path, blocks, conditions))?;
        Ok(put_response(replaced, &entry, false))
    }

    /// Checks the length of a whole body against those that the request announces.
    fn check_length(&self, length: u64) -> Result<()> {
        // A body that ends early is never committed, not even where the transport reported no error.
        if self.content_length.is_some_and(|announced| announced != length) {
            return Err(Error::Truncated);
        }
        // Clients that send chunked bodies announce the real length here: a proxy that lost the rest ended the body
        // properly.
        if self.expected_length.is_some_and(|announced| length < announced) {
            return Err(Error::LengthMismatch);
        }
        Ok(())
    }

    fn finish(mut self, blocks: &[Bytes]) -> Result<Response<ResponseBody>> {
        // A short chunked body: its length is known now, so staging can check limits and free space.
        if self.content_length.is_none() && self.upload.is_none() {
            self.content_length = Some(blocks.iter().map(|block| block.len() as u64).sum());
        }
        let received = self.write(blocks)?;
        received.check_length(received.bytes_written)?;
        let Some(upload) = received.upload else { return Err(Error::TaskPanicked) };
        // All checks precede the commit: a file with a wrong checksum must never become visible.
        let mut stored_checksums = received.checksums.verify()?;
        if let Some(write_range) = &received.write_range {
            write_range.check_length(received.bytes_written)?;
            let size = write_range.truncated_size(upload.stat()?.size);
            upload.set_attributes(&AttributeChanges { size, ..AttributeChanges::default() })?;
            stored_checksums = verify_checksums(&received.context, &upload)?;
        }
        commit_upload(&received.context, *upload, received.modified, stored_checksums)
    }
}

impl BodySink for PutUpload {
    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        // The first full block, or the only one.
        if self.upload.is_none() {
            self = self.stage()?;
        }
        let Some(upload) = &self.upload else { return Err(Error::TaskPanicked) };
        for block in blocks {
            self.checksums.update(block);
            upload.write_at(block, self.start_offset + self.bytes_written)?;
            self.bytes_written += block.len() as u64;
        }
        Ok(self)
    }

    fn write_cached(&mut self, blocks: &[Bytes]) -> Result<usize> {
        // Staging waits for the disk, and checksums take longer than a switch of threads.
        let Some(upload) = self.upload.as_ref().filter(|_| self.checksums.is_empty()) else { return Ok(0) };
        let written = upload.write_cached_at(blocks, self.start_offset + self.bytes_written)?;
        self.bytes_written += written as u64;
        Ok(written)
    }
}

/// Verifies the checksums of the whole file that a request announces. Returns those to store with the file. It reads
/// the whole file back: see [`run_last_step`].
///
/// # Errors
/// [`Error::ChecksumMismatch`], and the errors of reading; [`tree::Error::SessionEnded`] once the request is cancelled.
pub(super) fn verify_checksums(context: &RequestContext, upload: &StagedUpload) -> Result<Option<String>> {
    let mut checksums = ContentChecksums::from_headers(&context.headers, ChecksumScope::File);
    if checksums.is_empty() {
        return Ok(None);
    }
    let mut buffer = vec![0; BODY_BLOCK_BYTES];
    let mut offset = 0;
    loop {
        // For each block: reading back a large file takes long.
        context.view.cancellation().check()?;
        match upload.read_at(&mut buffer, offset)? {
            0 => break,
            count => {
                checksums.update(&buffer[..count]);
                offset += count as u64;
            }
        }
    }
    checksums.verify()
}

/// Commits an upload whose checksums are verified, and returns the response. Checksums for sync clients are stored;
/// where the store refuses that, the response has no `OC-Checksum`.
///
/// # Errors
/// The errors of the tree; the old content is unchanged then.
pub(super) fn commit_upload(
    context: &RequestContext,
    upload: StagedUpload,
    modified: Option<Timestamp>,
    stored_checksums: Option<String>,
) -> Result<Response<ResponseBody>> {
    // On the staged file, so that tags and times appear together with the content.
    if let Some(tags) = headers::tags(&context.headers)? {
        upload.set_tags(tags)?;
    }
    if modified.is_some() {
        upload
            .set_attributes(&AttributeChanges { modified, ..AttributeChanges::default() })
            .map_err(Error::from_time_error)?;
    }
    // Last: permissions, locks and conditions are checked again, under the lock of the name.
    let CommittedUpload { entry, replaced } = context.with_preconditions(|conditions| upload.commit(conditions))?;
    let mut response = put_response(replaced, &entry, modified.is_some());
    if let Some(stored_checksums) = stored_checksums {
        // Only now: checksums are stored for the entity tag, which the commit creates.
        match context.view.keep_checksum(&entry, &stored_checksums) {
            Ok(()) => set_header(
                response.headers_mut(),
                HeaderName::from_static("oc-checksum"),
                checksum::first_stored_checksum(&stored_checksums).to_owned(),
            ),
            // The file is in place: an error status would say that the old content is unchanged.
            Err(error) => tracing::warn!(%error, "the checksum of an uploaded file could not be stored"),
        }
    }
    Ok(response)
}

fn put_response(replaced: bool, entry: &Entry, mtime_accepted: bool) -> Response<ResponseBody> {
    let mut response = Response::new(empty());
    *response.status_mut() = if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
    let headers = response.headers_mut();
    if let Some(value) = entry.etag.and_then(etag_value) {
        // ownCloud and Nextcloud clients prefer the second, since some proxies rewrite ETag when they compress.
        headers.insert(header::ETAG, value.clone());
        headers.insert(HeaderName::from_static("oc-etag"), value);
    }
    set_header(headers, header::LAST_MODIFIED, date::format_http_date(entry.modified));
    if mtime_accepted {
        headers.insert("x-oc-mtime", HeaderValue::from_static("accepted"));
    }
    response
}
