//! The tree as one session may see it: the operations, each behind its one check.
//!
//! | operation | needs |
//! |---|---|
//! | list, read, COPY source | `r` on the node |
//! | replace, write, set attributes, properties, lock | `w` on the node |
//! | create | `w` on the parent |
//! | remove, rename source | `w` on the parent |
//! | copy and rename target | `w` on the parent; rename also `r` on the source where the target is readable |
//! | hard link | `rw` on the source, `w` on the new parent, both under one grant |
//! | stat | visible |

use std::collections::HashMap;

use super::{
    Attributes, Editor, Entry, Listing, Lock, LockRequest, LockToken, Property, PropertyChange, Reader, Result, Space,
    Upload,
};
use crate::auth::Session;
use crate::domain::{Name, NodeId, TreePath};

/// What a request brings against locks and conditions.
#[derive(Clone, Copy)]
pub struct Claim<'a> {
    /// The lock tokens it submitted.
    pub tokens: &'a [LockToken],
    /// Judges the request's conditions; asked under the name's commit lock, just before the effect.
    /// It may use the view to stat and to look at locks, and nothing else.
    pub judge: &'a (dyn Fn() -> Result<()> + Sync),
}

impl Claim<'static> {
    /// Returns the claim of a request without lock tokens and conditions.
    pub fn none() -> Self {
        Self { tokens: &[], judge: &|| Ok(()) }
    }
}

/// Whether what stands at a target may be replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overwrite {
    /// Replace it; a folder and all in it.
    Yes,
    /// Refuse with [`super::Error::Exists`].
    No,
    /// Replace as POSIX rename does: a file by a file, an empty folder by a folder.
    Posix,
}

/// How a file is opened to be written in place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EditMode {
    /// Allow reading too (needs `r`).
    pub read: bool,
    /// Make it when it is not there.
    pub create: bool,
    /// Refuse when it is there.
    pub exclusive: bool,
    /// Empty it first.
    pub truncate: bool,
    /// Write always at the end.
    pub append: bool,
    /// Permission bits for a file that is made.
    pub mode: Option<u32>,
}

/// The tree as one session may see it; the only way to a byte.
#[derive(Clone)]
pub struct View {}

#[allow(unused_variables)]
impl View {
    /// Returns the session it was made from.
    pub fn session(&self) -> &Session {
        todo!()
    }

    /// Returns the deepest folder that holds everything the session may reach: where SFTP starts.
    pub fn start(&self) -> TreePath {
        todo!()
    }

    /// Returns where a node is, for `/node/UUID/`.
    ///
    /// # Errors
    /// [`super::Error::Absent`] when it dangles or the session may not do anything there.
    pub fn node_root(&self, node: NodeId) -> Result<TreePath> {
        todo!()
    }

    /// Returns the node id of an entry, minting it (and its ancestors) on first use.
    pub fn node_id(&self, path: &TreePath) -> Result<NodeId> {
        todo!()
    }

    /// Shows an entry; a link is followed.
    pub fn stat(&self, path: &TreePath) -> Result<Entry> {
        todo!()
    }

    /// Shows an entry; a link shows itself.
    pub fn link_stat(&self, path: &TreePath) -> Result<Entry> {
        todo!()
    }

    /// Returns the path without links, as both protocols name it (SFTP REALPATH; lock roots). What is
    /// absent keeps its name when its folder is there.
    pub fn canonical(&self, path: &TreePath) -> Result<TreePath> {
        todo!()
    }

    /// Lists a folder. A merely visible one lists only the way down; a drop box lists nothing. Links
    /// show as what they lead to when `follow` (and are left out when that is absent), else as links.
    pub fn list(&self, path: &TreePath, follow: bool) -> Result<Listing> {
        todo!()
    }

    /// Opens a file for reading.
    pub fn read(&self, path: &TreePath) -> Result<Reader> {
        todo!()
    }

    /// Begins an upload that will replace or make a file when it is committed. `size` is the length
    /// that was announced, if any: too large and no space are refused at once.
    pub fn stage(&self, path: &TreePath, size: Option<u64>, claim: &Claim<'_>) -> Result<Upload> {
        todo!()
    }

