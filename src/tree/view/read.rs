//! Operations that change nothing.

use super::{View, visible};
use crate::domain::{NodeId, Permission, TreeOperation, TreePath};
use crate::tree::host::{self, Folder, How};
use crate::tree::{Entry, Error, Kind, Listing, Reader, Result, Space};

impl View {
    /// Returns the deepest folder that holds everything the session may reach: where SFTP starts.
    pub fn start(&self) -> TreePath {
        let start = self.session().access().map(|access| access.common_ancestor()).unwrap_or_default();
        match self.stat(&start) {
            Ok(entry) if entry.is_folder() => start,
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
        match self.grounds(&path)?.permission() {
            Permission::NONE => Err(Error::Absent),
            _ => Ok(path),
        }
    }

    /// Returns the node id of an entry that can be seen, minting it (and its ancestors) on first use.
    pub fn node_id(&self, path: &TreePath) -> Result<NodeId> {
        let mint = |path: &TreePath| self.shared().index.mint_for(path, Some(self.session().login()));
        match self.open(path, Permission::NONE, How::Place) {
            Ok(found) => mint(&found.path),
            Err(Error::Forbidden) => mint(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the node id of an entry that can be seen, if it has one.
    pub fn known_node_id(&self, path: &TreePath) -> Result<Option<NodeId>> {
        match self.open(path, Permission::NONE, How::Place) {
            Ok(found) => self.shared().index.find(&found.path),
            Err(Error::Forbidden) => self.shared().index.find(path),
            Err(error) => Err(error),
        }
    }

    /// Shows an entry; a link is followed.
    pub fn stat(&self, path: &TreePath) -> Result<Entry> {
        let grounds = self.grounds(path)?;
        if grounds.permission() == Permission::NONE {
            let seen = self.is_visible(grounds.access(), path)?;
            let name = path.name();
            return if seen { Ok(visible(name.as_ref().map_or(b"", |n| n.as_bytes()))) } else { Err(Error::Absent) };
        }
        let found = self.open_on(&grounds, path, Permission::NONE, How::Place)?;
        Ok(self.entry(path, &found.stat, found.permission))
    }

    /// Shows an entry; a link shows itself.
    pub fn link_stat(&self, path: &TreePath) -> Result<Entry> {
        match self.spot_with(path, Permission::NONE) {
            Ok(spot) => {
                let stat = self.shown(&spot, path)?.ok_or(Error::Absent)?;
                Ok(self.entry(path, &stat, spot.permission))
            }
            Err(Error::Forbidden | Error::NoParent) => self.stat(path),
            Err(error) => Err(error),
        }
    }

    /// Returns the path without links, as both protocols name it (SFTP REALPATH; lock roots). What is
    /// absent keeps its name when its folder is there.
    pub fn canonical(&self, path: &TreePath) -> Result<TreePath> {
        match self.open(path, Permission::NONE, How::Place) {
            Ok(found) => return Ok(found.path),
            Err(Error::Forbidden) => return Ok(path.clone()),
            Err(Error::Absent) => {}
            Err(error) => return Err(error),
        }
        match self.spot_with(path, Permission::NONE) {
            Ok(spot) => Ok(spot.path),
            Err(Error::Forbidden) => Ok(path.clone()),
            Err(Error::NoParent) => Err(Error::Absent),
            Err(error) => Err(error),
        }
    }

    /// Lists a folder. A merely visible one lists only the way down; a drop box lists nothing. Links
    /// show as what they lead to when `follow` (and are left out when that is absent), else as links.
    pub fn list(&self, path: &TreePath, follow: bool) -> Result<Listing> {
        let grounds = self.grounds(path)?;
        let permission = grounds.permission();
        let needed = TreeOperation::List.permission();
        if permission.allows(needed) {
            let found = self.open_on(&grounds, path, needed, How::Place)?;
            if !found.stat.is_folder() {
                return Err(Error::NotFolder);
            }
            return Listing::all(self, path, found, follow);
        }
        let entry = self.stat(path).inspect_err(|_| self.tell(TreeOperation::List, path))?;
        if !entry.is_folder() {
            self.tell(TreeOperation::List, path);
            return Err(Error::Forbidden);
        }
        Ok(Listing::way_down(self, path, grounds.access().visible_children(path)))
    }

    /// Opens a directory as a place, whatever the session may do there.
    pub(in crate::tree) fn directory(&self, path: &TreePath) -> Result<Folder> {
        Ok(self.open(path, Permission::NONE, How::Folder)?.file.into())
    }

    /// Opens a file for reading.
    pub fn read(&self, path: &TreePath) -> Result<Reader> {
        let found = self.open_for(TreeOperation::Read, path, How::Read)?;
        if found.stat.is_folder() {
            return Err(Error::IsFolder);
        }
        Reader::new(self, path, found)
    }

    /// As [`View::read`], if all on the way to the file is in memory: it never waits for a disk, so that a
    /// runtime may call it. `None` where it would have to, and wherever [`View::read`] is to say more: for
    /// what is absent, forbidden, a folder or a link.
    pub fn read_cached(&self, path: &TreePath) -> Option<Reader> {
        let found = self.open_cached(path, TreeOperation::Read.permission())?;
        if found.stat.is_folder() { None } else { Reader::new(self, path, found).ok() }
    }

    /// Returns a link's target; a link that is absolute or leads out is absent.
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        let entry = self.link_stat(path)?;
        if entry.kind != Kind::Link {
            return Err(Error::Unsupported);
        }
        if !entry.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        let spot = self.spot_with(path, Permission::R)?;
        self.link_inside(&spot, path)?.ok_or(Error::Absent)
    }

    /// Returns the room on the file system of an entry that can be seen; of a folder that is merely visible, that of
    /// something below it which the session may do something with.
    pub fn space(&self, path: &TreePath) -> Result<Space> {
        let found = match self.open(path, Permission::NONE, How::Place) {
            Err(Error::Forbidden) => {
                let access = self.session().access()?;
                let mut below = access.effective_grants().iter().filter(|root| root.path.starts_with(path));
                below
                    .find_map(|root| self.open(&root.path, Permission::NONE, How::Place).ok())
                    .ok_or(Error::Forbidden)?
            }
            found => found?,
        };
        Ok(host::space(&found.file)?)
    }
}
