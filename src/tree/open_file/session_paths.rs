//! Path resolution for a session that keeps files open: its own staged uploads are visible under their names.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{
    OpenFile, OpenFileHandle, OpenRequest, SessionFiles, SessionFilesInner, SessionListing, SlotId, WritableFile,
    WritableState,
};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::authorize::{EntrySlot, MAX_SYMLINKS};
use crate::tree::editor::EditTarget;
use crate::tree::fs::{Stat, none_if_vanished};
use crate::tree::upload::StagedUpload;
use crate::tree::{
    AttributeChanges, EditMode, Entry, EntryKind, Error, FileReader, FilesystemSpace, OverwriteMode, Result, View,
    WriteConditions,
};

/// Permission bits that are cleared in the mode of a new file, as by a umask; the client may set them later.
const NEW_FILE_UMASK: u32 = 0o022;
/// Maximum number of times that one write stages its file again while another channel of the session commits it.
const STAGING_ATTEMPTS: usize = 8;

impl SessionFiles {
    /// Creates the state of a session without open files.
    pub fn new(view: View) -> Self {
        Self(Arc::new(SessionFilesInner {
            view,
            staged: Mutex::default(),
            resumed: Mutex::default(),
            copy_lock: Mutex::default(),
        }))
    }

    /// Returns the session's view of the tree.
    pub fn view(&self) -> &View {
        &self.0.view
    }

    /// Opens a file; a symbolic link is followed.
    ///
    /// # Errors
    /// As [`View::read`], [`View::stage`] and [`View::edit`].
    pub fn open(&self, path: &TreePath, request: &OpenRequest) -> Result<OpenFile> {
        if request.replaces_whole_file() {
            return self.open_to_replace(path, request);
        }
        if request.write || request.truncate {
            return self.open_to_edit(path, request);
        }
        // EXCL refuses an existing file also when the handle will only read.
        if request.create && request.exclusive {
            return self.open_to_edit(path, request);
        }
        match self.open_to_read(path) {
            // CREAT without WRITE on an existing file is a plain read, which needs no permission to write.
            Err(Error::Absent) if request.create => self.open_to_edit(path, request),
            opened => opened,
        }
    }

    fn open_to_read(&self, path: &TreePath) -> Result<OpenFile> {
        if let Some(file) = self.staged_at(path, true)? {
            let reader = match file.state.read().content() {
                Ok(super::ContentRef::Upload(upload)) => Some(FileReader::from_upload(self.view(), upload)?),
                // Another channel of the session has just committed it.
                Ok(super::ContentRef::InPlace(_)) | Err(_) => None,
            };
            if let Some(reader) = reader {
                return Ok(self.new_open_file(OpenFileHandle::Read(Box::new(reader), Some(Arc::downgrade(&file)))));
            }
        }
        Ok(self.new_open_file(OpenFileHandle::Read(Box::new(self.view().read(path)?), None)))
    }

    fn open_to_replace(&self, path: &TreePath, request: &OpenRequest) -> Result<OpenFile> {
        // Looked up before this upload is registered, which takes over the slot.
        let earlier = self.staged_at(path, true)?;
        let upload = self.view().stage(path, request.size, &WriteConditions::none())?;
        // A drop box (`w` alone) answers nothing that comes from content, also not from one's own.
        if request.read && !upload.stat()?.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        let mode = match earlier.as_ref().and_then(|earlier| earlier.staged_stat()) {
            // The earlier upload to this name counts as the existing file, which keeps its mode.
            Some(entry) => Some(entry?.mode),
            None => request.mode.map(|mode| mode & !NEW_FILE_UMASK).filter(|_| !upload.replaces_file()),
        };
        if mode.is_some() {
            upload.set_attributes(&AttributeChanges { mode, ..AttributeChanges::default() })?;
        }
        let file = WritableFile::new(request.edit_mode(), WritableState::Staged(Box::new(upload)));
        // Registered before the earlier upload is detached, so that the name never shows the tree's old content.
        self.register_staged(&file);
        if let Some(earlier) = earlier {
            earlier.supersede();
            self.drop_finished_resumed();
        }
        Ok(self.new_open_file(OpenFileHandle::Write(file)))
    }

