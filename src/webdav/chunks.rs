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

use super::address::{self, Place};
use super::call::Call;
use super::checksum::{Checksums, Of};
use super::error::{Error, Result, blocking, in_turn};
use super::fields::LengthOf;
use super::folder::done;
use super::pour::{Sink, pour};
use super::uploads::{ChunkName, Chunked, Uploads};
use super::verb::{self, Verb};
use super::weight::Weight;
use super::{fields, multistatus, put};
use crate::auth::Session;
use crate::domain::{EntryName, UnixMillis};
use crate::http::{PublicAddress, RequestBody, ResponseBody, full};
use crate::tree::{self, IncomingPart, Tree, View};

/// The member by whose move all parts are put together.
const WHOLE: &[u8] = b".file";

/// What a request needs that works on an unfinished upload.
pub(super) struct Around<'a> {
    /// The tree.
    pub(super) tree: &'a Tree,
    /// All of them.
    pub(super) uploads: &'a Uploads,
    /// Who asks.
    pub(super) session: Session,
    /// When.
    pub(super) now: UnixMillis,
}

impl Around<'_> {
    fn view(&self) -> View {
        self.tree.view(self.session.clone())
    }
}

/// Answers a request below `/remote.php/dav/uploads/USER/`: for an upload, or a part of it.
///
/// # Errors
/// [`Error::Elsewhere`] for one that is not there or another token's, and what the tree says.
pub(super) async fn answer(
    verb: Verb,
    place: &Place,
    head: Parts,
    body: &mut RequestBody,
    around: Around<'_>,
) -> Result<Response<ResponseBody>> {
    let token = around.session.token();
    let (uploads, now) = (around.uploads.clone(), around.now);
    let Place { upload, part } = place;
    if verb == Verb::Mkcol && part.is_none() {
        // What can't be read of a length that only helps is passed over here.
        let (view, name, length) = (around.view(), upload.clone(), announced(&head.headers).unwrap_or_default());
        return blocking(move || {
            view.check_write_anywhere()?;
            let made = uploads.begin_chunked(&view, &name, length, now)?;
            if made { Ok(done(StatusCode::CREATED)) } else { Err(tree::Error::AlreadyExists.into()) }
        })
        .await;
    }
    let chunked = uploads.chunked(token, upload, now).ok_or(Error::Elsewhere)?;
    let whole = part.as_ref().is_some_and(|part| part.as_bytes() == WHOLE);
    match (verb, part) {
        (Verb::Put, Some(part)) if !whole => put_part(chunked, ChunkName::new(part), &head, body, around).await,
        (Verb::Move, Some(_)) if whole => assemble(chunked, upload, head, around).await,
        (Verb::Delete, None) => {
            let name = upload.clone();
            blocking(move || uploads.end_chunked(token, &name).map(|()| done(StatusCode::NO_CONTENT))).await
        }
        (Verb::Delete, Some(part)) => {
            let part = ChunkName::new(part);
            let removed = blocking(move || uploads.remove(&chunked, &part)).await?;
            if removed { Ok(done(StatusCode::NO_CONTENT)) } else { Err(Error::Elsewhere) }
        }
        (Verb::Propfind, None) => Ok(listed(&chunked, &head)),
        _ => Err(Error::NotAllowed(verb::FOR_PARTS)),
    }
}

async fn put_part(
    chunked: Arc<Chunked>,
    name: ChunkName,
    head: &Parts,
    body: &mut RequestBody,
    around: Around<'_>,
) -> Result<Response<ResponseBody>> {
    let (view, now) = (around.view(), around.now);
    let sums = Checksums::announced(&head.headers, Of::All);
    let expected = fields::expected_length(&head.headers, LengthOf::Part)?;
    let (uploads, mut weight, length) =
        (around.uploads.clone(), around.uploads.weight(view.session().login()), body.size_hint().lower());
    let part = move || {
        view.check_write_anywhere()?;
        weight.grow_to(length)?;
        Ok(Part { deposit: view.begin_part()?, view, sums, weight, length: 0 })
    };
    let (part, blocks) = pour(body, &around.session, std::future::pending(), blocking(part).await?).await?;
    blocking(move || {
        let Part { deposit, sums, view, mut weight, length } = part.write(&blocks)?;
        if expected.is_some_and(|expected| length < expected) {
            return Err(Error::Length);
        }
        sums.finish()?;
        weight.shrink_to(length);
        let replaced = uploads.keep(&view, &chunked, name, (view.sync_part(deposit)?, weight), now)?;
        Ok(done(if replaced { StatusCode::NO_CONTENT } else { StatusCode::CREATED }))
    })
    .await
}

