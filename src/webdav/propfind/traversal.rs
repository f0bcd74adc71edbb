//! Traversal of the entries of a response, in the order of the tree.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::plan::{PropfindPlan, PropfindRow};
use crate::domain::{EntryName, TreePath};
use crate::http::{BlockProducer, BodyError};
use crate::tree::{self, DeadProperty, DirectoryListing, Entry, ResolvedEntry};
use crate::webdav::error::{Error, Result};
use crate::webdav::headers::DepthHeader;
use crate::webdav::multistatus::MultistatusBlock;
use crate::webdav::request_context::RequestContext;
use crate::webdav::{client_root, multistatus};

/// Traversal of directories that writes each entry to the response.
pub(super) struct PropfindTraversal {
    context: Arc<RequestContext>,
    plan: PropfindPlan,
    block: MultistatusBlock,
    href: String,
    current: Option<TraversedDirectory>,
    /// Directories still to be traversed.
    pending: Vec<TreePath>,
    recursive: bool,
    entry_count: usize,
    max_entries: usize,
    /// Whether entries are only counted, not written.
    count_only: bool,
    /// Whether it runs under a work permit.
    has_permit: bool,
    done: bool,
}

/// Directory that is being traversed.
struct TraversedDirectory {
    path: TreePath,
    href: String,
    listing: DirectoryListing,
    /// Dead properties of all members; `None` when they are too large to be read at once.
    dead_properties: Option<HashMap<EntryName, Vec<DeadProperty>>>,
}

impl PropfindTraversal {
    /// Starts with the entry that the request names, and writes it.
    ///
    /// # Errors
    /// The errors of the tree for that entry.
    pub(super) fn new(
        context: Arc<RequestContext>,
        plan: PropfindPlan,
        depth: DepthHeader,
        requested: ResolvedEntry,
    ) -> tree::Result<Self> {
        let entry = requested.entry();
        let mut traversal = Self {
            context,
            plan,
            block: MultistatusBlock::first(),
            href: String::new(),
            current: None,
            pending: Vec::new(),
            recursive: depth == DepthHeader::Infinity,
            // The requested entry; `limit_entries` allows for it.
            entry_count: 1,
            max_entries: usize::MAX,
            count_only: false,
            has_permit: false,
            done: false,
        };
        traversal.write_requested_entry(&requested, &entry, depth == DepthHeader::Zero)?;
        if entry.is_directory() && depth != DepthHeader::Zero {
            traversal.open_directory(requested, traversal.context.path.clone())?;
        }
        Ok(traversal)
    }

    /// Tells that the traversal goes on under a work permit, and may have another thread help.
    pub(super) fn set_permitted(&mut self) {
        self.has_permit = true;
        if let Some(directory) = &mut self.current {
            directory.listing.read_ahead();
        }
    }

    /// Makes the traversal fail at more entries than this, the requested one not counted.
    pub(super) fn limit_entries(&mut self, max_entries: usize) {
        self.max_entries = max_entries.saturating_add(1);
    }

    /// Tells whether the last entry was written.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Counts the remaining entries without writing them: whether the limit is exceeded is known before anything is
    /// sent.
    ///
    /// # Errors
    /// As [`PropfindTraversal::fill_block`].
    pub(super) fn count_remaining(&mut self) -> Result<()> {
        self.count_only = true;
        self.block.text.clear();
        self.fill_block().map(drop)
    }

    /// Writes the next entries, up to about one block, and returns it.
    ///
    /// # Errors
    /// The errors of listing, [`Error::InfiniteDepth`].
    pub(super) fn fill_block(&mut self) -> Result<Bytes> {
        self.write_members(usize::MAX)?;
        Ok(self.block.take(self.done))
    }

    /// Writes the next entries into the block, but none after this number of members.
    ///
    /// # Errors
    /// As [`PropfindTraversal::fill_block`].
    pub(super) fn write_members(&mut self, max_members: usize) -> Result<()> {
        while !self.done && !self.block.is_full() && self.entry_count <= max_members.saturating_add(1) {
            // At each entry: a client that is gone must not keep a thread busy.
            self.context.view.cancellation().check()?;
            if self.entry_count > self.max_entries {
                return Err(Error::InfiniteDepth);
            }
            let Some(directory) = self.current.as_mut() else {
                // Depth first: fewer directories wait than breadth first.
                match self.pending.pop() {
                    Some(next) => self.open_directory_if_present(next)?,
                    None => {
                        self.block.text.push_str(multistatus::MULTISTATUS_END);
                        self.done = true;
                    }
                }
                continue;
            };
            match directory.listing.next() {
                Some(Ok(entry)) => self.write_member(&entry)?,
                // Whatever it is: a multistatus with its end tag would show the remaining entries as removed.
                Some(Err(error)) => return Err(error.into()),
                None => self.current = None,
            }
        }
        Ok(())
    }