    fn open_to_edit(&self, path: &TreePath, request: &OpenRequest) -> Result<OpenFile> {
        let mode = request.edit_mode();
        request.size.map_or(Ok(()), |size| self.view().check_size(size))?;
        let open_editor = || self.view().edit(path, mode, &WriteConditions::none());
        let staged = self.staged_at(path, true)?;
        if let Some(file) = &staged
            && request.write
            && !mode.exclusive
            && let Some(file) = self.take_resumed(file, mode)
        {
            if mode.truncate {
                file.set_attributes(&AttributeChanges { size: Some(0), ..AttributeChanges::default() })?;
            }
            return Ok(self.new_open_file(OpenFileHandle::Write(file)));
        }
        let editor = match staged {
            Some(_) if mode.exclusive => return Err(Error::AlreadyExists),
            Some(file) => {
                // Refused before the early commit, so that no other client sees a file that would be removed again.
                if let Some(entry) = file.staged_stat()
                    && mode.read
                    && !entry?.permission.allows(Permission::RW)
                {
                    return Err(Error::Forbidden);
                }
                file.commit_for(open_editor)?
            }
            None => open_editor()?,
        };
        let handle = match editor.into_target() {
            EditTarget::InPlace(editor) if request.write => {
                OpenFileHandle::Write(WritableFile::new(mode, WritableState::InPlace(editor)))
            }
            EditTarget::InPlace(editor) => OpenFileHandle::Read(Box::new(editor.into_reader()?), None),
            EditTarget::Copy(upload) if request.write => {
                let file = WritableFile::new(mode, WritableState::Staged(upload));
                self.register_staged(&file);
                OpenFileHandle::Write(file)
            }
            // Without TRUNC nothing was changed: the handle reads the file itself, not its copy.
            EditTarget::Copy(upload) if upload.is_unchanged_copy() => {
                let original = upload.original_file()?;
                OpenFileHandle::Read(Box::new(FileReader::from_file(self.view(), upload.last_path(), original)?), None)
            }
            EditTarget::Copy(upload) => {
                let reader = FileReader::from_upload(self.view(), &upload)?;
                upload.commit_in_directory()?;
                OpenFileHandle::Read(Box::new(reader), None)
            }
        };
        Ok(self.new_open_file(handle))
    }

    fn new_open_file(&self, handle: OpenFileHandle) -> OpenFile {
        OpenFile { session: self.clone(), handle }
    }

    /// Returns the metadata of an entry; a symbolic link is followed.
    ///
    /// # Errors
    /// As [`View::stat`].
    pub fn stat(&self, path: &TreePath) -> Result<Entry> {
        self.staged_entry(path, true)?.map_or_else(|| self.view().stat(path), Ok)
    }

    /// Returns the metadata of an entry; a symbolic link is not followed.
    ///
    /// # Errors
    /// As [`View::link_stat`].
    pub fn link_stat(&self, path: &TreePath) -> Result<Entry> {
        self.staged_entry(path, false)?.map_or_else(|| self.view().link_stat(path), Ok)
    }

    fn staged_entry(&self, path: &TreePath, follow: bool) -> Result<Option<Entry>> {
        let Some(staged) = self.staged_at(path, follow)?.and_then(|file| file.staged_stat()) else { return Ok(None) };
        let mut entry = staged?;
        if let Some(name) = path.name() {
            entry.name = name.as_bytes().to_vec();
        }
        Ok(Some(entry))
    }

    /// Sets attributes of an entry; a symbolic link is followed if `follow`.
    ///
    /// # Errors
    /// As [`View::set_attributes`].
    pub fn set_attributes(&self, path: &TreePath, attributes: &AttributeChanges, follow: bool) -> Result<()> {
        match self.staged_at(path, follow)? {
            Some(file) if file.staged_stat().is_some() => file.set_attributes(attributes),
            Some(_) | None => self.view().set_attributes(path, attributes, follow, &WriteConditions::none()),
        }
    }

