//! Resumable uploads (draft-ietf-httpbis-resumable-upload-10).
//!
//! A PUT or POST with `Upload-Complete: ?0` creates one: its content is kept in staging, and `Location` names the
//! upload. HEAD of that URL returns the offset (section 4.3), PATCH appends (4.4), DELETE cancels (4.5). The request
//! with `Upload-Complete: ?1` commits the upload as the PUT that created it would have: conditions, permissions, locks
//! and limits are checked then, for the session that completes it. Of a request that ends early, the received data is
//! kept.
//!
//! An offset is sent to the client only once it is recorded ([`ResumableUpload::record_offset`]), so that it is still
//! valid after a restart; during a long request it is recorded at intervals, so that a crash loses little.
//!
//! No `104` is sent (hyper's server sends no interim response but `100`), so that an upload that is complete in one
//! request is an ordinary PUT.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as _;
use uuid::Uuid;

use super::adaptive_blocking::AdaptiveBlocking;
use super::checksum::{ChecksumScope, ContentChecksums};
use super::chunked_upload::UnfinishedUploadContext;
use super::error::{Error, Result, run_blocking};
use super::method::{self, DavMethod};
use super::receive_body::{BodySink, receive_body};
use super::request_context::RequestContext;
use super::response::{empty_response, set_header};
use super::structured_field::item_without_parameters;
use super::unfinished_uploads::UnfinishedUploads;
use super::upload_progress::{ResumableProgress, ResumableUpload, UPLOAD_MAX_IDLE};
use super::{headers, put};
use crate::auth::Session;
use crate::domain::UnixMillis;
use crate::http::{RequestBody, ResponseBody};
use crate::tree::{AttributeChanges, StagedUpload, View, WriteConditions};

/// Prefix of the URL paths of uploads; the UUID of the upload follows.
const UPLOAD_PATH_PREFIX: &str = "/upload/";
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");

/// Number of bytes after which a long request records the offset.
const OFFSET_RECORD_INTERVAL_BYTES: u64 = 16 << 20;

/// Parses `Upload-Complete`; `None` where it is missing.
///
/// # Errors
/// [`Error::Malformed`] for any other value than `?0` and `?1`.
pub(super) fn parse_upload_complete(headers: &HeaderMap) -> Result<Option<bool>> {
    let Some(value) = headers::single_value(headers, UPLOAD_COMPLETE)? else { return Ok(None) };
    match item_without_parameters(value.as_bytes()) {
        Some(b"?1") => Ok(Some(true)),
        Some(b"?0") => Ok(Some(false)),
        Some(_) | None => Err(Error::Malformed("Upload-Complete is neither ?0 nor ?1")),
    }
}

/// Handles a PUT or POST that creates an upload (section 4.2).
///
/// # Errors
/// As PUT; [`Error::TooManyUploads`].
pub(super) async fn create(
    context: &Arc<RequestContext>,
    body: &mut RequestBody,
    uploads: &UnfinishedUploads,
    adaptive_blocking: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    // The whole file in one request is an ordinary PUT.
    if parse_upload_complete(&context.headers)? != Some(false) {
        let mut response = put::handle(context, body, adaptive_blocking).await?;
        response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
        return Ok(response);
    }
    let length = headers::upload_length(&context.headers)?;
    // Content-Length is only that of the first part, but better than nothing.
    let announced_length = length.or(body.size_hint().exact());
    let stage = {
        let (context, uploads) = (Arc::clone(context), uploads.clone());
        move || {
            // Before staging: a refusal must not leave a file behind.
            uploads.check_limits(context.view.session(), announced_length)?;
            let upload =
                context.stage_with_preconditions(|conditions| context.view.stage(&context.path, length, conditions))?;
            uploads.create(&context, upload)
        }
    };
    // From here on, dropping this future (the client reset the request) deletes the upload: nobody knows its URL.
    let unacknowledged = run_blocking(stage).await?;
    let id = unacknowledged.id();
    let resumable = uploads.find(id, context.view.session().token()).ok_or(Error::TaskPanicked)?;
    let received = async { receive(&resumable, context, body, None).await?.finish_request().await };
    let offset = match received.await {
        Ok(offset) => offset,
        Err(error) => {
            // The client doesn't know the URL, so it could not resume: nothing is kept.
            unacknowledged.delete().await?;
            return Err(error);
        }
    };
    let mut response = upload_state_response(StatusCode::CREATED, false, offset);
    set_header(
        response.headers_mut(),
        header::LOCATION,
        format!("{}{UPLOAD_PATH_PREFIX}{id}", context.server.prefix()),
    );
    set_upload_limit(context.view.session(), &mut response);
    // Last, when nothing can fail any more.
    unacknowledged.acknowledge();
    Ok(response)
}

