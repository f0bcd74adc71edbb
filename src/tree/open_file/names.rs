//! What a path means to a session that keeps files open: its own staged uploads stand under their names.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::{FileState, Handle, Inner, OpenFile, SessionFiles, SlotId, WrittenFile};
use crate::domain::{Permission, TreeOperation, TreePath};
use crate::tree::check::{MAX_LINKS, Spot};
use crate::tree::editor::Edited;
use crate::tree::host::Stat;
use crate::tree::upload::Upload;
use crate::tree::{Attributes, Claim, EditMode, Entry, Error, Kind, Listing, Overwrite, Reader, Result, Space, View};

/// What a new file never lets its group and others do, unless the client sets it later: as a umask does.
const NEW_FILE_MASK: u32 = 0o022;
/// How often a file is staged again for one write before another channel of the session has its way.
const STAGING_ATTEMPTS: usize = 8;

/// How a file is to be opened (OPEN's `pflags` and attributes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenRequest {
    /// Allow reading. A handle that does not allow writing allows this.
    pub read: bool,
    /// Allow writing.
    pub write: bool,
    /// Write always at the end.
    pub append: bool,
    /// Create the file when it is missing.
    pub create: bool,
    /// Empty it.
    pub truncate: bool,
    /// With `create`: refuse a file that exists.
    pub exclusive: bool,
    /// Permission bits for a file that is created.
    pub mode: Option<u32>,
    /// Announced length in bytes.
    pub size: Option<u64>,
}

impl OpenRequest {
    /// Tells whether the file is written whole, so that nobody else has to see it before it is.
    fn replaces(&self) -> bool {
        self.write && self.create && self.truncate && !self.exclusive && !self.append
    }

    fn edit_mode(&self) -> EditMode {
        EditMode {
            read: self.read || !self.write,
            create: self.create,
            exclusive: self.create && self.exclusive,
            truncate: self.truncate,
            append: self.append && self.write,
            mode: self.mode,
        }
    }
}

/// The entries of a directory, the session's own uploads in place of what they replace.
pub struct SessionListing {
    listing: Listing,
    staged: HashMap<Vec<u8>, Entry>,
    /// Whether uploads that replace nothing are shown: not where the listing shows nothing either.
    adds: bool,
}

impl SessionListing {
    /// Tells whether the session may go on listing the directory where it is now.
    ///
    /// # Errors
    /// [`Error::SessionEnded`].
    pub fn check(&self) -> Result<()> {
        self.listing.check()
    }
}

impl Iterator for SessionListing {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        match self.listing.next() {
            Some(Ok(entry)) => Some(Ok(self.staged.remove(&entry.name).unwrap_or(entry))),
            Some(Err(error)) => Some(Err(error)),
            None if self.adds => {
                let name = self.staged.keys().next()?.clone();
                self.staged.remove(&name).map(Ok)
            }
            None => None,
        }
    }
}

impl SessionFiles {
    /// Shows a tree to a session that keeps files open.
    pub fn new(view: View) -> Self {
        Self(Arc::new(Inner { view, staged: Mutex::default(), resumed: Mutex::default(), copying: Mutex::default() }))
    }

    /// Returns the view that it shows.
    pub fn view(&self) -> &View {
        &self.0.view
    }

    /// Opens a file; a link is followed.
    ///
    /// # Errors
    /// As [`View::read`], [`View::stage`] and [`View::edit`].
    pub fn open(&self, path: &TreePath, request: &OpenRequest) -> Result<OpenFile> {
        if request.replaces() {
            return self.open_to_replace(path, request);
        }
        if request.write || request.truncate {
            return self.open_to_edit(path, request);
        }
        if request.create && request.exclusive {
            return self.open_to_edit(path, request);
        }
        match self.open_to_read(path) {
            // Only what is missing is created: one that is there needs no right to write.
            Err(Error::Absent) if request.create => self.open_to_edit(path, request),
            opened => opened,
        }
    }

    fn open_to_read(&self, path: &TreePath) -> Result<OpenFile> {
        if let Some(file) = self.shown(path, true) {
            let reader = match file.state.read().content() {
                Ok(super::Content::Upload(upload)) => Some(Reader::of_upload(self.view(), upload)?),
                // Another channel has just put it in place.
                Ok(super::Content::InPlace(_)) | Err(_) => None,
            };
            if let Some(reader) = reader {
                return Ok(self.opened(Handle::Read(Box::new(reader), Some(Arc::downgrade(&file)))));
            }
        }
        Ok(self.opened(Handle::Read(Box::new(self.view().read(path)?), None)))
    }

