//! Listings for a session that keeps files open: its own staged uploads are listed under their names.

use std::collections::HashMap;

use crate::tree::{AttributeChanges, DirectoryListing, Entry, FilesystemSpace, Result};

/// The entries of a directory, with the session's own uploads instead of the entries that they replace.
pub struct SessionListing {
    pub(super) listing: DirectoryListing,
    pub(super) staged: HashMap<Vec<u8>, Entry>,
    /// Whether uploads to new names are listed: not in a directory whose own entries are hidden from the session.
    pub(super) shows_new_uploads: bool,
}

impl SessionListing {
    /// Checks that the session may still list the directory at its current path.
    ///
    /// # Errors
    /// [`crate::tree::Error::SessionEnded`].
    pub fn check(&self) -> Result<()> {
        self.listing.check()
    }

    /// Returns the metadata of the directory itself: of the one that was opened, whatever has its path by now.
    ///
    /// # Errors
    /// [`crate::tree::Error::SessionEnded`], also where the session may not use it at its present path.
    pub fn directory_entry(&self) -> Result<Entry> {
        self.listing.directory_entry()
    }

    /// Sets mode and times of the directory that was opened, if the session may write it at its present path.
    ///
    /// # Errors
    /// [`crate::tree::Error::Forbidden`], [`crate::tree::Error::Locked`], [`crate::tree::Error::SessionEnded`];
    /// [`crate::tree::Error::IsADirectory`] for a size, [`crate::tree::Error::Absent`] for a directory that was
    /// removed.
    pub fn set_directory_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.listing.set_directory_attributes(attributes)
    }

    /// Returns the space on the file system of the directory that was opened.
    ///
    /// # Errors
    /// As [`SessionListing::directory_entry`].
    pub fn space(&self) -> Result<FilesystemSpace> {
        self.listing.space()
    }
}

impl Iterator for SessionListing {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        match self.listing.next() {
            Some(Ok(entry)) => Some(Ok(self.staged.remove(&entry.name).unwrap_or(entry))),
            Some(Err(error)) => Some(Err(error)),
            None if self.shows_new_uploads => {
                let name = self.staged.keys().next()?.clone();
                self.staged.remove(&name).map(Ok)
            }
            None => None,
        }
    }
}
