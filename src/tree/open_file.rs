//! A handle is the file that was opened: what becomes of open files and of uploads that are not closed yet, for one
//! session that keeps files open over many requests (SFTP).
//!
//! A program that opens a file to replace it expects to find it at once: it stats it, sets its times, renames it, removes
//! it, all before CLOSE. The tree shows a staged upload to nobody; its own session sees it under its name. All of that is
//! here: how a handle changes in this file, what a path means to such a session in `names`; nothing else asks for an
//! upload by its path.
//!
//! A handle opened to read reads that file, whatever happens to its names, and changes nothing of it but mode and times.
//! A handle opened to write is in one of these states ([`WritableState`]):
//!
//! | state | entered by | the name shows it | reads and writes | CLOSE |
//! |---|---|---|---|---|
//! | staged | OPEN that makes or empties a file (CREAT and TRUNC); any OPEN to write where the token limits types of files (a copy) | to its own session, while nobody else has put another entry there or taken that one away | the staged file | commits: in the directory that was opened, wherever that is now; fails where somebody else has finished something there since OPEN |
//! | in place | any other OPEN to write; an early commit of a staged one | to everybody | the file itself | ends the edit |
//! | superseded | a later upload of the session took the name | to nobody | reads go on, writes are refused | puts nothing in place; fails where a write was refused |
//! | unlinked | the session removed the name, or renamed something onto it | to nobody | the staged file | puts nothing in place |
//! | closed | CLOSE; the end of the session, which commits nothing | | | |
//!
//! What a lost session had staged for a new name is kept for its token for a time ([`super::cut_uploads`]): it stands
//! under its name to the next session, which goes on with it by an OPEN that does not empty it.
//!
//! *staged -> in place* is the early commit: the session asks for something under the name that needs the file in the
//! tree (rename, hard link, another OPEN to write). What is asked is tried first; where it is refused, the old content
//! stands and the upload stays staged. *in place -> staged* happens where the token limits types of files: what is
//! written after an early commit goes into a new copy.
//!
//! Locks and scopes follow the file: see [`super::handle_access`].

mod session_paths;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};

use super::fs::{Stat, filesystem_space};
use super::in_place::InPlaceEdit;
use super::upload::{SlotId, StagedUpload};
use super::{AttributeChanges, EditMode, Entry, Error, FileReader, FilesystemSpace, Result, View};

pub use session_paths::{OpenRequest, SessionListing};

/// The tree as a session sees it that keeps files open: as its view shows it, and its own uploads under their names.
/// Clones share all.
#[derive(Clone)]
pub struct SessionFiles(Arc<SessionFilesInner>);

struct SessionFilesInner {
    view: View,
    /// The session's staged files by the slot that they are for; bounded by its handles.
    staged: Mutex<HashMap<SlotId, Weak<WritableFile>>>,
    /// What an earlier connection of the token has left of uploads, and this one has asked for: staged as if a handle
    /// were open still.
    resumed: Mutex<HashMap<SlotId, Arc<WritableFile>>>,
    /// Held by who makes a copy anew while it commits another: one at a time, so that two never wait for each other.
    copy_lock: Mutex<()>,
}

/// An open file. Dropping it ends it without a commit.
pub struct OpenFile {
    session: SessionFiles,
    handle: OpenFileHandle,
}

enum OpenFileHandle {
    /// Opened to be read; of an upload of the session, with that upload.
    Read(Box<FileReader>, Option<Weak<WritableFile>>),
    /// Opened to be written.
    Write(Arc<WritableFile>),
}

/// A file open to be written, and what has become of it.
struct WritableFile {
    mode: EditMode,
    /// Whether a write was refused after something else took the name.
    write_refused: AtomicBool,
    state: RwLock<WritableState>,
}

/// What has become of a file that was opened to be written: the table in the module's documentation.
enum WritableState {
    Staged(Box<StagedUpload>),
    InPlace(Box<InPlaceEdit>),
    Superseded(Box<StagedUpload>),
    Unlinked(Box<StagedUpload>),
    Closed,
}

/// Where the content of an open file is.
enum ContentRef<'a> {
    Upload(&'a StagedUpload),
    InPlace(&'a InPlaceEdit),
}

impl WritableState {
    /// Lets a staged upload go on without its name, in the state that `next` makes of it; any other stays as it is.
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
            // The session has just ended: no request comes through a closed handle.
            Self::Closed => Err(crate::auth::SessionEnded.into()),
        }
    }
}

impl OpenFile {
    /// Reads at an offset into the buffer; fewer bytes than it holds only at the end of the file.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] for a file that was not opened to be read; [`Error::SessionEnded`].
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

    /// Writes all of `data` at an offset, or at the end where the file was opened to append.
    ///
    /// # Errors
    /// [`Error::WrongOpenMode`] for a file that was opened only to be read; [`Error::TooLarge`], [`Error::TypeNotAllowed`],
    /// [`Error::NoSpace`], [`Error::Locked`], [`Error::SessionEnded`]; [`Error::Superseded`], [`Error::Replaced`].
    pub fn write_at(&self, data: &[u8], offset: u64) -> Result<()> {
        match &self.handle {
            OpenFileHandle::Read(..) => Err(Error::WrongOpenMode),
            OpenFileHandle::Write(file) => {
                let written = self.session.with_writable_state(file, |file, state| {
                    file.with_content(state, |upload| upload.write_at(data, offset), |edit| edit.write_at(data, offset))
                });
                if matches!(written, Err(Error::Superseded)) {
                    file.write_refused.store(true, Ordering::Release);
                }
                written
            }
        }
    }

