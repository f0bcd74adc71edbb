//! A directory that a client lists.

use std::collections::VecDeque;

use crate::domain::TreePath;
use crate::tree::{self, Entry, SessionListing};

use super::error::Result;
use super::reply::NameReply;

/// A directory that is being listed.
pub(super) struct SftpDirectory {
    path: TreePath,
    /// `.` and `..`, which precede the listing.
    buffered: VecDeque<(Vec<u8>, Entry)>,
    listing: SessionListing,
}

impl SftpDirectory {
    /// Returns the directory at `path`, with its own entry and that of its parent.
    pub(super) fn new(path: TreePath, (own, parent): (Entry, Entry), listing: SessionListing) -> Self {
        let buffered = VecDeque::from([(b".".to_vec(), own), (b"..".to_vec(), parent)]);
        Self { path, buffered, listing }
    }

    /// Returns the path at which it was opened.
    pub(super) fn path(&self) -> &TreePath {
        &self.path
    }

    /// Adds entries to a reply until it is full or the listing ends.
    ///
    /// # Errors
    /// As the listing's next entry; entries that were added before stay in the reply.
    pub(super) fn fill_reply(&mut self, names: &mut NameReply<'_>) -> Result<()> {
        // First: `.` and `..` are buffered, and a session that ended must not get even them.
        self.listing.check()?;
        while !names.is_full() {
            match self.next_entry() {
                Some(Ok((name, entry))) => names.push(&name, &entry),
                // Removed between readdir and stat: not an error of the listing.
                Some(Err(tree::Error::Absent)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => break,
            }
        }
        Ok(())
    }

    fn next_entry(&mut self) -> Option<tree::Result<(Vec<u8>, Entry)>> {
        if let Some(buffered) = self.buffered.pop_front() {
            return Some(Ok(buffered));
        }
        self.listing.next().map(|entry| entry.map(|entry| (entry.name.clone(), entry)))
    }
}
