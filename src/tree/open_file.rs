//! Open files of one session that keeps them open over many requests (SFTP), and its uploads that are not closed yet.
//! A handle is the file that was opened, not its name.
//!
//! A program that opens a file to replace it expects to find it at once: it stats it, sets its times, renames it,
//! removes it, all before CLOSE. A staged upload is not visible in the tree; its own session sees it under its name.
//! How a handle changes is in this file, how paths are resolved for such a session in `session_paths`; nothing else
//! looks up an upload by its path.
//!
//! A handle opened to read reads that file, whatever happens to its names, and changes only its mode and times.
//! A handle opened to write is in one of these states ([`WritableState`]):
//!
//! | state | entered by | visible under the name | reads and writes | CLOSE |
//! |---|---|---|---|---|
//! | staged | OPEN that creates or truncates a file (CREAT and TRUNC); any OPEN to write where the token limits types of files (a copy) | to its own session, while no other client has put another entry there or removed that one | the staged file | commits: in the directory that was opened, wherever that is now; fails where another client has finished something there since OPEN |
//! | in place | any other OPEN to write; an early commit of a staged one | to everybody | the file itself | ends the edit |
//! | superseded | a later upload of the session to the same name | to nobody | reads succeed, writes are refused | commits nothing; fails where a write was refused |
//! | unlinked | the session removed the name, or renamed another entry onto it | to nobody | the staged file | commits nothing |
//! | closed | CLOSE; the end of the session, which commits nothing | | | |
//!
//! A staged upload to a new name whose session was lost is kept for its token for a time
//! ([`super::interrupted_uploads`]): the next session sees it under its name, and resumes it by an OPEN without TRUNC.
//!
//! *staged -> in place* is the early commit: the session requests an operation under the name that needs the file in the
//! tree (rename, hard link, another OPEN to write). If the operation is refused, the commit is undone: the old content
//! is back and the upload stays staged. *in place -> staged* happens where the token limits types of files: writes
//! after an early commit go into a new copy.
//!
//! Locks and scopes follow the file: see [`super::handle_access`].

mod open_request;
mod session_listing;
mod session_paths;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::fs::{Stat, filesystem_space};
use super::in_place::InPlaceEdit;
use super::slot_id::SlotId;
use super::upload::StagedUpload;
use super::{AttributeChanges, EditMode, Entry, Error, FileReader, FilesystemSpace, Result, View};

pub use open_request::OpenRequest;
pub use session_listing::SessionListing;

/// The view of a session that keeps files open: the tree, with the session's own staged uploads under their names.
/// Clones share the state.
#[derive(Clone)]
pub struct SessionFiles(Arc<SessionFilesInner>);

struct SessionFilesInner {
    view: View,
    /// Staged files of the session, by target slot. Bounded by its handles.
    staged: Mutex<HashMap<SlotId, Weak<WritableFile>>>,
    /// Interrupted uploads of the token that this session has looked up: staged, as if their handles were still open.
    resumed: Mutex<HashMap<SlotId, Arc<WritableFile>>>,
    /// Serializes restaging, which may commit another file of the session: two at once could deadlock.
    copy_lock: Mutex<()>,
}

/// An open file. Dropping it closes it without a commit.
pub struct OpenFile {
    session: SessionFiles,
    handle: OpenFileHandle,
}

enum OpenFileHandle {
    /// Opened to read; with the staged upload that it reads, if any.
    Read(Box<FileReader>, Option<Weak<WritableFile>>),
    /// Opened to write.
    Write(Arc<WritableFile>),
}

/// A file that was opened to write, with its state.
struct WritableFile {
    mode: EditMode,
    /// Whether a write was refused because the upload was superseded.
    write_refused: AtomicBool,
    state: RwLock<WritableState>,
}

/// State of a file that was opened to write: see the table in the module's documentation.
enum WritableState {
    Staged(Box<StagedUpload>),
    InPlace(Box<InPlaceEdit>),
    Superseded(Box<StagedUpload>),
    Unlinked(Box<StagedUpload>),
    Closed,
}

