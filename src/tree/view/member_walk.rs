//! Walk through the members of a directory as a PROPFIND lists them, and lookup of single ones.

use std::collections::BTreeSet;

use super::View;
use crate::domain::{EntryName, TreePath};
use crate::tree::{DirectoryListing, Entry, Error, Result};

/// Member of a directory that has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedMember {
    /// Its path, or its last one.
    pub path: TreePath,
    /// Whether it is, or was, a directory.
    pub is_directory: bool,
    /// Its metadata; `None` where it was removed or can't be seen any more.
    pub entry: Option<Entry>,
}

/// Walk through all entries that a PROPFIND of the same depth lists.
pub(super) struct MemberWalk {
    view: View,
    directory: TreePath,
    depth_infinity: bool,
    /// Directories still to be listed, by their relative paths.
    pending: Vec<TreePath>,
    /// Directory that is being listed.
    current: Option<(TreePath, DirectoryListing)>,
    /// Relative path of the last entry.
    path: Vec<u8>,
    /// Length of the relative path of the directory in `path`, with a slash at its end.
    prefix_length: usize,
}

impl MemberWalk {
    /// Creates a walk through the direct members of a directory, or (`depth_infinity`) through everything below.
    pub(super) fn new(view: &View, directory: &TreePath, depth_infinity: bool) -> Self {
        Self {
            view: view.clone(),
            directory: directory.clone(),
            depth_infinity,
            pending: vec![TreePath::root()],
            current: None,
            path: Vec::new(),
            prefix_length: 0,
        }
    }

    /// Returns the relative path of the last entry.
    pub(super) fn path(&self) -> &[u8] {
        &self.path
    }

    /// Returns the next entry; `None` at the end.
    ///
    /// # Errors
    /// As [`View::list`] for the directory itself. Any error ends the walk: members that were not listed would be taken for
    /// removed ones.
    pub(super) fn next_entry(&mut self) -> Result<Option<Entry>> {
        loop {
            let Some((relative_path, listing)) = &mut self.current else {
                let Some(next) = self.pending.pop() else { return Ok(None) };
                self.view.cancellation().check()?;
                self.open(next)?;
                continue;
            };
            let Some(entry) = listing.next().transpose()? else {
                self.current = None;
                continue;
            };
            if !entry.has_valid_name() {
                continue;
            }
            // The path of the directory stays: a large one needs no allocation for each of its members.
            self.path.truncate(self.prefix_length);
            self.path.extend_from_slice(&entry.name);
            if self.depth_infinity
                && entry.is_directory()
                && let Some(name) = entry.valid_name()
            {
                let member_path = relative_path.child(&name);
                // Links to directories are listed, but not walked: they could form a loop.
                if is_real_directory(&self.view, &self.directory.join(&member_path))? {
                    self.pending.push(member_path);
                }
            }
            return Ok(Some(entry));
        }
    }

    fn open(&mut self, relative_path: TreePath) -> Result<()> {
        let mut listing = match self.view.list(&self.directory.join(&relative_path), true) {
            // Removed, replaced or hidden since it was listed. For the directory itself that is an error.
            Err(Error::Absent | Error::Forbidden | Error::RefusedByHost(_) | Error::NotADirectory)
                if !relative_path.is_root() =>
            {
                return Ok(());
            }
            listing => listing?,
        };
        listing.read_ahead();
        self.path.clear();
        if !relative_path.is_root() {
            self.path.extend_from_slice(relative_path.as_bytes());
            self.path.push(b'/');
        }
        self.prefix_length = self.path.len();
        self.current = Some((relative_path, listing));
        Ok(())
    }
}

/// Tells whether a listed directory is a directory itself, and not a link to one.
fn is_real_directory(view: &View, path: &TreePath) -> Result<bool> {
    match view.link_stat(path) {
        Ok(own) => Ok(own.is_directory()),
        Err(Error::Absent | Error::Forbidden | Error::RefusedByHost(_) | Error::NotADirectory) => Ok(false),
        // Not false: everything below would be reported as removed.
        Err(error) => Err(error),
    }
}

/// Lookup of single members of a directory: finds a member exactly when a walk through the listings finds it.
///
/// A stat by name is not enough: it finds entries in a drop box, and entries behind a symbolic link that has taken the
/// place of a directory. So each directory on the way is checked as well, and the result is kept while paths below it
/// are looked up; the directory of the last member is kept open. Both are for a batch of members, and not for longer.
pub(super) struct MemberLookup {
    view: View,
    directory: TreePath,
    depth_infinity: bool,
    /// Directories on the way to the last member, the topmost first, each with the names that its listing shows.
    ancestors: Vec<(TreePath, ListedNames)>,
}

