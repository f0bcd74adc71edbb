//! Resumable uploads (draft-ietf-httpbis-resumable-upload-10).
//!
//! A PUT or POST with `Upload-Complete: ?0` begins one: what it brought is set aside, and `Location` names the upload.
//! HEAD there tells how much has come (section 4.3), PATCH brings more (4.4), DELETE cancels (4.5). The request that
//! says `Upload-Complete: ?1` commits it, as the PUT that began it would have: conditions, rights, locks and limits
//! are judged then, by the session that completes it. A request that is cut keeps what has come of it.
//!
//! An offset is told only of what is written down ([`OpenState::note`]), so that it still holds after a restart; of a long
//! request this is done now and then, so that little is lost when the server is.
//!
//! No `104` is sent (hyper's server sends no interim answer but `100`), so that an upload that is complete in one
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
use super::unfinished_uploads::{ResumableProgress, ResumableUpload, UPLOAD_MAX_IDLE, UnfinishedUploads};
use super::{headers, put};
use crate::auth::Session;
use crate::domain::UnixMillis;
use crate::http::{RequestBody, ResponseBody};
use crate::tree::{AttributeChanges, StagedUpload, View, WriteConditions};

/// Where uploads are named.
const UPLOAD_PATH_PREFIX: &str = "/upload/";
const UPLOAD_COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const UPLOAD_OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const UPLOAD_LENGTH: HeaderName = HeaderName::from_static("upload-length");
const UPLOAD_LIMIT: HeaderName = HeaderName::from_static("upload-limit");

/// How much of a long request comes in before it is written down how far the upload has come.
const OFFSET_RECORD_INTERVAL_BYTES: u64 = 16 << 20;

/// Tells what `Upload-Complete` says, where it is there.
///
/// # Errors
/// [`Error::Malformed`] for any value but the two.
pub(super) fn parse_upload_complete(headers: &HeaderMap) -> Result<Option<bool>> {
    match headers::single_value(headers, UPLOAD_COMPLETE)?.map(|value| value.as_bytes().trim_ascii()) {
        None => Ok(None),
        Some(b"?1") => Ok(Some(true)),
        Some(b"?0") => Ok(Some(false)),
        Some(_) => Err(Error::Malformed("Upload-Complete is neither ?0 nor ?1")),
    }
}

/// Answers a PUT or POST that begins an upload (section 4.2).
///
/// # Errors
/// As PUT; [`Error::TooManyUploads`].
pub(super) async fn create(
    call: &Arc<RequestContext>,
    body: &mut RequestBody,
    uploads: &UnfinishedUploads,
    streak: &AdaptiveBlocking,
) -> Result<Response<ResponseBody>> {
    if parse_upload_complete(&call.headers)? != Some(false) {
        let mut response = put::handle(call, body, streak).await?;
        response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
        return Ok(response);
    }
    let length = headers::upload_length(&call.headers)?;
    let announced = length.or(body.size_hint().exact());
    let stage = {
        let (call, uploads) = (Arc::clone(call), uploads.clone());
        move || {
            uploads.check_limits(call.view.session(), announced)?;
            let upload = call.stage_with_preconditions(|claim| call.view.stage(&call.path, length, claim))?;
            uploads.create(&call, upload)
        }
    };
    // A request that is reset ends here, wherever it waits.
    let unknown = run_blocking(stage).await?;
    let id = unknown.id();
    let open = uploads.find(id, call.view.session().token()).ok_or(Error::TaskPanicked)?;
    let received = async { receive(&open, call, body, None).await?.finish_request().await };
    let offset = match received.await {
        Ok(offset) => offset,
        Err(error) => {
            unknown.delete().await?;
            return Err(error);
        }
    };
    let mut response = upload_state_response(StatusCode::CREATED, false, offset);
    set_header(response.headers_mut(), header::LOCATION, format!("{}{UPLOAD_PATH_PREFIX}{id}", call.server.prefix()));
    set_upload_limit(call.view.session(), &mut response);
    unknown.acknowledge();
    Ok(response)
}

