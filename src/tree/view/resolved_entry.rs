//! An entry that is resolved once for a request: its permissions, its place and the open entry go from the check to every
//! read that the request needs.

use std::cell::OnceCell;
use std::collections::HashMap;

use super::{View, visible_directory_entry};
use crate::domain::{EntryName, NodeId, Permission, TreeOperation, TreePath};
use crate::tree::authorize::{OpenEntry, PermissionSet};
use crate::tree::fs::OpenMode;
use crate::tree::{
    AttributeChanges, DeadProperty, DirectoryListing, Entry, Error, PropertyChange, Result, WriteConditions,
};

/// An entry that the session can see, open, with the grants that were looked up for its path.
///
/// It is for the reads of one request, one after the other: grants that are taken away meanwhile are noticed when the next
/// entry is resolved, and by a listing before each batch of names.
pub struct ResolvedEntry {
    view: View,
    requested_path: TreePath,
    permissions: PermissionSet,
    /// `None` for a directory that is merely visible: nothing may be opened there.
    open: Option<OpenEntry>,
    /// Node of `open`, once it was looked up.
    node: OnceCell<Option<NodeId>>,
}

impl View {
    /// Resolves a path; symbolic links are followed.
    ///
    /// # Errors
    /// [`Error::Absent`] for an entry that does not exist or can't be seen, [`Error::Forbidden`] for one that can be seen
    /// but not through the link that the path is.
    pub fn resolve(&self, path: &TreePath) -> Result<ResolvedEntry> {
        let permissions = self.permissions_at(path)?;
        let open = if permissions.permission() != Permission::NONE {
            Some(self.open_with_permissions(&permissions, path, Permission::NONE, OpenMode::Path)?)
        } else if self.is_visible(permissions.access(), path)? {
            None
        } else {
            return Err(Error::Absent);
        };
        Ok(ResolvedEntry { view: self.clone(), requested_path: path.clone(), permissions, open, node: OnceCell::new() })
    }
}

impl ResolvedEntry {
    /// Returns the metadata.
    pub fn entry(&self) -> Entry {
        match &self.open {
            Some(open) => self.view.entry(&self.requested_path, &open.stat, open.permission),
            // Constants: a merely visible directory shows no metadata of the host.
            None => visible_directory_entry(self.requested_path.name().as_ref().map_or(b"", |name| name.as_bytes())),
        }
    }

    /// Returns the dead properties; they need `r`.
    ///
    /// # Errors
    /// [`Error::Forbidden`], [`Error::Store`].
    pub fn properties(&self) -> Result<Vec<DeadProperty>> {
        match self.readable_node_with_properties()? {
            (_, Some(node)) => self.view.shared().index.node_properties(node),
            (_, None) => Ok(Vec::new()),
        }
    }

    /// Returns the dead properties of all entries of the directory that have some, with one query; they need `r`.
    ///
    /// # Errors
    /// [`Error::Forbidden`]; [`Error::Unsupported`] when they have more than 16 MiB: ask for each entry then.
    pub fn member_properties(&self) -> Result<HashMap<EntryName, Vec<DeadProperty>>> {
        match self.readable_node_with_properties()? {
            (path, Some(node)) => self.view.shared().index.member_properties(node, &path),
            (_, None) => Ok(HashMap::new()),
        }
    }

    /// Changes dead properties and attributes together, as [`View::set_properties`] does.
    ///
    /// # Errors
    /// As [`View::set_properties`].
    pub fn set_properties(
        &self,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        self.view.set_properties_at(&self.writable_path()?, changes, attributes, conditions)
    }

    /// Checks that dead properties and attributes may be changed, and changes nothing. For a request that is invalid
    /// for another reason: a session without the permission must get the refusal, not that reason.
    ///
    /// # Errors
    /// As [`View::set_properties`], without errors of the disk and the store.
    pub fn check_set_properties(
        &self,
        changes: &[PropertyChange],
        attributes: &AttributeChanges,
        conditions: &WriteConditions<'_>,
    ) -> Result<()> {
        self.view.check_set_properties_at(&self.writable_path()?, changes, attributes, conditions)
    }

    /// Returns where the entry is, once it may be written. A denial is recorded in the audit trail.
    fn writable_path(&self) -> Result<TreePath> {
        let operation = TreeOperation::Write;
        let reopened = self
            .reopen_for(operation.permission())
            .inspect_err(|_| self.view.audit_denial(operation, &self.requested_path))?;
        match (reopened, &self.open) {
            (Some(reopened), _) => Ok(reopened.path),
            (None, Some(open)) => Ok(open.path.clone()),
            (None, None) => Err(Error::Forbidden),
        }
    }

    /// Lists the directory. A merely visible directory lists only the children on the way to a granted node; a drop box
    /// (`w` without `r`) lists nothing. Symbolic links are followed where `follow` is true (and left out when their
    /// target is absent), else listed as links.
    ///
    /// # Errors
    /// [`Error::NotADirectory`]; [`Error::Forbidden`] for a file that may not be read.
    pub fn into_listing(self, follow: bool) -> Result<DirectoryListing> {
        let needed = TreeOperation::List.permission();
        if self.permissions.permission().allows(needed) {
            let reopened = self.reopen_for(needed)?;
            let directory = reopened.or(self.open).ok_or(Error::Absent)?;
            if !directory.stat.is_directory() {
                return Err(Error::NotADirectory);
            }
            return DirectoryListing::readable(&self.view, &self.requested_path, directory, follow);
        }
        if !self.entry().is_directory() {
            self.view.audit_denial(TreeOperation::List, &self.requested_path);
            return Err(Error::Forbidden);
        }
        let names = self.permissions.access().visible_children(&self.requested_path);
        DirectoryListing::visible_children(&self.view, &self.requested_path, self.open, names)
    }

    /// Returns where the entry is, once it may be read, and its node, if it has one. No node is looked up where no entry of
    /// the tree has properties.
    fn readable_node_with_properties(&self) -> Result<(TreePath, Option<NodeId>)> {
        let index = &self.view.shared().index;
        match (self.reopen_for(Permission::R)?, &self.open) {
            (Some(reopened), _) if !index.store().has_properties() => Ok((reopened.path, None)),
            (None, Some(open)) if !index.store().has_properties() => Ok((open.path.clone(), None)),
            (Some(reopened), _) => {
                let node = index.find_id(&reopened.path)?;
                Ok((reopened.path, node))
            }
            (None, Some(open)) => {
                let node = match self.node.get() {
                    Some(node) => *node,
                    None => *self.node.get_or_init({
                        let node = index.find_id(&open.path)?;
                        move || node
                    }),
                };
                Ok((open.path.clone(), node))
            }
            (None, None) => Err(Error::Forbidden),
        }
    }

    /// Opens the entry again for an operation that needs more than to see it, by the grants that were looked up before;
    /// `None` where the open entry will do.
    ///
    /// Resolution starts at the topmost grant that allows what is needed, so that a link can't lead out of it. Where that
    /// is the grant by which the entry was opened already, opening it again would find the same.
    fn reopen_for(&self, needed: Permission) -> Result<Option<OpenEntry>> {
        let opened_by = self.permissions.topmost_path(Permission::NONE);
        if self.open.is_some() && self.permissions.topmost_path(needed) == opened_by {
            return Ok(None);
        }
        self.view.open_with_permissions(&self.permissions, &self.requested_path, needed, OpenMode::Path).map(Some)
    }
}
