//! To be written.

use crate::domain::TreePath;
use crate::tree::check::Found;
use crate::tree::{Attributes, Claim, EditMode, Editor, Entry, Overwrite, Result, Upload, View};

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

    /// Sets attributes of an open entry, as the check let it through; writes nothing to the store.
    pub(super) fn apply(&self, found: &Found, attributes: &Attributes) -> Result<()> {
        todo!()
    }
}
