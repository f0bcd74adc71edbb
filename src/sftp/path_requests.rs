//! Requests on paths: attributes, RENAME, REMOVE, links, REALPATH and its extensions.

use crate::domain::TreePath;
use crate::tree::{self, Entry, FilesystemSpace, OverwriteMode};

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::worker::ChannelWorker;

impl ChannelWorker {
    /// Returns the attributes of an entry; a symbolic link is followed.
    pub(super) fn stat(&mut self, path: &[u8]) -> Result<Entry> {
        let path = self.resolve_path(path)?;
        Ok(self.session.files.stat(&path)?)
    }

    /// Returns the attributes of an entry; a symbolic link is not followed.
    pub(super) fn lstat(&mut self, path: &[u8]) -> Result<Entry> {
        let path = self.resolve_path(path)?;
        Ok(self.session.files.link_stat(&path)?)
    }

    /// Sets attributes of an entry; a symbolic link is followed if `follow` is set.
    pub(super) fn setstat(&mut self, path: &[u8], attributes: &SftpAttributes, follow: bool) -> Result<()> {
        let path = self.resolve_path(path)?;
        attributes.apply(|changes| Ok(self.session.files.set_attributes(&path, changes, follow)?))
    }

    /// Removes a file or symbolic link.
    pub(super) fn remove(&mut self, path: &[u8]) -> Result<()> {
        let path = self.resolve_entry(path)?.path;
        Ok(self.session.files.remove_file(&path)?)
    }

    /// Renames an entry; `overwrite` says what may be replaced.
    pub(super) fn rename(&mut self, from: &[u8], to: &[u8], overwrite: OverwriteMode) -> Result<()> {
        let (from, to) = (self.resolve_entry(from)?.path, self.resolve_entry(to)?);
        // As rename(2): a trailing slash on the target is for directories only.
        if to.has_trailing_slash && !self.session.files.link_stat(&from)?.is_directory() {
            return Err(tree::Error::NotADirectory.into());
        }
        // A target that differs from the source only in its Unicode normalization changes the spelling of the name.
        let to = tree::move_destination(&from, to.path, &to.as_sent);
        Ok(self.session.files.rename(&from, &to, overwrite)?)
    }

    /// Creates a hard link to a file.
    pub(super) fn hard_link(&mut self, from: &[u8], to: &[u8]) -> Result<()> {
        let (from, to) = (self.resolve_path(from)?, self.resolve_file_entry(to)?);
        Ok(self.session.files.hard_link(&from, &to)?)
    }

    /// Creates a symbolic link at `path`.
    pub(super) fn symlink(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let path = self.resolve_file_entry(path)?;
        // The target is stored as sent: relative to the link, not to the start directory. The tree refuses one that
        // leads out.
        Ok(self.session.files.symlink(target, &path)?)
    }

    /// Returns the target of a symbolic link.
    pub(super) fn readlink(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.resolve_path(path)?;
        self.session.files.read_link(&path).map_err(|error| match error {
            // OP_UNSUPPORTED would tell the client that there are no symbolic links at all.
            tree::Error::Unsupported => Error::NotSymlink,
            other => other.into(),
        })
    }

    /// Returns the absolute path without symbolic links.
    pub(super) fn realpath(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let path = self.resolve_path(path)?;
        Ok(to_sftp_path(&self.session.view().canonical(&path)?))
    }

    /// Returns the absolute path; a leading `~` or `~LOGIN` stands for the start directory.
    pub(super) fn expand_path(&mut self, path: &[u8]) -> Result<Vec<u8>> {
        let Some(rest) = path.strip_prefix(b"~") else { return self.realpath(path) };
        let end = memchr::memchr(b'/', rest).unwrap_or(rest.len());
        let (user, below) = rest.split_at(end);
        // Checks the user only; the start directory itself is where the relative path below begins.
        self.start_path_of(user)?;
        self.realpath(&[b".", below].concat())
    }

    /// Returns the start directory; `user` is the session's own login or empty.
    pub(super) fn home_directory(&mut self, user: &[u8]) -> Result<Vec<u8>> {
        self.start_path_of(user).map(|start| to_sftp_path(&start))
    }

    fn start_path_of(&mut self, user: &[u8]) -> Result<TreePath> {
        // Other users are refused alike, so that their existence is not disclosed.
        if !user.is_empty() && user != self.session.login().as_str().as_bytes() {
            return Err(Error::NoSuchUser);
        }
        self.current_start_directory().cloned()
    }

    /// Returns the free space of the file system of an entry.
    pub(super) fn statvfs(&mut self, path: &[u8]) -> Result<FilesystemSpace> {
        let path = self.resolve_path(path)?;
        Ok(self.session.files.space(&path)?)
    }
}

/// Returns a path with the leading slash that SFTP expects.
fn to_sftp_path(path: &TreePath) -> Vec<u8> {
    [b"/", path.as_bytes()].concat()
}