    /// Lists a directory that was resolved at a path.
    fn open_directory(&mut self, directory: ResolvedEntry, path: TreePath) -> tree::Result<()> {
        let reads_dead = self.plan.needs_dead_properties() && !self.count_only;
        // `Unsupported` where they exceed 16 MiB: each entry is then read on its own.
        let dead = match reads_dead.then(|| default_if_denied(directory.member_properties())) {
            None => Some(HashMap::new()),
            Some(Err(tree::Error::Unsupported)) => None,
            Some(dead) => Some(dead?),
        };
        let mut listing = directory.into_listing(true)?;
        if self.has_permit {
            listing.read_ahead();
        }
        let href = self.context.client_root.href(&path, true);
        self.current = Some(TraversedDirectory { path, href, listing, dead_properties: dead });
        Ok(())
    }

    /// Opens a directory below the first; one that was removed or can't be listed any more is skipped.
    fn open_directory_if_present(&mut self, path: TreePath) -> tree::Result<()> {
        let directory = self.context.view.resolve(&path);
        match directory.and_then(|directory| self.open_directory(directory, path)) {
            Err(
                tree::Error::Absent
                | tree::Error::Forbidden
                | tree::Error::RefusedByHost(_)
                | tree::Error::NotADirectory,
            ) => Ok(()),
            entered => entered,
        }
    }

    fn write_requested_entry(
        &mut self,
        requested: &ResolvedEntry,
        entry: &Entry,
        is_depth_zero: bool,
    ) -> tree::Result<()> {
        let context = Arc::clone(&self.context);
        let dead =
            if self.plan.needs_dead_properties() { default_if_denied(requested.properties())? } else { Vec::new() };
        let href = context.client_root.href(&context.path, entry.is_directory());
        // The root of the tree has no name.
        let display_name =
            if entry.name.is_empty() { context.client_root.display_name().as_bytes() } else { &entry.name };
        let row = PropfindRow {
            href: &href,
            display_name,
            entry,
            path: &|| context.path.clone(),
            dead_properties: &dead,
            is_depth_zero,
        };
        self.plan.write_response(&context, &row, &mut self.block.text);
        Ok(())
    }

    fn write_member(&mut self, entry: &Entry) -> tree::Result<()> {
        // Created on the host with a name that no request can contain: it could not be accessed.
        if !entry.has_valid_name() {
            return Ok(());
        }
        self.entry_count += 1;
        if !self.count_only {
            self.write_row(entry);
        }
        if !self.recursive || !entry.is_directory() {
            return Ok(());
        }
        let (Some(directory), Some(name)) = (&self.current, entry.valid_name()) else { return Ok(()) };
        let path = directory.path.child(&name);
        match self.context.view.link_stat(&path) {
            // A symbolic link to a directory is listed as a directory but not followed: it may lead to one of its
            // parents.
            Ok(own) if own.is_directory() => self.pending.push(path),
            Ok(_)
            | Err(
                tree::Error::Absent
                | tree::Error::Forbidden
                | tree::Error::RefusedByHost(_)
                | tree::Error::NotADirectory,
            ) => {}
            // As for a listing: the directory would seem to be empty.
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn write_row(&mut self, entry: &Entry) {
        let Some(directory) = &self.current else { return };
        // Reused, so that a listing doesn't allocate an href for every entry.
        self.href.clear();
        self.href.push_str(&directory.href);
        client_root::percent_encode(&entry.name, &mut self.href);
        if entry.is_directory() {
            self.href.push('/');
        }
        let path = || match entry.valid_name() {
            Some(name) => directory.path.child(&name),
            None => directory.path.clone(),
        };
        let own: Vec<DeadProperty>;
        let dead = match &directory.dead_properties {
            Some(dead) => dead.get(entry.name.as_slice()).map(Vec::as_slice).unwrap_or_default(),
            None => {
                own = self.context.view.properties(&path()).unwrap_or_default();
                &own
            }
        };
        let row = PropfindRow {
            href: &self.href,
            display_name: &entry.name,
            entry,
            path: &path,
            dead_properties: dead,
            is_depth_zero: false,
        };
        self.plan.write_response(&self.context, &row, &mut self.block.text);
    }
}

impl BlockProducer for PropfindTraversal {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.done {
            return Ok(None);
        }
        self.fill_block().map(Some).map_err(|error| BodyError(error.to_string()))
    }
}

/// Treats dead properties that may not be read as none.
fn default_if_denied<T: Default>(found: tree::Result<T>) -> tree::Result<T> {
    match found {
        Err(tree::Error::Forbidden | tree::Error::RefusedByHost(_) | tree::Error::Absent) => Ok(T::default()),
        found => found,
    }
}

#[cfg(test)]
mod tests {
    use super::super::request::PropfindRequest;
    use super::*;
    use crate::domain::Permission;
    use crate::store::testing::take_query_count;
    use crate::tree::testing::{TreeFixture, fail_read_after, take_read_count};
    use crate::webdav::method::DavMethod;

