//! Resumable uploads (draft-ietf-httpbis-resumable-upload-10).
//!
//! A PUT or POST with `Upload-Complete: ?0` begins one: what it brought is set aside, and `Location` names the upload.
//! HEAD there tells how much has come (section 4.3), PATCH brings more (4.4), DELETE cancels (4.5). The request that
//! says `Upload-Complete: ?1` commits it, as the PUT that began it would have: conditions, rights, locks and limits
//! are judged then, by the session that completes it. A request that is cut keeps what has come of it.
//!
//! An offset is told only of what is written down ([`Open::note`]), so that it still holds after a restart; of a long
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

use super::call::Call;
use super::checksum::{Checksums, Of};
use super::chunks::Around;
use super::error::{Error, Result, blocking};
use super::folder::done;
use super::get::set;
use super::pour::{Sink, pour};
use super::streak::Streak;
use super::uploads::{Content, LIFE, Open, Uploads};
use super::verb::{self, Verb};
use super::{fields, put};
use crate::auth::Session;
use crate::domain::UnixMillis;
use crate::http::{RequestBody, ResponseBody};
use crate::tree::{AttributeChanges, StagedUpload, View, WriteConditions};

/// Where uploads are named.
const PLACE: &str = "/upload/";
const COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const LIMIT: HeaderName = HeaderName::from_static("upload-limit");

/// How much of a long request comes in before it is written down how far the upload has come.
const STRIDE: u64 = 16 << 20;

/// Tells what `Upload-Complete` says, where it is there.
///
/// # Errors
/// [`Error::Malformed`] for any value but the two.
pub(super) fn completes(headers: &HeaderMap) -> Result<Option<bool>> {
    match fields::one(headers, COMPLETE)?.map(|value| value.as_bytes().trim_ascii()) {
        None => Ok(None),
        Some(b"?1") => Ok(Some(true)),
        Some(b"?0") => Ok(Some(false)),
        Some(_) => Err(Error::Malformed("Upload-Complete is neither ?0 nor ?1")),
    }
}

/// Answers a PUT or POST that begins an upload (section 4.2).
///
/// # Errors
/// As PUT; [`Error::Crowded`].
pub(super) async fn begin(
    call: &Arc<Call>,
    body: &mut RequestBody,
    uploads: &Uploads,
    streak: &Streak,
) -> Result<Response<ResponseBody>> {
    if completes(&call.headers)? != Some(false) {
        let mut response = put::answer(call, body, streak).await?;
        response.headers_mut().insert(COMPLETE, HeaderValue::from_static("?1"));
        return Ok(response);
    }
    let length = length(&call.headers)?;
    let announced = length.or(body.size_hint().exact());
    let stage = {
        let (call, uploads) = (Arc::clone(call), uploads.clone());
        move || {
            uploads.admit(call.view.session(), announced)?;
            let upload = call.staging(|claim| call.view.stage(&call.path, length, claim))?;
            uploads.begin(&call, length, upload)
        }
    };
    // A request that is reset ends here, wherever it waits.
    let unknown = blocking(stage).await?;
    let id = unknown.id();
    let open = uploads.find(id, call.view.session().token()).ok_or(Error::Lost)?;
    let received = async { receive(&open, call, body, None).await?.pause().await };
    let offset = match received.await {
        Ok(offset) => offset,
        Err(error) => {
            unknown.end().await?;
            return Err(error);
        }
    };
    let mut response = stands(StatusCode::CREATED, false, offset);
    set(response.headers_mut(), header::LOCATION, format!("{}{PLACE}{id}", call.server.prefix()));
    limit(call.view.session(), &mut response);
    unknown.told();
    Ok(response)
}

/// Reads how long all of an upload will be, where that is announced.
///
/// # Errors
/// [`Error::Malformed`].
pub(super) fn length(headers: &HeaderMap) -> Result<Option<u64>> {
    number(headers, LENGTH)
}

