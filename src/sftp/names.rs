//! Requests on names: shown, set, renamed, removed, linked, resolved.

use crate::domain::TreePath;
use crate::tree::{self, Claim, Entry, Overwrite, Space};

use super::attributes::Change;
use super::error::{Error, Result};
use super::overlay;
use super::worker::Worker;

impl Worker {
    /// Shows an entry; a link is followed.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Entry> {
        let path = self.path(path)?;
        let view = &self.shared.view;
        match self.shared.overlay.find(view, &path) {
            Some((_, staged)) => staged.stat(view),
            None => Ok(view.stat(&path)?),
        }
    }

    /// Shows an entry; a link shows itself.
    pub(super) fn link_stat(&mut self, path: &[u8]) -> Result<Entry> {
        let path = self.path(path)?;
        let view = &self.shared.view;
        match self.shared.overlay.find_entry(view, &path) {
            Some((_, staged)) => staged.stat(view),
            None => Ok(view.link_stat(&path)?),
        }
    }

    /// Sets attributes of an entry; a link is followed where `follow`.
    pub(super) fn set_stat(&mut self, path: &[u8], change: &Change, follow: bool) -> Result<()> {
        let attributes = change.attributes()?;
        let path = self.path(path)?;
        let (view, overlay) = (&self.shared.view, &self.shared.overlay);
        let staged = if follow { overlay.find(view, &path) } else { overlay.find_entry(view, &path) };
        match staged {
            Some((_, staged)) => staged.set_attributes(view, &attributes),
            None => Ok(view.set_attributes(&path, &attributes, follow, &Claim::none())?),
        }
    }

    /// Removes a file or link. An upload under that name goes on without one, and is gone at its CLOSE.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<()> {
        let path = self.path(path)?;
        let view = &self.shared.view;
        let staged = self.shared.overlay.find_entry(view, &path);
        match (view.remove_file(&path, &Claim::none()), &staged) {
            (Ok(()), None) => {}
            (Ok(()) | Err(tree::Error::Absent), Some((canonical, staged))) => {
                staged.unlink();
                self.shared.overlay.remove(canonical, staged);
            }
            (Err(error), _) => return Err(error.into()),
        }
        Ok(())
    }

    /// Renames an entry. Uploads in it are committed first; one under the new name loses it.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], overwrite: Overwrite) -> Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let (view, overlay) = (&self.shared.view, &self.shared.overlay);
        let replaced = overlay.find_entry(view, &to);
        if replaced.is_some() && overwrite == Overwrite::No {
            return Err(tree::Error::Exists.into());
        }
        let moving = overlay.within(view, &from);
        let place = |path| overlay::place(view, path).unwrap_or_default();
        let (old, new) = if moving.is_empty() { Default::default() } else { (place(&from), place(&to)) };
        for (path, staged) in &moving {
            self.settle(path, staged)?;
        }
        view.rename(&from, &to, overwrite, &Claim::none())?;
        moving.iter().for_each(|(_, staged)| staged.moved(&old, &new));
        if let Some((path, staged)) = replaced {
            staged.unlink();
            overlay.remove(&path, &staged);
        }
        Ok(())
    }

    /// Makes a hard link to a file.
    pub(super) fn hard_link(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = (self.path(from)?, self.path(to)?);
        let (view, overlay) = (&self.shared.view, &self.shared.overlay);
        if overlay.find_entry(view, &to).is_some() {
            return Err(tree::Error::Exists.into());
        }
        if let Some((path, staged)) = overlay.find_entry(view, &from) {
            self.settle(&path, &staged)?;
        }
        Ok(view.hard_link(&from, &to, &Claim::none())?)
    }

    /// Makes a symbolic link.
    pub(super) fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let path = self.path(path)?;
        if self.shared.overlay.find_entry(&self.shared.view, &path).is_some() {
            return Err(tree::Error::Exists.into());
        }
        Ok(self.shared.view.symlink(target, &path, &Claim::none())?)
    }

    /// Returns a link's target.
    pub(super) fn read_link(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.path(path)?;
        if self.shared.overlay.find_entry(&self.shared.view, &path).is_some() {
            return Err(Error::NotLink);
        }
        self.shared.view.read_link(&path).map_err(|error| match error {
            tree::Error::Unsupported => Error::NotLink,
            other => other.into(),
        })
    }

    /// Returns the path without links, from the root.
    pub(super) fn real_path(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.path(path)?;
        Ok(absolute(&self.shared.view.canonical(&path)?))
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
        self.space_at(&path)
    }

    /// Shows the room on the file system at a path; an upload's is that of its folder.
    pub(super) fn space_at(&self, path: &TreePath) -> Result<Space> {
        let view = &self.shared.view;
        match (view.space(path), path.parent()) {
            (Err(tree::Error::Absent), Some(parent)) if self.shared.overlay.find(view, path).is_some() => {
                Ok(view.space(&parent)?)
            }
            (space, _) => Ok(space?),
        }
    }
}

/// Writes a path as SFTP names it.
fn absolute(path: &TreePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}
