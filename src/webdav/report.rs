//! REPORT (RFC 3253 section 3.6): `sync-collection` (RFC 6578), what has changed in a folder since a token.
//!
//! How changes are found is the tree's business ([`View::compare`]); here they are written down, in the order in which
//! they were found, while they are read.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use super::call::Call;
use super::error::{Error, Result, blocking};
use super::fields::{self, Depth};
use super::propfind::{Plan, Row};
use super::xml::Element;
use super::{multistatus, small_body, xml};
use crate::http::{Body, BodyError, RequestBody, Source, full, streamed};
use crate::tree::{self, Changed, Point, View};

/// A block is handed over once it is this long.
const BLOCK: usize = 128 * 1024;
const SCHEME: &str = "urn:patgate:sync:";

/// Writes a point as the sync token that a client is given.
pub(super) fn sync_token(point: Point) -> String {
    format!("{SCHEME}{}:{}", point.journal, point.number)
}

fn point(text: &str) -> Option<Point> {
    let (journal, number) = text.trim().strip_prefix(SCHEME)?.split_once(':')?;
    Some(Point { journal: journal.parse().ok()?, number: number.parse().ok()? })
}

/// Answers REPORT.
///
/// # Errors
/// [`Error::NoSuchReport`] for any but `sync-collection` on a folder, [`Error::StaleToken`], and what the tree says.
pub(super) async fn answer(call: &Arc<Call>, body: &mut RequestBody) -> Result<Response<Body>> {
    let bytes = small_body(body, xml::MAX_BODY).await?;
    let call = Arc::clone(call);
    blocking(move || sync(&call, &bytes)).await
}

/// What a client asks for.
struct Asked {
    since: Option<Point>,
    deep: bool,
    most: usize,
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
    let most = match root.child("limit").and_then(|limit| limit.child("nresults")).map(|number| number.text()) {
        Some(text) => text.trim().parse().ok().filter(|most| *most > 0).ok_or_else(malformed)?,
        None => usize::MAX,
    };
    let plan = root.child("prop").and_then(Plan::of_element).ok_or_else(malformed)?;
    Ok(Asked { since, deep, most, plan: plan.brief(fields::wants_little(&call.headers)) })
}

fn sync(call: &Arc<Call>, bytes: &[u8]) -> Result<Response<Body>> {
    let Asked { since, deep, most, plan } = asked(call, bytes)?;
    if !call.view.stat(&call.path)?.is_folder() {
        return Err(Error::NoSuchReport);
    }
    call.judge()?;
    if let Some(since) = since
        && !call.view.is_point(&call.path, deep, since, call.now)?
    {
        return Err(Error::StaleToken);
    }
    let to = call.view.compare(&call.path, deep, call.now)?;
    // It may have ended meanwhile, and another begun: a number of one says nothing in the other.
    if since.is_some_and(|since| since.journal != to.journal) {
        return Err(Error::StaleToken);
    }
    let mut report = Report {
        call: Arc::clone(call),
        plan,
        first: since.is_none(),
        after: since.map_or(0, |since| since.number),
        to,
        left: most,
        out: String::from(multistatus::HEAD),
        done: false,
    };
    let first = report.block()?;
    let body = if report.done { full(first) } else { streamed(call.view.session(), first, report) };
    Ok(multistatus::response(body))
}

/// The changes that are still to be told.
struct Report {
    call: Arc<Call>,
    plan: Plan,
    /// Whether the client knows nothing yet, so that what has gone is not told of.
    first: bool,
    after: i64,
    to: Point,
    left: usize,
    out: String,
    done: bool,
}

impl Report {
    fn block(&mut self) -> tree::Result<Bytes> {
        while self.out.len() < BLOCK && !self.done {
            let changes = self.call.view.changed(&self.call.path, self.after, self.to)?;
            if changes.is_empty() {
                self.end(self.to.number, "");
            }
            for change in changes.into_iter().filter(|change| !(self.first && change.gone)).collect::<Vec<_>>() {
                if self.left == 0 {
                    let href = self.call.mount.href(&self.call.path, true);
                    let rest = format!(
                        "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
                         <D:error><D:number-of-matches-within-limits/></D:error></D:response>\n"
                    );
                    self.end(self.after, &rest);
                    break;
                }
                self.left -= 1;
                self.after = change.number;
                self.tell(&change)?;
            }
        }
        Ok(std::mem::take(&mut self.out).into())
    }

    fn tell(&mut self, change: &Changed) -> tree::Result<()> {
        let (call, path) = (Arc::clone(&self.call), &change.path);
        let entry = if change.gone { Err(tree::Error::Absent) } else { call.view.stat(path) };
        let entry = match entry {
            Err(tree::Error::Absent | tree::Error::NoParent | tree::Error::NotFolder) => {
                let href = call.mount.href(path, change.folder);
                let _ = writeln!(
                    self.out,
                    "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>"
                );
                return Ok(());
            }
            entry => entry?,
        };
        let dead = if self.plan.reads_dead() { known(&call.view, change)? } else { Vec::new() };
        let href = call.mount.href(path, entry.is_folder());
        let row =
            Row { href: &href, title: &entry.name, entry: &entry, path: &|| path.clone(), dead: &dead, alone: false };
        self.plan.write(&call, &row, &mut self.out);
        Ok(())
    }

    fn end(&mut self, number: i64, rest: &str) {
        self.out.push_str(rest);
        let token = sync_token(Point { number, ..self.to });
        let _ = writeln!(self.out, "<D:sync-token>{token}</D:sync-token>");
        self.out.push_str(multistatus::TAIL);
        self.done = true;
    }
}

fn known(view: &View, change: &Changed) -> tree::Result<Vec<tree::Property>> {
    match view.properties(&change.path) {
        Err(tree::Error::Forbidden | tree::Error::Absent) => Ok(Vec::new()),
        found => found,
    }
}

impl Source for Report {
    fn next(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.done && self.out.is_empty() {
            return Ok(None);
        }
        self.block().map(Some).map_err(|error| BodyError(error.to_string()))
    }

    fn left(&self) -> Option<u64> {
        None
    }
}
