//! The model of staged uploads: how they begin, who sees them, and how they end.

use crate::file_system::{InodeContent, InodeNumber, OperationRefused, PathLocation, Result};
use crate::handle_requests::UMASK;
use crate::model::{HandleModel, ModelHandle, SessionViewer};
use crate::rules::PatgateRule;
use crate::steps::{AttributeChange, OpenFlags, session_of};

/// State of an upload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UploadState {
    /// Its CLOSE puts it at its location.
    Named,
    /// A later upload of its session took its place.
    Superseded,
    /// Its session removed or replaced its name: it ends with its CLOSE, as an unlinked file does.
    Nameless,
    /// It was committed or discarded.
    Ended,
}

/// A file that is uploaded, and the state of its location when it was opened.
#[derive(Clone, Debug)]
pub(crate) struct ModelUpload {
    pub(crate) file: InodeNumber,
    pub(crate) session: usize,
    /// The location that it is committed to; the entry is the one that existed at OPEN.
    pub(crate) location: PathLocation,
    /// The content version of the entry at OPEN.
    version: u64,
    pub(crate) state: UploadState,
    /// The mode that it has where it replaces nothing.
    new_mode: u32,
    pub(crate) mode_set: bool,
    /// Whether a later upload of its session went to the same location, though the name did not show this one then:
    /// the name never shows it again.
    shadowed: bool,
    /// Whether a write was refused.
    write_failed: bool,
    /// Whether there is anything to commit; a copy that is as it was has nothing.
    pub(crate) changed: bool,
}

impl HandleModel {
    /// Tells whether an OPEN stages a new file.
    pub(crate) fn stages(&self, flags: OpenFlags) -> bool {
        let all = [OpenFlags::WRITE, OpenFlags::CREATE, OpenFlags::TRUNCATE].into_iter().all(|flag| flags.has(flag));
        let staged = all && !flags.has(OpenFlags::EXCLUSIVE) && !flags.has(OpenFlags::APPEND);
        staged && self.has(PatgateRule::StagedUntilClose)
    }

    pub(crate) fn stage(
        &mut self,
        session: usize,
        path: &str,
        flags: OpenFlags,
        location: &PathLocation,
        mode: Option<u32>,
    ) -> Result<ModelHandle> {
        if let Some(file) = location.entry {
            let writable = self.may_write(file) || self.has(PatgateRule::ReplacesReadOnly);
            if !self.files.is_file(file) || !writable {
                return Err(OperationRefused);
            }
        }
        self.may_put(location)?;
        let earlier = location.entry.and_then(|file| self.upload_of(file));
        let mut handle = ModelHandle::new(path, flags, 0, location);
        let mut kept_mode = None;
        if let Some(earlier) = earlier {
            if !self.has(PatgateRule::Superseded) {
                handle.file = self.uploads[earlier].file;
                self.files.truncate(handle.file, 0);
                return Ok(handle);
            }
            self.uploads[earlier].state = UploadState::Superseded;
            kept_mode = Some(self.files.inode(self.uploads[earlier].file).mode);
        }
        let new_mode = mode.unwrap_or(0o666) & 0o777 & !UMASK;
        self.shadow_earlier_uploads(session, location);
        let upload = self.begin_upload(session, location, Vec::new(), new_mode);
        self.uploads[upload].changed = true;
        if let Some(mode) = kept_mode {
            // One that was there already keeps its mode.
            self.uploads[upload].mode_set = true;
            self.files.inode_mut(self.uploads[upload].file).mode = mode;
        }
        handle.file = self.uploads[upload].file;
        handle.upload = Some(upload);
        Ok(handle)
    }

    /// Lets the name show none of the session's earlier uploads to a location any more.
    fn shadow_earlier_uploads(&mut self, session: usize, location: &PathLocation) {
        for earlier in self.uploads.iter_mut().filter(|upload| upload.session == session) {
            let earlier_location = &earlier.location;
            earlier.shadowed |=
                earlier_location.directory == location.directory && earlier_location.name == location.name;
        }
    }