/// Handles a request for the URL of an upload.
///
/// # Errors
/// [`Error::NotFound`] for an upload that doesn't exist or belongs to another token.
pub(super) async fn handle(
    method: DavMethod,
    head: &Parts,
    body: &mut RequestBody,
    upload_context: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let id = head
        .uri
        .path()
        .strip_prefix(UPLOAD_PATH_PREFIX)
        .and_then(|id| Uuid::parse_str(id).ok())
        .ok_or(Error::NotFound)?;
    let UnfinishedUploadContext { tree, uploads, session, now } = upload_context;
    let resumable = uploads.find(id, session.token()).ok_or(Error::NotFound)?;
    match method {
        DavMethod::Head | DavMethod::Get => {
            // Cancels a request that is still writing, whose connection the client has probably lost: the offset must be
            // final.
            let (progress, _) = resumable.take_over(now).await?;
            let (view, length) = (tree.view(session.clone()), resumable.length);
            let append = UploadAppend { resumable, view, now, progress: Some(progress), upload: None };
            let mut response = upload_state_response(StatusCode::NO_CONTENT, false, append.finish_request().await?);
            set_upload_limit(&session, &mut response);
            if let Some(length) = length {
                response.headers_mut().insert(UPLOAD_LENGTH, HeaderValue::from(length));
            }
            Ok(response)
        }
        DavMethod::Delete => {
            let uploads = uploads.clone();
            run_blocking(move || uploads.delete(id).map(|()| empty_response(StatusCode::NO_CONTENT))).await
        }
        DavMethod::Patch => {
            append_request((id, resumable), head, body, UnfinishedUploadContext { tree, uploads, session, now }).await
        }
        _ => Err(Error::MethodNotAllowed(method::UPLOAD_METHODS)),
    }
}

/// Appends to an upload (section 4.4).
async fn append_request(
    (id, resumable): (Uuid, Arc<ResumableUpload>),
    head: &Parts,
    body: &mut RequestBody,
    upload_context: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/partial-upload") {
        return Err(Error::UnsupportedMediaType(
            "appending to an upload requires Content-Type: application/partial-upload",
        ));
    }
    let complete = parse_upload_complete(&head.headers)?.ok_or(Error::Malformed("Upload-Complete is missing"))?;
    let provided = headers::upload_offset(&head.headers)?.ok_or(Error::Malformed("Upload-Offset is missing"))?;
    if headers::upload_length(&head.headers)?
        .is_some_and(|length| resumable.length.is_some_and(|known| known != length))
    {
        return Err(Error::LengthMismatch);
    }
    // Of the bytes in this request; those of the whole file are in the saved request.
    let checksums = ContentChecksums::from_headers(&head.headers, ChecksumScope::Body);
    // Conditions and lock tokens of the first request, permissions of this one.
    let context = resumable
        .saved_request
        .restore_context(upload_context.tree, upload_context.session, upload_context.now)
        .await?;
    let append = receive(&resumable, &context, body, Some((provided, checksums))).await?;
    if !complete {
        return Ok(upload_state_response(StatusCode::NO_CONTENT, false, append.finish_request().await?));
    }
    let uploads = upload_context.uploads.clone();
    let request_context = Arc::clone(&context);
    let mut response = put::run_last_step(&request_context, true, move || {
        let response = append.commit(&context)?;
        // After the commit, and without failing the request: the file is complete.
        if let Err(error) = uploads.delete(id) {
            tracing::warn!(
                %error,
                "the remains of a completed upload could not be removed: they stay until they expire or the \
                 server is restarted"
            );
        }
        Ok(response)
    })
    .await?;
    response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
    Ok(response)
}

