//! Open files and folders.

use super::{Attributes, Claim, Entry, Result};

/// A file open for reading. A file that shrinks while it is read cuts what is read, never pads it.
pub struct Reader {}

impl Reader {
    /// Returns what the file was when it was opened.
    pub fn entry(&self) -> &Entry {
        todo!()
    }

    /// Returns what the file is now.
    pub fn stat(&self) -> Result<Entry> {
        todo!()
    }

    /// Reads at an offset into the buffer; fewer bytes than it holds only at the end of the file.
    ///
    /// # Errors
    /// [`super::Error::Ended`] once the session's token is dead or no longer reaches the file.
    pub fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<usize> {
        todo!()
    }
}

/// A staged upload: nobody sees it under its name before it is committed; dropping it discards it.
pub struct Upload {}

impl Upload {
    /// Writes all of `data` at an offset.
    ///
    /// # Errors
    /// [`super::Error::TooLarge`], [`super::Error::NoSpace`], [`super::Error::Locked`], [`super::Error::Ended`].
    pub fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        todo!()
    }

    /// Reads back at an offset.
    pub fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<usize> {
        todo!()
    }

    /// Returns what the file would be if it were committed now.
    pub fn stat(&self) -> Result<Entry> {
        todo!()
    }

    /// Sets attributes of what will be committed; times set here survive the commit.
    pub fn set_attributes(&self, _attributes: &Attributes) -> Result<()> {
        todo!()
    }

    /// Puts the file in its place in one step, synced as the tree's durability asks. Rights, locks and
    /// the claim's judgement are asked again just before. On an error the old content stands.
    pub fn commit(self, _claim: &Claim<'_>) -> Result<Entry> {
        todo!()
    }
}

/// A file open for writing in place (and for reading, where it was opened so).
pub struct Editor {}

impl Editor {
    /// Reads at an offset.
    pub fn read_at(&self, _buffer: &mut [u8], _offset: u64) -> Result<usize> {
        todo!()
    }

    /// Writes all of `data` at an offset, or at the end where it was opened to append. Locks and the
    /// token's life are checked each time.
    pub fn write_at(&self, _data: &[u8], _offset: u64) -> Result<()> {
        todo!()
    }

    /// Returns what the file is now.
    pub fn stat(&self) -> Result<Entry> {
        todo!()
    }

    /// Sets attributes.
    pub fn set_attributes(&self, _attributes: &Attributes) -> Result<()> {
        todo!()
    }

    /// Writes to disk.
    pub fn sync(&self) -> Result<()> {
        todo!()
    }

    /// Ends the edit: a new tag for what was written, and a sync where durability asks for it.
    /// Dropping does the same without telling of errors.
    pub fn close(self) -> Result<()> {
        todo!()
    }
}

/// The entries of a folder, in no order, without `.` and `..`; read as they are asked for.
pub struct Listing {}

impl Iterator for Listing {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        todo!()
    }
}