/// Answers a request for an upload's own address.
///
/// # Errors
/// [`Error::NotFound`] for one that is not there, or another token's.
pub(super) async fn handle(
    verb: DavMethod,
    head: &Parts,
    body: &mut RequestBody,
    around: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let id = head
        .uri
        .path()
        .strip_prefix(UPLOAD_PATH_PREFIX)
        .and_then(|id| Uuid::parse_str(id).ok())
        .ok_or(Error::NotFound)?;
    let UnfinishedUploadContext { tree, uploads, session, now } = around;
    let open = uploads.find(id, session.token()).ok_or(Error::NotFound)?;
    match verb {
        DavMethod::Head | DavMethod::Get => {
            let (content, _) = open.take_over(now).await?;
            let (view, length) = (tree.view(session.clone()), open.length);
            let append = UploadAppend { entry: open, view, now, progress: Some(content), upload: None };
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
            append_request((id, open), head, body, UnfinishedUploadContext { tree, uploads, session, now }).await
        }
        _ => Err(Error::MethodNotAllowed(method::UPLOAD_METHODS)),
    }
}

/// Brings more of an upload (section 4.4).
async fn append_request(
    (id, open): (Uuid, Arc<ResumableUpload>),
    head: &Parts,
    body: &mut RequestBody,
    around: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/partial-upload") {
        return Err(Error::UnsupportedMediaType("an upload goes on with application/partial-upload"));
    }
    let complete = parse_upload_complete(&head.headers)?.ok_or(Error::Malformed("Upload-Complete is missing"))?;
    let provided = headers::upload_offset(&head.headers)?.ok_or(Error::Malformed("Upload-Offset is missing"))?;
    if headers::upload_length(&head.headers)?.is_some_and(|length| open.length.is_some_and(|known| known != length)) {
        return Err(Error::LengthMismatch);
    }
    let sums = ContentChecksums::from_headers(&head.headers, ChecksumScope::Body);
    let call = open.saved_request.restore_context(around.tree, around.session, around.now).await?;
    let append = receive(&open, &call, body, Some((provided, sums))).await?;
    if !complete {
        return Ok(upload_state_response(StatusCode::NO_CONTENT, false, append.finish_request().await?));
    }
    let uploads = around.uploads.clone();
    let begun = Arc::clone(&call);
    let mut response = put::conclude(&begun, true, move || {
        let response = append.commit(&call)?;
        if let Err(error) = uploads.delete(id) {
            tracing::warn!(%error, "what is left of an upload that is complete stays for now");
        }
        Ok(response)
    })
    .await?;
    response.headers_mut().insert(UPLOAD_COMPLETE, HeaderValue::from_static("?1"));
    Ok(response)
}

/// Takes in the body of one request to an upload that `request_context` began.
async fn receive(
    open: &Arc<ResumableUpload>,
    call: &Arc<RequestContext>,
    body: &mut RequestBody,
    asked: Option<(u64, ContentChecksums)>,
) -> Result<UploadAppend> {
    let (content, stop) = open.take_over(call.now).await?;
    let offset = content.offset;
    let (open, view) = (Arc::clone(open), call.view.clone());
    let append = UploadAppend { entry: open, view, now: call.now, progress: Some(content), upload: None };
    let mut sums = ContentChecksums::default();
    if let Some((provided, announced)) = asked {
        if provided != offset {
            return Err(Error::OffsetMismatch { expected: append.finish_request().await?, provided });
        }
        sums = announced;
    }
    let end = offset.saturating_add(body.size_hint().lower());
    if append.entry.length.is_some_and(|length| end > length) {
        return Err(Error::LengthMismatch);
    }
    let append = {
        let call = Arc::clone(call);
        run_blocking(move || append.reopen(&call, end)).await?
    };
    let pouring = UploadAppendSink { append, checksums: sums };
    let (pouring, blocks) = receive_body(body, call.view.session(), stop.cancelled(), pouring).await?;
    run_blocking(move || {
        let UploadAppendSink { mut append, checksums: sums } = pouring.write(&blocks)?;
        match sums.verify() {
            Ok(_) => Ok(append),
            Err(error) => append.truncate(offset).and(Err(error)),
        }
    })
    .await
}

/// An upload while a request works on it; how far it has come is put back when that ends, however it does.
struct UploadAppend {
    entry: Arc<ResumableUpload>,
    view: View,
    now: UnixMillis,
    progress: Option<ResumableProgress>,
    upload: Option<StagedUpload>,
}