/// Names that the listing of a directory shows.
enum ListedNames {
    /// All that can be seen: the listing, where it is that of the directory of the last member.
    All(Option<Box<DirectoryListing>>),
    /// Only these, as far as they can be seen: the children on the way to a granted node.
    Only(BTreeSet<EntryName>),
    /// None: it is not listed.
    NotListed,
}

impl MemberLookup {
    /// Creates a lookup of direct members of a directory, or (`depth_infinity`) of everything below.
    pub(super) fn new(view: &View, directory: &TreePath, depth_infinity: bool) -> Self {
        Self { view: view.clone(), directory: directory.clone(), depth_infinity, ancestors: Vec::new() }
    }

    /// Returns the metadata of a member as its listing shows it now; `None` where it is not listed.
    pub(super) fn find(&mut self, relative_path: &[u8]) -> Result<Option<Entry>> {
        let Some((parent, name)) =
            TreePath::parse(relative_path).ok().and_then(|relative_path| relative_path.split_last())
        else {
            return Ok(None);
        };
        // Every directory on the way has to list the next one, or a walk would not come here.
        self.load_ancestors(&parent)?;
        self.listed_member(&parent.child(&name), &name)
    }

    /// Makes a directory the last of the ancestors.
    fn load_ancestors(&mut self, parent: &TreePath) -> Result<()> {
        // Neighbouring paths share their ancestors: only those that differ are looked up again.
        while self.ancestors.last().is_some_and(|(ancestor, _)| !parent.starts_with(ancestor)) {
            self.ancestors.pop();
        }
        if self.ancestors.is_empty() {
            let listed = self.listed_names(&TreePath::root())?;
            self.ancestors.push((TreePath::root(), listed));
        }
        while let Some(name) = self
            .ancestors
            .last()
            .and_then(|(ancestor, _)| parent.strip_prefix(ancestor))
            .and_then(|rest| rest.names().next())
        {
            let ancestor = self.ancestors.last().map(|(ancestor, _)| ancestor.child(&name)).unwrap_or_default();
            let is_walked = self.depth_infinity
                && self.listed_member(&ancestor, &name)?.is_some_and(|entry| entry.is_directory())
                && is_real_directory(&self.view, &self.directory.join(&ancestor))?;
            let listed = if is_walked { self.listed_names(&ancestor)? } else { ListedNames::NotListed };
            // A deep directory takes one descriptor, and not one for each above it.
            if let Some((_, ListedNames::All(listing))) = self.ancestors.last_mut() {
                *listing = None;
            }
            self.ancestors.push((ancestor, listed));
        }
        Ok(())
    }

    /// Returns the metadata of an entry of the last ancestor; `None` where it is not listed.
    fn listed_member(&self, relative_path: &TreePath, name: &EntryName) -> Result<Option<Entry>> {
        let found = match self.ancestors.last() {
            Some((_, ListedNames::All(Some(listing)))) => listing.member(name.clone()),
            Some((_, ListedNames::Only(names))) if !names.contains(name) => return Ok(None),
            Some((_, ListedNames::All(None) | ListedNames::Only(_))) => {
                self.view.stat(&self.directory.join(relative_path)).map(Some)
            }
            Some((_, ListedNames::NotListed)) | None => return Ok(None),
        };
        match found {
            Ok(entry) => Ok(entry),
            // Not listed, for whatever reason: removed as far as this session can tell.
            Err(
                Error::Absent
                | Error::NoParent
                | Error::NotADirectory
                | Error::Forbidden
                | Error::RefusedByHost(_)
                | Error::InvalidName,
            ) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn listed_names(&self, relative_path: &TreePath) -> Result<ListedNames> {
        match self.view.list(&self.directory.join(relative_path), true) {
            Ok(listing) => Ok(match listing.into_visible_children() {
                Ok(names) => ListedNames::Only(names),
                Err(listing) => ListedNames::All(Some(Box::new(listing))),
            }),
            Err(Error::Absent | Error::Forbidden | Error::RefusedByHost(_) | Error::NotADirectory) => {
                Ok(ListedNames::NotListed)
            }
            Err(error) => Err(error),
        }
    }
}
