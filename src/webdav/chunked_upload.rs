//! Uploads in parts, as the sync clients of ownCloud and Nextcloud send them: a folder of one's own below
//! `/remote.php/dav/uploads/USER/` is made (MKCOL), parts are put into it in any order, and MOVE of its `.file` to a
//! destination puts them together, in the order of their names, as one upload.
//!
//! The folder is no part of the tree: it belongs to the token that made it, and what is in it waits in staging, also over
//! a restart, bounded in number, size and age. Every right, lock, condition and limit is judged at the MOVE, which commits as a PUT to the destination does.
//! What can't be committed stays, so that the client may try again.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as _;

use super::checksum::{ChecksumScope, ContentChecksums};
use super::error::{Error, Result, run_blocking, run_cpu_bound};
use super::headers::AnnouncedLength;
use super::method::{self, DavMethod};
use super::receive_body::{BodySink, receive_body};
use super::request_context::RequestContext;
use super::resource_url::{self, ChunkPath};
use super::response::empty_response;
use super::unfinished_uploads::{ChunkName, ChunkedUpload, UnfinishedUploads};
use super::upload_quota::UploadReservation;
use super::{headers, multistatus, put};
use crate::auth::Session;
use crate::domain::{EntryName, UnixMillis};
use crate::http::{PublicAddress, RequestBody, ResponseBody, full};
use crate::tree::{self, IncomingPart, Tree, View};

/// The member by whose move all parts are put together.
const ASSEMBLY_MEMBER: &[u8] = b".file";

/// What a request needs that works on an unfinished upload.
pub(super) struct UnfinishedUploadContext<'a> {
    /// The tree.
    pub(super) tree: &'a Tree,
    /// All of them.
    pub(super) uploads: &'a UnfinishedUploads,
    /// Who asks.
    pub(super) session: Session,
    /// When.
    pub(super) now: UnixMillis,
}

impl UnfinishedUploadContext<'_> {
    fn view(&self) -> View {
        self.tree.view(self.session.clone())
    }
}

/// Answers a request below `/remote.php/dav/uploads/USER/`: for an upload, or a part of it.
///
/// # Errors
/// [`Error::NotFound`] for one that is not there or another token's, and what the tree says.
pub(super) async fn handle(
    verb: DavMethod,
    place: &ChunkPath,
    head: Parts,
    body: &mut RequestBody,
    around: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let token = around.session.token();
    let (uploads, now) = (around.uploads.clone(), around.now);
    let ChunkPath { upload, chunk: part } = place;
    if verb == DavMethod::Mkcol && part.is_none() {
        // What can't be read of a length that only helps is passed over here.
        let (view, name, length) =
            (around.view(), upload.clone(), parse_total_length(&head.headers).unwrap_or_default());
        return run_blocking(move || {
            view.check_write_anywhere()?;
            let made = uploads.create_chunked(&view, &name, length, now)?;
            if made { Ok(empty_response(StatusCode::CREATED)) } else { Err(tree::Error::AlreadyExists.into()) }
        })
        .await;
    }
    let chunked = uploads.find_chunked(token, upload, now).ok_or(Error::NotFound)?;
    let whole = part.as_ref().is_some_and(|part| part.as_bytes() == ASSEMBLY_MEMBER);
    match (verb, part) {
        (DavMethod::Put, Some(part)) if !whole => put_chunk(chunked, ChunkName::new(part), &head, body, around).await,
        (DavMethod::Move, Some(_)) if whole => assemble(chunked, upload, head, around).await,
        (DavMethod::Delete, None) => {
            let name = upload.clone();
            run_blocking(move || uploads.delete_chunked(token, &name).map(|()| empty_response(StatusCode::NO_CONTENT)))
                .await
        }
        (DavMethod::Delete, Some(part)) => {
            let part = ChunkName::new(part);
            let removed = run_blocking(move || uploads.remove_chunk(&chunked, &part)).await?;
            if removed { Ok(empty_response(StatusCode::NO_CONTENT)) } else { Err(Error::NotFound) }
        }
        (DavMethod::Propfind, None) => Ok(list_chunks(&chunked, &head)),
        _ => Err(Error::MethodNotAllowed(method::CHUNK_METHODS)),
    }
}