impl UploadAppend {
    /// Takes the upload up, which will come to `end` now: rights and locks are asked as the request's session has them.
    fn reopen(mut self, call: &RequestContext, end: u64) -> Result<Self> {
        self.progress_mut()?.reservation.grow_to(end)?;
        let claim = WriteConditions { lock_tokens: call.submitted_lock_tokens(), ..WriteConditions::none() };
        self.upload = Some(self.view.resume_upload(&self.entry.staged_part, &call.path, &claim)?);
        Ok(self)
    }

    fn progress_mut(&mut self) -> Result<&mut ResumableProgress> {
        self.progress.as_mut().ok_or(Error::TaskPanicked)
    }

    /// Lets go of what came behind an offset: what is not counted takes no room either.
    fn truncate(&mut self, offset: u64) -> Result<()> {
        let upload = self.upload.as_ref().ok_or(Error::TaskPanicked)?;
        upload.set_attributes(&AttributeChanges { size: Some(offset), ..AttributeChanges::default() })?;
        self.progress_mut()?.offset = offset;
        Ok(())
    }

    /// Writes down how far it has come.
    fn record_offset(&mut self) -> Result<u64> {
        let Some(content) = &mut self.progress else { return Err(Error::TaskPanicked) };
        self.entry.record_offset(&self.view, content, self.now)?;
        Ok(content.offset)
    }

    /// Ends the request's work; returns how much has come in all.
    async fn finish_request(mut self) -> Result<u64> {
        match &self.progress {
            Some(content) if content.unrecorded_bytes() == 0 => Ok(content.offset),
            _ => run_blocking(move || self.record_offset()).await,
        }
    }

    /// Commits it as the request that began it asked for. What waits stays where that is refused.
    fn commit(mut self, call: &RequestContext) -> Result<Response<ResponseBody>> {
        let size = self.progress_mut()?.offset;
        if self.entry.length.is_some_and(|length| length != size) {
            return Err(Error::LengthMismatch);
        }
        let modified = headers::oc_mtime(&call.headers)?;
        // What a refused part left behind the end goes.
        self.truncate(size)?;
        let upload = self.upload.take().ok_or(Error::TaskPanicked)?;
        let kept = put::verify_checksums(call, &upload)?;
        call.evaluate_conditions()?;
        put::commit_upload(call, upload, modified, kept)
    }
}

impl Drop for UploadAppend {
    fn drop(&mut self) {
        if let Some(content) = self.progress.take() {
            self.entry.release(content);
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
            let UploadAppend { entry: open, upload: Some(upload), progress: Some(content), .. } = &mut self.append
            else {
                return Err(Error::TaskPanicked);
            };
            let end = content.offset.saturating_add(block.len() as u64);
            if open.length.is_some_and(|length| end > length) {
                return Err(Error::LengthMismatch);
            }
            content.reservation.grow_to(end)?;
            upload.write_at(block, content.offset)?;
            content.reservation.record_written(end);
            content.offset = end;
            self.checksums.update(block);
        }
        // What may turn out not to be what was announced is not written down before that is known.
        if self.checksums.is_empty() && self.append.progress_mut()?.unrecorded_bytes() >= OFFSET_RECORD_INTERVAL_BYTES {
            self.append.record_offset()?;
        }
        Ok(self)
    }

    fn on_abort(self, blocks: &[Bytes]) {
        if let Ok(UploadAppendSink { mut append, .. }) = self.write(blocks)
            && let Err(error) = append.record_offset()
        {
            tracing::warn!(%error, "what came of an upload that was cut is not written down");
        }
    }
}

/// Returns an answer that says how an upload stands.
fn upload_state_response(status: StatusCode, complete: bool, offset: u64) -> Response<ResponseBody> {
    let mut response = empty_response(status);
    let headers = response.headers_mut();
    headers.insert(UPLOAD_COMPLETE, HeaderValue::from_static(if complete { "?1" } else { "?0" }));
    headers.insert(UPLOAD_OFFSET, HeaderValue::from(offset));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says what an upload may come to (section 4.1.4).
fn set_upload_limit(session: &Session, response: &mut Response<ResponseBody>) {
    set_header(response.headers_mut(), UPLOAD_LIMIT, upload_limits(Some(session)));
}

/// Returns the limits of uploads: those of the server, and of a session.
pub(super) fn upload_limits(session: Option<&Session>) -> String {
    let most =
        session.and_then(|session| session.limits().max_file_size).map(|most| format!("max-size={}, ", most.bytes()));
    format!("{}max-age={}", most.unwrap_or_default(), UPLOAD_MAX_IDLE.as_secs())
}
