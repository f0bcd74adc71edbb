//! Chunked uploads of the sync clients of ownCloud and Nextcloud: MKCOL creates a collection below
//! `/remote.php/dav/uploads/USER/`, PUT adds chunks in any order, and MOVE of its `.file` to a destination assembles
//! them, in the order of their names, into one upload.
//!
//! The collection is not in the tree: it belongs to the token that created it, and its chunks are kept in staging, also
//! across a restart, limited in number, size and age. All permissions, locks, conditions and limits are checked at the
//! MOVE, which commits like a PUT to the destination. An upload that can't be committed is kept, so that the client may
//! try again.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::body::Body as _;

use super::checksum::{ChecksumScope, ContentChecksums};
use super::client_root::{self, ClientRoot};
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
use crate::domain::{EntryName, Login, UnixMillis};
use crate::http::{PublicAddress, RequestBody, ResponseBody, full};
use crate::tree::{self, IncomingPart, Tree, View};

/// Member whose MOVE assembles all chunks.
const ASSEMBLY_MEMBER: &[u8] = b".file";

/// Context of a request for an unfinished upload.
pub(super) struct UnfinishedUploadContext<'a> {
    /// Served tree.
    pub(super) tree: &'a Tree,
    /// All unfinished uploads.
    pub(super) uploads: &'a UnfinishedUploads,
    /// Session of the request.
    pub(super) session: Session,
    /// Current time.
    pub(super) now: UnixMillis,
}

impl UnfinishedUploadContext<'_> {
    fn view(&self) -> View {
        self.tree.view(self.session.clone())
    }
}

/// Handles a request below `/remote.php/dav/uploads/USER/`: for an upload, or a chunk of it.
///
/// # Errors
/// [`Error::NotFound`] for an upload that doesn't exist or belongs to another token, and the errors of the tree.
pub(super) async fn handle(
    method: DavMethod,
    chunk_path: &ChunkPath,
    head: Box<Parts>,
    body: &mut RequestBody,
    upload_context: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let token = upload_context.session.token();
    let (uploads, now) = (upload_context.uploads.clone(), upload_context.now);
    let ChunkPath { upload, chunk } = chunk_path;
    if method == DavMethod::Mkcol && chunk.is_none() {
        // A malformed length is ignored here: it only serves an early refusal, and the MOVE checks it again.
        let (view, name, length) =
            (upload_context.view(), upload.clone(), parse_total_length(&head.headers).unwrap_or_default());
        return run_blocking(move || {
            // No path is known yet. A token that may write nowhere must not fill the staging area.
            view.check_write_anywhere()?;
            length.map_or(Ok(()), |length| view.check_upload_quota(length))?;
            let created = uploads.create_chunked(&view, &name, length, now)?;
            if created { Ok(empty_response(StatusCode::CREATED)) } else { Err(tree::Error::AlreadyExists.into()) }
        })
        .await;
    }
    let chunked = uploads.find_chunked(token, upload, now).ok_or(Error::NotFound)?;
    // `.file` is not a chunk: a PUT to it must not be stored as one.
    let is_assembly = chunk.as_ref().is_some_and(|chunk| chunk.as_bytes() == ASSEMBLY_MEMBER);
    match (method, chunk) {
        (DavMethod::Put, Some(chunk)) if !is_assembly => {
            put_chunk(chunked, ChunkName::new(chunk), &head, body, upload_context).await
        }
        (DavMethod::Move, Some(_)) if is_assembly => assemble(chunked, upload, head, upload_context).await,
        (DavMethod::Delete, None) => {
            let name = upload.clone();
            run_blocking(move || uploads.delete_chunked(token, &name).map(|()| empty_response(StatusCode::NO_CONTENT)))
                .await
        }
        (DavMethod::Delete, Some(chunk)) => {
            let name = ChunkName::new(chunk);
            let removed = run_blocking(move || uploads.remove_chunk(&chunked, &name)).await?;
            if removed { Ok(empty_response(StatusCode::NO_CONTENT)) } else { Err(Error::NotFound) }
        }
        (DavMethod::Propfind, None) => Ok(list_chunks(&chunked, upload, &head, upload_context.session.login())),
        _ => Err(Error::MethodNotAllowed(method::CHUNK_METHODS)),
    }
}

async fn put_chunk(
    chunked: Arc<ChunkedUpload>,
    name: ChunkName,
    head: &Parts,
    body: &mut RequestBody,
    upload_context: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let (view, now) = (upload_context.view(), upload_context.now);
    let checksums = ContentChecksums::from_headers(&head.headers, ChecksumScope::BodyAndFile);
    let expected = headers::expected_length(&head.headers, AnnouncedLength::Part)?;
    let (uploads, mut reservation, length) = (
        upload_context.uploads.clone(),
        upload_context.uploads.empty_reservation(view.session().login()),
        body.size_hint().lower(),
    );
    // Run before the body is polled, which sends `100 Continue`: a refusal must come first.
    let open_chunk = move || {
        view.check_write_anywhere()?;
        view.check_upload_quota(length)?;
        reservation.grow_to(length)?;
        Ok(IncomingChunk { pending_part: view.begin_part()?, view, checksums, reservation, length: 0 })
    };
    let (chunk, blocks) =
        receive_body(body, &upload_context.session, std::future::pending(), run_blocking(open_chunk).await?).await?;
    run_blocking(move || {
        let IncomingChunk { pending_part, checksums, view, mut reservation, length } = chunk.write(&blocks)?;
        if expected.is_some_and(|expected| length < expected) {
            return Err(Error::LengthMismatch);
        }
        checksums.verify()?;
        reservation.shrink_to(length);
        // The content is synced before its row is written: a chunk that is recorded survives a crash whole.
        let replaced = uploads.store_chunk(&view, &chunked, name, (view.sync_part(pending_part)?, reservation), now)?;
        Ok(empty_response(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    })
    .await
}

/// Chunk that is being received.
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
            // Reserve, write, record: at no moment does the quota count less than the disk holds.
            self.reservation.grow_to(self.length)?;
            self.view.write_part(&mut self.pending_part, block)?;
            self.reservation.record_written(self.length);
            self.checksums.update(block);
        }
        Ok(self)
    }
}

