//! Directory listings.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

use super::authorize::OpenEntry;
use super::directory_handle::DirectoryHandle;
use super::fs::{self, DirectoryFd, DirectoryStream, Stat};
use super::handle_access::HandleAccess;
use super::stat_batch::{NamedStat, StatBatch};
use super::{AttributeChanges, Entry, EntryKind, Error, FilesystemSpace, Result, View};
use crate::auth::Session;
use crate::domain::{EntryName, NodeId, Permission, TreeAccess, TreeOperation, TreePath};

/// The entries of a directory, in no order, without `.` and `..`. They are read from the directory as the iterator
/// advances.
///
/// An entry that is removed meanwhile is left out. Any error means that entries may be missing, and every further item
/// is an error too: a listing that was broken off never ends as a complete one does.
pub struct DirectoryListing {
    view: View,
    requested_path: TreePath,
    follow: bool,
    /// The directory; `None` where it is merely visible: nothing may be opened there.
    handle: Option<Arc<DirectoryHandle>>,
    /// Node of a merely visible directory, by which it is found after a rename. The root is never renamed.
    visible_node: Option<NodeId>,
    source: ListingSource,
}

enum ListingSource {
    Readable(Box<ReadableListing>),
    VisibleChildren(BTreeSet<EntryName>),
    /// Every entry was returned.
    Ended,
    /// An error was returned.
    Failed,
}

/// Listing of a directory that the session may read.
struct ReadableListing {
    handle: Arc<DirectoryHandle>,
    names: DirectoryStream,
    batch: StatBatch,
    /// Whether another thread may help to read the metadata.
    reads_ahead: bool,
    path: TreePath,
    permission: Permission,
    /// Access by which it was opened.
    access: Arc<TreeAccess>,
    has_nested_grants: bool,
}

impl DirectoryListing {
    /// Lists all entries of an authorized directory.
    pub(super) fn readable(view: &View, requested_path: &TreePath, directory: OpenEntry, follow: bool) -> Result<Self> {
        let access = view.session().access()?;
        // Permissions are looked up per entry only if they can differ, so that large directories stay cheap.
        let has_nested_grants = access
            .effective_grants()
            .iter()
            .any(|grant| grant.path != directory.path && grant.path.starts_with(&directory.path));
        // Reserved before the descriptor is opened: a user at the limit takes none.
        let handle_access = HandleAccess::new(view, directory.path.clone(), Permission::R)?;
        let names = DirectoryFd::from(directory.file).read_names()?;
        let handle = Arc::new(DirectoryHandle::new(names.directory().clone(), handle_access));
        let readable = ReadableListing {
            handle: Arc::clone(&handle),
            names,
            batch: StatBatch::new(Vec::new()),
            reads_ahead: false,
            path: directory.path,
            permission: directory.permission,
            access,
            has_nested_grants,
        };
        Ok(Self {
            view: view.clone(),
            requested_path: requested_path.clone(),
            follow,
            handle: Some(handle),
            visible_node: None,
            source: ListingSource::Readable(Box::new(readable)),
        })
    }

    /// Lists only the given names, as far as they exist: in a drop box, which is open, or in a directory that is merely
    /// visible.
    pub(super) fn visible_children(
        view: &View,
        requested_path: &TreePath,
        drop_box: Option<OpenEntry>,
        names: BTreeSet<EntryName>,
    ) -> Result<Self> {
        let (handle, visible_node) = match drop_box {
            Some(OpenEntry { file, path, .. }) => {
                let handle_access = HandleAccess::new(view, path, Permission::W)?;
                (Some(Arc::new(DirectoryHandle::new(file.into(), handle_access))), None)
            }
            None if requested_path.is_root() => (None, None),
            // It has a node, as everything above a granted node has.
            None => (None, view.shared().index.find_id(requested_path)?),
        };
        Ok(Self {
            view: view.clone(),
            requested_path: requested_path.clone(),
            follow: true,
            handle,
            visible_node,
            source: ListingSource::VisibleChildren(names),
        })
    }

