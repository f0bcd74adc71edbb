//! To be written.

use std::collections::HashMap;

use crate::domain::{Name, TreePath};
use crate::tree::{
    Attributes, Claim, EditMode, Editor, Entry, Lock, LockRequest, LockToken, Overwrite, Property, PropertyChange,
    Result, Upload, View,
};

#[allow(unused_variables)]
impl View {
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
