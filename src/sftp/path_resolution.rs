//! Paths as clients write them, with the meaning that POSIX gives them (IEEE 1003.1, 4.16 Pathname Resolution).
//!
//! `..` goes up from where a directory really is, so what stands before it has to be one; a slash at the end asks for a
//! directory. What has neither is taken as it is written: the tree resolves it. A name that is missing is found in the
//! other spelling of Unicode that the tree has it in.

use crate::domain::{EntryName, PathAccess, TreePath};
use crate::tree;

use super::error::{Error, Result};
use super::worker::ChannelWorker;

/// A name in a directory, as requests on names take it: a link stands for itself.
pub(super) struct EntryPath {
    pub(super) path: TreePath,
    /// The path as it was sent, in the client's own spelling.
    pub(super) as_sent: TreePath,
    /// Whether a slash after it asks for a directory.
    pub(super) has_trailing_slash: bool,
}

impl ChannelWorker {
    /// Resolves the path of a file or directory; a link at its end is followed by whoever uses it.
    ///
    /// # Errors
    /// [`tree::Error::NotADirectory`] for a slash, or `..`, behind a file; what is missing before them is missing.
    pub(super) fn resolve_path(&mut self, bytes: &[u8]) -> Result<TreePath> {
        let EntryPath { path, has_trailing_slash, .. } = self.parse_path(bytes)?;
        if !has_trailing_slash || path.is_root() {
            return Ok(path);
        }
        self.canonical_directory(&path)
    }

    /// Resolves the path of an entry that is to be created, removed, renamed or linked.
    ///
    /// # Errors
    /// [`Error::DotEntry`] for `.` and `..`, which name no entry; as [`ChannelWorker::resolve_path`], but for what a slash is behind:
    /// whether a directory is there, or will be, is the request's own question.
    pub(super) fn resolve_entry(&mut self, bytes: &[u8]) -> Result<EntryPath> {
        let last_component = bytes.split(|&byte| byte == b'/').rfind(|component| !component.is_empty());
        if matches!(last_component, Some(b"." | b"..")) {
            return Err(Error::DotEntry);
        }
        let entry = self.parse_path(bytes)?;
        if entry.has_trailing_slash && !entry.path.is_root() {
            match self.session.files.link_stat(&entry.path) {
                // A link, too, is no directory to who removes or renames it.
                Ok(existing) if !existing.is_directory() => return Err(tree::Error::NotADirectory.into()),
                Ok(_) | Err(tree::Error::Absent) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(entry)
    }

    /// Resolves the path of an entry that can't be a directory.
    ///
    /// # Errors
    /// As [`ChannelWorker::resolve_entry`]; [`tree::Error::Absent`] for a slash behind what is missing.
    pub(super) fn resolve_file_entry(&mut self, bytes: &[u8]) -> Result<TreePath> {
        let EntryPath { path, has_trailing_slash, .. } = self.resolve_entry(bytes)?;
        if has_trailing_slash && self.session.files.link_stat(&path).is_err() {
            return Err(tree::Error::Absent.into());
        }
        Ok(path)
    }

    /// Reads a path, from the start directory where it is relative.
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
        if path.as_bytes().len() > MAX_PATH_BYTES {
            return Err(crate::domain::PathError::TooLong.into());
        }
        Ok(EntryPath {
            path: self.session.files.existing_spelling(&path),
            as_sent: path,
            has_trailing_slash: has_trailing_slash && !bytes.is_empty(),
        })
    }

    /// Returns where a directory really is, without links.
    fn canonical_directory(&self, path: &TreePath) -> Result<TreePath> {
        if path.is_root() {
            return Ok(TreePath::root());
        }
        match self.session.files.stat(path)?.is_directory() {
            true => Ok(self.session.view().canonical(path)?),
            false => Err(tree::Error::NotADirectory.into()),
        }
    }

    /// Returns the folder that relative paths begin in.
    ///
    /// It stays what it was when the channel was opened, so that a token that is narrowed meanwhile does
    /// not give a path another meaning; it follows when the folder itself was renamed.
    pub(super) fn current_start_directory(&mut self) -> Result<&TreePath> {
        let view = self.session.view();
        if view.session().access()?.path_access(&self.start_directory) == PathAccess::Absent {
            self.start_directory = view.start_directory();
        }
        Ok(&self.start_directory)
    }
}

/// The longest path in bytes, as the tree takes it.
const MAX_PATH_BYTES: usize = 4095;
