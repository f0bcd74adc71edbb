//! Directory listings.

use std::collections::BTreeSet;
use std::io;

use super::authorize::OpenEntry;
use super::fs::{DirectoryFd, DirectoryStream, FdLocation};
use super::handle_access::HandleAccess;
use super::{Entry, EntryKind, Error, Result, View};
use crate::domain::{EntryName, Permission, TreePath};

/// The entries of a directory, in no order, without `.` and `..`. They are read from the directory as the iterator
/// advances.
///
/// An entry that is removed meanwhile is left out. Any error means that entries may be missing, and every further item
/// is an error too: a listing that was broken off never ends as a complete one does.
pub struct DirectoryListing {
    view: View,
    requested_path: TreePath,
    follow: bool,
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
    access: HandleAccess,
    names: DirectoryStream,
    batch: std::vec::IntoIter<EntryName>,
    path: TreePath,
    permission: Permission,
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
        let readable = ReadableListing {
            access: HandleAccess::new(view, directory.path.clone(), Permission::R)?,
            names: DirectoryFd::from(directory.file).read_names()?,
            batch: Vec::new().into_iter(),
            path: directory.path,
            permission: directory.permission,
            has_nested_grants,
        };
        Ok(Self {
            view: view.clone(),
            requested_path: requested_path.clone(),
            follow,
            source: ListingSource::Readable(Box::new(readable)),
        })
    }

    /// Lists only the given names, as far as they exist.
    pub(super) fn visible_children(view: &View, requested_path: &TreePath, names: BTreeSet<EntryName>) -> Self {
        Self {
            view: view.clone(),
            requested_path: requested_path.clone(),
            follow: true,
            source: ListingSource::VisibleChildren(names),
        }
    }

    /// Returns the names that are listed if they exist; `None` for a listing of all entries.
    pub(super) fn into_visible_children(self) -> Option<BTreeSet<EntryName>> {
        match self.source {
            ListingSource::VisibleChildren(names) => Some(names),
            ListingSource::Readable(_) | ListingSource::Ended | ListingSource::Failed => None,
        }
    }

    /// Checks that the session may still list the directory at its current path, and that no error was returned.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; [`Error::Filesystem`] after an error.
    pub(super) fn check(&self) -> Result<()> {
        match &self.source {
            ListingSource::Readable(readable) => readable.access.authorize_use(&readable.names),
            // Nothing is open here. A session that has ended must not learn even that the listing is complete.
            ListingSource::VisibleChildren(_) | ListingSource::Ended => Ok(self.view.session().access().map(drop)?),
            ListingSource::Failed => Err(repeated_failure()),
        }
    }

    fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let name = match &mut self.source {
                ListingSource::Ended => return Ok(None),
                ListingSource::Failed => return Err(repeated_failure()),
                ListingSource::VisibleChildren(names) => names.pop_first(),
                ListingSource::Readable(readable) => readable.next_name(&self.view)?,
            };
            let Some(name) = name else { return Ok(None) };
            if let Some(entry) = self.entry(&name)? {
                return Ok(Some(entry));
            }
        }
    }

    fn entry(&self, name: &EntryName) -> Result<Option<Entry>> {
        let ListingSource::Readable(readable) = &self.source else {
            return absent_as_none(self.view.stat(&self.requested_path.child(name)));
        };
        let stat = match readable.names.stat_entry(name).map_err(Error::from) {
            // Removed since its name was read.
            Err(Error::Absent) => return Ok(None),
            stat => stat?,
        };
        match stat.kind {
            None => Ok(None),
            Some(EntryKind::Symlink) if self.follow => absent_as_none(self.view.stat(&readable.path.child(name))),
            Some(EntryKind::Symlink) => absent_as_none(self.view.link_stat(&readable.path.child(name))),
            Some(EntryKind::File | EntryKind::Directory) => {
                let permission = if readable.has_nested_grants {
                    readable.permission_of(&self.view, name)?
                } else {
                    readable.permission
                };
                Ok(Some(self.view.entry_named(name.as_bytes(), &stat, permission)))
            }
        }
    }
}

impl ReadableListing {
    fn next_name(&mut self, view: &View) -> Result<Option<EntryName>> {
        if let Some(name) = self.batch.next() {
            return Ok(Some(name));
        }
        self.access.authorize_use(&self.names)?;
        // The path of the directory now: after a rename, entries are authorized by the new one.
        self.path = self.access.last_location().path;
        self.batch = match self.names.next_batch().map_err(Error::from) {
            // getdents64(2) refuses a directory that was removed; as readdir(3), that is its end.
            Err(Error::Absent) if !matches!(view.fs().locate_fd(&self.names), FdLocation::Linked(_)) => {
                return Ok(None);
            }
            // It is still there: the file system fails. `Absent` would read as an entry that was removed meanwhile.
            Err(Error::Absent) => return Err(Error::Filesystem(io::ErrorKind::NotFound.into())),
            batch => batch?.into_iter(),
        };
        Ok(self.batch.next())
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