async fn put_chunk(
    chunked: Arc<ChunkedUpload>,
    name: ChunkName,
    head: &Parts,
    body: &mut RequestBody,
    around: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let (view, now) = (around.view(), around.now);
    let sums = ContentChecksums::from_headers(&head.headers, ChecksumScope::BodyAndFile);
    let expected = headers::expected_length(&head.headers, AnnouncedLength::Part)?;
    let (uploads, mut weight, length) =
        (around.uploads.clone(), around.uploads.empty_reservation(view.session().login()), body.size_hint().lower());
    let part = move || {
        view.check_write_anywhere()?;
        weight.grow_to(length)?;
        Ok(IncomingChunk { pending_part: view.begin_part()?, view, checksums: sums, reservation: weight, length: 0 })
    };
    let (part, blocks) = receive_body(body, &around.session, std::future::pending(), run_blocking(part).await?).await?;
    run_blocking(move || {
        let IncomingChunk { pending_part: deposit, checksums: sums, view, reservation: mut weight, length } =
            part.write(&blocks)?;
        if expected.is_some_and(|expected| length < expected) {
            return Err(Error::LengthMismatch);
        }
        sums.verify()?;
        weight.shrink_to(length);
        let replaced = uploads.store_chunk(&view, &chunked, name, (view.sync_part(deposit)?, weight), now)?;
        Ok(empty_response(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    })
    .await
}

/// A part while it comes in.
struct IncomingChunk {
    view: View,
    pending_part: IncomingPart,
    checksums: ContentChecksums,
    reservation: UploadReservation,
    length: u64,
}

impl BodySink for IncomingChunk {
    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        for block in blocks {
            self.length += block.len() as u64;
            self.reservation.grow_to(self.length)?;
            self.view.write_part(&mut self.pending_part, block)?;
            self.reservation.record_written(self.length);
            self.checksums.update(block);
        }
        Ok(self)
    }
}

/// Puts all parts together at the destination.
async fn assemble(
    chunked: Arc<ChunkedUpload>,
    upload: &EntryName,
    mut head: Parts,
    around: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let UnfinishedUploadContext { tree, uploads, session, now } = around;
    let keep = !headers::overwrite(&head.headers)?;
    let total = parse_total_length(&head.headers)?;
    let destination =
        headers::single_value(&head.headers, "destination")?.ok_or(Error::Malformed("Destination is missing"))?;
    let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
    head.uri = resource_url::destination_uri(destination.as_bytes().trim_ascii(), &server)?;
    if keep {
        // Judged again at the commit, as any condition: putting together takes its time.
        head.headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let token = session.token();
    let call = RequestContext::new(DavMethod::Put, head, tree, session, now).await?;
    if call.is_root() {
        return Err(Error::RootProtected);
    }
    let (uploads, name, view) = (uploads.clone(), upload.clone(), call.view.clone());
    // As a copy: all parts are copied, and read back for checksums. Cut off before the commit, it leaves them as they are.
    run_cpu_bound(&view, move || {
        if keep && call.view.stat(&call.path).is_ok() {
            return Err(tree::Error::AlreadyExists.into());
        }
        let response = commit_assembled(&call, &chunked, total).map_err(|error| match error {
            // Of the headers, which is told as it is.
            malformed @ Error::Malformed(_) => malformed,
            error => error.into_destination_error(),
        })?;
        if let Err(error) = uploads.delete_chunked(token, &name) {
            tracing::warn!(%error, "what is left of an upload that is complete stays for now");
        }
        Ok(response)
    })
    .await
}

fn commit_assembled(
    call: &RequestContext,
    chunked: &ChunkedUpload,
    total: Option<u64>,
) -> Result<Response<ResponseBody>> {
    let modified = headers::oc_mtime(&call.headers)?;
    let parts = chunked.chunks();
    let size = parts.iter().fold(0, |sum: u64, (_, part)| sum.saturating_add(part.size));
    if total.is_some_and(|total| total != size) {
        return Err(Error::LengthMismatch);
    }
    let staged = call.stage_with_preconditions(|claim| call.view.stage(&call.path, Some(size), claim))?;
    let mut offset = 0;
    for (_, part) in &parts {
        offset = staged.copy_part(&part.staged_part, part.size, offset)?;
    }
    if offset != size {
        return Err(Error::Truncated);
    }
    let kept = put::verify_checksums(call, &staged)?;
    put::commit_upload(call, staged, modified, kept)
}

/// Reads `OC-Total-Length`: what all parts come to.
fn parse_total_length(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers::single_value(headers, "oc-total-length")? else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or(Error::Malformed("OC-Total-Length is no number"))
}

/// Lists the parts that have come, for a client that goes on with an upload.
fn list_chunks(chunked: &ChunkedUpload, head: &Parts) -> Response<ResponseBody> {
    let outside = head.extensions.get::<PublicAddress>().map_or("", PublicAddress::prefix);
    let base = format!("{outside}{}", head.uri.path().trim_end_matches('/'));
    let mut out = String::from(multistatus::MULTISTATUS_START);
    let mut row = |href: &str, inner: &str| {
        let _ = writeln!(
            out,
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{inner}</D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        );
    };
    row(&format!("{base}/"), "<D:resourcetype><D:collection/></D:resourcetype>");
    let deep = headers::depth(&head.headers).is_ok_and(|depth| depth != Some(headers::DepthHeader::Zero));
    for (name, part) in chunked.chunks().into_iter().filter(|_| deep) {
        let mut href = format!("{base}/");
        resource_url::percent_encode(name.as_bytes(), &mut href);
        row(&href, &format!("<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>", part.size));
    }
    out.push_str(multistatus::MULTISTATUS_END);
    multistatus::response(full(out))
}