    /// Begins an upload to a location as everybody sees it.
    fn begin_upload(&mut self, session: usize, location: &PathLocation, content: Vec<u8>, new_mode: u32) -> usize {
        let entry = self.files.entry(location.directory, &location.name);
        let (mode, version) = match entry.map(|entry| self.files.inode(entry)) {
            Some(inode) => (inode.mode, inode.version),
            None => (new_mode, 0),
        };
        let file = self.files.create(InodeContent::File(content), mode);
        self.uploads.push(ModelUpload {
            file,
            session,
            location: PathLocation { entry, ..location.clone() },
            version,
            state: UploadState::Named,
            // Where what it replaces goes meanwhile, it still becomes what that was.
            new_mode: mode,
            mode_set: false,
            shadowed: false,
            write_failed: false,
            changed: false,
        });
        self.uploads.len() - 1
    }

    /// Turns a handle that would write in place into one that edits a copy of the file at a location. One that can't
    /// write has emptied the file: that is committed at once.
    pub(crate) fn open_copy(
        &mut self,
        session: usize,
        handle: ModelHandle,
        location: &PathLocation,
    ) -> Result<ModelHandle> {
        let original = self.files.entry(location.directory, &location.name).ok_or(OperationRefused)?;
        let truncates = handle.flags.has(OpenFlags::TRUNCATE);
        let content = if truncates { Vec::new() } else { self.files.content(original).to_vec() };
        let old = self.files.inode(original);
        let (modified, mode) = (old.modified, old.mode);
        if handle.writes() {
            self.shadow_earlier_uploads(session, location);
        }
        let upload = self.begin_upload(session, location, content, mode);
        let file = self.uploads[upload].file;
        self.uploads[upload].changed = truncates;
        if !truncates {
            self.files.inode_mut(file).modified = modified;
        }
        if handle.writes() {
            return Ok(ModelHandle { file, upload: Some(upload), ..handle });
        }
        self.finish(upload)?;
        Ok(ModelHandle { file, ..handle })
    }

    /// Makes a copy again for a handle whose copy was committed early, where the file still has its name.
    pub(crate) fn recopy_for_write(&mut self, channel: usize, number: usize) -> Result<()> {
        let handle = self.handles[channel][number].clone();
        if !self.has(PatgateRule::EditsAreCopies) || handle.upload.is_some() {
            return Ok(());
        }
        let Some((directory, name)) = handle.name.clone() else {
            // A file that others see under another name can't be judged under that.
            return if self.files.inode(handle.file).links > 0 { Err(OperationRefused) } else { Ok(()) };
        };
        let session = session_of(channel);
        if self.files.entry(directory, &name) != Some(handle.file) {
            return Err(OperationRefused);
        }
        let entry = self.visible_entry(Some(session), directory, &name);
        let location = PathLocation { directory, name, entry };
        // Where the session edits another copy of the file already, both handles go on in one.
        self.commit_early(session, &location)?;
        let file = self.files.entry(location.directory, &location.name).ok_or(OperationRefused)?;
        if !self.may_write(file) {
            return Err(OperationRefused);
        }
        self.may_change_file(file)?;
        let flags = OpenFlags(handle.flags.0 & !OpenFlags::TRUNCATE);
        let flags_before = handle.flags;
        let reopened = self.open_copy(session, ModelHandle { flags, ..handle }, &location)?;
        self.handles[channel][number] = ModelHandle { flags: flags_before, ..reopened };
        Ok(())
    }

    /// Notes that a name was renamed, or is gone, for the handles that were opened by it.
    pub(crate) fn rename_handles(&mut self, from: &PathLocation, to: Option<&PathLocation>) {
        let new = to.map(|to| (to.directory, to.name.clone()));
        let old = Some((from.directory, from.name.clone()));
        let renamed = self.handles.iter_mut().flatten().filter(|handle| handle.name == old && handle.upload.is_none());
        renamed.for_each(|handle| handle.name = new.clone());
    }