    /// Returns what the file is, or would be if it were committed now.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn stat(&self) -> Result<Entry> {
        match &self.handle {
            OpenFileHandle::Read(reader, None) => reader.stat(),
            OpenFileHandle::Read(reader, Some(file)) => {
                match staged_upload_of(reader, file).and_then(|file| file.staged_stat()) {
                    Some(entry) => entry,
                    None => reader.stat(),
                }
            }
            OpenFileHandle::Write(file) => file.stat(),
        }
    }

    /// Sets attributes, now or with the commit.
    ///
    /// # Errors
    /// As [`OpenFile::write_at`]; [`Error::WrongOpenMode`] for the size of a file that was opened only to be read;
    /// [`Error::Forbidden`].
    pub fn set_attributes(&self, attributes: &AttributeChanges) -> Result<()> {
        match &self.handle {
            OpenFileHandle::Read(reader, upload) => {
                match upload.as_ref().and_then(|file| staged_upload_of(reader, file)) {
                    _ if attributes.size.is_some() => Err(Error::WrongOpenMode),
                    Some(file) => file.set_attributes(attributes),
                    None => reader.set_attributes(attributes),
                }
            }
            OpenFileHandle::Write(file) if attributes.size.is_some() => {
                self.session.with_writable_state(file, |file, state| file.set_attributes_in(state, attributes))
            }
            OpenFileHandle::Write(file) => file.set_attributes(attributes),
        }
    }

    /// Writes to disk what is in place; of what is staged, tells whether its commit would still be let through.
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

    /// Returns the room on the file system of the file.
    ///
    /// # Errors
    /// [`Error::Filesystem`].
    pub fn space(&self) -> Result<FilesystemSpace> {
        match &self.handle {
            OpenFileHandle::Read(reader, _) => Ok(filesystem_space(reader.file())?),
            OpenFileHandle::Write(file) => match file.state.read().content()? {
                ContentRef::Upload(upload) => Ok(filesystem_space(&**upload.file())?),
                ContentRef::InPlace(edit) => Ok(filesystem_space(edit.file())?),
            },
        }
    }

    /// Tells whether both are one file.
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

    /// Ends it: commits what is staged, syncs what is in place.
    ///
    /// # Errors
    /// [`Error::Replaced`] and whatever else refuses the commit: then what stood there stands, and the upload is gone.
    pub fn close(self) -> Result<()> {
        let OpenFileHandle::Write(file) = &self.handle else { return Ok(()) };
        // Replaced by the session's own hand, it still has to be told what became of its data.
        let refused = file.write_refused.load(Ordering::Acquire);
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
    /// What was asked for and not gone on with is kept for the next session.
    fn drop(&mut self) {
        self.resumed.get_mut().drain().for_each(|(_, file)| file.keep_interrupted());
    }
}

/// Returns the upload that a handle reads, while what it reads is staged.
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

    /// staged -> closed, without a CLOSE: the session is lost.
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

    /// Returns what an upload that is not in place would be; none once it is, or is closed.
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

    /// Tells whether the name that it is staged for shows it, where `now` stands in the tree.
    fn is_visible_over(&self, now: Option<&Stat>) -> bool {
        matches!(&*self.state.read(), WritableState::Staged(upload) if upload.is_visible_over(now))
    }

    /// staged -> superseded: a later upload of the session has taken the name.
    fn supersede(&self) {
        self.state.write().detach_name(WritableState::Superseded);
    }

    /// staged -> unlinked, by an operation that removes what stands under the name in the tree, if anything does.
    fn unlink_with(&self, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        // Held, so that no CLOSE of another channel comes between.
        let mut state = self.state.write();
        let is_staged = matches!(&*state, WritableState::Staged(_));
        match remove() {
            Err(Error::Absent) if is_staged => {}
            removed => removed?,
        }
        state.detach_name(WritableState::Unlinked);
        Ok(())
    }

    /// staged -> unlinked: the session has put something else under the name.
    fn unlink(&self) {
        self.state.write().detach_name(WritableState::Unlinked);
    }

    /// staged -> in place, for an operation that needs the file under its name. Where the operation fails the commit is
    /// taken back: the old content stands and the file stays staged.
    fn commit_for<T>(&self, operation: impl FnOnce() -> Result<T>) -> Result<T> {
        let mut state = self.state.write();
        let mut upload = match std::mem::replace(&mut *state, WritableState::Closed) {
            WritableState::Staged(upload) => upload,
            other => {
                *state = other;
                drop(state);
                return operation();
            }
        };
        let mode = EditMode { append: upload.appends(), ..self.mode };
        let committed =
            if upload.is_unchanged_copy() { upload.original_file().map(Err) } else { upload.commit_early().map(Ok) };
        let committed = match committed {
            Ok(committed) => committed,
            Err(error) => {
                *state = WritableState::Staged(upload);
                return Err(error);
            }
        };
        match (operation(), committed) {
            (Ok(done), committed) => {
                let in_place = match committed {
                    Ok(commit) => upload.into_in_place(commit, mode),
                    Err(original) => upload.into_original(original, mode),
                };
                // An error here is the end of the session, which every further request is told.
                *state = in_place.map_or(WritableState::Closed, |edit| WritableState::InPlace(Box::new(edit)));
                Ok(done)
            }
            (Err(error), committed) => {
                *state = match committed.map(|commit| upload.undo(commit)) {
                    Ok(Ok(())) | Err(_) => WritableState::Staged(upload),
                    // Somebody has changed the name meanwhile: the file is what was put there.
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