/// Receives the body of one request and appends it to the upload. `expected` is the offset and the checksums that the
/// request announces; `None` for the request that created the upload.
async fn receive(
    resumable: &Arc<ResumableUpload>,
    context: &Arc<RequestContext>,
    body: &mut RequestBody,
    expected: Option<(u64, ContentChecksums)>,
) -> Result<UploadAppend> {
    // One request at a time: without the progress nobody can write.
    let (progress, cancelled) = resumable.take_over(context.now).await?;
    let offset = progress.offset;
    let (resumable, view) = (Arc::clone(resumable), context.view.clone());
    let append = UploadAppend { resumable, view, now: context.now, progress: Some(progress), upload: None };
    let mut checksums = ContentChecksums::default();
    if let Some((provided, announced)) = expected {
        // Nothing is read: appended at another offset, the file would have a gap or duplicate bytes.
        if provided != offset {
            return Err(Error::OffsetMismatch { expected: append.finish_request().await?, provided });
        }
        checksums = announced;
    }
    let end = offset.saturating_add(body.size_hint().lower());
    // Before the body is polled, which sends `100 Continue`.
    if append.resumable.length.is_some_and(|length| end > length) {
        return Err(Error::LengthMismatch);
    }
    let append = {
        let context = Arc::clone(context);
        run_blocking(move || append.reopen(&context, end)).await?
    };
    let sink = UploadAppendSink { append, checksums };
    let (sink, blocks) = receive_body(body, context.view.session(), cancelled.cancelled(), sink).await?;
    run_blocking(move || {
        let UploadAppendSink { mut append, checksums } = sink.write(&blocks)?;
        match checksums.verify() {
            Ok(_) => Ok(append),
            // The bytes of this request are removed, so that the client can send them again.
            Err(error) => append.truncate(offset).and(Err(error)),
        }
    })
    .await
}

/// Upload that a request appends to; its progress is released when this is dropped, however the request ends.
struct UploadAppend {
    resumable: Arc<ResumableUpload>,
    view: View,
    now: UnixMillis,
    progress: Option<ResumableProgress>,
    upload: Option<StagedUpload>,
}

impl UploadAppend {
    /// Opens the staged content, which will grow to `end`; permissions and locks are checked for the session of the
    /// request.
    fn reopen(mut self, context: &RequestContext, end: u64) -> Result<Self> {
        // All that the request announces, before its first byte.
        self.progress_mut()?.reservation.grow_to(end)?;
        // Without conditions: they are evaluated at the commit, and may be true by then.
        let conditions = WriteConditions { lock_tokens: context.submitted_lock_tokens(), ..WriteConditions::none() };
        self.upload = Some(self.view.resume_upload(&self.resumable.staged_part, &context.path, &conditions)?);
        Ok(self)
    }

    fn progress_mut(&mut self) -> Result<&mut ResumableProgress> {
        self.progress.as_mut().ok_or(Error::TaskPanicked)
    }

    /// Removes the content after an offset: bytes that are not counted must not use space.
    fn truncate(&mut self, offset: u64) -> Result<()> {
        let upload = self.upload.as_ref().ok_or(Error::TaskPanicked)?;
        upload.set_attributes(&AttributeChanges { size: Some(offset), ..AttributeChanges::default() })?;
        self.progress_mut()?.offset = offset;
        Ok(())
    }

    /// Records the offset, and returns it.
    fn record_offset(&mut self) -> Result<u64> {
        let Some(progress) = &mut self.progress else { return Err(Error::TaskPanicked) };
        self.resumable.record_offset(&self.view, progress, self.now)?;
        Ok(progress.offset)
    }

