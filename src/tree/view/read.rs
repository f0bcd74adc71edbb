//! Operations that change nothing.

use super::{View, visible_directory_entry};
use crate::domain::{NodeId, Permission, TreeOperation, TreePath};
use crate::tree::fs::{self, DirectoryFd, OpenMode};
use crate::tree::{DirectoryListing, Entry, EntryKind, Error, FileReader, FilesystemSpace, Result};

impl View {
    /// Returns the deepest folder that holds everything the session may reach: where SFTP starts.
    pub fn start_directory(&self) -> TreePath {
        let start = self.session().access().map(|access| access.common_ancestor()).unwrap_or_default();
        match self.stat(&start) {
            Ok(entry) if entry.is_directory() => start,
            Ok(_) => start.parent().unwrap_or_default(),
            // It is there again when the tree is.
            Err(Error::Unavailable(_)) => start,
            Err(_) => TreePath::root(),
        }
    }

    /// Returns where a node is, for `/node/UUID/`.
    ///
    /// # Errors
    /// [`Error::Absent`] when it dangles or the session may not do anything there.
    pub fn node_root(&self, node: NodeId) -> Result<TreePath> {
        let path = self.shared().index.locate(node)?.ok_or(Error::Absent)?;
        match self.permissions_at(&path)?.permission() {
            Permission::NONE => Err(Error::Absent),
            _ => Ok(path),
        }
    }

    /// Returns the node id of an entry that can be seen, minting it (and its ancestors) on first use.
    pub fn node_id(&self, path: &TreePath) -> Result<NodeId> {
        let mint = |path: &TreePath| self.shared().index.mint_for(path, Some(self.session().login()));
        match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Ok(found) => mint(&found.path),
            Err(Error::Forbidden) => mint(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the node id of an entry that can be seen, if it has one.
    pub fn known_node_id(&self, path: &TreePath) -> Result<Option<NodeId>> {
        match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Ok(found) => self.shared().index.find_id(&found.path),
            Err(Error::Forbidden) => self.shared().index.find_id(path),
            Err(error) => Err(error),
        }
    }

    /// Shows an entry; a link is followed.
    pub fn stat(&self, path: &TreePath) -> Result<Entry> {
        let permissions = self.permissions_at(path)?;
        if permissions.permission() == Permission::NONE {
            let is_visible = self.is_visible(permissions.access(), path)?;
            let name = path.name();
            return if is_visible {
                Ok(visible_directory_entry(name.as_ref().map_or(b"", |name| name.as_bytes())))
            } else {
                Err(Error::Absent)
            };
        }
        let found = self.open_with_permissions(&permissions, path, Permission::NONE, OpenMode::Path)?;
        Ok(self.entry(path, &found.stat, found.permission))
    }

    /// Shows an entry; a link shows itself.
    pub fn link_stat(&self, path: &TreePath) -> Result<Entry> {
        match self.slot_with_permission(path, Permission::NONE) {
            Ok(slot) => {
                let stat = self.visible_stat(&slot, path)?.ok_or(Error::Absent)?;
                Ok(self.entry(path, &stat, slot.permission))
            }
            Err(Error::Forbidden | Error::NoParent) => self.stat(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the path without links, as both protocols name it (SFTP REALPATH; lock roots). What is
    /// absent keeps its name when its folder is there.
    pub fn canonical(&self, path: &TreePath) -> Result<TreePath> {
        match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Ok(found) => return Ok(found.path),
            Err(Error::Forbidden) => return Ok(path.clone()),
            Err(Error::Absent) => {}
            Err(error) => return Err(error),
        }
        match self.slot_with_permission(path, Permission::NONE) {
            Ok(slot) => Ok(slot.path),
            Err(Error::Forbidden) => Ok(path.clone()),
            Err(Error::NoParent) => Err(Error::Absent),
            Err(error) => Err(error),
        }
    }

    /// Lists a folder. A merely visible one lists only the way down; a drop box lists nothing. Links
    /// show as what they lead to when `move_nodes` (and are left out when that is absent), else as links.
    pub fn list(&self, path: &TreePath, follow: bool) -> Result<DirectoryListing> {
        let permissions = self.permissions_at(path)?;
        let permission = permissions.permission();
        let needed = TreeOperation::List.permission();
        if permission.allows(needed) {
            let found = self.open_with_permissions(&permissions, path, needed, OpenMode::Path)?;
            if !found.stat.is_directory() {
                return Err(Error::NotADirectory);
            }
            return DirectoryListing::readable(self, path, found, follow);
        }
        let entry = self.stat(path).inspect_err(|_| self.audit_denial(TreeOperation::List, path))?;
        if !entry.is_directory() {
            self.audit_denial(TreeOperation::List, path);
            return Err(Error::Forbidden);
        }
        Ok(DirectoryListing::visible_children(self, path, permissions.access().visible_children(path)))
    }

    /// Opens a directory as a place, whatever the session may do there.
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

    /// As [`View::read`], if all on the way to the file is in memory: it never waits for a disk, so that a
    /// runtime may call it. `None` where it would have to, and wherever [`View::read`] is to say more: for
    /// what is absent, forbidden, a folder or a link.
    pub fn read_cached(&self, path: &TreePath) -> Option<FileReader> {
        let found = self.open_cached(path, TreeOperation::Read.permission())?;
        if found.stat.is_directory() { None } else { FileReader::new(self, path, found).ok() }
    }

    /// Returns a link's target; a link that is absolute or leads out is absent.
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        let entry = self.link_stat(path)?;
        if entry.kind != EntryKind::Symlink {
            return Err(Error::Unsupported);
        }
        if !entry.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        let slot = self.slot_with_permission(path, Permission::R)?;
        self.contained_link_target(&slot, path)?.ok_or(Error::Absent)
    }

    /// Returns the room on the file system of an entry that can be seen; of a folder that is merely visible, that of
    /// something below it which the session may do something with.
    pub fn space(&self, path: &TreePath) -> Result<FilesystemSpace> {
        let found = match self.open_entry(path, Permission::NONE, OpenMode::Path) {
            Err(Error::Forbidden) => {
                let access = self.session().access()?;
                let mut grants_below = access.effective_grants().iter().filter(|grant| grant.path.starts_with(path));
                grants_below
                    .find_map(|grant| self.open_entry(&grant.path, Permission::NONE, OpenMode::Path).ok())
                    .ok_or(Error::Forbidden)?
            }
            found => found?,
        };
        Ok(fs::filesystem_space(&found.file)?)
    }
}