    fn open_to_replace(&self, path: &TreePath, request: &OpenRequest) -> Result<OpenFile> {
        let earlier = self.shown(path, true);
        let upload = self.view().stage(path, request.size, &Claim::none())?;
        if request.read && !upload.stat()?.permission.allows(Permission::R) {
            return Err(Error::Forbidden);
        }
        let mode = match earlier.as_ref().and_then(|earlier| earlier.staged_stat()) {
            // One that was there already keeps its mode.
            Some(entry) => Some(entry?.mode),
            None => request.mode.map(|mode| mode & !NEW_FILE_MASK).filter(|_| !upload.replaces_file()),
        };
        if mode.is_some() {
            upload.set_attributes(&Attributes { mode, ..Attributes::default() })?;
        }
        let file = WrittenFile::new(request.edit_mode(), FileState::Staged(Box::new(upload)));
        self.show(&file);
        if let Some(earlier) = earlier {
            earlier.supersede();
            self.end_resumed();
        }
        Ok(self.opened(Handle::Write(file)))
    }

    fn open_to_edit(&self, path: &TreePath, request: &OpenRequest) -> Result<OpenFile> {
        let mode = request.edit_mode();
        request.size.map_or(Ok(()), |size| self.view().may_hold(size))?;
        let edit = || self.view().edit(path, mode, &Claim::none());
        let shown = self.shown(path, true);
        if let Some(file) = &shown
            && request.write
            && !mode.exclusive
            && let Some(file) = self.take_resumed(file, mode)
        {
            if mode.truncate {
                file.set_attributes(&Attributes { size: Some(0), ..Attributes::default() })?;
            }
            return Ok(self.opened(Handle::Write(file)));
        }
        let editor = match shown {
            Some(_) if mode.exclusive => return Err(Error::Exists),
            Some(file) => {
                // Tried before the commit: nobody is shown what would have to be taken back.
                if let Some(entry) = file.staged_stat()
                    && mode.read
                    && !entry?.permission.allows(Permission::RW)
                {
                    return Err(Error::Forbidden);
                }
                file.commit_for(edit)?
            }
            None => edit()?,
        };
        let handle = match editor.into_edited() {
            Edited::InPlace(editor) if request.write => {
                Handle::Write(WrittenFile::new(mode, FileState::InPlace(editor)))
            }
            Edited::InPlace(editor) => Handle::Read(Box::new(editor.into_reader()?), None),
            Edited::Copy(upload) if request.write => {
                let file = WrittenFile::new(mode, FileState::Staged(upload));
                self.show(&file);
                Handle::Write(file)
            }
            // Nothing was emptied: the file itself is what was opened.
            Edited::Copy(upload) if upload.is_untouched() => {
                let original = upload.original()?;
                Handle::Read(Box::new(Reader::of_file(self.view(), upload.path(), original)?), None)
            }
            Edited::Copy(upload) => {
                let reader = Reader::of_upload(self.view(), &upload)?;
                upload.commit_in_directory()?;
                Handle::Read(Box::new(reader), None)
            }
        };
        Ok(self.opened(handle))
    }

    fn opened(&self, handle: Handle) -> OpenFile {
        OpenFile { session: self.clone(), handle }
    }

    /// Shows an entry; a link is followed.
    ///
    /// # Errors
    /// As [`View::stat`].
    pub fn stat(&self, path: &TreePath) -> Result<Entry> {
        self.staged_entry(path, true).unwrap_or_else(|| self.view().stat(path))
    }

    /// Shows an entry; a link shows itself.
    ///
    /// # Errors
    /// As [`View::link_stat`].
    pub fn link_stat(&self, path: &TreePath) -> Result<Entry> {
        self.staged_entry(path, false).unwrap_or_else(|| self.view().link_stat(path))
    }

    fn staged_entry(&self, path: &TreePath, follow: bool) -> Option<Result<Entry>> {
        let mut entry = self.shown(path, follow)?.staged_stat()?;
        if let (Ok(entry), Some(name)) = (&mut entry, path.name()) {
            entry.name = name.as_bytes().to_vec();
        }
        Some(entry)
    }

