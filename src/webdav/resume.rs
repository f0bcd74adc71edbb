//! Resumable uploads (draft-ietf-httpbis-resumable-upload-10).
//!
//! A PUT or POST with `Upload-Complete: ?0` begins one: what it brought is set aside, and `Location` names the upload.
//! HEAD there tells how much has come (section 4.3), PATCH brings more (4.4), DELETE cancels (4.5). The request that
//! says `Upload-Complete: ?1` commits it, as the PUT that began it would have: conditions, rights, locks and limits
//! are judged then, by the session that completes it. A request that is cut keeps what has come of it.
//!
//! No `104` is sent, so that an upload that is complete in one request is an ordinary PUT.

use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::body::{Body as _, Incoming};
use uuid::Uuid;

use super::call::Call;
use super::checksum::{Checksums, Of};
use super::error::{Error, Result};
use super::folder::done;
use super::get::set;
use super::pour::{Sink, pour};
use super::streak::Streak;
use super::stream::blocking;
use super::uploads::{LIFE, Open, Uploads};
use super::verb::Verb;
use super::{fields, put};
use crate::auth::Session;
use crate::domain::Time;
use crate::http::Body;
use crate::tree::{Attributes, Claim, Deposit, Upload, View};

/// Where uploads are named.
const PLACE: &str = "/upload/";
const COMPLETE: HeaderName = HeaderName::from_static("upload-complete");
const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
const LENGTH: HeaderName = HeaderName::from_static("upload-length");
const LIMIT: HeaderName = HeaderName::from_static("upload-limit");