    /// Returns what a name shows to a viewer.
    pub(crate) fn visible_entry(
        &self,
        viewer: SessionViewer,
        directory: InodeNumber,
        name: &str,
    ) -> Option<InodeNumber> {
        let entry = self.files.entry(directory, name);
        let uploads = self.uploads.iter().rev().filter(|upload| upload.state == UploadState::Named);
        let mut own_uploads = uploads.filter(|upload| Some(upload.session) == viewer && !upload.shadowed);
        let is_shown = |upload: &&ModelUpload| {
            let location = &upload.location;
            location.directory == directory && location.name == name && location.entry == entry
        };
        own_uploads.find(is_shown).map(|upload| upload.file).or(entry)
    }

    /// Returns the names in a directory that may show something to a viewer, sorted.
    pub(crate) fn visible_names(&self, viewer: SessionViewer, directory: InodeNumber) -> Vec<String> {
        let mut names: Vec<String> = self.files.entries(directory).into_keys().collect();
        let uploads = self.uploads.iter().filter(|upload| upload.location.directory == directory);
        names.extend(uploads.map(|upload| upload.location.name.clone()));
        names.retain(|name| self.visible_entry(viewer, directory, name).is_some());
        names.sort();
        names.dedup();
        names
    }

    /// Returns the upload that a file is, while it is under way.
    pub(crate) fn upload_of(&self, file: InodeNumber) -> Option<usize> {
        self.uploads.iter().position(|upload| upload.file == file && upload.state != UploadState::Ended)
    }

    /// Tells whether an upload into a directory is under way.
    pub(crate) fn has_open_upload(&self, directory: InodeNumber) -> bool {
        let mut named = self.uploads.iter().filter(|upload| upload.state == UploadState::Named);
        self.has(PatgateRule::BusyDirectory) && named.any(|upload| upload.location.directory == directory)
    }

    /// Commits the upload that a location shows, because an operation needs it in place.
    pub(crate) fn commit_early(&mut self, session: usize, location: &PathLocation) -> Result<()> {
        let Some(upload) = location.entry.and_then(|file| self.upload_of(file)) else { return Ok(()) };
        debug_assert_eq!(self.uploads[upload].session, session);
        if !self.has(PatgateRule::EarlyCommit) {
            return Err(OperationRefused);
        }
        let ModelUpload { changed, write_failed: spoiled, location: PathLocation { entry, .. }, .. } =
            &self.uploads[upload];
        match *entry {
            // A copy that is as it was has nothing to commit: its handle goes on in the file itself.
            Some(original) if !changed && !spoiled => self.continue_in_place(upload, original),
            Some(_) | None => self.commit(upload)?,
        }
        Ok(())
    }

    /// Tells whether a file is an upload that is put in place with a mode of its own.
    pub(crate) fn preserves_mode(&self, file: InodeNumber) -> bool {
        self.upload_of(file).is_some_and(|upload| self.uploads[upload].changed && self.uploads[upload].mode_set)
    }

    /// Removes the name of the upload that a location shows.
    pub(crate) fn drop_name_of_upload(&mut self, session: usize, location: &PathLocation) {
        let Some(upload) = location.entry.and_then(|file| self.upload_of(file)) else { return };
        debug_assert_eq!(self.uploads[upload].session, session);
        self.uploads[upload].state = UploadState::Nameless;
    }

    /// Checks that nothing but a lock stands in the way of a commit: the upload is whole, its directory is there, and
    /// nobody else has finished something at its location.
    fn may_still_commit(&self, number: usize) -> Result<()> {
        let upload = &self.uploads[number];
        let location = &upload.location;
        let entry = self.files.entry(location.directory, &location.name);
        let as_recorded = |entry| Some(entry) == location.entry && self.files.inode(entry).version == upload.version;
        let spoiled = upload.write_failed && self.has(PatgateRule::WriteFailedUpload);
        if spoiled || !self.files.is_linked(location.directory) || !entry.is_none_or(as_recorded) {
            return Err(OperationRefused);
        }
        Ok(())
    }