    /// Removes a file or link. A staged upload under that name is detached from it.
    ///
    /// # Errors
    /// As [`View::remove_file`].
    pub fn remove_file(&self, path: &TreePath) -> Result<()> {
        let remove = || self.view().remove_file(path, &WriteConditions::none());
        match self.staged_at(path, false)? {
            None => remove(),
            Some(file) => {
                let removed = file.unlink_with(remove);
                self.drop_finished_resumed();
                removed
            }
        }
    }

    /// Removes an empty directory; one with an upload into it does not count as empty.
    ///
    /// # Errors
    /// As [`View::remove_directory`].
    pub fn remove_directory(&self, path: &TreePath) -> Result<()> {
        match self.staged_at(path, false)? {
            Some(_) => Err(Error::NotADirectory),
            None => self.view().remove_directory(path, &WriteConditions::none()),
        }
    }

    /// Creates a directory.
    ///
    /// # Errors
    /// As [`View::create_directory`].
    pub fn create_directory(&self, path: &TreePath, attributes: &AttributeChanges) -> Result<()> {
        self.check_no_staged_upload(path)?;
        self.view().create_directory(path, attributes, &WriteConditions::none()).map(drop)
    }

    /// Creates a symbolic link.
    ///
    /// # Errors
    /// As [`View::symlink`].
    pub fn symlink(&self, target: &[u8], path: &TreePath) -> Result<()> {
        self.check_no_staged_upload(path)?;
        self.view().symlink(target, path, &WriteConditions::none())
    }