    /// Sets attributes of an entry; a link is followed where `follow`.
    ///
    /// # Errors
    /// As [`View::set_attributes`].
    pub fn set_attributes(&self, path: &TreePath, attributes: &Attributes, follow: bool) -> Result<()> {
        match self.shown(path, follow) {
            Some(file) if file.staged_stat().is_some() => file.set_attributes(attributes),
            Some(_) | None => self.view().set_attributes(path, attributes, follow, &Claim::none()),
        }
    }

    /// Removes a file or link. An upload under that name goes on without one.
    ///
    /// # Errors
    /// As [`View::remove_file`].
    pub fn remove_file(&self, path: &TreePath) -> Result<()> {
        let remove = || self.view().remove_file(path, &Claim::none());
        match self.shown(path, false) {
            None => remove(),
            Some(file) => {
                let removed = file.unlink_with(remove);
                self.end_resumed();
                removed
            }
        }
    }

    /// Removes an empty directory; one with an upload in it is not empty.
    ///
    /// # Errors
    /// As [`View::remove_folder`].
    pub fn remove_folder(&self, path: &TreePath) -> Result<()> {
        match self.shown(path, false) {
            Some(_) => Err(Error::NotFolder),
            None => self.view().remove_folder(path, &Claim::none()),
        }
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// As [`View::make_folder`].
    pub fn make_folder(&self, path: &TreePath, attributes: &Attributes) -> Result<()> {
        self.nothing_shown(path)?;
        self.view().make_folder(path, attributes, &Claim::none()).map(drop)
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// As [`View::symlink`].
    pub fn symlink(&self, target: &[u8], path: &TreePath) -> Result<()> {
        self.nothing_shown(path)?;
        self.view().symlink(target, path, &Claim::none())
    }

    /// Returns a link's target.
    ///
    /// # Errors
    /// As [`View::read_link`].
    pub fn read_link(&self, path: &TreePath) -> Result<Vec<u8>> {
        match self.shown(path, false) {
            Some(_) => Err(Error::Unsupported),
            None => self.view().read_link(path),
        }
    }

    /// Makes a hard link to a file; of a staged one, once it is in place.
    ///
    /// # Errors
    /// As [`View::hard_link`].
    pub fn hard_link(&self, from: &TreePath, to: &TreePath) -> Result<()> {
        self.nothing_shown(to)?;
        match self.shown(from, true) {
            None => self.view().hard_link(from, to, &Claim::none()),
            Some(file) => {
                if let Ok(stat) = file.file_stat() {
                    self.view().may_link(&self.slot_path(from)?, &stat, to, &Claim::none())?;
                }
                file.commit_for(|| self.view().hard_link(from, to, &Claim::none()))?;
                self.end_resumed();
                Ok(())
            }
        }
    }

    /// Renames an entry; a staged file, once it is in place. An upload under the new name goes on without one.
    ///
    /// # Errors
    /// As [`View::rename`].
    pub fn rename(&self, from: &TreePath, to: &TreePath, overwrite: Overwrite) -> Result<()> {
        let (moved, replaced) = (self.shown(from, false), self.shown(to, false));
        let overwrite = match &replaced {
            None => overwrite,
            Some(_) if overwrite == Overwrite::No => return Err(Error::Exists),
            Some(replaced) if moved.as_ref().is_some_and(|moved| Arc::ptr_eq(moved, replaced)) => return Ok(()),
            Some(_) if self.link_stat(from)?.is_folder() => return Err(Error::NotFolder),
            // To the session the two are never one file, even where what the upload replaces is what moves.
            Some(_) => Overwrite::File,
        };
        let rename = || self.view().rename(from, to, overwrite, &Claim::none());
        match moved {
            None => rename()?,
            Some(file) => {
                if let Ok(stat) = file.file_stat() {
                    self.view().may_rename_to((from, &stat), to, overwrite, &Claim::none())?;
                }
                file.commit_for(rename)?
            }
        };
        if let Some(replaced) = replaced {
            replaced.unlink();
        }
        self.end_resumed();
        Ok(())
    }

    /// Returns the room on the file system at a path; an upload's is that of its directory.
    ///
    /// # Errors
    /// As [`View::space`].
    pub fn space(&self, path: &TreePath) -> Result<Space> {
        match (self.view().space(path), path.parent()) {
            (Err(Error::Absent), Some(parent)) if self.shown(path, true).is_some() => self.view().space(&parent),
            (space, _) => space,
        }
    }

    /// Lists a directory; links show as links.
    ///
    /// # Errors
    /// As [`View::list`].
    pub fn list(&self, path: &TreePath) -> Result<SessionListing> {
        let listing = self.view().list(path, false)?;
        let adds = self.view().stat(path)?.permission.allows(Permission::R);
        Ok(SessionListing { listing, staged: self.staged_in(path).unwrap_or_default(), adds })
    }

    fn staged_in(&self, directory: &TreePath) -> Option<HashMap<Vec<u8>, Entry>> {
        let cut_uploads = &self.view().shared().cut_uploads;
        if cut_uploads.is_empty() && self.0.staged.lock().is_empty() {
            return None;
        }
        let path = directory;
        let directory = self.view().directory(directory).ok()?;
        let stat = directory.stat().ok()?;
        for slot in cut_uploads.slots_in(self.view().session().token(), stat.device, stat.inode) {
            // Asking for it is enough.
            self.shown(&path.child(slot.name()), false);
        }
        let files: Vec<_> = self.0.staged.lock().iter().map(|(slot, file)| (slot.clone(), file.clone())).collect();
        let here = |slot: &SlotId| slot.is_in(stat.device, stat.inode);
        let entries = files.into_iter().filter(|(slot, _)| here(slot)).filter_map(|(slot, file)| {
            let file = file.upgrade()?;
            let mut entry = file.staged_stat()?.ok()?;
            entry.name = slot.name().as_bytes().to_vec();
            let shown = file.slot()? == slot && file.is_shown(directory.stat_entry(slot.name()).ok().as_ref());
            shown.then(|| (entry.name.clone(), entry))
        });
        Some(entries.collect())
    }

    fn nothing_shown(&self, path: &TreePath) -> Result<()> {
        if self.shown(path, false).is_some() { Err(Error::Exists) } else { Ok(()) }
    }

    /// Returns the session's staged file that stands under a path, as long as the tree shows there what it showed when
    /// the file was opened.
    fn shown(&self, path: &TreePath, follow: bool) -> Option<Arc<WrittenFile>> {
        let has_cut = !self.view().shared().cut_uploads.is_empty();
        if !has_cut && self.0.staged.lock().is_empty() {
            return None;
        }
        let spot = self.slot(path, follow)?;
        let slot = SlotId::new(&spot.holder, &spot.name);
        if has_cut {
            self.resume(&spot, &slot);
        }
        let file = self.0.staged.lock().get(&slot)?.upgrade()?;
        // A file that was staged again is for another name than it was at first.
        (file.slot()? == slot && file.is_shown(spot.stat().ok()?.as_ref())).then_some(file)
    }

    /// Takes what an earlier connection of the token has left of an upload to a name, where nothing stands there.
    fn resume(&self, spot: &Spot, slot: &SlotId) {
        let (view, cut_uploads) = (self.view(), &self.view().shared().cut_uploads);
        let free = matches!(spot.stat(), Ok(None)) && !self.0.staged.lock().contains_key(slot);
        // Who may not write there any more has no use of it.
        let writable = || view.spot_with(&spot.path, TreeOperation::Create.permission()).ok();
        let Some(spot) = Some(()).filter(|()| free).and_then(|()| writable()) else { return };
        let Some(cut) = cut_uploads.take(view.session().token(), slot) else { return };
        match Upload::resume_cut(view, &spot, cut) {
            Ok(Some(upload)) => {
                let file = WrittenFile::new(EditMode::default(), FileState::Staged(Box::new(upload)));
                self.show(&file);
                self.0.resumed.lock().insert(slot.clone(), file);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(path = %spot.path, %error, "a cut upload can't be gone on with"),
        }
    }

    /// Returns what was left of an upload by an earlier connection, for a handle that goes on with it.
    fn take_resumed(&self, file: &Arc<WrittenFile>, mode: EditMode) -> Option<Arc<WrittenFile>> {
        let mut resumed = self.0.resumed.lock();
        let slot = resumed.iter().find(|(_, other)| Arc::ptr_eq(other, file)).map(|(slot, _)| slot.clone())?;
        resumed.remove(&slot);
        let mut state = file.state.write();
        let FileState::Staged(mut upload) = std::mem::replace(&mut *state, FileState::Closed) else { return None };
        upload.go_on(mode.append);
        let file = WrittenFile::new(mode, FileState::Staged(upload));
        self.show(&file);
        Some(file)
    }

    /// Returns the slot that a path leads to, over links that lead to nothing in the tree too.
    fn slot(&self, path: &TreePath, follow: bool) -> Option<Spot> {
        let mut path = path.clone();
        for _ in 0..MAX_LINKS {
            let spot = self.view().spot_with(&path, Permission::NONE).ok()?;
            match spot.stat().ok()? {
                Some(stat) if follow && stat.kind == Some(Kind::Link) => {
                    path = match self.view().canonical(&path).ok()? {
                        // It leads to nothing in the tree: where that would be.
                        there if there == spot.path => self.view().link_path(&spot, &path).ok()??,
                        there => there,
                    };
                }
                Some(_) | None => return Some(spot),
            }
        }
        None
    }

    fn slot_path(&self, path: &TreePath) -> Result<TreePath> {
        self.slot(path, true).map(|spot| spot.path).ok_or(Error::Absent)
    }

    /// Shows a staged file under the name that it is for.
    fn show(&self, file: &Arc<WrittenFile>) {
        if let Some(slot) = file.slot() {
            // It is for one name at a time.
            self.forget(file);
            self.0.staged.lock().insert(slot, Arc::downgrade(file));
        }
    }

    /// Shows a file no longer that has ended.
    pub(super) fn forget(&self, file: &Arc<WrittenFile>) {
        let ended = Arc::downgrade(file);
        self.0.staged.lock().retain(|_, shown| !Weak::ptr_eq(shown, &ended));
    }

    /// Lets go of what was left by an earlier connection, once it is staged no more.
    fn end_resumed(&self) {
        self.0.resumed.lock().retain(|_, file| matches!(&*file.state.read(), FileState::Staged(_)));
    }

    /// Does something to the content of a file, in a state in which its type is judged where the token limits types.
    ///
    /// # Errors
    /// What `work` says; as [`SessionFiles::stage_again`].
    pub(super) fn with_staged<T>(
        &self,
        file: &Arc<WrittenFile>,
        work: impl FnOnce(&WrittenFile, &FileState) -> Result<T>,
    ) -> Result<T> {
        for _ in 0..STAGING_ATTEMPTS {
            let state = file.state.read();
            if !self.must_be_staged(&state)? {
                return work(file, &state);
            }
            drop(state);
            // Another channel may commit it again before the lock is back.
            self.stage_again(file)?;
        }
        Err(Error::Replaced)
    }

    /// Tells whether what is written next has to go into a copy. A file without any name is seen by nobody.
    fn must_be_staged(&self, state: &FileState) -> Result<bool> {
        match state {
            FileState::InPlace(editor) if self.view().limits_types() => Ok(editor.file().stat()?.links > 0),
            _ => Ok(false),
        }
    }

    /// in place -> staged, where the token limits types of files: what is written next goes into a copy, which is judged
    /// as a whole.
    ///
    /// # Errors
    /// [`Error::Replaced`] where another file has its name; as [`View::edit`].
    fn stage_again(&self, file: &Arc<WrittenFile>) -> Result<()> {
        let _one_at_a_time = self.0.copying.lock();
        let (place, stat) = match &*file.state.read() {
            FileState::InPlace(editor) => (editor.place()?, editor.file().stat()?),
            _ => return Ok(()),
        };
        if !place.linked {
            // It has other names, which nobody can tell from here.
            return Err(Error::Replaced);
        }
        let other = self.shown(&place.path, false);
        let stat = match &other {
            // Another handle of the session edits a copy of this very file: both go on in one.
            Some(other) if other.is_copy_of(&stat) => {
                other.commit_for(|| Ok(()))?;
                other.file_stat()?
            }
            Some(_) => return Err(Error::Replaced),
            None => stat,
        };
        let mut state = file.state.write();
        if !matches!(&*state, FileState::InPlace(_)) {
            return Ok(());
        }
        let mode = EditMode { create: false, exclusive: false, truncate: false, ..file.mode };
        let Edited::Copy(copy) = self.view().edit(&place.path, mode, &Claim::none())?.into_edited() else {
            return Ok(());
        };
        if !copy.replaces_this(&stat) {
            return Err(Error::Replaced);
        }
        *state = FileState::Staged(copy);
        drop(state);
        self.show(file);
        Ok(())
    }
}

impl WrittenFile {
    /// Tells whether it is a staged copy of a file.
    fn is_copy_of(&self, file: &Stat) -> bool {
        matches!(&*self.state.read(), FileState::Staged(upload) if upload.replaces_this(file))
    }

    fn slot(&self) -> Option<SlotId> {
        let state = self.state.read();
        let FileState::Staged(upload) = &*state else { return None };
        let (directory, name) = upload.slot();
        Some(SlotId::new(&directory.stat().ok()?, name))
    }
}