    /// Returns the names that are listed if they exist; the listing itself where it is of all entries.
    pub(super) fn into_visible_children(self) -> std::result::Result<BTreeSet<EntryName>, Self> {
        match self.source {
            ListingSource::VisibleChildren(names) => Ok(names),
            ListingSource::Readable(_) | ListingSource::Ended | ListingSource::Failed => Err(self),
        }
    }

    /// Returns the metadata of an entry as the listing shows it now; `None` where it is absent. The directory is the one
    /// that was opened: keep the listing for a batch of names, and not for longer.
    pub(super) fn member(&self, name: EntryName) -> Result<Option<Entry>> {
        let access = self.view.session().access()?;
        match &self.source {
            // The grants have not changed since the directory was authorized: it needs no look at each name.
            ListingSource::Readable(readable) if Arc::ptr_eq(&access, &readable.access) => self.entry(name),
            _ => absent_as_none(self.view.stat(&self.requested_path.child(&name))),
        }
    }

    /// Checks that the session may still list the directory at its current path, and that no error was returned.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; [`Error::Filesystem`] after an error.
    pub(super) fn check(&self) -> Result<()> {
        // Also at the end: a session that has ended must not learn even that the listing is complete.
        match &self.handle {
            Some(handle) => handle.authorize_use().map(drop)?,
            None => self.view.session().access().map(drop)?,
        }
        if matches!(self.source, ListingSource::Failed) { Err(repeated_failure()) } else { Ok(()) }
    }

    /// Returns the metadata of the directory itself, wherever it is now.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; [`Error::Absent`] for a merely visible directory that is no longer.
    pub(super) fn directory_entry(&self) -> Result<Entry> {
        let name = self.requested_path.name();
        match &self.handle {
            Some(handle) => handle.stat(name.as_ref().map_or(b"", |name| name.as_bytes())),
            None => {
                let entry = self.view.stat_visible_directory(&self.visible_path()?)?;
                Ok(Entry { name: name.as_ref().map_or_else(Vec::new, |name| name.as_bytes().to_vec()), ..entry })
            }
        }
    }

    /// Returns the path that a merely visible directory has now.
    ///
    /// # Errors
    /// [`Error::Absent`] once it was removed.
    fn visible_path(&self) -> Result<TreePath> {
        match self.visible_node {
            Some(node) => self.view.shared().index.locate(node)?.ok_or(Error::Absent),
            None => Ok(self.requested_path.clone()),
        }
    }

    /// Sets attributes of the directory itself, wherever it is now.
    ///
    /// # Errors
    /// As [`DirectoryHandle::set_attributes`].
    pub(super) fn set_directory_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        match &self.handle {
            Some(handle) => handle.set_attributes(attributes),
            None => {
                let path = self.visible_path()?;
                self.view.stat_visible_directory(&path)?;
                self.view.audit_denial(TreeOperation::Write, &path);
                // Also where the session may write at the path by now: it is another directory, or was opened before.
                Err(Error::Forbidden)
            }
        }
    }

    /// Returns the space on the file system of the directory.
    ///
    /// # Errors
    /// As [`View::space`].
    pub(super) fn space(&self) -> Result<FilesystemSpace> {
        match &self.handle {
            Some(handle) => handle.space(),
            None => self.view.space(&self.visible_path()?),
        }
    }

    /// Has another thread help to read the metadata of a large directory. For work that has a work permit, and goes through
    /// all entries.
    pub fn read_ahead(&mut self) {
        if let ListingSource::Readable(readable) = &mut self.source {
            readable.reads_ahead = true;
            readable.batch.add_helper(readable.names.directory(), self.view.session());
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let entry = match &mut self.source {
                ListingSource::Ended => return Ok(None),
                ListingSource::Failed => return Err(repeated_failure()),
                ListingSource::VisibleChildren(names) => {
                    let Some(name) = names.pop_first() else { return Ok(None) };
                    self.entry(name)?
                }
                ListingSource::Readable(readable) => {
                    let Some((name, stat)) = readable.next_named_stat(self.view.session())? else { return Ok(None) };
                    readable.entry(&self.view, self.follow, name, stat)?
                }
            };
            if let Some(entry) = entry {
                return Ok(Some(entry));
            }
        }
    }

    fn entry(&self, name: EntryName) -> Result<Option<Entry>> {
        if let ListingSource::Readable(readable) = &self.source {
            let stat = readable.names.stat_entry(&name);
            return readable.entry(&self.view, self.follow, name, stat);
        }
        // Its path now: after a rename, its entries would all be absent at the old one.
        let directory = match &self.handle {
            Some(handle) => handle.authorize_use(),
            None => self.visible_path(),
        };
        absent_as_none(directory.and_then(|directory| self.view.stat(&directory.child(&name))))
    }
}

