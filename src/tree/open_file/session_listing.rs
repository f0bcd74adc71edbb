//! Listings for a session that keeps files open: its own staged uploads are listed under their names.

use std::collections::HashMap;

use crate::tree::{DirectoryListing, Entry, Result};

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
