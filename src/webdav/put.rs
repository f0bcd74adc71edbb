//! PUT: an upload that appears whole or not at all (RFC 9110 section 9.3.4).
//!
//! A body that fits one block is staged, written and committed in a single step off the runtime; a longer
//! one is written block by block while the next is being received. A client that waits for `100 Continue`
//! gets every refusal that is known before it sends anything.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::{Body as _, Incoming};
use tokio::task::{JoinHandle, spawn_blocking};

use super::call::Call;
use super::checksum::{Checksums, Of};
use super::error::{Error, Result};
use super::get::set;
use super::stream::blocking;
use super::{date, fields};
use crate::domain::Tag;
use crate::http::{Body, empty};
use crate::tree::{self, Attributes, Entry, Timestamp, Upload};

/// As much as is written at once, and as is received before anything is staged.
const BLOCK: usize = 512 * 1024;

/// How long a client may send nothing of a body that it began.
const SILENCE: Duration = Duration::from_secs(300);

/// Answers PUT.
///
/// # Errors
/// Whatever is wrong with the request, its body or its place; nothing has changed then.
pub(super) async fn answer(call: &Arc<Call>, body: &mut Incoming) -> Result<Response<Body>> {
    let mut transfer = Transfer::new(call, body.size_hint().exact())?;
    let large = transfer.announced.is_some_and(|length| length > BLOCK as u64);
    if large || call.headers.contains_key(header::EXPECT) {
        transfer = blocking(move || transfer.stage()).await?;
    }
    let session = call.view.session().clone();
    let mut ended = std::pin::pin!(session.ended());
    let mut writing: Option<JoinHandle<Result<Transfer>>> = None;
    let mut waiting = Some(transfer);
    loop {
        let (blocks, last) = receive(body, ended.as_mut()).await?;
        let ready = match (waiting.take(), writing.take()) {
            (Some(transfer), _) => transfer,
            (None, Some(job)) => job.await.unwrap_or(Err(Error::Lost))?,
            (None, None) => return Err(Error::Lost),
        };
        if last {
            return blocking(move || ready.finish(&blocks)).await;
        }
        writing = Some(spawn_blocking(move || ready.write(&blocks)));
    }
}

/// Receives up to about a block; tells whether that was the last.
async fn receive(body: &mut Incoming, mut ended: Pin<&mut impl Future<Output = ()>>) -> Result<(Vec<Bytes>, bool)> {
    let (mut blocks, mut length) = (Vec::new(), 0);
    while length < BLOCK && !body.is_end_stream() {
        let frame = tokio::select! {
            biased;
            frame = tokio::time::timeout(SILENCE, body.frame()) => frame.map_err(|_| Error::Cut)?,
            () = ended.as_mut() => return Err(tree::Error::Ended(crate::auth::Ended).into()),
        };
        let Some(frame) = frame else { return Ok((blocks, true)) };
        if let Ok(data) = frame.map_err(|_| Error::Cut)?.into_data() {
            length += data.len();
            blocks.push(data);
        }
    }
    Ok((blocks, body.is_end_stream()))
}

/// An upload under way.
struct Transfer {
    call: Arc<Call>,
    announced: Option<u64>,
    modified: Option<Timestamp>,
    sums: Checksums,
    tags: Option<Vec<Tag>>,
    upload: Option<Upload>,
    written: u64,
}

impl Transfer {
    /// Reads what the headers say of the content.
    fn new(call: &Arc<Call>, announced: Option<u64>) -> Result<Self> {
        if call.headers.contains_key(header::CONTENT_RANGE) {
            return Err(Error::Malformed("PUT of a part is not supported"));
        }
        if call.headers.get(header::CONTENT_ENCODING).is_some_and(|kind| kind != "identity") {
            return Err(Error::Unsupported("an encoded body is not supported"));
        }
        if call.slash && !call.is_root() {
            return Err(tree::Error::IsFolder.into());
        }
        let tags = fields::tags(&call.headers)?;
        call.view.may_label(tags.as_deref().unwrap_or_default())?;
        Ok(Self {
            call: Arc::clone(call),
            announced,
            modified: fields::modified(&call.headers)?,
            sums: Checksums::announced(&call.headers, Of::All),
            tags,
            upload: None,
            written: 0,
        })
    }

    /// Asks for rights, limits, locks and conditions, and makes room for the content.
    fn stage(mut self) -> Result<Self> {
        let call = Arc::clone(&self.call);
        let upload = call.claiming(|claim| call.view.stage(&call.path, self.announced, claim))?;
        if let Some(tags) = self.tags.take() {
            upload.label(tags)?;
        }
        self.upload = Some(upload);
        Ok(self)
    }

    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        if self.upload.is_none() {
            self = self.stage()?;
        }
        let Some(upload) = &self.upload else { return Err(Error::Lost) };
        for block in blocks {
            self.sums.update(block);
            upload.write_at(block, self.written)?;
            self.written += block.len() as u64;
        }
        self.call.view.session().used();
        Ok(self)
    }

    fn finish(mut self, blocks: &[Bytes]) -> Result<Response<Body>> {
        if self.announced.is_none() && self.upload.is_none() {
            self.announced = Some(blocks.iter().map(|block| block.len() as u64).sum());
        }
        let done = self.write(blocks)?;
        let Some(upload) = done.upload else { return Err(Error::Lost) };
        if done.announced.is_some_and(|length| length != done.written) {
            return Err(Error::Cut);
        }
        if !done.sums.hold() {
            return Err(Error::Checksum);
        }
        if done.modified.is_some() {
            upload.set_attributes(&Attributes { modified: done.modified, ..Attributes::default() })?;
        }
        let call = done.call;
        let existed = call.view.stat(&call.path).is_ok();
        let entry = call.claiming(|claim| upload.commit(claim))?;
        Ok(accepted(existed, &entry, done.modified.is_some()))
    }
}

fn accepted(existed: bool, entry: &Entry, dated: bool) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = if existed { StatusCode::NO_CONTENT } else { StatusCode::CREATED };
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
