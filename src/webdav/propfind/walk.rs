//! The entries of an answer, in the order in which the tree gives them.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::plan::{Plan, Row};
use crate::domain::{EntryName, TreePath};
use crate::http::{BlockProducer, BodyError};
use crate::tree::{self, DeadProperty, DirectoryListing, Entry};
use crate::webdav::call::Call;
use crate::webdav::error::{Error, Result};
use crate::webdav::fields::Depth;
use crate::webdav::{address, multistatus};

/// A block is handed over once it is this long.
const BLOCK: usize = 256 * 1024;

/// Walks through the entries of an answer and writes them down.
pub(super) struct Walk {
    call: Arc<Call>,
    plan: Plan,
    out: String,
    href: String,
    folder: Option<Folder>,
    /// Folders that are still to be walked through.
    pending: Vec<TreePath>,
    deep: bool,
    entries: usize,
    most: usize,
    /// Whether entries are counted alone, and not written.
    counting: bool,
    done: bool,
}

/// A folder under way.
struct Folder {
    path: TreePath,
    href: String,
    listing: DirectoryListing,
    /// Of all entries; `None` when that is too much to hold at once.
    dead: Option<HashMap<EntryName, Vec<DeadProperty>>>,
}

impl Walk {
    /// Begins with the entry that the request names.
    ///
    /// # Errors
    /// What the tree says of it.
    pub(super) fn new(call: Arc<Call>, plan: Plan, depth: Depth, entry: &Entry) -> tree::Result<Self> {
        let mut walk = Self {
            call,
            plan,
            out: String::with_capacity(4096),
            href: String::new(),
            folder: None,
            pending: Vec::new(),
            deep: depth == Depth::Infinity,
            entries: 1,
            most: usize::MAX,
            counting: false,
            done: false,
        };
        walk.out.push_str(multistatus::HEAD);
        walk.write_first(entry, depth == Depth::Zero)?;
        if entry.is_directory() && depth != Depth::Zero {
            walk.enter(walk.call.path.clone())?;
        }
        Ok(walk)
    }

    /// Fails once there were more entries than this, the first one not counted.
    pub(super) fn stop_after(&mut self, most: usize) {
        self.most = most.saturating_add(1);
    }

    /// Tells whether all is written and handed over.
    pub(super) fn is_done(&self) -> bool {
        self.done
    }

    /// Goes on to the end without writing: whether the listing has an end is known before any of it is sent.
    ///
    /// # Errors
    /// As [`Walk::block`].
    pub(super) fn count_rest(&mut self) -> Result<()> {
        self.counting = true;
        self.out.clear();
        self.block().map(drop)
    }

    /// Writes the next entries, up to about a block.
    ///
    /// # Errors
    /// What the tree says while it is listed, [`Error::Endless`].
    pub(super) fn block(&mut self) -> Result<Bytes> {
        while self.out.len() < BLOCK {
            self.call.view.cancellation().check()?;
            if self.entries > self.most {
                return Err(Error::Endless);
            }
            let Some(folder) = self.folder.as_mut() else {
                match self.pending.pop() {
                    Some(next) => self.enter_if_there(next)?,
                    None => {
                        self.out.push_str(multistatus::TAIL);
                        self.done = true;
                        break;
                    }
                }
                continue;
            };
            match folder.listing.next() {
                Some(Ok(entry)) => self.write_member(&entry),
                Some(Err(tree::Error::Absent)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => self.folder = None,
            }
        }
        let next = if self.done { String::new() } else { String::with_capacity(BLOCK + 4096) };
        Ok(std::mem::replace(&mut self.out, next).into())
    }

    fn enter(&mut self, path: TreePath) -> tree::Result<()> {
        let listing = self.call.view.list(&path, true)?;
        let reads_dead = self.plan.reads_dead() && !self.counting;
        let dead = match reads_dead.then(|| known(self.call.view.properties_in(&path))) {
            None => Some(HashMap::new()),
            Some(Err(tree::Error::Unsupported)) => None,
            Some(dead) => Some(dead?),
        };
        let href = self.call.mount.href(&path, true);
        self.folder = Some(Folder { path, href, listing, dead });
        Ok(())
    }

    /// Enters a folder below the first; one that is gone or can't be listed meanwhile is passed over.
    fn enter_if_there(&mut self, path: TreePath) -> tree::Result<()> {
        match self.enter(path) {
            Err(tree::Error::Absent | tree::Error::Forbidden | tree::Error::NotADirectory) => Ok(()),
            entered => entered,
        }
    }

    fn write_first(&mut self, entry: &Entry, alone: bool) -> tree::Result<()> {
        let call = Arc::clone(&self.call);
        let dead = if self.plan.reads_dead() { known(call.view.properties(&call.path))? } else { Vec::new() };
        let href = call.mount.href(&call.path, entry.is_directory());
        let title = if entry.name.is_empty() { call.mount.title().as_bytes() } else { &entry.name };
        let row = Row { href: &href, title, entry, path: &|| call.path.clone(), dead: &dead, alone };
        self.plan.write(&call, &row, &mut self.out);
        Ok(())
    }

    fn write_member(&mut self, entry: &Entry) {
        let Some(name) = entry.valid_name() else { return };
        self.entries += 1;
        if !self.counting {
            self.write_row(entry, &name);
        }
        let Some(folder) = &self.folder else { return };
        // A link to a folder is shown as one, but not walked through: it may lead back to where it stands.
        let path = || folder.path.child(&name);
        if self.deep && entry.is_directory() && self.call.view.link_stat(&path()).is_ok_and(|own| own.is_directory()) {
            self.pending.push(path());
        }
    }

    fn write_row(&mut self, entry: &Entry, name: &EntryName) {
        let Some(folder) = &self.folder else { return };
        self.href.clear();
        self.href.push_str(&folder.href);
        address::encode(&entry.name, &mut self.href);
        if entry.is_directory() {
            self.href.push('/');
        }
        let path = || folder.path.child(name);
        let own: Vec<DeadProperty>;
        let dead = match &folder.dead {
            Some(dead) => dead.get(name).map(Vec::as_slice).unwrap_or_default(),
            None => {
                own = self.call.view.properties(&path()).unwrap_or_default();
                &own
            }
        };
        let row = Row { href: &self.href, title: &entry.name, entry, path: &path, dead, alone: false };
        self.plan.write(&self.call, &row, &mut self.out);
    }
}

impl BlockProducer for Walk {
    fn next_block(&mut self) -> std::result::Result<Option<Bytes>, BodyError> {
        if self.done {
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

/// Takes dead properties that may not be read as none.
fn known<T: Default>(found: tree::Result<T>) -> tree::Result<T> {
    match found {
        Err(tree::Error::Forbidden | tree::Error::Absent) => Ok(T::default()),
        found => found,
    }
}