    /// Returns the context of a PROPFIND of a directory by a user who may read `/a`.
    fn propfind_context(fixture: &TreeFixture, path: &str) -> Arc<RequestContext> {
        if fixture.store.user(&crate::store::testing::login("alice")).expect("read").is_none() {
            fixture.create_user("alice", &[("/a", Permission::R)]);
        }
        let session = fixture.view("alice").session().clone();
        let head = http::Request::builder().uri(path).body(()).expect("a request").into_parts().0;
        let context = RequestContext::new(
            DavMethod::Propfind,
            Box::new(head),
            &fixture.tree,
            session,
            crate::store::testing::now(),
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(context).expect("read")
    }

    /// Returns the whole multistatus of infinite depth with all properties.
    fn collect_multistatus(context: &Arc<RequestContext>) -> Result<String> {
        collect(context, b"", DepthHeader::Infinity)
    }

    fn collect(context: &Arc<RequestContext>, body: &[u8], depth: DepthHeader) -> Result<String> {
        let plan = PropfindRequest::parse(body).expect("a body").into_plan();
        let requested = context.view.resolve(&context.path)?;
        let mut traversal = PropfindTraversal::new(Arc::clone(context), plan, depth, requested)?;
        let mut body = Vec::new();
        while !traversal.is_done() {
            body.extend_from_slice(&traversal.fill_block()?);
        }
        Ok(String::from_utf8(body).expect("text"))
    }

    #[test]
    fn read_error_leaves_no_entry_out_of_a_complete_multistatus() {
        let fixture = TreeFixture::new(&["/a", "/a/sub", "/a/sub/below"]);
        std::fs::write(fixture.root_path.join("a/sub/below/file"), "content").expect("written");
        let context = propfind_context(&fixture, "/dav/a");
        let count_entries = |body: String| body.matches("</D:response>").count();
        assert_eq!(collect_multistatus(&context).map(count_entries).expect("listed"), 4);
        let mut reads = 0;
        loop {
            fail_read_after(Some(reads));
            let listed = collect_multistatus(&context).map(count_entries);
            let has_failed = fail_read_after(None);
            assert!(matches!(listed, Err(_) | Ok(4)), "read {reads} failed: {listed:?}");
            if !has_failed {
                break;
            }
            reads += 1;
        }
        assert!(reads > 4);
    }

    #[test]
    fn listing_reads_each_entry_once_and_the_database_once_a_directory() {
        let fixture = TreeFixture::new(&["/a", "/a/few", "/a/many"]);
        let cost = |directory: &str, files: u32| {
            for number in 0..files {
                let path = format!("a/{directory}/{number}.txt");
                std::fs::write(fixture.root_path.join(path), "content").expect("written");
            }
            let context = propfind_context(&fixture, &format!("/dav/a/{directory}"));
            let body =
                br#"<propfind xmlns="DAV:"><prop><displayname/><resourcetype/><getcontentlength/><getlastmodified/>
                <getetag/><getcontenttype/><lockdiscovery/></prop></propfind>"#;
            let _ = (take_read_count(), take_query_count());
            let listed = collect(&context, body, DepthHeader::One).expect("listed");
            assert_eq!(listed.matches("</D:response>").count() as u32, files + 1);
            (take_read_count(), take_query_count())
        };
        let (few_reads, few_queries) = cost("few", 10);
        let (many_reads, many_queries) = cost("many", 1000);
        // Each further read of the names takes a buffer of them.
        assert!(many_reads - few_reads <= 990 + 4, "{few_reads}, {many_reads}");
        assert_eq!(many_queries, few_queries);
        assert!(few_queries < 8, "{few_queries}");
    }
}
