//! The table of a channel's open files and directories.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::tree::OpenFile;

use super::access_log::HandleLog;
use super::error::{Error, Result};
use super::open_directory::SftpDirectory;
use super::request::HandleId;

/// Bytes written through a handle above which a sync runs on a blocking thread.
const INLINE_SYNC_MAX_BYTES: u64 = 1024 * 1024;

/// An open file or directory.
pub(super) struct SftpHandle {
    pub(super) target: HandleTarget,
    /// Number of bytes written through the handle.
    bytes_written: u64,
    /// Its use, where that is logged.
    log: Option<Box<HandleLog>>,
    /// Counts toward the session's `max_handles` until the handle is dropped.
    _permit: OwnedSemaphorePermit,
}

/// The file or directory behind a handle.
pub(super) enum HandleTarget {
    /// An open file or upload.
    File(Box<OpenFile>),
    /// A directory that is being listed.
    Directory(Box<SftpDirectory>),
}

impl SftpHandle {
    /// Returns the open file.
    ///
    /// # Errors
    /// [`Error::WrongHandleKind`] for a directory.
    pub(super) fn file(&self) -> Result<&OpenFile> {
        match &self.target {
            HandleTarget::File(file) => Ok(file),
            HandleTarget::Directory(_) => Err(Error::WrongHandleKind),
        }
    }

    /// Writes at `offset`, or at the end of a file that was opened for appending.
    ///
    /// # Errors
    /// [`Error::WrongHandleKind`] for a directory; as [`OpenFile::write_at`].
    pub(super) fn write_at(&mut self, data: &[u8], offset: u64) -> Result<()> {
        // Before the write: one that fails may have written a part.
        self.bytes_written = self.bytes_written.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        Ok(self.file()?.write_at(data, offset)?)
    }

    /// Takes the log of the handle's use.
    pub(super) fn take_log(&mut self) -> Option<Box<HandleLog>> {
        self.log.take()
    }

    /// Closes the handle; an upload is committed.
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

/// The open files and directories of a channel, by ids that are never reused.
pub(super) struct SftpHandleTable {
    open: HashMap<HandleId, SftpHandle>,
    last_id: u64,
    permits: Arc<Semaphore>,
}

impl SftpHandleTable {
    /// Returns an empty table that shares `permits` with the session's other channels.
    pub(super) fn new(permits: Arc<Semaphore>) -> Self {
        Self { open: HashMap::new(), last_id: 0, permits }
    }

    /// Reserves a handle, before the file or directory is opened.
    ///
    /// # Errors
    /// [`Error::TooManyHandles`] when the session is at its limit.
    pub(super) fn acquire_permit(&self) -> Result<OwnedSemaphorePermit> {
        self.permits.clone().try_acquire_owned().map_err(|_| Error::TooManyHandles)
    }

    /// Adds an open file or directory and returns its id.
    pub(super) fn insert(&mut self, permit: OwnedSemaphorePermit, target: HandleTarget) -> HandleId {
        // Ids are never reused: a late request on a closed handle must not reach another file.
        self.last_id += 1;
        let id = HandleId(self.last_id);
        self.open.insert(id, SftpHandle { target, bytes_written: 0, log: None, _permit: permit });
        id
    }

    /// Returns the handle with an id.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when no such handle is open.
    pub(super) fn get(&mut self, id: HandleId) -> Result<&mut SftpHandle> {
        self.open.get_mut(&id).ok_or(Error::InvalidHandle)
    }

    /// Returns the open file with an id.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when no such handle is open, [`Error::WrongHandleKind`] for a directory.
    pub(super) fn file(&self, id: HandleId) -> Result<&OpenFile> {
        self.open.get(&id).ok_or(Error::InvalidHandle)?.file()
    }

    /// Returns whether so much was written through a handle that a sync may take long.
    pub(super) fn is_sync_blocking(&self, id: HandleId) -> bool {
        // Bytes since OPEN, not since the last sync: rather too many syncs than too few run on a blocking thread.
        self.open.get(&id).is_some_and(|handle| handle.bytes_written > INLINE_SYNC_MAX_BYTES)
    }

    /// Has the use of the handle logged that was opened last.
    pub(super) fn set_last_log(&mut self, log: Box<HandleLog>) {
        if let Some(handle) = self.open.get_mut(&HandleId(self.last_id)) {
            handle.log = Some(log);
        }
    }

    /// Returns the log of a handle's use.
    pub(super) fn log_mut(&mut self, id: HandleId) -> Option<&mut HandleLog> {
        self.open.get_mut(&id)?.log.as_deref_mut()
    }

    /// Takes the log of a handle's use.
    pub(super) fn take_log(&mut self, id: HandleId) -> Option<Box<HandleLog>> {
        self.open.get_mut(&id)?.log.take()
    }

    /// Returns the path by which a handle was opened, where its use is logged.
    pub(super) fn log_path(&self, id: HandleId) -> Option<Vec<u8>> {
        self.open.get(&id)?.log.as_ref().map(|log| log.path().to_vec())
    }

    /// Returns two different handles.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when one of them is not open, [`Error::SameFile`] when the ids are equal.
    pub(super) fn get_pair(&mut self, first: HandleId, second: HandleId) -> Result<(&mut SftpHandle, &mut SftpHandle)> {
        if first == second {
            // Not `get_disjoint_mut`, which panics on equal keys.
            return self.get(first).and(Err(Error::SameFile));
        }
        match self.open.get_disjoint_mut([&first, &second]) {
            [Some(first), Some(second)] => Ok((first, second)),
            _ => Err(Error::InvalidHandle),
        }
    }

    /// Removes a handle from the table.
    ///
    /// # Errors
    /// [`Error::InvalidHandle`] when no such handle is open.
    pub(super) fn remove(&mut self, id: HandleId) -> Result<SftpHandle> {
        self.open.remove(&id).ok_or(Error::InvalidHandle)
    }

    /// Removes all handles, in the order in which they were opened.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = SftpHandle> + '_ {
        let mut handles: Vec<_> = self.open.drain().collect();
        // The map's order is random, and commits should not be.
        handles.sort_unstable_by_key(|(id, _)| id.0);
        handles.into_iter().map(|(_, handle)| handle)
    }

    /// Returns the number of open handles.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