    /// Writes a file to disk; that of an upload succeeds only where its CLOSE would.
    pub(crate) fn sync(&self, channel: usize, number: usize) -> Result<()> {
        let named = |number: &usize| self.uploads[*number].state == UploadState::Named;
        let upload = self.handles[channel][number].upload.filter(named);
        upload.map_or(Ok(()), |upload| self.may_still_commit(upload))
    }

    fn commit(&mut self, number: usize) -> Result<()> {
        let upload = self.uploads[number].clone();
        let location = &upload.location;
        let entry = self.files.entry(location.directory, &location.name);
        self.may_put(&PathLocation { entry, ..location.clone() })?;
        self.may_still_commit(number)?;
        if !upload.mode_set {
            let mode = entry.map_or(upload.new_mode, |entry| self.files.inode(entry).mode);
            self.files.inode_mut(upload.file).mode = mode;
        }
        // What is put in place has its ETag.
        self.files.inode_mut(upload.file).dirty = false;
        self.replace_entry(location, upload.file);
        self.continue_in_place(number, upload.file);
        Ok(())
    }

    /// Ends an upload whose handle goes on with a file in place.
    fn continue_in_place(&mut self, number: usize, file: InodeNumber) {
        self.discard(number);
        for handle in self.handles.iter_mut().flatten().filter(|handle| handle.upload == Some(number)) {
            handle.upload = None;
            handle.file = file;
        }
    }

    /// Puts a new file in the place of what is there.
    pub(crate) fn replace_entry(&mut self, location: &PathLocation, file: InodeNumber) {
        let replaced = self.files.entry(location.directory, &location.name);
        self.rename_handles(location, None);
        self.files.insert(location.directory, &location.name, file);
        let unlinked = replaced.filter(|replaced| self.files.inode(*replaced).links == 0);
        for handle in self.handles.iter_mut().flatten().filter(|handle| Some(handle.file) == unlinked) {
            handle.replaced = true;
        }
    }

    /// Ends an upload at the CLOSE of its handle.
    pub(crate) fn finish(&mut self, number: usize) -> Result<()> {
        let upload = &self.uploads[number];
        let result = match upload.state {
            UploadState::Named if upload.changed => self.commit(number),
            UploadState::Superseded | UploadState::Named if upload.write_failed => Err(OperationRefused),
            _ => Ok(()),
        };
        self.discard(number);
        result
    }

    /// Ends an upload that is committed, or never will be.
    pub(crate) fn discard(&mut self, number: usize) {
        self.uploads[number].state = UploadState::Ended;
    }

    /// Checks that a WRITE through a handle is let through; the upload of one that isn't is spoiled.
    pub(crate) fn may_change_content(&mut self, channel: usize, number: usize) -> Result<()> {
        // No file of a sequence has that size.
        let change = AttributeChange { size: Some(u64::MAX), ..AttributeChange::default() };
        let result = self.may_set_through(channel, number, change);
        if let (Err(OperationRefused), Some(upload)) = (result, self.handles[channel][number].upload) {
            self.uploads[upload].write_failed = true;
        }
        result
    }

    /// Checks that a change of attributes through a handle to write is let through.
    pub(crate) fn may_set_through(&self, channel: usize, number: usize, change: AttributeChange) -> Result<()> {
        let handle = &self.handles[channel][number];
        // A size that the file has already changes nothing.
        let resizes = change.size.is_some_and(|size| size != self.files.size(handle.file));
        if self.has(PatgateRule::ReplacedFile) && handle.replaced && resizes {
            return Err(OperationRefused);
        }
        self.may_change_file(handle.file)
    }
}
