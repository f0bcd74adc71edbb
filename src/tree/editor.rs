//! A file open for writing, in whichever way the session's limits ask for.

use super::authorize::{EntrySlot, OpenEntry};
use super::handle_access::HandleAccess;
use super::in_place::InPlaceEdit;
use super::{AttributeChanges, EditMode, Entry, Error, LockToken, Result, StagedUpload, View, WriteConditions};
use crate::domain::TreePath;

/// A file open for writing (and for reading, where it was opened so): in place, or, where the types of
/// files are limited, as a copy that is judged and takes the file's place when it is closed.
pub struct FileEditor(EditorBackend);

enum EditorBackend {
    InPlace(Box<InPlaceEdit>),
    Copy { upload: Box<StagedUpload>, readable: bool, tokens: Vec<LockToken> },
}

/// What an editor writes into.
pub(super) enum EditTarget {
    /// The file itself.
    InPlace(Box<InPlaceEdit>),
    /// A copy that takes the file's place when it is committed.
    Copy(Box<StagedUpload>),
}

impl FileEditor {
    /// Edits a file in place that the check let through and that is open to be written.
    pub(super) fn edit_in_place(
        view: &View,
        requested_path: &TreePath,
        source: (OpenEntry, HandleAccess),
        mode: EditMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        let edit = InPlaceEdit::begin(view, requested_path, source, mode, conditions)?;
        if mode.truncate {
            edit.truncate(0)?;
        }
        Ok(Self(EditorBackend::InPlace(Box::new(edit))))
    }

    /// Edits a copy of a file that the check let through and that is open to be read and written.
    pub(super) fn edit_copy(
        view: &View,
        requested_path: &TreePath,
        slot: &EntrySlot,
        source: OpenEntry,
        mode: EditMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        let mut upload = Box::new(StagedUpload::from_copy(view, requested_path, slot, &source, mode, conditions)?);
        upload.keep_original(source.file);
        Ok(Self(EditorBackend::Copy { upload, readable: mode.read, tokens: conditions.lock_tokens.to_vec() }))
    }

    /// Returns what it writes into, for an open file that outlives the session's path to it.
    pub(super) fn into_target(self) -> EditTarget {
        match self.0 {
            EditorBackend::InPlace(edit) => EditTarget::InPlace(edit),
            EditorBackend::Copy { upload, .. } => EditTarget::Copy(upload),
        }
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] where it was not opened to be read, [`Error::SessionEnded`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.read_at(buffer, offset),
            EditorBackend::Copy { readable: false, .. } => Err(Error::WrongOpenMode),
            EditorBackend::Copy { upload, .. } => upload.read_at(buffer, offset),
        }
    }

    /// Writes all of `data` at an offset, or at the end where it was opened to append. Locks and the
    /// token's life are checked each time.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`], [`Error::NoSpace`], [`Error::Locked`], [`Error::SessionEnded`].
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.write_at(data, offset),
            EditorBackend::Copy { upload, .. } => upload.write_at(data, offset),
        }
    }

    /// Returns what the file is now, or would be if it were closed now.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn stat(&self) -> Result<Entry> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.stat(),
            EditorBackend::Copy { upload, .. } => upload.stat(),
        }
    }

    /// Sets attributes.
    ///
    /// # Errors
    /// As [`FileEditor::write_at`].
    pub fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.set_attributes(attributes),
            EditorBackend::Copy { upload, .. } => upload.set_attributes(attributes),
        }
    }

    /// Writes to disk what is in place; a copy is written when it is closed.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Filesystem`], [`Error::SessionEnded`].
    pub fn sync(&self) -> Result<()> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.sync(),
            EditorBackend::Copy { .. } => Ok(()),
        }
    }

    /// Ends the edit: a new tag for what was written, and a sync where durability asks for it. Dropping
    /// does the same to a file in place without telling of errors, and discards a copy.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::Filesystem`] when what was written may not be on disk; for a copy, what
    /// [`StagedUpload::commit`] says: the old content stands then.
    pub fn close(self) -> Result<()> {
        match self.0 {
            EditorBackend::InPlace(edit) => edit.close(),
            EditorBackend::Copy { upload, tokens, .. } => {
                upload.commit(&WriteConditions { lock_tokens: &tokens, evaluate: &|| Ok(()) }).map(drop)
            }
        }
    }
}
