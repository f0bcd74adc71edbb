//! Operations that change nothing: stat, list, read, node ids.

use super::{View, visible_directory_entry};
use crate::domain::{NodeId, Permission, TreeOperation, TreePath};
use crate::tree::fs::{self, DirectoryFd, OpenMode};
use crate::tree::{DirectoryListing, Entry, EntryKind, Error, FileReader, FilesystemSpace, Result};

impl View {
    /// Returns the deepest directory that contains everything that the session may reach: where SFTP starts.
    pub fn start_directory(&self) -> TreePath {
        let start = self.session().access().map(|access| access.common_ancestor()).unwrap_or_default();
        match self.stat(&start) {
            Ok(entry) if entry.is_directory() => start,
            // The only grant is on a file: start in its directory.
            Ok(_) => start.parent().unwrap_or_default(),
            // The outage ends without a new login: the start must not change because of it.
            Err(Error::Unavailable(_)) => start,
            Err(_) => TreePath::root(),
        }
    }

    /// Returns the path of a node, for `/node/UUID/`.
    ///
    /// # Errors
    /// [`Error::Absent`] when the node dangles or the session has no permission there.
    pub fn node_root(&self, node: NodeId) -> Result<TreePath> {
        let path = self.shared().index.locate(node)?.ok_or(Error::Absent)?;
        match self.permissions_at(&path)?.permission() {
            // A node id must not tell whether a node outside of the scopes exists.
            Permission::NONE => Err(Error::Absent),
            _ => Ok(path),
        }
    }

    /// Returns the node id of an entry that can be seen, and assigns one to it and its ancestors on first use.
    pub fn node_id(&self, path: &TreePath) -> Result<NodeId> {
        let assign_id = |path: &TreePath| self.shared().index.assign_id_for_user(path, Some(self.session().login()));
        // Opened before it is named: assigning an id to a hidden entry would reveal it.
        match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Ok(found) => assign_id(&found.path),
            // A merely visible directory: its path is no secret.
            Err(Error::Forbidden | Error::RefusedByHost(_)) => assign_id(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the node id of an entry that can be seen, if it has one.
    pub fn known_node_id(&self, path: &TreePath) -> Result<Option<NodeId>> {
        match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Ok(found) => self.shared().index.find_id(&found.path),
            Err(Error::Forbidden | Error::RefusedByHost(_)) => self.shared().index.find_id(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the metadata of an entry; symbolic links are followed.
    pub fn stat(&self, path: &TreePath) -> Result<Entry> {
        Ok(self.resolve(path)?.entry())
    }

    /// Returns the constant metadata of a directory that is merely visible, while it is.
    ///
    /// # Errors
    /// [`Error::Absent`] once it can't be seen; [`Error::SessionEnded`].
    pub(in crate::tree) fn stat_visible_directory(&self, path: &TreePath) -> Result<Entry> {
        let permissions = self.permissions_at(path)?;
        // Constants also where the session has a permission by now: that may be another directory.
        if permissions.permission() == Permission::NONE && !self.is_visible(permissions.access(), path)? {
            return Err(Error::Absent);
        }
        Ok(visible_directory_entry(path.name().as_ref().map_or(b"", |name| name.as_bytes())))
    }

    /// Returns the metadata of an entry; a symbolic link at the end is not followed.
    pub fn link_stat(&self, path: &TreePath) -> Result<Entry> {
        match self.slot_with_permission(path, Permission::NONE) {
            Ok(slot) => {
                let stat = self.visible_stat(&slot, path)?.ok_or(Error::Absent)?;
                Ok(self.entry(path, &stat, slot.permission))
            }
            Err(Error::Forbidden | Error::RefusedByHost(_) | Error::NoParent) => self.stat(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the canonical path, without symbolic links (SFTP REALPATH; lock roots). A missing entry keeps its name
    /// when its directory exists.
    pub fn canonical(&self, path: &TreePath) -> Result<TreePath> {
        match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Ok(found) => return Ok(found.path),
            // Merely visible: nothing is resolved where the session has no permission.
            Err(Error::Forbidden | Error::RefusedByHost(_)) => return Ok(path.clone()),
            Err(Error::Absent) => {}
            Err(error) => return Err(error),
        }
        match self.slot_with_permission(path, Permission::NONE) {
            Ok(slot) => Ok(slot.path),
            Err(Error::Forbidden | Error::RefusedByHost(_)) => Ok(path.clone()),
            Err(Error::NoParent) => Err(Error::Absent),
            Err(error) => Err(error),
        }
    }

    /// Lists a directory, as [`ResolvedEntry::into_listing`](super::ResolvedEntry::into_listing) does.
    pub fn list(&self, path: &TreePath, follow: bool) -> Result<DirectoryListing> {
        self.resolve(path).inspect_err(|_| self.audit_denial(TreeOperation::List, path))?.into_listing(follow)
    }

    /// Opens a directory with `O_PATH`, whatever permission the session has there.
    pub(in crate::tree) fn open_directory(&self, path: &TreePath) -> Result<DirectoryFd> {
        Ok(self.open_entry(path, Permission::NONE, OpenMode::DirectoryPath)?.file.into())
    }

    /// Opens a file for reading.
    pub fn read(&self, path: &TreePath) -> Result<FileReader> {
        let found = self.open_authorized(TreeOperation::Read, path, OpenMode::Read)?;
        if found.stat.is_directory() {
            return Err(Error::IsADirectory);
        }
        FileReader::new(self, path, found)
    }

    /// Returns the target text of a link; a link that is absolute or leads out is absent.
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        let entry = self.link_stat(path)?;
        if entry.kind != EntryKind::Symlink {
            return Err(Error::Unsupported);
        }
        // The text of a link is its content: a drop box does not show it.
        if !entry.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        let slot = self.slot_with_permission(path, Permission::R)?;
        self.contained_link_target(&slot, path)?.ok_or(Error::Absent)
    }

    /// Returns the space of the file system of an entry that can be seen; for a directory that is merely visible, of an
    /// entry below it on which the session has a permission.
    pub fn space(&self, path: &TreePath) -> Result<FilesystemSpace> {
        let found = match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            // Clients ask at the root of the mount, which is merely visible to a token with a scope.
            Err(Error::Forbidden | Error::RefusedByHost(_)) => {
                let access = self.session().access()?;
                let mut grants_below = access.effective_grants().iter().filter(|grant| grant.path.starts_with(path));
                grants_below
                    .find_map(|grant| self.open_entry(&grant.path, Permission::NONE, OpenMode::Path).ok())
                    .ok_or(Error::Forbidden)?
            }
            found => found?,
        };
        self.bound_space(&found.path, fs::filesystem_space(&found.file)?)
    }
}
