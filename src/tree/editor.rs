//! Files that are open for writing, in place or as a copy, as the session's limits require.

use super::authorize::{EntrySlot, OpenEntry};
use super::handle_access::HandleAccess;
use super::in_place::InPlaceEdit;
use super::{AttributeChanges, EditMode, Entry, Error, LockToken, Result, StagedUpload, View, WriteConditions};
use crate::domain::TreePath;

/// A file that is open for writing, and for reading if it was opened so: in place, or, if the token limits the types
/// of files, as a copy that is checked and replaces the file when it is closed.
pub struct FileEditor(EditorBackend);

enum EditorBackend {
    InPlace(Box<InPlaceEdit>),
    Copy { upload: Box<StagedUpload>, readable: bool, tokens: Vec<LockToken> },
}

/// Target of the writes of an editor.
pub(super) enum EditTarget {
    /// The file itself.
    InPlace(Box<InPlaceEdit>),
    /// A copy that replaces the file when it is committed.
    Copy(Box<StagedUpload>),
}

impl FileEditor {
    /// Begins an edit in place of an authorized file that is open to write.
    pub(super) fn edit_in_place(
        view: &View,
        requested_path: &TreePath,
        source: (OpenEntry, HandleAccess),
        mode: EditMode,
        conditions: &WriteConditions<'_>,
    ) -> Result<Self> {
        let edit = InPlaceEdit::begin(view, requested_path, source, mode, conditions)?;
        if mode.truncate {
            // Through the edit rather than by O_TRUNC: locks are checked, and the ETag changes with the content.
            edit.truncate(0)?;
        }
        Ok(Self(EditorBackend::InPlace(Box::new(edit))))
    }

    /// Begins an edit of a copy of an authorized file that is open to read and write.
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

    /// Returns the target of the writes, for an open file that outlives its path.
    pub(super) fn into_target(self) -> EditTarget {
        match self.0 {
            EditorBackend::InPlace(edit) => EditTarget::InPlace(edit),
            EditorBackend::Copy { upload, .. } => EditTarget::Copy(upload),
        }
    }

    /// Reads at an offset.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] if it was not opened to read, [`Error::SessionEnded`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.read_at(buffer, offset),
            EditorBackend::Copy { readable: false, .. } => Err(Error::WrongOpenMode),
            EditorBackend::Copy { upload, .. } => upload.read_at(buffer, offset),
        }
    }

    /// Writes all of `data` at an offset, or at the end if it was opened to append. Locks and the session are checked
    /// each time.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::TypeNotAllowed`], [`Error::NoSpace`], [`Error::Locked`], [`Error::SessionEnded`].
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.write_at(data, offset),
            EditorBackend::Copy { upload, .. } => upload.write_at(data, offset),
        }
    }

    /// Returns the current metadata of the file, for a copy as its commit would leave it.
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

    /// Syncs a file in place to disk; a copy is synced when it is closed.
    ///
    /// # Errors
    /// [`Error::NoSpace`], [`Error::Filesystem`], [`Error::SessionEnded`].
    pub fn sync(&self) -> Result<()> {
        match &self.0 {
            EditorBackend::InPlace(edit) => edit.sync(),
            EditorBackend::Copy { .. } => Ok(()),
        }
    }

    /// Ends the edit: the written content gets its final ETag, and is synced where durability asks for it. Dropping
    /// does the same to a file in place, but only logs errors, and discards a copy.
    ///
    /// # Errors
    /// [`Error::NoSpace`] or [`Error::Filesystem`] when written content may not be on disk; for a copy, the errors of
    /// [`StagedUpload::commit`]: the old content is kept then.
    pub fn close(self) -> Result<()> {
        match self.0 {
            EditorBackend::InPlace(edit) => edit.close(),
            EditorBackend::Copy { upload, tokens, .. } => {
                upload.commit(&WriteConditions { lock_tokens: &tokens, evaluate: &|| Ok(()) }).map(drop)
            }
        }
    }
}
