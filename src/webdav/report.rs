//! REPORT (RFC 3253 section 3.6): `sync-collection` (RFC 6578), the changes in a directory since a sync token.
//!
//! The tree computes the changes ([`tree::SyncChanges`]); this file writes them to the response, in the same order,
//! while they are read.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Response};

use super::error::{Error, Result, run_streamed};
use super::headers::{self, DepthHeader};
use super::multistatus::MultistatusBlock;
use super::propfind::{PropfindPlan, PropfindRow};
use super::request_context::RequestContext;
use super::sync_token::{format_sync_token, parse_sync_token};
use super::xml::XmlElement;
use super::{multistatus, read_small_body, xml};
use crate::domain::{EntryName, TreePath};
use crate::http::{BlockProducer, BodyError, BodyStart, RequestBody, ResponseBody};
use crate::tree::{self, ChangedMember, DeadProperty, SyncChanges, SyncItem, SyncPoint, View};

/// Handles REPORT.
///
/// # Errors
/// [`Error::UnsupportedReport`] for any but `sync-collection` on a directory, [`Error::InvalidSyncToken`],
/// [`Error::TooManyMembers`], [`Error::Busy`], and the errors of the tree.
pub(super) async fn handle(context: &Arc<RequestContext>, body: &mut RequestBody) -> Result<Response<ResponseBody>> {
    let bytes = read_small_body(body, xml::XML_BODY_MAX_BYTES).await?;
    let task_context = Arc::clone(context);
    run_streamed(&context.view, None::<()>, move |_| sync_collection(&task_context, &bytes))
        .await
        .map(multistatus::response)
}

/// Parsed body of a `sync-collection` report.
pub(super) struct SyncCollectionRequest {
    since: Option<SyncPoint>,
    recursive: bool,
    limit: usize,
    plan: PropfindPlan,
}

/// Parses the body of a `sync-collection` report.
///
/// # Errors
/// [`Error::Malformed`], [`Error::UnsupportedReport`], [`Error::InvalidSyncToken`].
pub(super) fn parse_sync_collection(headers: &HeaderMap, bytes: &[u8]) -> Result<SyncCollectionRequest> {
    let malformed = || Error::from_unreadable_xml(bytes, "the body is not a DAV:sync-collection element");
    let root = XmlElement::parse(bytes).map_err(|_| malformed())?;
    if !root.is_dav("sync-collection") {
        return Err(Error::UnsupportedReport);
    }
    let depth = headers::depth(headers)?;
    let level = root.child("sync-level").map(|level| level.text());
    // RFC 6578 sections 3.2 and 3.3. Clients of older drafts send no sync-level, and a Depth instead (appendix A).
    let recursive = match (level.as_deref().map(str::trim), depth) {
        (Some("1"), None | Some(DepthHeader::Zero)) | (None, Some(DepthHeader::One)) => false,
        (Some("infinite" | "infinity"), None | Some(DepthHeader::Zero)) | (None, Some(DepthHeader::Infinity)) => true,
        _ => return Err(Error::Malformed("sync-level must be 1 or infinite, with Depth: 0")),
    };
    let since = match root.child("sync-token").map(|token| token.text()) {
        // An empty token requests an initial synchronization (RFC 6578 section 3.4).
        Some(text) if !text.trim().is_empty() => Some(parse_sync_token(&text).ok_or(Error::InvalidSyncToken)?),
        Some(_) | None => None,
    };
    let limit = match root.child("limit").and_then(|limit| limit.child("nresults")).map(|number| number.text()) {
        Some(text) => text.trim().parse().ok().filter(|limit| *limit > 0).ok_or_else(malformed)?,
        None => usize::MAX,
    };
    let plan = root.child("prop").and_then(PropfindPlan::from_element).ok_or_else(malformed)?;
    Ok(SyncCollectionRequest {
        since,
        recursive,
        limit,
        plan: plan.with_minimal_return(headers::prefers_minimal(headers)),
    })
}

fn sync_collection(context: &Arc<RequestContext>, bytes: &[u8]) -> Result<BodyStart<SyncCollectionReport>> {
    let SyncCollectionRequest { since, recursive, limit, plan } = parse_sync_collection(&context.headers, bytes)?;
    if !context.view.stat(&context.path)?.is_directory() {
        return Err(Error::UnsupportedReport);
    }
    // Before the comparison, which writes to the journal of the token.
    context.evaluate_conditions()?;
    let changes = context
        .view
        .changes_since(&context.path, recursive, since, limit, context.view.monotonic_now())
        .map_err(map_member_limit)?;
    let changes = changes.ok_or(Error::InvalidSyncToken)?;
    let mut report = SyncCollectionReport {
        context: Arc::clone(context),
        plan,
        changes,
        block: MultistatusBlock::first(),
        href: String::new(),
        properties: None,
        done: false,
    };
    // Errors of the first block still become a status.
    let first = report.fill_block().map_err(map_member_limit)?;
    Ok(if report.done { BodyStart::Whole(first) } else { BodyStart::Partial(first, report) })
}

