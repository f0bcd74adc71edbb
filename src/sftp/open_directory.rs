//! A directory that a client lists.

use std::collections::VecDeque;

use crate::tree::{self, Entry, SessionListing};

use super::error::{Error, Result};
use super::reply::NameReply;

/// A directory that is being listed.
pub(super) struct SftpDirectory {
    /// `.` and `..`, which precede the listing.
    buffered: VecDeque<(Vec<u8>, Entry)>,
    listing: SessionListing,
    /// Error that has ended a reply with entries: the next one reports it.
    delayed_error: Option<Error>,
}

impl SftpDirectory {
    /// Returns the directory of a listing, with its own entry and that of its parent.
    pub(super) fn new((own, parent): (Entry, Entry), listing: SessionListing) -> Self {
        let buffered = VecDeque::from([(b".".to_vec(), own), (b"..".to_vec(), parent)]);
        Self { buffered, listing, delayed_error: None }
    }

    /// Returns the listing, which holds the directory open.
    pub(super) fn listing(&self) -> &SessionListing {
        &self.listing
    }

    /// Adds entries to a reply until it is full or the listing ends.
    ///
    /// # Errors
    /// As the listing's next entry, with the reply still empty: after entries, the next call returns the error.
    pub(super) fn fill_reply(&mut self, names: &mut NameReply<'_>) -> Result<()> {
        // Before anything is read: clients take EOF for "complete", and delete what was not listed.
        if let Some(error) = self.delayed_error.take() {
            return Err(error);
        }
        // First: `.` and `..` are buffered, and a session that ended must not get even them.
        self.listing.check()?;
        while !names.is_full() {
            match self.next_entry() {
                Some(Ok((name, entry))) => names.push(&name, &entry),
                Some(Err(error)) if names.is_empty() => return Err(error.into()),
                // A reply is names or a status: the names were read, and will not be read again.
                Some(Err(error)) => {
                    self.delayed_error = Some(error.into());
                    break;
                }
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