/// Answers a request for an upload's own address.
///
/// # Errors
/// [`Error::Elsewhere`] for one that is not there, or another token's.
pub(super) async fn answer(
    verb: Verb,
    head: &Parts,
    body: &mut RequestBody,
    around: Around<'_>,
) -> Result<Response<ResponseBody>> {
    let id = head.uri.path().strip_prefix(PLACE).and_then(|id| Uuid::parse_str(id).ok()).ok_or(Error::Elsewhere)?;
    let Around { tree, uploads, session, now } = around;
    let open = uploads.find(id, session.token()).ok_or(Error::Elsewhere)?;
    match verb {
        Verb::Head | Verb::Get => {
            let (content, _) = open.take(now).await?;
            let (view, length) = (tree.view(session.clone()), open.length);
            let append = Append { open, view, now, content: Some(content), upload: None };
            let mut response = stands(StatusCode::NO_CONTENT, false, append.pause().await?);
            limit(&session, &mut response);
            if let Some(length) = length {
                response.headers_mut().insert(LENGTH, HeaderValue::from(length));
            }
            Ok(response)
        }
        Verb::Delete => {
            let uploads = uploads.clone();
            blocking(move || uploads.end(id).map(|()| done(StatusCode::NO_CONTENT))).await
        }
        Verb::Patch => append((id, open), head, body, Around { tree, uploads, session, now }).await,
        _ => Err(Error::NotAllowed(verb::FOR_UPLOAD)),
    }
}

/// Brings more of an upload (section 4.4).
async fn append(
    (id, open): (Uuid, Arc<Open>),
    head: &Parts,
    body: &mut RequestBody,
    around: Around<'_>,
) -> Result<Response<ResponseBody>> {
    if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/partial-upload") {
        return Err(Error::Unsupported("an upload goes on with application/partial-upload"));
    }
    let complete = completes(&head.headers)?.ok_or(Error::Malformed("Upload-Complete is missing"))?;
    let provided = number(&head.headers, OFFSET)?.ok_or(Error::Malformed("Upload-Offset is missing"))?;
    if length(&head.headers)?.is_some_and(|length| open.length.is_some_and(|known| known != length)) {
        return Err(Error::Length);
    }
    let sums = Checksums::announced(&head.headers, Of::Part);
    let call = open.begun.call(around.tree, around.session, around.now).await?;
    let append = receive(&open, &call, body, Some((provided, sums))).await?;
    if !complete {
        return Ok(stands(StatusCode::NO_CONTENT, false, append.pause().await?));
    }
    let uploads = around.uploads.clone();
    let begun = Arc::clone(&call);
    let mut response = put::conclude(&begun, true, move || {
        let response = append.complete(&call)?;
        if let Err(error) = uploads.end(id) {
            tracing::warn!(%error, "what is left of an upload that is complete stays for now");
        }
        Ok(response)
    })
    .await?;
    response.headers_mut().insert(COMPLETE, HeaderValue::from_static("?1"));
    Ok(response)
}

/// Takes in the body of one request to an upload that `call` began.
async fn receive(
    open: &Arc<Open>,
    call: &Arc<Call>,
    body: &mut RequestBody,
    asked: Option<(u64, Checksums)>,
) -> Result<Append> {
    let (content, stop) = open.take(call.now).await?;
    let offset = content.offset;
    let (open, view) = (Arc::clone(open), call.view.clone());
    let append = Append { open, view, now: call.now, content: Some(content), upload: None };
    let mut sums = Checksums::default();
    if let Some((provided, announced)) = asked {
        if provided != offset {
            return Err(Error::Offset { expected: append.pause().await?, provided });
        }
        sums = announced;
    }
    let end = offset.saturating_add(body.size_hint().lower());
    if append.open.length.is_some_and(|length| end > length) {
        return Err(Error::Length);
    }
    let append = {
        let call = Arc::clone(call);
        blocking(move || append.resume(&call, end)).await?
    };
    let pouring = Pouring { append, sums };
    let (pouring, blocks) = pour(body, call.view.session(), stop.cancelled(), pouring).await?;
    blocking(move || {
        let Pouring { mut append, sums } = pouring.write(&blocks)?;
        match sums.finish() {
            Ok(_) => Ok(append),
            Err(error) => append.cut_to(offset).and(Err(error)),
        }
    })
    .await
}

/// An upload while a request works on it; how far it has come is put back when that ends, however it does.
struct Append {
    open: Arc<Open>,
    view: View,
    now: UnixMillis,
    content: Option<Content>,
    upload: Option<StagedUpload>,
}