/// Location of the content of an open file.
enum ContentRef<'a> {
    Upload(&'a StagedUpload),
    InPlace(&'a InPlaceEdit),
}

impl WritableState {
    /// Detaches a staged upload from its name and changes to the state that `next` returns; other states stay as they
    /// are.
    fn detach_name(&mut self, next: impl FnOnce(Box<StagedUpload>) -> Self) {
        *self = match std::mem::replace(self, Self::Closed) {
            Self::Staged(mut upload) => {
                upload.detach();
                next(upload)
            }
            other => other,
        };
    }

    fn content(&self) -> Result<ContentRef<'_>> {
        match self {
            Self::Staged(upload) | Self::Superseded(upload) | Self::Unlinked(upload) => Ok(ContentRef::Upload(upload)),
            Self::InPlace(edit) => Ok(ContentRef::InPlace(edit)),
            // The session has just ended, since no request reaches a handle after its CLOSE.
            Self::Closed => Err(crate::auth::SessionEnded.into()),
        }
    }
}

impl OpenFile {
    /// Reads at an offset until the buffer is full or the file ends; returns the number of bytes.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] for a file that was not opened to read; [`Error::SessionEnded`].
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        match &self.handle {
            OpenFileHandle::Read(reader, _) => reader.read_at(buffer, offset),
            OpenFileHandle::Write(file) if !file.mode.read => Err(Error::WrongOpenMode),
            OpenFileHandle::Write(file) => match file.state.read().content()? {
                ContentRef::Upload(upload) => upload.read_at(buffer, offset),
                ContentRef::InPlace(edit) => edit.read_at(buffer, offset),
            },
        }
    }

    /// Writes all of `data` at an offset, or at the end if the file was opened to append.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] for a file that was opened only to read; [`Error::TooLarge`],
    /// [`Error::TypeNotAllowed`], [`Error::NoSpace`], [`Error::Locked`], [`Error::SessionEnded`];
    /// [`Error::Superseded`], [`Error::Replaced`].
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        match &self.handle {
            OpenFileHandle::Read(..) => Err(Error::WrongOpenMode),
            OpenFileHandle::Write(file) => {
                let written = self.session.with_writable_state(file, |file, state| {
                    file.with_content(state, |upload| upload.write_at(data, offset), |edit| edit.write_at(data, offset))
                });
                // Remembered for CLOSE: clients pipeline WRITEs, and many report only the status of CLOSE.
                if matches!(written, Err(Error::Superseded)) {
                    file.write_refused.store(true, Ordering::Release);
                }
                written
            }
        }
    }

    /// Returns the metadata of the file, for a staged one as a commit would leave it.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn stat(&self) -> Result<Entry> {
        match &self.handle {
            OpenFileHandle::Read(reader, None) => reader.stat(),
            OpenFileHandle::Read(reader, Some(file)) => {
                // The upload knows the mode that its commit will set: the staged file has mode 0600.
                match staged_upload_of(reader, file).and_then(|file| file.staged_stat()) {
                    Some(entry) => entry,
                    None => reader.stat(),
                }
            }
            OpenFileHandle::Write(file) => file.stat(),
        }
    }

    /// Sets attributes: at once, or for a staged file with its commit.
    ///
    /// # Errors
    /// As [`OpenFile::write_at`]; [`Error::WrongOpenMode`] for the size of a file that was opened only to read;
    /// [`Error::Forbidden`].
    pub fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        match &self.handle {
            OpenFileHandle::Read(reader, upload) => {
                match upload.as_ref().and_then(|file| staged_upload_of(reader, file)) {
                    // A size is content, which a handle opened to read must not change.
                    _ if attributes.size.is_some() => Err(Error::WrongOpenMode),
                    Some(file) => file.set_attributes(attributes),
                    None => reader.set_attributes(attributes),
                }
            }
            // A new size may need a new copy first, as a write does.
            OpenFileHandle::Write(file) if attributes.size.is_some() => {
                self.session.with_writable_state(file, |file, state| file.set_attributes_in(state, attributes))
            }
            OpenFileHandle::Write(file) => file.set_attributes(attributes),
        }
    }

    /// Syncs a file in place to disk; for a staged one, checks that its commit would still succeed.
    ///
    /// # Errors
    /// [`Error::Replaced`], [`Error::NoSpace`], [`Error::Filesystem`], [`Error::SessionEnded`].
    pub fn sync(&self) -> Result<()> {
        match &self.handle {
            OpenFileHandle::Read(..) => Ok(()),
            OpenFileHandle::Write(file) => match &*file.state.read() {
                WritableState::Staged(upload) => upload.check_committable(),
                WritableState::InPlace(edit) => edit.sync(),
                WritableState::Superseded(_) | WritableState::Unlinked(_) | WritableState::Closed => Ok(()),
            },
        }
    }

    /// Returns the space on the file system of the file.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn space(&self) -> Result<FilesystemSpace> {
        let (path, space) = match &self.handle {
            OpenFileHandle::Read(reader, _) => (reader.last_path(), filesystem_space(reader.file())?),
            OpenFileHandle::Write(file) => match file.state.read().content()? {
                ContentRef::Upload(upload) => (upload.last_path(), filesystem_space(&**upload.file())?),
                ContentRef::InPlace(edit) => (edit.last_path(), filesystem_space(edit.file())?),
            },
        };
        self.session.view().bound_space(&path, space)
    }

    /// Tells whether both handles have the same file open.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn is_same_file(&self, other: &OpenFile) -> Result<bool> {
        Ok(self.file_stat()?.is_same_file(&other.file_stat()?))
    }

    fn file_stat(&self) -> Result<Stat> {
        match &self.handle {
            OpenFileHandle::Read(reader, _) => Ok(reader.file().stat()?),
            OpenFileHandle::Write(file) => file.file_stat(),
        }
    }

    /// Closes the file: commits a staged one, syncs one in place.
    ///
    /// # Errors
    /// [`Error::Replaced`] and all other errors of the commit: the old content is kept then, and the upload is
    /// discarded.
    pub fn close(self) -> Result<()> {
        let OpenFileHandle::Write(file) = &self.handle else { return Ok(()) };
        // The session itself has superseded this upload; CLOSE still must not succeed for data that was refused.
        let refused = file.write_refused.load(Ordering::Acquire);
        // Closed first: the drop that follows must not keep a committed upload as an interrupted one.
        match std::mem::replace(&mut *file.state.write(), WritableState::Closed) {
            WritableState::Staged(upload) => upload.commit_in_directory(),
            WritableState::InPlace(edit) => edit.close(),
            WritableState::Superseded(upload) if refused || upload.has_failed_write() => Err(Error::Superseded),
            WritableState::Superseded(_) | WritableState::Unlinked(_) | WritableState::Closed => Ok(()),
        }
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if let OpenFileHandle::Write(file) = &self.handle {
            self.session.unregister_staged(file);
            file.keep_interrupted();
        }
    }
}