/// Tells what `Upload-Complete` says, where it is there.
///
/// # Errors
/// [`Error::Malformed`] for any value but the two.
pub(super) fn completes(headers: &HeaderMap) -> Result<Option<bool>> {
    match headers.get(COMPLETE).map(|value| value.as_bytes().trim_ascii()) {
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
    body: &mut Incoming,
    uploads: &Uploads,
    streak: &Streak,
) -> Result<Response<Body>> {
    if completes(&call.headers)? != Some(false) {
        let mut response = put::answer(call, body, streak).await?;
        response.headers_mut().insert(COMPLETE, HeaderValue::from_static("?1"));
        return Ok(response);
    }
    let length = number(&call.headers, LENGTH)?;
    let stage = {
        let call = Arc::clone(call);
        move || call.staging(|claim| call.view.stage(&call.path, length, claim))
    };
    let upload = blocking(stage).await?;
    let (call, uploads) = (Arc::clone(call), uploads.clone());
    let id = blocking({
        let call = Arc::clone(&call);
        let uploads = uploads.clone();
        move || uploads.begin(&call, length, (upload.set_aside(), 0))
    })
    .await?;
    let open = uploads.find(id, call.view.session().token(), call.now).ok_or(Error::Lost)?;
    let offset = match receive(&open, &call.view, call.now, body, None).await {
        Ok(append) => append.pause(),
        Err(error) => {
            uploads.forget(id);
            return Err(error);
        }
    };
    let mut response = stands(StatusCode::CREATED, false, offset);
    set(response.headers_mut(), header::LOCATION, format!("{PLACE}{id}"));
    limit(&call.view, &mut response);
    Ok(response)
}

/// Answers a request for an upload's own address.
///
/// # Errors
/// [`Error::Elsewhere`] for one that is not there, or another token's.
pub(super) async fn answer(
    verb: Verb,
    head: &Parts,
    body: &mut Incoming,
    (uploads, view, now): (&Uploads, View, Time),
) -> Result<Response<Body>> {
    let id = head.uri.path().strip_prefix(PLACE).and_then(|id| Uuid::parse_str(id).ok()).ok_or(Error::Elsewhere)?;
    let open = uploads.find(id, view.session().token(), now).ok_or(Error::Elsewhere)?;
    match verb {
        Verb::Head | Verb::Get => {
            let (deposit, offset, _) = open.take(now).await?;
            open.put_back(deposit, offset);
            let mut response = stands(StatusCode::NO_CONTENT, false, offset);
            limit(&view, &mut response);
            if let Some(length) = open.length {
                response.headers_mut().insert(LENGTH, HeaderValue::from(length));
            }
            Ok(response)
        }
        Verb::Delete => {
            uploads.forget(id);
            blocking(move || {
                open.cancel();
                Ok(done(StatusCode::NO_CONTENT))
            })
            .await
        }
        Verb::Patch => append(id, open, head, body, (uploads, view, now)).await,
        _ => Err(Error::NotAllowed),
    }
}

/// Brings more of an upload (section 4.4).
async fn append(
    id: Uuid,
    open: Arc<Open>,
    head: &Parts,
    body: &mut Incoming,
    (uploads, view, now): (&Uploads, View, Time),
) -> Result<Response<Body>> {
    if head.headers.get(header::CONTENT_TYPE).is_none_or(|kind| kind != "application/partial-upload") {
        return Err(Error::Unsupported("an upload goes on with application/partial-upload"));
    }
    let complete = completes(&head.headers)?.ok_or(Error::Malformed("Upload-Complete is missing"))?;
    let provided = number(&head.headers, OFFSET)?.ok_or(Error::Malformed("Upload-Offset is missing"))?;
    if number(&head.headers, LENGTH)?.is_some_and(|length| open.length.is_some_and(|known| known != length)) {
        return Err(Error::Length);
    }
    let sums = Checksums::announced(&head.headers, Of::Part);
    let append = receive(&open, &view, now, body, Some((provided, sums))).await?;
    if !complete {
        return Ok(stands(StatusCode::NO_CONTENT, false, append.pause()));
    }
    let mut response = blocking(move || append.complete()).await?;
    uploads.forget(id);
    response.headers_mut().insert(COMPLETE, HeaderValue::from_static("?1"));
    Ok(response)
}

/// Takes in the body of one request.
async fn receive(
    open: &Arc<Open>,
    view: &View,
    now: Time,
    body: &mut Incoming,
    asked: Option<(u64, Checksums)>,
) -> Result<Append> {
    let (deposit, offset, stop) = open.take(now).await?;
    let mut append =
        Append { open: Arc::clone(open), view: view.clone(), deposit: Some(deposit), upload: None, offset };
    let mut sums = Checksums::default();
    if let Some((provided, announced)) = asked {
        if provided != offset {
            return Err(Error::Offset { expected: offset, provided });
        }
        sums = announced;
    }
    let announced = body.size_hint().exact();
    if let (Some(length), Some(announced)) = (open.length, announced)
        && offset.saturating_add(announced) > length
    {
        return Err(Error::Length);
    }
    append = blocking(move || append.resume()).await?;
    let pouring = Pouring { append, sums };
    let (pouring, blocks) = pour(body, view.session(), stop.cancelled(), pouring).await?;
    blocking(move || {
        let Pouring { mut append, sums } = pouring.write(&blocks)?;
        if let Err(error) = sums.finish() {
            append.offset = offset;
            return Err(error);
        }
        Ok(append)
    })
    .await
}

/// An upload while a request works on it; what it has is put back when that ends, however it does.
struct Append {
    open: Arc<Open>,
    view: View,
    deposit: Option<Deposit>,
    upload: Option<Upload>,
    offset: u64,
}

impl Append {
    /// Takes the upload up: rights and locks are asked as the request's session has them.
    fn resume(mut self) -> Result<Self> {
        let Some(deposit) = self.deposit.take() else { return Err(Error::Lost) };
        let begun = Arc::clone(&self.open.begun);
        let claim = Claim { tokens: begun.tokens(), ..Claim::none() };
        match self.view.take_up(deposit, &begun.path, &claim) {
            Ok(upload) => self.upload = Some(upload),
            Err(refused) => {
                let (error, deposit) = *refused;
                self.deposit = Some(deposit);
                return Err(error.into());
            }
        }
        Ok(self)
    }

    /// Ends the request's work; returns how much has come in all.
    fn pause(self) -> u64 {
        self.offset
    }

    /// Commits it as the request that began it asked for.
    fn complete(mut self) -> Result<Response<Body>> {
        if self.open.length.is_some_and(|length| length != self.offset) {
            return Err(Error::Length);
        }
        let Some(upload) = &self.upload else { return Err(Error::Lost) };
        let call = self.open.begun.by(self.view.clone());
        let modified = fields::modified(&call.headers)?;
        // What a refused part left behind the end goes.
        upload.set_attributes(&Attributes { size: Some(self.offset), ..Attributes::default() })?;
        let kept = put::verify(upload, Checksums::announced(&call.headers, Of::Whole))?;
        call.judge()?;
        match self.upload.take() {
            Some(upload) => put::commit(&call, upload, modified, kept),
            None => Err(Error::Lost),
        }
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        let deposit = self.upload.take().map(Upload::set_aside).or_else(|| self.deposit.take());
        if let Some(deposit) = deposit {
            self.open.put_back(deposit, self.offset);
        }
    }
}

struct Pouring {
    append: Append,
    sums: Checksums,
}

impl Sink for Pouring {
    const KEEPS: bool = true;

    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        for block in blocks {
            let append = &mut self.append;
            let Some(upload) = &append.upload else { return Err(Error::Lost) };
            if append.open.length.is_some_and(|length| append.offset.saturating_add(block.len() as u64) > length) {
                return Err(Error::Length);
            }
            upload.write_at(block, append.offset)?;
            append.offset += block.len() as u64;
            self.sums.update(block);
        }
        Ok(self)
    }
}

/// Returns an answer that says how an upload stands.
fn stands(status: StatusCode, complete: bool, offset: u64) -> Response<Body> {
    let mut response = done(status);
    let headers = response.headers_mut();
    headers.insert(COMPLETE, HeaderValue::from_static(if complete { "?1" } else { "?0" }));
    headers.insert(OFFSET, HeaderValue::from(offset));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Says what an upload may come to (section 4.1.4).
fn limit(view: &View, response: &mut Response<Body>) {
    set(response.headers_mut(), LIMIT, limits(Some(view.session())));
}

/// Returns the limits of uploads: those of the server, and of a session.
pub(super) fn limits(session: Option<&Session>) -> String {
    let most =
        session.and_then(|session| session.limits().max_file_size).map(|most| format!("max-size={}, ", most.bytes()));
    format!("{}max-age={}", most.unwrap_or_default(), LIFE.as_secs())
}

fn number(headers: &HeaderMap, name: HeaderName) -> Result<Option<u64>> {
    let Some(value) = headers.get(&name) else { return Ok(None) };
    let number =
        value.to_str().ok().filter(|text| text.bytes().all(|b| b.is_ascii_digit())).and_then(|text| text.parse().ok());
    number.map(Some).ok_or(Error::Malformed("an upload's offset or length is no number"))
}