/// Turns the error of a directory that is too large to compare into its WebDAV condition.
fn map_member_limit(error: tree::Error) -> Error {
    match error {
        tree::Error::NoSpace => Error::TooManyMembers,
        error => error.into(),
    }
}

/// Report whose changes are still to be written.
struct SyncCollectionReport {
    context: Arc<RequestContext>,
    plan: PropfindPlan,
    changes: SyncChanges,
    block: MultistatusBlock,
    href: String,
    /// Dead properties of the members of the last directory.
    properties: Option<DirectoryProperties>,
    done: bool,
}

/// Dead properties of all members of a directory, read at once.
struct DirectoryProperties {
    directory: TreePath,
    /// `None` when they can't be read at once: each member is then asked for its own.
    by_name: Option<HashMap<EntryName, Vec<DeadProperty>>>,
}

impl SyncCollectionReport {
    fn fill_block(&mut self) -> tree::Result<Bytes> {
        // The client may have taken its time for the last block: rights and properties are looked up again.
        self.properties = None;
        while !self.block.is_full() && !self.done {
            match self.changes.next_item()? {
                SyncItem::Member(changed) => self.write_member(&changed)?,
                SyncItem::PageEnd { point, truncated } => self.write_end(point, truncated),
            }
        }
        Ok(self.block.take(self.done))
    }

    /// Writes one changed member as one response, also where a file has replaced a directory or the reverse: that is a
    /// change of the same member (RFC 6578 section 3.5.1). A removed one has a status only (section 3.5.2).
    fn write_member(&mut self, change: &ChangedMember) -> tree::Result<()> {
        self.href.clear();
        self.context.client_root.write_href(&change.path, change.is_directory, &mut self.href);
        let out = &mut self.block.text;
        // No propstat: removed, or no longer visible, which must look the same.
        let Some(entry) = &change.entry else {
            let href = &self.href;
            let _ = writeln!(
                out,
                "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 404 Not Found</D:status></D:response>"
            );
            return Ok(());
        };
        let own: Vec<DeadProperty>;
        let dead = if !self.plan.needs_dead_properties() {
            &[][..]
        } else if let Some(by_name) = properties_beside(&self.context.view, &mut self.properties, &change.path) {
            by_name.get(entry.name.as_slice()).map(Vec::as_slice).unwrap_or_default()
        } else {
            own = readable_properties(&self.context.view, change)?;
            &own
        };
        let row = PropfindRow {
            href: &self.href,
            display_name: &entry.name,
            entry,
            path: &|| change.path.clone(),
            dead_properties: dead,
            is_depth_zero: false,
        };
        self.plan.write_response(&self.context, &row, out);
        Ok(())
    }

    /// Ends the page; one that was truncated says so with a status of the directory itself (RFC 6578 section 3.6).
    fn write_end(&mut self, point: SyncPoint, truncated: bool) {
        if truncated {
            let href = self.context.client_root.href(&self.context.path, true);
            let _ = writeln!(
                self.block.text,
                "<D:response><D:href>{href}</D:href><D:status>HTTP/1.1 507 Insufficient Storage</D:status>\
                 <D:error><D:number-of-matches-within-limits/></D:error></D:response>"
            );
        }
        // Also after a truncated page: the client continues from here.
        let _ = writeln!(self.block.text, "<D:sync-token>{}</D:sync-token>", format_sync_token(point));
        self.block.text.push_str(multistatus::MULTISTATUS_END);
        self.done = true;
    }
}

/// Returns the dead properties of the members of the directory that a path is in, in `last` where they were read for the
/// member before.
fn properties_beside<'a>(
    view: &View,
    last: &'a mut Option<DirectoryProperties>,
    path: &TreePath,
) -> Option<&'a HashMap<EntryName, Vec<DeadProperty>>> {
    let slash = memchr::memrchr(b'/', path.as_bytes()).unwrap_or_default();
    let parent = &path.as_bytes()[..slash];
    if last.as_ref().is_none_or(|last| last.directory.as_bytes() != parent) {
        let directory = path.parent().unwrap_or_default();
        // Whatever the error is, it is that of the member, too, if it concerns it.
        let by_name = view.resolve(&directory).and_then(|directory| directory.member_properties()).ok();
        *last = Some(DirectoryProperties { directory, by_name });
    }
    last.as_ref().and_then(|last| last.by_name.as_ref())
}

fn readable_properties(view: &View, change: &ChangedMember) -> tree::Result<Vec<tree::DeadProperty>> {
    match view.properties(&change.path) {
        Err(tree::Error::Forbidden | tree::Error::RefusedByHost(_) | tree::Error::Absent) => Ok(Vec::new()),
        found => found,
    }
}

impl BlockProducer for SyncCollectionReport {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.done && self.block.text.is_empty() {
            return Ok(None);
        }
        self.fill_block().map(Some).map_err(|error| BodyError(error.to_string()))
    }
}