impl ReadableListing {
    fn entry(&self, view: &View, follow: bool, name: EntryName, stat: fs::Result<Stat>) -> Result<Option<Entry>> {
        let stat = match stat {
            Ok(stat) => stat,
            // Removed since its name was read.
            Err(error) => return absent_as_none(Err(error.into())),
        };
        match stat.kind {
            None => Ok(None),
            Some(EntryKind::Symlink) if follow => absent_as_none(view.stat(&self.path.child(&name))),
            Some(EntryKind::Symlink) => absent_as_none(view.link_stat(&self.path.child(&name))),
            Some(EntryKind::File | EntryKind::Directory) => {
                let permission =
                    if self.has_nested_grants { self.permission_of(view, &name)? } else { self.permission };
                // The name moves into the entry: of a large directory, each allocation counts.
                Ok(Some(view.entry_named(name, &stat, permission)))
            }
        }
    }

    fn next_named_stat(&mut self, session: &Session) -> Result<Option<NamedStat>> {
        if let Some(named_stat) = self.batch.next(self.names.directory()) {
            return Ok(Some(named_stat));
        }
        // The path of the directory now: after a rename, entries are authorized by the new one.
        self.path = self.handle.authorize_use()?;
        let names = match self.names.next_batch().map_err(Error::from) {
            // getdents64(2) refuses a directory that was removed; as readdir(3), that is its end.
            Err(Error::Absent) if self.handle.is_removed() => return Ok(None),
            // It is still there: the file system fails. `Absent` would read as an entry that was removed meanwhile.
            Err(Error::Absent) => return Err(Error::Filesystem(io::ErrorKind::NotFound.into())),
            batch => batch?,
        };
        self.batch = StatBatch::new(names);
        if self.reads_ahead {
            self.batch.add_helper(self.names.directory(), session);
        }
        Ok(self.batch.next(self.names.directory()))
    }

    fn permission_of(&self, view: &View, name: &EntryName) -> Result<Permission> {
        Ok(self.permission | view.session().access()?.permission_at(&self.path.child(name)))
    }
}

impl Iterator for DirectoryListing {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        let next = self.next_entry();
        match next {
            Ok(Some(_)) => {}
            Ok(None) => self.source = ListingSource::Ended,
            // Not `Ended`: a client that mirrors the directory would delete its copies of what was not listed.
            Err(_) => self.source = ListingSource::Failed,
        }
        next.transpose()
    }
}

/// Returns the error of every call after the one that has failed.
fn repeated_failure() -> Error {
    Error::Filesystem(io::Error::other("an earlier error has broken off the listing"))
}

fn absent_as_none(entry: Result<Entry>) -> Result<Option<Entry>> {
    match entry {
        Ok(entry) => Ok(Some(entry)),
        Err(Error::Absent) => Ok(None),
        Err(error) => Err(error),
    }
}