/// A part while it comes in.
struct Part {
    view: View,
    deposit: IncomingPart,
    sums: Checksums,
    weight: Weight,
    length: u64,
}

impl Sink for Part {
    fn write(mut self, blocks: &[Bytes]) -> Result<Self> {
        for block in blocks {
            self.length += block.len() as u64;
            self.weight.grow_to(self.length)?;
            self.view.write_part(&mut self.deposit, block)?;
            self.weight.wrote(self.length);
            self.sums.update(block);
        }
        Ok(self)
    }
}

/// Puts all parts together at the destination.
async fn assemble(
    chunked: Arc<Chunked>,
    upload: &EntryName,
    mut head: Parts,
    around: Around<'_>,
) -> Result<Response<ResponseBody>> {
    let Around { tree, uploads, session, now } = around;
    let keep = !fields::overwrite(&head.headers)?;
    let total = announced(&head.headers)?;
    let destination = fields::one(&head.headers, "destination")?.ok_or(Error::Malformed("Destination is missing"))?;
    let server = head.extensions.get::<PublicAddress>().cloned().unwrap_or_default();
    head.uri = address::path_of(destination.as_bytes().trim_ascii(), &server)?;
    if keep {
        // Judged again at the commit, as any condition: putting together takes its time.
        head.headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("*"));
    }
    let token = session.token();
    let call = Call::new(Verb::Put, head, tree, session, now).await?;
    if call.is_root() {
        return Err(Error::Root);
    }
    let (uploads, name, view) = (uploads.clone(), upload.clone(), call.view.clone());
    // As a copy: all parts are copied, and read back for checksums. Cut off before the commit, it leaves them as they are.
    in_turn(&view, move || {
        if keep && call.view.stat(&call.path).is_ok() {
            return Err(tree::Error::AlreadyExists.into());
        }
        let response = put_together(&call, &chunked, total).map_err(|error| match error {
            // Of the headers, which is told as it is.
            malformed @ Error::Malformed(_) => malformed,
            error => error.of_destination(),
        })?;
        if let Err(error) = uploads.end_chunked(token, &name) {
            tracing::warn!(%error, "what is left of an upload that is complete stays for now");
        }
        Ok(response)
    })
    .await
}

fn put_together(call: &Call, chunked: &Chunked, total: Option<u64>) -> Result<Response<ResponseBody>> {
    let modified = fields::modified(&call.headers)?;
    let parts = chunked.parts();
    let size = parts.iter().fold(0, |sum: u64, (_, part)| sum.saturating_add(part.size));
    if total.is_some_and(|total| total != size) {
        return Err(Error::Length);
    }
    let staged = call.staging(|claim| call.view.stage(&call.path, Some(size), claim))?;
    let mut offset = 0;
    for (_, part) in &parts {
        offset = staged.copy_part(&part.waiting, part.size, offset)?;
    }
    if offset != size {
        return Err(Error::Cut);
    }
    let kept = put::verify(call, &staged)?;
    put::commit(call, staged, modified, kept)
}

/// Reads `OC-Total-Length`: what all parts come to.
fn announced(headers: &HeaderMap) -> Result<Option<u64>> {
    let Some(value) = fields::one(headers, "oc-total-length")? else { return Ok(None) };
    let length = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    length.map(Some).ok_or(Error::Malformed("OC-Total-Length is no number"))
}

/// Lists the parts that have come, for a client that goes on with an upload.
fn listed(chunked: &Chunked, head: &Parts) -> Response<ResponseBody> {
    let outside = head.extensions.get::<PublicAddress>().map_or("", PublicAddress::prefix);
    let base = format!("{outside}{}", head.uri.path().trim_end_matches('/'));
    let mut out = String::from(multistatus::HEAD);
    let mut row = |href: &str, inner: &str| {
        let _ = writeln!(
            out,
            "<D:response><D:href>{href}</D:href><D:propstat><D:prop>{inner}</D:prop>\
             <D:status>HTTP/1.1 200 OK</D:status></D:propstat></D:response>"
        );
    };
    row(&format!("{base}/"), "<D:resourcetype><D:collection/></D:resourcetype>");
    let deep = fields::depth(&head.headers).is_ok_and(|depth| depth != Some(fields::Depth::Zero));
    for (name, part) in chunked.parts().into_iter().filter(|_| deep) {
        let mut href = format!("{base}/");
        address::encode(name.as_bytes(), &mut href);
        row(&href, &format!("<D:resourcetype/><D:getcontentlength>{}</D:getcontentlength>", part.size));
    }
    out.push_str(multistatus::TAIL);
    multistatus::response(full(out))
}