impl Drop for SessionFilesInner {
    /// Keeps the interrupted uploads that were looked up but not resumed for the next session.
    fn drop(&mut self) {
        self.resumed.get_mut().drain().for_each(|(_, file)| file.keep_interrupted());
    }
}

/// Returns the upload that a handle reads, while the file that it reads is still staged.
fn staged_upload_of(reader: &FileReader, file: &Weak<WritableFile>) -> Option<Arc<WritableFile>> {
    let file = file.upgrade()?;
    let is_staged = match file.state.read().content() {
        Ok(ContentRef::Upload(upload)) => upload.file().stat().ok()?.is_same_file(&reader.file().stat().ok()?),
        Ok(ContentRef::InPlace(_)) | Err(_) => false,
    };
    is_staged.then_some(file)
}

impl WritableFile {
    fn new(mode: EditMode, state: WritableState) -> Arc<Self> {
        Arc::new(Self { mode, write_refused: AtomicBool::new(false), state: RwLock::new(state) })
    }

    /// staged -> closed, without a CLOSE: the connection was lost.
    fn keep_interrupted(&self) {
        if let WritableState::Staged(upload) = std::mem::replace(&mut *self.state.write(), WritableState::Closed) {
            upload.keep_interrupted();
        }
    }

    fn with_content<T>(
        &self,
        state: &WritableState,
        staged: impl FnOnce(&StagedUpload) -> Result<T>,
        in_place: impl FnOnce(&InPlaceEdit) -> Result<T>,
    ) -> Result<T> {
        match state {
            WritableState::Staged(upload) | WritableState::Unlinked(upload) => staged(upload),
            WritableState::InPlace(edit) => in_place(edit),
            WritableState::Superseded(_) => Err(Error::Superseded),
            WritableState::Closed => Err(crate::auth::SessionEnded.into()),
        }
    }

    fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        self.set_attributes_in(&self.state.read(), attributes)
    }

    fn set_attributes_in(&self, state: &WritableState, attributes: &AttributeChanges) -> Result<()> {
        self.with_content(state, |upload| upload.set_attributes(attributes), |edit| edit.set_attributes(attributes))
    }

    fn stat(&self) -> Result<Entry> {
        match self.state.read().content()? {
            ContentRef::Upload(upload) => upload.stat(),
            ContentRef::InPlace(edit) => edit.stat(),
        }
    }

    /// Returns the metadata of an upload that is not in place; `None` once it is, or is closed.
    fn staged_stat(&self) -> Option<Result<Entry>> {
        match self.state.read().content() {
            Ok(ContentRef::Upload(upload)) => Some(upload.stat()),
            Ok(ContentRef::InPlace(_)) | Err(_) => None,
        }
    }

    fn file_stat(&self) -> Result<Stat> {
        match self.state.read().content()? {
            ContentRef::Upload(upload) => Ok(upload.file().stat()?),
            ContentRef::InPlace(edit) => Ok(edit.file().stat()?),
        }
    }

    /// Tells whether the file is visible under the name that it is staged for, where the tree has `now`.
    fn is_visible_over(&self, now: Option<&Stat>) -> bool {
        matches!(&*self.state.read(), WritableState::Staged(upload) if upload.is_visible_over(now))
    }

    /// staged -> superseded: a later upload of the session is for the same name.
    fn supersede(&self) {
        self.state.write().detach_name(WritableState::Superseded);
    }

    /// staged -> unlinked, with an operation that removes the entry under the name in the tree, if there is one.
    fn unlink_with(&self, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        // Locked over the removal, so that no CLOSE of another channel commits in between.
        let mut state = self.state.write();
        let is_staged = matches!(&*state, WritableState::Staged(_));
        match remove() {
            Err(Error::Absent) if is_staged => {}
            removed => removed?,
        }
        state.detach_name(WritableState::Unlinked);
        Ok(())
    }

    /// staged -> unlinked: the session has put another entry under the name.
    fn unlink(&self) {
        self.state.write().detach_name(WritableState::Unlinked);
    }

    /// staged -> in place, for an operation that needs the file under its name. If the operation fails, the commit is
    /// undone: the old content is back and the file stays staged.
    fn commit_for<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut state = self.state.write();
        // The state lock is held to the end, so that requests of other channels see the file staged or in place.
        let mut upload = match std::mem::replace(&mut *state, WritableState::Closed) {
            WritableState::Staged(upload) => upload,
            other => {
                *state = other;
                // Nothing to commit, and the operation needs nothing of this handle: its other requests go on.
                drop(state);
                return operation();
            }
        };
        let mode = EditMode { append: upload.appends(), ..self.mode };
        let committed =
            // The original has the same content and the name already: committing the copy would break its hard links.
            if upload.is_unchanged_copy() { upload.original_file().map(Err) } else { upload.commit_early().map(Ok) };
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                *state = WritableState::Staged(upload);
                return Err(error);
            }
        };
        // From here the file is in the tree: each outcome must leave a state that says where it is.
        match (operation(), committed) {
            (Ok(done), committed) => {
                let in_place = match committed {
                    Ok(commit) => upload.into_in_place(commit, mode),
                    Err(original) => upload.into_original(original, mode),
                };
                // This fails only when the session has ended, which is also the answer to every further request.
                *state = in_place.map_or(WritableState::Closed, |edit| WritableState::InPlace(Box::new(edit)));
                Ok(done)
            }
            (Err(error), committed) => {
                *state = match committed.map(|commit| upload.undo(commit)) {
                    Ok(Ok(())) | Err(_) => WritableState::Staged(upload),
                    // Another client has changed the name meanwhile: the commit can't be undone, so the file stays in
                    // place.
                    Ok(Err(commit)) => {
                        let in_place = upload.into_in_place(*commit, mode);
                        in_place.map_or(WritableState::Closed, |edit| WritableState::InPlace(Box::new(edit)))
                    }
                };
                Err(error)
            }
        }
    }
}
