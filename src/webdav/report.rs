//! REPORT (RFC 3253 section 3.6): `sync-collection` (RFC 6578), what has changed in a directory since a token.
//!
//! How changes are found is the tree's business ([`tree::SyncChanges`]); here they are written down, in the order in which
//! they were found, while they are read.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::call::Call;
use super::error::{Error, Result, in_turn};
use super::fields::{self, Depth};
use super::propfind::{Plan, Row};
use super::xml::Element;
use super::{multistatus, small_body, xml};
use crate::http::{BlockProducer, BodyError, RequestBody, ResponseBody, full, streamed_body};
use crate::tree::{self, ChangedMember, SyncChanges, SyncItem, SyncPoint, View};

/// A block is handed over once it is this long.
const BLOCK: usize = 128 * 1024;
const SCHEME: &str = "urn:patgate:sync:";

/// Writes a point as the sync token that a client is given (RFC 6578 section 4): journal and number, and the base while
/// an initial synchronization is not complete.
pub(super) fn sync_token(point: SyncPoint) -> String {
    let SyncPoint { journal, number, base } = point;
    if base > number { format!("{SCHEME}{journal}:{number}:{base}") } else { format!("{SCHEME}{journal}:{number}") }
}

fn point(text: &str) -> Option<SyncPoint> {
    let mut parts = text.trim().strip_prefix(SCHEME)?.splitn(3, ':');
    let journal = parts.next()?.parse().ok()?;
    let number = parts.next()?.parse().ok()?;
    let base = parts.next().map_or(Ok(number), str::parse).ok()?;
    Some(SyncPoint { journal, number, base })
}

/// Answers REPORT.
///
/// # Errors
/// [`Error::NoSuchReport`] for any but `sync-collection` on a directory, [`Error::StaleToken`],
/// [`Error::TooManyMembers`], [`Error::Busy`], and what the tree says.
pub(super) async fn answer(call: &Arc<Call>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let bytes = small_body(body, xml::MAX_BODY).await?;
    let work = Arc::clone(call);
    in_turn(&call.view, move || sync(&work, &bytes)).await
}

/// What a client asks for.
struct Asked {
    since: Option<SyncPoint>,
    deep: bool,
    limit: usize,
    plan: Plan,
}

fn asked(call: &Call, bytes: &[u8]) -> Result<Asked> {
    let malformed = || Error::unreadable(bytes, "the body is no sync-collection");
    let root = Element::parse(bytes).map_err(|_| malformed())?;
    if !root.is("sync-collection") {
        return Err(Error::NoSuchReport);
    }
    let depth = fields::depth(&call.headers)?;
    let level = root.child("sync-level").map(|level| level.text());
    let deep = match (level.as_deref().map(str::trim), depth) {
        (Some("1"), None | Some(Depth::Zero)) | (None, Some(Depth::One)) => false,
        (Some("infinite" | "infinity"), None | Some(Depth::Zero)) | (None, Some(Depth::Infinity)) => true,
        _ => return Err(Error::Malformed("sync-level or Depth can't be that here")),
    };
    let since = match root.child("sync-token").map(|token| token.text()) {
        Some(text) if !text.trim().is_empty() => Some(point(&text).ok_or(Error::StaleToken)?),
        Some(_) | None => None,
    };
    let limit = match root.child("limit").and_then(|limit| limit.child("nresults")).map(|number| number.text()) {
        Some(text) => text.trim().parse().ok().filter(|most| *most > 0).ok_or_else(malformed)?,
        None => usize::MAX,
    };
    let plan = root.child("prop").and_then(Plan::of_element).ok_or_else(malformed)?;
    Ok(Asked { since, deep, limit, plan: plan.brief(fields::wants_little(&call.headers)) })
}

fn sync(call: &Arc<Call>, bytes: &[u8]) -> Result<Response<ResponseBody>> {
    let Asked { since, deep, limit, plan } = asked(call, bytes)?;
    if !call.view.stat(&call.path)?.is_directory() {
        return Err(Error::NoSuchReport);
    }
    call.judge()?;
    let changes =
        call.view.changes_since(&call.path, deep, since, limit, call.view.monotonic_now()).map_err(counted)?;
    let changes = changes.ok_or(Error::StaleToken)?;
    let mut report =
        Report { call: Arc::clone(call), plan, changes, out: String::from(multistatus::HEAD), done: false };
    let first = report.block().map_err(counted)?;
    let body = if report.done { full(first) } else { streamed_body(call.view.session(), first, report) };
    Ok(multistatus::response(body))
}

/// Names the limit of a comparison.
fn counted(error: tree::Error) -> Error {
    match error {
        tree::Error::NoSpace => Error::TooManyMembers,
        error => error.into(),
    }
}

/// The changes that are still to be told.
struct Report {
    call: Arc<Call>,
    plan: Plan,
    changes: SyncChanges,
    out: String,
    done: bool,
}

impl Report {
    fn block(&mut self) -> tree::Result<Bytes> {
        while self.out.len() < BLOCK && !self.done {
            match self.changes.next_item()? {
                SyncItem::Member(changed) => self.tell(&changed)?,
                SyncItem::PageEnd { point, truncated } => self.end(point, truncated),
            }
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    /// Writes down one member: one response for each, also where a file has taken the place of a directory or the other
    /// way round, for that is the same member changed (RFC 6578 section 3.5.1). One that has gone has a status only
    /// (section 3.5.2).
    fn tell(&mut self, change: &ChangedMember) -> tree::Result<()> {
        let (call, path) = (Arc::clone(&self.call), &change.path);
        let href = call.mount.href(path, change.is_directory);
        let Some(entry) = &change.entry else {
            let _ = writeln!(
                self.out,
                "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>"
            );
            return Ok(());
        };
        let dead = if self.plan.reads_dead() { known(&call.view, change)? } else { Vec::new() };
        let row = Row { href: &href, title: &entry.name, entry, path: &|| path.clone(), dead: &dead, alone: false };
        self.plan.write(&call, &row, &mut self.out);
        Ok(())
    }

    /// Ends the page; one that was truncated says so with a status of the directory itself (RFC 6578 section 3.6).
    fn end(&mut self, point: SyncPoint, truncated: bool) {
        if truncated {
            let href = self.call.mount.href(&self.call.path, true);
            let _ = writeln!(
                self.out,
                "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
                 <D:error><D:number-of-matches-within-limits/></D:error></D:response>"
            );
        }
        let _ = writeln!(self.out, "<D:sync-token>{}</D:sync-token>", sync_token(point));
        self.out.push_str(multistatus::TAIL);
        self.done = true;
    }
}

fn known(view: &View, change: &ChangedMember) -> tree::Result<Vec<tree::DeadProperty>> {
    match view.properties(&change.path) {
        Err(tree::Error::Forbidden | tree::Error::Absent) => Ok(Vec::new()),
        found => found,
    }
}

impl BlockProducer for Report {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.done && self.out.is_empty() {
            return Ok(None);
        }
        self.block().map(Some).map_err(|error| BodyError(error.to_string()))
    }

    fn remaining_bytes(&self) -> Option<u64> {
        None
    }

    fn is_cpu_bound(&self) -> bool {
        true
    }
}
