//! The table of a channel's open files and directories.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tree::OpenFile;

use super::error::{Error, Result};
use super::folders::Folder;
use super::request::HandleId;

/// What a disk takes at once.
const LIGHT: u64 = 1024 * 1024;

/// Something open.
pub(super) struct Open {
    pub(super) what: What,
    /// Bytes written through it.
    written: u64,
    /// Its place among those that the session may have open.
    _place: OwnedSemaphorePermit,
}

/// What is open.
pub(super) enum What {
    /// A file.
    File(Box<OpenFile>),
    /// A directory.
    Folder(Box<Folder>),
}

impl Open {
    /// Returns the file.
    ///
    /// # Errors
    /// [`Error::WrongHandle`] for a directory.
    pub(super) fn file(&self) -> Result<&OpenFile> {
        match &self.what {
            What::File(file) => Ok(file),
            What::Folder(_) => Err(Error::WrongHandle),
        }
    }

    /// Writes at an offset (at the end, where the file was opened to append).
    ///
    /// # Errors
    /// [`Error::WrongHandle`] for a directory; as [`OpenFile::write_at`].
    pub(super) fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.written = self.written.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        Ok(self.file()?.write_at(data, offset)?)
    }

    /// Ends it; an upload is committed.
    ///
    /// # Errors
    /// As [`OpenFile::close`].
    pub(super) fn close(self) -> Result<()> {
        match self.what {
            What::File(file) => Ok(file.close()?),
            What::Folder(_) => Ok(()),
        }
    }
}

/// The open files and directories of a channel, each under an id that is not used twice.
pub(super) struct Handles {
    open: HashMap<HandleId, Open>,
    last: u64,
    places: Arc<Semaphore>,
}

impl Handles {
    /// Makes an empty table that shares `places` with the session's other channels.
    pub(super) fn new(places: Arc<Semaphore>) -> Self {
        Self { open: HashMap::new(), last: 0, places }
    }

    /// Takes a place for something that is to be opened.
    ///
    /// # Errors
    /// [`Error::TooManyHandles`] when the session has none left.
    pub(super) fn place(&self) -> Result<OwnedSemaphorePermit> {
        self.places.clone().try_acquire_owned().map_err(|_| Error::TooManyHandles)
    }

    /// Keeps something open.
    pub(super) fn insert(&mut self, place: OwnedSemaphorePermit, what: What) -> HandleId {
        self.last += 1;
        let id = HandleId(self.last);
        self.open.insert(id, Open { what, written: 0, _place: place });
        id
    }

    /// Returns something open.
    ///
    /// # Errors
    /// [`Error::NoHandle`] when the id names nothing.
    pub(super) fn get(&mut self, id: HandleId) -> Result<&mut Open> {
        self.open.get_mut(&id).ok_or(Error::NoHandle)
    }

    /// Returns an open file.
    ///
    /// # Errors
    /// [`Error::NoHandle`] when the id names nothing, [`Error::WrongHandle`] for a directory.
    pub(super) fn file(&self, id: HandleId) -> Result<&OpenFile> {
        self.open.get(&id).ok_or(Error::NoHandle)?.file()
    }

    /// Tells whether so much was written through a handle that syncing it may take long.
    pub(super) fn is_heavy(&self, id: HandleId) -> bool {
        self.open.get(&id).is_some_and(|open| open.written > LIGHT)
    }

    /// Returns two different open things.
    ///
    /// # Errors
    /// [`Error::NoHandle`] when an id names nothing, [`Error::SameFile`] when both name one.
    pub(super) fn two(&mut self, one: HandleId, other: HandleId) -> Result<(&mut Open, &mut Open)> {
        if one == other {
            return self.get(one).and(Err(Error::SameFile));
        }
        match self.open.get_disjoint_mut([&one, &other]) {
            [Some(one), Some(other)] => Ok((one, other)),
            _ => Err(Error::NoHandle),
        }
    }

    /// Gives up an id.
    ///
    /// # Errors
    /// [`Error::NoHandle`] when it names nothing.
    pub(super) fn remove(&mut self, id: HandleId) -> Result<Open> {
        self.open.remove(&id).ok_or(Error::NoHandle)
    }

    /// Gives up all ids, in the order in which they were opened.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Open> + '_ {
        let mut all: Vec<_> = self.open.drain().collect();
        all.sort_unstable_by_key(|(id, _)| id.0);
        all.into_iter().map(|(_, open)| open)
    }

    /// Returns how many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
