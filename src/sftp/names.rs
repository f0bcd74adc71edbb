//! Requests on names: shown, set, renamed, removed, linked, resolved.

use crate::domain::TreePath;
use crate::tree::{self, Entry, Overwrite, Space};

use super::attributes::Change;
use super::error::{Error, Result};
use super::worker::Worker;

impl Worker {
    /// Shows an entry; a link is followed.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Entry> {
        let path = self.path(path)?;
        Ok(self.shared.files.stat(&path)?)
    }

    /// Shows an entry; a link shows itself.
    pub(super) fn link_stat(&mut self, path: &[u8]) -> Result<Entry> {
        let path = self.path(path)?;
        Ok(self.shared.files.link_stat(&path)?)
    }

    /// Sets attributes of an entry; a link is followed where `follow`.
    pub(super) fn set_stat(&mut self, path: &[u8], change: &Change, follow: bool) -> Result<()> {
        let path = self.path(path)?;
        change.apply(|attributes| Ok(self.shared.files.set_attributes(&path, attributes, follow)?))
    }

    /// Removes a file or link.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<()> {
        let path = self.entry_path(path)?.path;
        Ok(self.shared.files.remove_file(&path)?)
    }

    /// Renames an entry.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], overwrite: Overwrite) -> Result<()> {
        let (from, to) = (self.entry_path(from)?.path, self.entry_path(to)?);
        if to.slash && !self.shared.files.link_stat(&from)?.is_folder() {
            return Err(tree::Error::NotFolder.into());
        }
        let to = tree::moved_to(&from, to.path, &to.sent);
        Ok(self.shared.files.rename(&from, &to, overwrite)?)
    }

    /// Makes a hard link to a file.
    pub(super) fn hard_link(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = (self.path(from)?, self.file_entry_path(to)?);
        Ok(self.shared.files.hard_link(&from, &to)?)
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let path = self.file_entry_path(path)?;
        Ok(self.shared.files.symlink(target, &path)?)
    }

    /// Returns a link's target.
    pub(super) fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.path(path)?;
        self.shared.files.read_link(&path).map_err(|error| match error {
            tree::Error::Unsupported => Error::NotLink,
            other => other.into(),
        })
    }

    /// Returns the path without links, from the root.
    pub(super) fn real_path(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.path(path)?;
        Ok(absolute(&self.shared.view().canonical(&path)?))
    }

    /// Returns the path with `~` and `~LOGIN` in front taken for the start folder.
    pub(super) fn expand_path(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let Some(rest) = path.strip_prefix(b"~") else { return self.real_path(path) };
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let (user, below) = rest.split_at(end);
        self.home(user)?;
        self.real_path(&[b".", below].concat())
    }

    /// Returns the start folder, for the session's own user or no name at all.
    pub(super) fn home_directory(&mut self, user: &[u8]) -> Result<Vec<u8>> {
        self.home(user).map(|start| absolute(&start))
    }

    fn home(&mut self, user: &[u8]) -> Result<TreePath> {
        if !user.is_empty() && user != self.shared.login().as_str().as_bytes() {
            return Err(Error::NoUser);
        }
        self.find_start().cloned()
    }

    /// Shows the room on the file system of an entry.
    pub(super) fn space(&mut self, path: &[u8]) -> Result<Space> {
        let path = self.path(path)?;
        Ok(self.shared.files.space(&path)?)
    }
}

/// Writes a path as SFTP names it.
fn absolute(path: &TreePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}