    /// Opens a file to be written in place.
    pub fn edit(&self, path: &TreePath, mode: EditMode, claim: &Claim<'_>) -> Result<Editor> {
        todo!()
    }

    /// Makes a folder.
    pub fn make_folder(&self, path: &TreePath, attributes: &Attributes, claim: &Claim<'_>) -> Result<Entry> {
        todo!()
    }

    /// Removes a file or link (not what the link leads to).
    pub fn remove_file(&self, path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        todo!()
    }

    /// Removes an empty folder.
    pub fn remove_folder(&self, path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        todo!()
    }

    /// Removes a file, a link, or a folder with all in it, in one step.
    pub fn remove_all(&self, path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        todo!()
    }

    /// Moves an entry in one step. Returns whether something was replaced.
    pub fn rename(&self, from: &TreePath, to: &TreePath, overwrite: Overwrite, claim: &Claim<'_>) -> Result<bool> {
        todo!()
    }

    /// Copies a file, or a folder with all in it (`deep`) or without (an empty folder), with dead
    /// properties; the copy appears in one step. Returns whether something was replaced.
    pub fn copy(
        &self,
        from: &TreePath,
        to: &TreePath,
        deep: bool,
        overwrite: Overwrite,
        claim: &Claim<'_>,
    ) -> Result<bool> {
        todo!()
    }

    /// Sets attributes; a link is followed unless `follow` is false.
    pub fn set_attributes(
        &self,
        path: &TreePath,
        attributes: &Attributes,
        follow: bool,
        claim: &Claim<'_>,
    ) -> Result<()> {
        todo!()
    }

    /// Makes a hard link to a file.
    pub fn hard_link(&self, from: &TreePath, to: &TreePath, claim: &Claim<'_>) -> Result<()> {
        todo!()
    }

    /// Makes a symbolic link whose target is relative and stays inside.
    pub fn symlink(&self, target: &[u8], path: &TreePath, claim: &Claim<'_>) -> Result<()> {
        todo!()
    }

    /// Returns a link's target; a link that is absolute or leads out is absent.
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        todo!()
    }

    /// Returns the room on the file system of an entry that the session may do something with;
    /// [`super::Error::Forbidden`] for a merely visible folder.
    pub fn space(&self, path: &TreePath) -> Result<Space> {
        todo!()
    }

    /// Takes a lock; makes an empty file where nothing is. Returns whether it did.
    pub fn lock(&self, path: &TreePath, request: &LockRequest, claim: &Claim<'_>) -> Result<(Lock, bool)> {
        todo!()
    }

    /// Gives a lock of the session's user, that covers the path, a new life.
    ///
    /// # Errors
    /// [`super::Error::Precondition`] when the token names no such lock.
    pub fn refresh_lock(&self, path: &TreePath, token: &LockToken, timeout: std::time::Duration) -> Result<Lock> {
        todo!()
    }

    /// Ends a lock of the session's user that covers the path.
    ///
    /// # Errors
    /// [`super::Error::Precondition`] when the token names no lock there, [`super::Error::Forbidden`]
    /// when it is another user's.
    pub fn unlock(&self, path: &TreePath, token: &LockToken) -> Result<()> {
        todo!()
    }

    /// Returns the locks that cover a path, its own and those from above.
    pub fn locks(&self, path: &TreePath) -> Result<Vec<Lock>> {
        todo!()
    }

    /// Returns the dead properties of an entry that the session may read.
    pub fn properties(&self, path: &TreePath) -> Result<Vec<Property>> {
        todo!()
    }

    /// Returns the dead properties of all entries of a folder that have some, in one read.
    pub fn properties_in(&self, folder: &TreePath) -> Result<HashMap<Name, Vec<Property>>> {
        todo!()
    }

    /// Changes dead properties and attributes together: all or nothing.
    pub fn set_properties(
        &self,
        path: &TreePath,
        changes: &[PropertyChange],
        attributes: &Attributes,
        claim: &Claim<'_>,
    ) -> Result<()> {
        todo!()
    }
}
