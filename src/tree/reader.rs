//! A file open for reading.

use super::check::Found;
use super::handles::Hold;
use super::host::File;
use super::{Entry, Result, View};
use crate::domain::{Permission, TreePath};

/// A file open for reading. A file that shrinks while it is read cuts what is read, never pads it.
pub struct Reader {
    file: File,
    entry: Entry,
    hold: Hold,
}

impl Reader {
    /// Reads a file that the check let through, asked for by `asked`.
    pub(super) fn new(view: &View, asked: &TreePath, found: Found) -> Result<Self> {
        let entry = view.entry(asked, &found.stat, found.permission);
        let hold = Hold::new(view, found.path, Permission::R)?;
        Ok(Self { file: found.file, entry, hold })
    }

    /// Returns what the file was when it was opened.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Returns what the file is now.
    ///
    /// # Errors
    /// As [`Reader::read_at`].
    pub fn stat(&self) -> Result<Entry> {
        self.hold.check(&self.file)?;
        Ok(self.hold.view().entry_named(&self.entry.name, &self.file.stat()?, self.entry.permission))
    }

    /// Reads at an offset into the buffer; fewer bytes than it holds only at the end of the file.
    ///
    /// # Errors
    /// [`super::Error::Ended`] once the session's token is dead or no longer reaches the file.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.hold.check(&self.file)?;
        Ok(self.file.read_at(buffer, offset)?)
    }

    /// As [`Reader::read_at`] for bytes that the file has, if they are in memory: it never waits for a
    /// disk, so that a runtime may call it.
    ///
    /// # Errors
    /// As [`Reader::read_at`]; [`super::Error::Host`] with [`std::io::ErrorKind::WouldBlock`] when they are not.
    pub fn read_cached_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        self.hold.check(&self.file)?;
        Ok(self.file.read_cached_at(buffer, offset)?)
    }
}
