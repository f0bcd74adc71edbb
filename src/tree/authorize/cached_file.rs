//! Opening a file for reading without waiting for a disk, so that an async task may do it.

use super::{OpenEntry, OpenMode, ResolveMode};
use crate::domain::{TreeOperation, TreePath};
use crate::tree::{Entry, Error, FileReader, Result, View};

/// A file that was just opened, and found where it may be read, without waiting for a disk.
pub struct CachedFile {
    opened: OpenEntry,
    entry: Entry,
}

impl View {
    /// Opens a file as [`View::read`] does, but from the dentry cache alone. `None` where it would have to wait for a disk,
    /// and wherever [`View::read`] has to decide: for entries that are absent, forbidden, a directory, or behind a link.
    pub fn open_cached(&self, path: &TreePath) -> Option<CachedFile> {
        // Any doubt returns `None`: the blocking call repeats the check, and reports and audits the error.
        let access = self.session().current_access().ok()?;
        let grants = self.verify_grants(&access, path, ResolveMode::Cached).ok()?;
        let grant = grants.topmost_grant(TreeOperation::Read.permission())?;
        let (file, resolved_path) = grant.open(self.fs(), path, OpenMode::ReadCached).ok()?;
        let stat = file.stat().ok()?;
        // Behind a link other permissions apply, which would have to be looked up at the target.
        if resolved_path != *path || stat.kind.is_none() || stat.is_directory() {
            return None;
        }
        if stat.is_in_memory() {
            file.set_in_memory();
        }
        let permission = grants.permission();
        let entry = self.entry(path, &stat, permission);
        Some(CachedFile { opened: OpenEntry { file, stat, path: resolved_path, permission }, entry })
    }
}

impl CachedFile {
    /// Returns the metadata of the file when it was opened.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Reads the whole file from the page cache and closes it. It is not authorized anew: to be called without waiting for
    /// anything since it was opened. So it counts towards no limit of open files.
    ///
    /// # Errors
    /// [`Error::Filesystem`] with [`std::io::ErrorKind::WouldBlock`] when not all bytes are in the page cache, and with
    /// [`std::io::ErrorKind::UnexpectedEof`] when the file is shorter by now.
    pub fn read_whole(self) -> Result<Vec<u8>> {
        let size = usize::try_from(self.entry.size).map_err(|_| Error::NoSpace)?;
        let mut content = vec![0; size];
        match self.opened.file.read_cached_at(&mut content, 0)? {
            count if count == size => Ok(content),
            _ => Err(Error::Filesystem(std::io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Keeps the file open, to be read by and by.
    ///
    /// # Errors
    /// [`Error::SessionEnded`]; [`Error::TooManyOpenFiles`].
    pub fn into_reader(self, view: &View) -> Result<FileReader> {
        FileReader::with_entry(view, self.opened, self.entry)
    }
}