/// Assembles all chunks at the destination.
async fn assemble(
    chunked: Arc<ChunkedUpload>,
    upload: &EntryName,
    mut head: Box<Parts>,
    upload_context: UnfinishedUploadContext<'_>,
) -> Result<Response<ResponseBody>> {
    let UnfinishedUploadContext { tree, uploads, session, now } = upload_context;
    let no_overwrite = !headers::overwrite(&head.headers)?;
    let total = parse_total_length(&head.headers)?;
    // A URL of the tree: it need not have the prefix of the upload, unlike that of an ordinary MOVE.
    let destination =
        headers::single_value(&head.headers, "destination")?.ok_or(Error::Malformed("Destination is missing"))?;
    let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
    head.uri = resource_url::destination_uri(destination.as_bytes().trim_ascii(), &server)?;
    if no_overwrite {
        // As a condition it is evaluated again at the commit: of two MOVEs at once only one may create the file.
        head.headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let token = session.token();
    // From here on this is a PUT to the destination, with all its checks.
    let context = RequestContext::new(DavMethod::Put, head, tree, session, now).await?;
    if context.is_root() {
        return Err(Error::RootProtected);
    }
    let (uploads, name, view) = (uploads.clone(), upload.clone(), context.view.clone());
    // All chunks are copied and read back for checksums, like a COPY. If it is cancelled before the commit, they are
    // kept.
    run_cpu_bound(&view, move || {
        // Only to save the work: the condition above decides.
        if no_overwrite && context.view.stat(&context.path).is_ok() {
            return Err(tree::Error::AlreadyExists.into());
        }
        let response = commit_assembled(&context, &chunked, total).map_err(|error| match error {
            // A malformed header is not a fault of the destination.
            malformed @ Error::Malformed(_) => malformed,
            error => error.into_destination_error(),
        })?;
        // After the commit, and without failing the request: the file is complete.
        if let Err(error) = uploads.delete_chunked(token, &name) {
            tracing::warn!(
                %error,
                "the remains of a completed upload could not be removed: they stay until they expire or the \
                 server is restarted"
            );
        }
        Ok(response)
    })
    .await
}

fn commit_assembled(
    context: &RequestContext,
    chunked: &ChunkedUpload,
    total: Option<u64>,
) -> Result<Response<ResponseBody>> {
    let modified = headers::oc_mtime(&context.headers)?;
    let parts = chunked.chunks();
    let size = parts.iter().fold(0, |sum: u64, (_, part)| sum.saturating_add(part.size));
    // A chunk is missing: found before anything is copied.
    if total.is_some_and(|total| total != size) {
        return Err(Error::LengthMismatch);
    }
    // With the size, so that limits and free space are checked before the copy.
    let staged =
        context.stage_with_preconditions(|conditions| context.view.stage(&context.path, Some(size), conditions))?;
    let mut offset = 0;
    for (_, part) in &parts {
        offset = staged.copy_part(&part.staged_part, part.size, offset)?;
    }
    // A staged chunk is shorter than recorded: the file would have a hole.
    if offset != size {
        return Err(Error::Truncated);
    }
    let stored_checksums = put::verify_checksums(context, &staged)?;
    put::commit_upload(context, staged, modified, stored_checksums)
}

/// Parses `OC-Total-Length`: the length of all chunks together.
fn parse_total_length(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = headers::single_value(headers, "oc-total-length")? else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or(Error::Malformed("OC-Total-Length is not a number"))
}

/// Lists the received chunks, for a client that resumes an upload.
fn list_chunks(chunked: &ChunkedUpload, upload: &EntryName, head: &Parts, login: &Login) -> Response<ResponseBody> {
    // As the client sees it: a proxy may have stripped a prefix.
    let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
    // Not the path of the request: a URI may hold a plain `&`, which is markup in XML.
    let base = ClientRoot::chunked_upload_href(&server, login, upload);
    let mut out = multistatus::start();
    let mut write_response = |href: &str, inner: &str| {
        let _ = writeln!(
            out,
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{inner}</D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        );
    };
    write_response(&base, "<D:resourcetype><D:collection/></D:resourcetype>");
    let lists_members = headers::depth(&head.headers).is_ok_and(|depth| depth != Some(headers::DepthHeader::Zero));
    for (name, part) in chunked.chunks().into_iter().filter(|_| lists_members) {
        let mut href = base.clone();
        client_root::percent_encode(name.as_bytes(), &mut href);
        write_response(&href, &format!("<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>", part.size));
    }
    out.push_str(multistatus::MULTISTATUS_END);
    multistatus::response(full(out))
}
