//! Resolution of client paths with POSIX semantics (IEEE 1003.1, 4.16 Pathname Resolution).
//!
//! `..` leads to the parent of a directory's canonical path, so the component before it must be a directory; a trailing
//! slash requires a directory. All other paths are passed to the tree unresolved. A name that is missing is looked up
//! in the other Unicode normalization form that the tree may have it in.

use crate::domain::{EntryName, PathAccess, TreePath};
use crate::tree;

use super::error::{Error, Result};
use super::worker::ChannelWorker;

/// Path of an entry in a directory, for requests that act on the entry: a symbolic link is not followed.
pub(super) struct EntryPath {
    pub(super) path: TreePath,
    /// The path in the client's own Unicode normalization form.
    pub(super) as_sent: TreePath,
    /// Whether a trailing slash requires a directory.
    pub(super) has_trailing_slash: bool,
}

impl ChannelWorker {
    /// Resolves the path of a file or directory; whether a symbolic link at its end is followed is up to the caller.
    ///
    /// # Errors
    /// [`tree::Error::NotADirectory`] for a slash or `..` after a file, [`tree::Error::Absent`] after a missing entry.
    pub(super) fn resolve_path(&mut self, bytes: &[u8]) -> Result<TreePath> {
        let EntryPath { path, has_trailing_slash, .. } = self.parse_path(bytes)?;
        if !has_trailing_slash || path.is_root() {
            return Ok(path);
        }
        self.canonical_directory(&path)
    }

    /// Resolves the path of an entry that is created, removed, renamed or linked.
    ///
    /// # Errors
    /// [`Error::DotEntry`] for `.` and `..`, which are not entries. Otherwise as [`ChannelWorker::resolve_path`],
    /// except that a missing entry before a trailing slash is left to the request: it may create a directory.
    pub(super) fn resolve_entry(&mut self, bytes: &[u8]) -> Result<EntryPath> {
        // `a/./` ends in `.` too.
        let last_component = bytes.split(|&byte| byte == b'/').rfind(|component| !component.is_empty());
        if matches!(last_component, Some(b"." | b"..")) {
            return Err(Error::DotEntry);
        }
        let entry = self.parse_path(bytes)?;
        if entry.has_trailing_slash && !entry.path.is_root() {
            match self.session.files.link_stat(&entry.path) {
                // `link_stat`: a symbolic link to a directory is not a directory to RMDIR, REMOVE and RENAME.
                Ok(existing) if !existing.is_directory() => return Err(tree::Error::NotADirectory.into()),
                Ok(_) | Err(tree::Error::Absent) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(entry)
    }

    /// Resolves the path of a file or link that is created; it can't be a directory.
    ///
    /// # Errors
    /// As [`ChannelWorker::resolve_entry`]; [`tree::Error::Absent`] for a slash after a missing entry.
    pub(super) fn resolve_file_entry(&mut self, bytes: &[u8]) -> Result<TreePath> {
        let EntryPath { path, has_trailing_slash, .. } = self.resolve_entry(bytes)?;
        // As link(2) and symlink(2): `name/` for a missing name is ENOENT, never a file `name`.
        if has_trailing_slash && self.session.files.link_stat(&path).is_err() {
            return Err(tree::Error::Absent.into());
        }
        Ok(path)
    }

    /// Parses a path; a relative one starts from the start directory.
    fn parse_path(&mut self, bytes: &[u8]) -> Result<EntryPath> {
        let mut path = match bytes.first() {
            Some(b'/') => TreePath::root(),
            _ => self.current_start_directory()?.clone(),
        };
        let mut has_trailing_slash = false;
        for component in bytes.split(|&byte| byte == b'/') {
            has_trailing_slash = true;
            match component {
                b"" | b"." => {}
                b".." => {
                    // Of the canonical path: after a symbolic link, cutting the text would lead to the parent of the
                    // link itself.
                    path = self
                        .canonical_directory(&self.session.files.existing_spelling(&path))?
                        .parent()
                        .unwrap_or_default()
                }
                name => {
                    path = path.child(&EntryName::new(name)?);
                    has_trailing_slash = false;
                }
            }
        }
        // Before the tree is asked, which would look up each component.
        if path.as_bytes().len() > MAX_PATH_BYTES {
            return Err(crate::domain::PathError::TooLong.into());
        }
        Ok(EntryPath {
            path: self.session.files.existing_spelling(&path),
            as_sent: path,
            has_trailing_slash: has_trailing_slash && !bytes.is_empty(),
        })
    }

    /// Returns a directory's path without symbolic links.
    fn canonical_directory(&self, path: &TreePath) -> Result<TreePath> {
        if path.is_root() {
            return Ok(TreePath::root());
        }
        match self.session.files.stat(path)?.is_directory() {
            true => Ok(self.session.view().canonical(path)?),
            false => Err(tree::Error::NotADirectory.into()),
        }
    }

    /// Returns the directory that relative paths start from.
    ///
    /// It is fixed when the channel is opened, so that narrowing the token doesn't change the meaning of a path. It is
    /// looked up again once it is absent to the session, as after a rename.
    pub(super) fn current_start_directory(&mut self) -> Result<&TreePath> {
        let view = self.session.view();
        // `access` fails once the token is revoked, so that not even relative paths resolve any more.
        if view.session().access()?.path_access(&self.start_directory) == PathAccess::Absent {
            self.start_directory = view.start_directory();
        }
        Ok(&self.start_directory)
    }
}

/// Maximum length of a path in bytes; the tree's own limit.
const MAX_PATH_BYTES: usize = 4095;