    /// Returns the target of a symbolic link.
    ///
    /// # Errors
    /// As [`View::read_link`].
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        match self.staged_at(path, false)? {
            Some(_) => Err(Error::Unsupported),
            None => self.view().read_link(path),
        }
    }

    /// Creates a hard link to a file; a staged file is committed first.
    ///
    /// # Errors
    /// As [`View::hard_link`].
    pub fn hard_link(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        self.check_no_staged_upload(to)?;
        match self.staged_at(from, true)? {
            None => self.view().hard_link(from, to, &WriteConditions::none()),
            Some(file) => {
                // Refused before the early commit: other clients must not see a file that is removed again.
                if let Ok(stat) = file.file_stat() {
                    self.view().check_hard_link(&self.slot_path(from)?, &stat, to, &WriteConditions::none())?;
                }
                file.commit_for(|| self.view().hard_link(from, to, &WriteConditions::none()))?;
                self.drop_finished_resumed();
                Ok(())
            }
        }
    }

    /// Renames an entry; a staged file is committed first. A staged upload under the new name is detached from it.
    ///
    /// # Errors
    /// As [`View::rename`].
    pub fn rename(&self, from: &TreePath, to: &TreePath, overwrite: OverwriteMode) -> Result<()> {
        let (moved, replaced) = (self.staged_at(from, false)?, self.staged_at(to, false)?);
        let overwrite = match &replaced {
            None => overwrite,
            Some(_) if overwrite == OverwriteMode::Refuse => return Err(Error::AlreadyExists),
            Some(replaced) if moved.as_ref().is_some_and(|moved| Arc::ptr_eq(moved, replaced)) => return Ok(()),
            // As rename(2) of a directory onto a file. The tree itself can't refuse it, since the upload is not in it.
            Some(_) if self.link_stat(from)?.is_directory() => return Err(Error::NotADirectory),
            // To the session, source and upload are two files, even where the upload is to replace the source itself.
            Some(_) => OverwriteMode::FileOnly,
        };
        let rename = || self.view().rename(from, to, overwrite, &WriteConditions::none());
        match moved {
            None => rename()?,
            Some(file) => {
                // Refused before the early commit, as for a hard link.
                if let Ok(stat) = file.file_stat() {
                    self.view().check_rename_to((from, &stat), to, overwrite, &WriteConditions::none())?;
                }
                file.commit_for(rename)?
            }
        };
        if let Some(replaced) = replaced {
            replaced.unlink();
        }
        self.drop_finished_resumed();
        Ok(())
    }

    /// Returns the space on the file system at a path; for a staged upload, on that of its directory.
    ///
    /// # Errors
    /// As [`View::space`].
    pub fn space(&self, path: &TreePath) -> Result<FilesystemSpace> {
        match (self.view().space(path), path.parent()) {
            (Err(Error::Absent), Some(parent)) if self.staged_at(path, true)?.is_some() => self.view().space(&parent),
            (space, _) => space,
        }
    }

    /// Lists a directory; symbolic links are not followed.
    ///
    /// # Errors
    /// As [`View::list`].
    pub fn list(&self, path: &TreePath) -> Result<SessionListing> {
        let listing = self.view().list(path, false)?;
        let shows_new_uploads = self.view().stat(path)?.permission.allows(Permission::R);
        Ok(SessionListing { listing, staged: self.staged_in(path)?, shows_new_uploads })
    }

    /// Returns the session's staged files in a directory, by their names there.
    fn staged_in(&self, path: &TreePath) -> Result<HashMap<Vec<u8>, Entry>> {
        let mut entries = HashMap::new();
        let interrupted_uploads = &self.view().shared().interrupted_uploads;
        if interrupted_uploads.is_empty() && self.0.staged.lock().is_empty() {
            return Ok(entries);
        }
        // Nothing is staged in a directory that is merely visible, or gone by now.
        let Some(directory) = none_if_refused(self.view().open_directory(path))? else { return Ok(entries) };
        let stat = directory.stat()?;
        for slot_id in interrupted_uploads.slots_in(self.view().session().token(), stat.device, stat.inode) {
            // Looking it up is enough: that stages it in this session.
            self.staged_at(&path.child(slot_id.name()), false)?;
        }
        // Copied, since `take_resumed` locks the state of a file before this table: both orders would deadlock.
        let files: Vec<_> =
            self.0.staged.lock().iter().map(|(slot_id, file)| (slot_id.clone(), file.clone())).collect();
        for (slot_id, file) in files.into_iter().filter(|(slot_id, _)| slot_id.is_in(stat.device, stat.inode)) {
            // Another channel of the session may have closed or committed it meanwhile.
            let Some(file) = file.upgrade() else { continue };
            let Some(entry) = file.staged_stat() else { continue };
            let replaced = none_if_vanished(directory.stat_entry(slot_id.name()))?;
            if file.slot_id()?.as_ref() == Some(&slot_id) && file.is_visible_over(replaced.as_ref()) {
                let name = slot_id.name().as_bytes().to_vec();
                entries.insert(name.clone(), Entry { name, ..entry? });
            }
        }
        Ok(entries)
    }

    fn check_no_staged_upload(&self, path: &TreePath) -> Result<()> {
        if self.staged_at(path, false)?.is_some() { Err(Error::AlreadyExists) } else { Ok(()) }
    }

    /// Returns the session's staged file under a path, as long as the tree has the same entry there as when the file
    /// was opened.
    fn staged_at(&self, path: &TreePath, follow: bool) -> Result<Option<Arc<WritableFile>>> {
        let has_interrupted = !self.view().shared().interrupted_uploads.is_empty();
        if !has_interrupted && self.0.staged.lock().is_empty() {
            return Ok(None);
        }
        let Some(slot) = self.resolve_slot(path, follow)? else { return Ok(None) };
        let slot_id = SlotId::new(&slot.directory_stat, &slot.name);
        if has_interrupted {
            self.resume_interrupted(&slot, &slot_id);
        }
        let Some(file) = self.0.staged.lock().get(&slot_id).and_then(Weak::upgrade) else { return Ok(None) };
        // A file that was staged again may be for another name than when it was registered.
        let is_shown = file.slot_id()?.as_ref() == Some(&slot_id) && file.is_visible_over(slot.stat()?.as_ref());
        Ok(is_shown.then_some(file))
    }

    /// Stages an interrupted upload of the token to a slot, if no entry exists there.
    fn resume_interrupted(&self, slot: &EntrySlot, slot_id: &SlotId) {
        let (view, interrupted_uploads) = (self.view(), &self.view().shared().interrupted_uploads);
        let free = matches!(slot.stat(), Ok(None)) && !self.0.staged.lock().contains_key(slot_id);
        // It stays kept if the session may not write there any more.
        let writable = || view.slot_with_permission(&slot.path, TreeOperation::Create.permission()).ok();
        let Some(slot) = Some(()).filter(|()| free).and_then(|()| writable()) else { return };
        let Some(interrupted) = interrupted_uploads.take(view.session().token(), slot_id) else { return };
        match StagedUpload::resume_interrupted(view, &slot, interrupted) {
            Ok(Some(upload)) => {
                let file = WritableFile::new(EditMode::default(), WritableState::Staged(Box::new(upload)));
                self.register_staged(&file);
                self.0.resumed.lock().insert(slot_id.clone(), file);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(path = %slot.path, %error, "an interrupted upload can't be resumed"),
        }
    }

    /// Hands an interrupted upload over to a handle that resumes it; `None` if the file is none.
    fn take_resumed(&self, file: &Arc<WritableFile>, mode: EditMode) -> Option<Arc<WritableFile>> {
        let mut resumed = self.0.resumed.lock();
        let slot_id = resumed.iter().find(|(_, other)| Arc::ptr_eq(other, file)).map(|(slot_id, _)| slot_id.clone())?;
        resumed.remove(&slot_id);
        let mut state = file.state.write();
        let WritableState::Staged(mut upload) = std::mem::replace(&mut *state, WritableState::Closed) else {
            return None;
        };
        upload.continue_writing(mode.append);
        let file = WritableFile::new(mode, WritableState::Staged(upload));
        self.register_staged(&file);
        Some(file)
    }

    /// Returns the slot of a path, with `follow` that of the target of a symbolic link, also of a dangling one; `None`
    /// where the session can reach none.
    fn resolve_slot(&self, path: &TreePath, follow: bool) -> Result<Option<EntrySlot>> {
        let mut path = path.clone();
        for _ in 0..MAX_SYMLINKS {
            let slot = self.view().slot_with_permission(&path, Permission::NONE);
            let Some(slot) = none_if_refused(slot)? else { return Ok(None) };
            let Some(stat) = none_if_refused(slot.stat())? else { return Ok(None) };
            if !stat.is_some_and(|stat| follow && stat.kind == Some(EntryKind::Symlink)) {
                return Ok(Some(slot));
            }
            let target = match none_if_refused(self.view().canonical(&path))? {
                // A dangling link resolves to itself: the slot is where its target would be.
                Some(resolved) if resolved == slot.path => {
                    none_if_refused(self.view().dangling_link_target(&slot, &path))?.flatten()
                }
                resolved => resolved,
            };
            let Some(target) = target else { return Ok(None) };
            path = target;
        }
        Ok(None)
    }

    fn slot_path(&self, path: &TreePath) -> Result<TreePath> {
        self.resolve_slot(path, true)?.map(|slot| slot.path).ok_or(Error::Absent)
    }

    /// Registers a staged file under the slot that it is for.
    fn register_staged(&self, file: &Arc<WritableFile>) {
        // Of a directory whose metadata can't be read nothing can be listed either.
        if let Ok(Some(slot_id)) = file.slot_id() {
            // A file has one slot at a time: an entry under an older one would show it twice.
            self.unregister_staged(file);
            self.0.staged.lock().insert(slot_id, Arc::downgrade(file));
        }
    }

    /// Removes a file that is no longer staged.
    pub(super) fn unregister_staged(&self, file: &Arc<WritableFile>) {
        let ended = Arc::downgrade(file);
        self.0.staged.lock().retain(|_, shown| !Weak::ptr_eq(shown, &ended));
    }

    /// Drops the resumed files that are no longer staged.
    fn drop_finished_resumed(&self) {
        self.0.resumed.lock().retain(|_, file| matches!(&*file.state.read(), WritableState::Staged(_)));
    }

    /// Runs `work` on a file, in a state in which the type of its content is checked if the token limits types.
    ///
    /// # Errors
    /// The errors of `work` and of [`SessionFiles::restage`].
    pub(super) fn with_writable_state<T>(
        &self,
        file: &Arc<WritableFile>,
        work: impl FnOnce(&WritableFile, &WritableState) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..STAGING_ATTEMPTS {
            let state = file.state.read();
            if !self.must_be_staged(&state)? {
                return work(file, &state);
            }
            drop(state);
            // Another channel may commit it again before the lock is reacquired: hence the loop.
            self.restage(file)?;
        }
        Err(Error::Replaced)
    }

    /// Tells whether the next write has to go into a copy. A file without any name needs none, since no client sees it.
    fn must_be_staged(&self, state: &WritableState) -> Result<bool> {
        match state {
            WritableState::InPlace(edit) if self.view().limits_types() => Ok(edit.file().stat()?.link_count > 0),
            _ => Ok(false),
        }
    }

    /// in place -> staged, where the token limits types of files: the next writes go into a copy, whose type is checked
    /// as a whole.
    ///
    /// # Errors
    /// [`Error::Replaced`] when another file has its name; as [`View::edit`].
    fn restage(&self, file: &Arc<WritableFile>) -> Result<()> {
        let _one_at_a_time = self.0.copy_lock.lock();
        let (location, stat) = match &*file.state.read() {
            WritableState::InPlace(edit) => (edit.current_location()?, edit.file().stat()?),
            _ => return Ok(()),
        };
        if !location.linked {
            // The name is gone. Other hard links may exist, but they can't be found from the file.
            return Err(Error::Replaced);
        }
        let other = self.staged_at(&location.path, false)?;
        let stat = match &other {
            // Another handle of the session edits a copy of this very file: both continue in one copy.
            Some(other) if other.is_copy_of(&stat) => {
                other.commit_for(|| Ok(()))?;
                other.file_stat()?
            }
            Some(_) => return Err(Error::Replaced),
            None => stat,
        };
        // Another channel may have restaged or closed the file while no lock was held.
        let mut state = file.state.write();
        if !matches!(&*state, WritableState::InPlace(_)) {
            return Ok(());
        }
        // CREAT, EXCL and TRUNC were done by the OPEN: the copy must keep the content.
        let mode = EditMode { create: false, exclusive: false, truncate: false, ..file.mode };
        let EditTarget::Copy(copy) = self.view().edit(&location.path, mode, &WriteConditions::none())?.into_target()
        else {
            return Ok(());
        };
        // Another client may have replaced the file between the look-up and the copy.
        if !copy.replaces_entry(&stat) {
            return Err(Error::Replaced);
        }
        *state = WritableState::Staged(copy);
        drop(state);
        self.register_staged(file);
        Ok(())
    }
}

impl WritableFile {
    /// Tells whether this is a staged copy of a file.
    fn is_copy_of(&self, file: &Stat) -> bool {
        matches!(&*self.state.read(), WritableState::Staged(upload) if upload.replaces_entry(file))
    }

    /// Returns the slot that the file is staged for; `None` where it is not staged.
    fn slot_id(&self) -> Result<Option<SlotId>> {
        let state = self.state.read();
        let WritableState::Staged(upload) = &*state else { return Ok(None) };
        let (directory, name) = upload.directory_and_name();
        Ok(Some(SlotId::new(&directory.stat()?, name)))
    }
}

/// Returns `None` where the session may not reach an entry, or there is none; a failure of the file system, of the store
/// or of the session stays an error.
fn none_if_refused<T>(found: Result<T>) -> Result<Option<T>> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ (Error::Filesystem(_) | Error::Store(_) | Error::SessionEnded(_) | Error::TooManyOpenFiles)) => {
            Err(error)
        }
        Err(error) if error.is_outage() => Err(error),
        Err(_) => Ok(None),
    }
}