    /// Ends the request; returns the recorded offset.
    async fn finish_request(mut self) -> Result<u64> {
        match &self.progress {
            // No new bytes: a HEAD needs neither a thread nor the store.
            Some(progress) if progress.unrecorded_bytes() == 0 => Ok(progress.offset),
            _ => run_blocking(move || self.record_offset()).await,
        }
    }

    /// Commits the upload under the conditions of the request that created it. Where that is refused, the upload is
    /// kept.
    fn commit(mut self, context: &RequestContext) -> Result<Response<ResponseBody>> {
        let size = self.progress_mut()?.offset;
        if self.resumable.length.is_some_and(|length| length != size) {
            return Err(Error::LengthMismatch);
        }
        let modified = headers::oc_mtime(&context.headers)?;
        // Removes bytes that a rejected request left after the recorded end.
        self.truncate(size)?;
        // The staged content stays where it is if the commit fails; `drop` releases the progress.
        let upload = self.upload.take().ok_or(Error::TaskPanicked)?;
        let stored_checksums = put::verify_checksums(context, &upload)?;
        context.evaluate_conditions()?;
        put::commit_upload(context, upload, modified, stored_checksums)
    }
}

impl Drop for UploadAppend {
    fn drop(&mut self) {
        // On every way out: a request that is reset must not block the upload for the next one.
        if let Some(progress) = self.progress.take() {
            self.resumable.release(progress);
        }
    }
}

struct UploadAppendSink {
    append: UploadAppend,
    checksums: ContentChecksums,
}

impl BodySink for UploadAppendSink {
    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        for block in blocks {
            let UploadAppend { resumable, upload: Some(upload), progress: Some(progress), .. } = &mut self.append
            else {
                return Err(Error::TaskPanicked);
            };
            let end = progress.offset.saturating_add(block.len() as u64);
            // The announced length bounds the upload, also where the body is chunked.
            if resumable.length.is_some_and(|length| end > length) {
                return Err(Error::LengthMismatch);
            }
            progress.reservation.grow_to(end)?;
            upload.write_at(block, progress.offset)?;
            progress.reservation.record_written(end);
            progress.offset = end;
            self.checksums.update(block);
        }
        // Bytes with an announced checksum are not recorded before it is verified: a client must never be told to
        // continue after corrupt data.
        if self.checksums.is_empty() && self.append.progress_mut()?.unrecorded_bytes() >= OFFSET_RECORD_INTERVAL_BYTES {
            self.append.record_offset()?;
        }
        Ok(self)
    }

    fn on_abort(self, blocks: &[Bytes]) {
        // The last blocks as well: whatever is kept need not be sent again.
        if let Ok(UploadAppendSink { mut append, .. }) = self.write(blocks)
            && let Err(error) = append.record_offset()
        {
            tracing::warn!(
                %error,
                "the offset of an interrupted upload could not be recorded; the client resumes from the previous one"
            );
        }
    }
}

/// Returns a response with the state of an upload.
fn upload_state_response(status: StatusCode, complete: bool, offset: u64) -> Response<ResponseBody> {
    let mut response = empty_response(status);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(if complete { "?1" } else { "?0" }));
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    // A client that resumes from a cached offset would be refused.
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Sets `Upload-Limit` (section 4.1.4).
fn set_upload_limit(session: &Session, response: &mut Response<ResponseBody>) {
    set_header(response.headers_mut(), UPLOAD_LIMIT, upload_limits(Some(session)));
}

/// Returns the value of `Upload-Limit`: the limits of the server, and those of a session's token and of its parents.
pub(super) fn upload_limits(session: Option<&Session>) -> String {
    let max_size = session
        .and_then(|session| session.upload_rule().max_file_size())
        .map(|max_size| format!("max-size={}, ", max_size.bytes()));
    format!("{}max-age={}", max_size.unwrap_or_default(), UPLOAD_MAX_IDLE.as_secs())
}
