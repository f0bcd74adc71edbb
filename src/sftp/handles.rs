//! The open files and folders of a channel.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::domain::TreePath;
use crate::tree::{Editor, Reader, View};

use super::error::{Error, Result};
use super::folders::Folder;
use super::overlay::Staged;
use super::request::HandleId;

/// What a disk takes at once.
const LIGHT: u64 = 1024 * 1024;

/// Something open, and where it was when it was opened.
pub(super) struct Open {
    pub(super) path: TreePath,
    pub(super) what: What,
    /// Bytes written through it.
    written: u64,
    /// Its place among those that the session may have open.
    _place: OwnedSemaphorePermit,
}

/// What is open.
pub(super) enum What {
    /// A file, to be read.
    Reader(Reader),
    /// A file, to be written in place.
    Editor { editor: Editor, readable: bool, writable: bool },
    /// A file, to be replaced, or edited as a copy.
    Staged { staged: Arc<Staged>, readable: bool, writable: bool },
    /// A file that this session is replacing, to be read; once that is committed, as it is then.
    StagedReader { staged: Arc<Staged>, after: Option<Reader> },
    /// A folder.
    Folder(Box<Folder>),
}

impl Open {
    /// Reads at an offset.
    ///
    /// # Errors
    /// [`Error::WrongHandle`] for what was not opened to be read.
    pub(super) fn read_at(&mut self, view: &View, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match &mut self.what {
            What::Reader(reader) => Ok(reader.read_at(buffer, offset)?),
            What::Editor { editor, readable: true, .. } => Ok(editor.read_at(buffer, offset)?),
            What::Staged { staged, readable: true, .. } => staged.read_at(view, buffer, offset),
            What::StagedReader { after: Some(reader), .. } => Ok(reader.read_at(buffer, offset)?),
            What::StagedReader { staged, after } => {
                if !staged.committed() {
                    return staged.read_at(view, buffer, offset);
                }
                Ok(after.insert(view.read(&self.path)?).read_at(buffer, offset)?)
            }
            What::Editor { .. } | What::Staged { .. } | What::Folder(_) => Err(Error::WrongHandle),
        }
    }

    /// Writes at an offset (at the end, where the file was opened to append).
    ///
    /// # Errors
    /// [`Error::WrongHandle`] for what was not opened to be written.
    pub(super) fn write_at(&mut self, view: &View, data: &[u8], offset: u64) -> Result<()> {
        self.written = self.written.saturating_add(u64::try_from(data.len()).unwrap_or(u64::MAX));
        match &self.what {
            What::Editor { editor, writable: true, .. } => Ok(editor.write_at(data, offset)?),
            What::Staged { staged, writable: true, .. } => staged.write_at(view, data, offset),
            What::Editor { .. }
            | What::Staged { .. }
            | What::Reader(_)
            | What::StagedReader { .. }
            | What::Folder(_) => Err(Error::WrongHandle),
        }
    }
}

/// The open files and folders of a channel, each under an id that is not used twice.
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
    pub(super) fn insert(&mut self, place: OwnedSemaphorePermit, path: TreePath, what: What) -> HandleId {
        self.last += 1;
        let id = HandleId(self.last);
        self.open.insert(id, Open { path, what, written: 0, _place: place });
        id
    }

    /// Returns something open.
    ///
    /// # Errors
    /// [`Error::NoHandle`] when the id names nothing.
    pub(super) fn get(&mut self, id: HandleId) -> Result<&mut Open> {
        self.open.get_mut(&id).ok_or(Error::NoHandle)
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

    /// Gives up all ids.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = Open> + '_ {
        self.open.drain().map(|(_, open)| open)
    }

    /// Returns how many are open.
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}
