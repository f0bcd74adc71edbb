//! The table of a channel's open files and directories.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tree::OpenFile;

use super::error::{Error, Result};
use super::open_directory::SftpDirectory;
use super::request::HandleId;

/// What a disk takes at once.
const INLINE_SYNC_MAX_BYTES: u64 = 1024 * 1024;

/// Something open.
pub(super) struct SftpHandle {
    pub(super) target: HandleTarget,
    /// Bytes written through it.
    bytes_written: u64,
    /// Its place among those that the session may have open.
    _permit: OwnedSemaphorePermit,
}

/// What is open.
pub(super) enum HandleTarget {
    /// A file.
    File(Box<OpenFile>),
    /// A directory.
    Directory(Box<SftpDirectory>),
}

impl SftpHandle {
    /// Returns the file.
    ///
    /// # Errors
    /// [`Error::WrongHandleKind`] for a directory.
    pub(super) fn file(&self) -> Result<&OpenFile> {
        match &self.target {
            HandleTarget::File(file) => Ok(file),
            HandleTarget::Directory(_) => Err(Error::WrongHandleKind),
        }
    }

    /// Writes at an offset (at the end, where the file was opened to append).
    ///
    /// # Errors
    /// [`Error::WrongHandleKind`] for a directory; as [`OpenFile::write_at`].
    pub(super) fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        self.bytes_written = self.bytes_written.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        Ok(self.file()?.write_at(data, offset)?)
    }

    /// Ends it; an upload is committed.
    ///
    /// # Errors
    /// As [`OpenFile::close`].
    pub(super) fn close(self) -> Result<()> {
        match self.target {
            HandleTarget::File(file) => Ok(file.close()?),
            HandleTarget::Directory(_) => Ok(()),
        }
    }
}

/// The open files and directories of a channel, each under an id that is not used twice.
pub(super) struct SftpHandleTable {
    open: HashMap<HandleId, SftpHandle>,
    last_id: u64,
    permits: Arc<Semaphore>,
}

impl SftpHandleTable {
    /// Makes an empty table that shares `places` with the session's other channels.
    pub(super) fn new(permits: Arc<Semaphore>) -> Self {
        Self { open: HashMap::new(), last_id: 0, permits }
    }

    /// Takes a place for something that is to be opened.
    ///
    /// # Errors
    /// [`Error::TooManyHandles`] when the session has none left.
    pub(super) fn acquire_permit(&self) -> Result<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().map_err(|_| Error::TooManyHandles)
    }

    /// Keeps something open.
    pub(super) fn insert(&mut self, permit: OwnedSemaphorePermit, target: HandleTarget) -> HandleId {
        self.last_id += 1;
        let id = HandleId(self.last_id);
        self.open.insert(id, SftpHandle { target, bytes_written: 0, _permit: permit });
        id
    }

    /// Returns something open.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when the id names nothing.
    pub(super) fn get(&mut self, id: HandleId) -> Result<&mut SftpHandle> {
        self.open.get_mut(&id).ok_or(Error::InvalidHandle)
    }

    /// Returns an open file.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when the id names nothing, [`Error::WrongHandleKind`] for a directory.
    pub(super) fn file(&self, id: HandleId) -> Result<&OpenFile> {
        self.open.get(&id).ok_or(Error::InvalidHandle)?.file()
    }

    /// Tells whether so much was written through a handle that syncing it may take long.
    pub(super) fn is_sync_blocking(&self, id: HandleId) -> bool {
        self.open.get(&id).is_some_and(|handle| handle.bytes_written > INLINE_SYNC_MAX_BYTES)
    }

    /// Returns two different open things.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when an id names nothing, [`Error::SameFile`] when both name one.
    pub(super) fn get_pair(&mut self, first: HandleId, second: HandleId) -> Result<(&mut SftpHandle, &mut SftpHandle)> {
        if first == second {
            return self.get(first).and(Err(Error::SameFile));
        }
        match self.open.get_disjoint_mut([&first, &second]) {
            [Some(first), Some(second)] => Ok((first, second)),
            _ => Err(Error::InvalidHandle),
        }
    }

    /// Gives up an id.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when it names nothing.
    pub(super) fn remove(&mut self, id: HandleId) -> Result<SftpHandle> {
        self.open.remove(&id).ok_or(Error::InvalidHandle)
    }

    /// Gives up all ids, in the order in which they were opened.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = SftpHandle> + '_ {
        let mut handles: Vec<_> = self.open.drain().collect();
        handles.sort_unstable_by_key(|(id, _)| id.0);
        handles.into_iter().map(|(_, handle)| handle)
    }

    /// Returns how many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