impl Append {
    /// Takes the upload up, which will come to `end` now: rights and locks are asked as the request's session has them.
    fn resume(mut self, call: &Call, end: u64) -> Result<Self> {
        self.content()?.weight.grow_to(end)?;
        let claim = WriteConditions { lock_tokens: call.tokens(), ..WriteConditions::none() };
        self.upload = Some(self.view.resume_upload(&self.open.waiting, &call.path, &claim)?);
        Ok(self)
    }

    fn content(&mut self) -> Result<&mut Content> {
        self.content.as_mut().ok_or(Error::Lost)
    }

    /// Lets go of what came behind an offset: what is not counted takes no room either.
    fn cut_to(&mut self, offset: u64) -> Result<()> {
        let upload = self.upload.as_ref().ok_or(Error::Lost)?;
        upload.set_attributes(&AttributeChanges { size: Some(offset), ..AttributeChanges::default() })?;
        self.content()?.offset = offset;
        Ok(())
    }

    /// Writes down how far it has come.
    fn note(&mut self) -> Result<u64> {
        let Some(content) = &mut self.content else { return Err(Error::Lost) };
        self.open.note(&self.view, content, self.now)?;
        Ok(content.offset)
    }

    /// Ends the request's work; returns how much has come in all.
    async fn pause(mut self) -> Result<u64> {
        match &self.content {
            Some(content) if content.loose() == 0 => Ok(content.offset),
            _ => blocking(move || self.note()).await,
        }
    }

    /// Commits it as the request that began it asked for. What waits stays where that is refused.
    fn complete(mut self, call: &Call) -> Result<Response<ResponseBody>> {
        let size = self.content()?.offset;
        if self.open.length.is_some_and(|length| length != size) {
            return Err(Error::Length);
        }
        let modified = fields::modified(&call.headers)?;
        // What a refused part left behind the end goes.
        self.cut_to(size)?;
        let upload = self.upload.take().ok_or(Error::Lost)?;
        let kept = put::verify(call, &upload)?;
        call.judge()?;
        put::commit(call, upload, modified, kept)
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        if let Some(content) = self.content.take() {
            self.open.put_back(content);
        }
    }
}

struct Pouring {
    append: Append,
    sums: Checksums,
}

impl Sink for Pouring {
    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        for block in blocks {
            let Append { open, upload: Some(upload), content: Some(content), .. } = &mut self.append else {
                return Err(Error::Lost);
            };
            let end = content.offset.saturating_add(block.len() as u64);
            if open.length.is_some_and(|length| end > length) {
                return Err(Error::Length);
            }
            content.weight.grow_to(end)?;
            upload.write_at(block, content.offset)?;
            content.weight.wrote(end);
            content.offset = end;
            self.sums.update(block);
        }
        // What may turn out not to be what was announced is not written down before that is known.
        if self.sums.is_empty() && self.append.content()?.loose() >= STRIDE {
            self.append.note()?;
        }
        Ok(self)
    }

    fn salvage(self, blocks: &[Bytes]) {
        if let Ok(Pouring { mut append, .. }) = self.write(blocks)
            && let Err(error) = append.note()
        {
            tracing::warn!(%error, "what came of an upload that was cut is not written down");
        }
    }
}

/// Returns an answer that says how an upload stands.
fn stands(status: StatusCode, complete: bool, offset: u64) -> Response<ResponseBody> {
    let mut response = done(status);
    let headers = response.headers_mut();
    headers.insert(COMPLETE, HeaderValue::from_static(if complete { "?1" } else { "?0" }));
    headers.insert(OFFSET, HeaderValue::from(offset));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says what an upload may come to (section 4.1.4).
fn limit(session: &Session, response: &mut Response<ResponseBody>) {
    set(response.headers_mut(), LIMIT, limits(Some(session)));
}

/// Returns the limits of uploads: those of the server, and of a session.
pub(super) fn limits(session: Option<&Session>) -> String {
    let most =
        session.and_then(|session| session.limits().max_file_size).map(|most| format!("max-size={}, ", most.bytes()));
    format!("{}max-age={}", most.unwrap_or_default(), LIFE.as_secs())
}

fn number(headers: &HeaderMap, name: HeaderName) -> Result<Option<u64>> {
    let Some(value) = fields::one(headers, name)? else { return Ok(None) };
    let number =
        value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    number.map(Some).ok_or(Error::Malformed("an upload's offset or length is no number"))
}
