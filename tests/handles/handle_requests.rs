//! The model of SFTP requests on handles.

use crate::file_system::{InodeContent, InodeNumber, ModificationTime, OperationRefused, PathLocation, Result};
use crate::model::{HandleModel, ModelHandle, StepOutcome};
use crate::rules::PatgateRule;
use crate::steps::{AttributeChange, OpenFlags, session_of};

/// The bits that a server never gives to what it makes: the umask of the test.
pub(crate) const UMASK: u32 = 0o022;

impl HandleModel {
    pub(crate) fn open(&mut self, channel: usize, path: &str, flags: OpenFlags, mode: Option<u32>) -> Result<()> {
        let session = session_of(channel);
        let location = self.locate(Some(session), path, !flags.creates_exclusively())?;
        if flags.creates_exclusively() && location.entry.is_some() {
            return Err(OperationRefused);
        }
        let handle = if self.stages(flags) {
            self.stage(session, path, flags, &location, mode)?
        } else {
            match location.entry {
                Some(file) => self.open_existing(session, path, flags, &location, file)?,
                None if flags.has(OpenFlags::CREATE) => self.open_new(session, path, flags, &location, mode)?,
                None => return Err(OperationRefused),
            }
        };
        self.handles[channel].push(handle);
        Ok(())
    }

    fn open_existing(
        &mut self,
        session: usize,
        path: &str,
        flags: OpenFlags,
        location: &PathLocation,
        file: InodeNumber,
    ) -> Result<ModelHandle> {
        let changes = flags.has(OpenFlags::WRITE) || flags.has(OpenFlags::TRUNCATE);
        let opens_directory = !changes && !flags.has(OpenFlags::CREATE) && !self.has(PatgateRule::OpenDirectoryRefused);
        if self.files.is_directory(file) && !opens_directory {
            return Err(OperationRefused);
        }
        let handle = ModelHandle::new(path, flags, file, location);
        if !changes {
            return Ok(handle);
        }
        if !self.may_write(file) {
            return Err(OperationRefused);
        }
        self.may_change_file(file)?;
        // What is put in place becomes as writable as what it replaces, unless its mode was set.
        let replaced = self.files.entry(location.directory, &location.name);
        if !self.preserves_mode(file) && replaced.is_some_and(|replaced| !self.may_write(replaced)) {
            return Err(OperationRefused);
        }
        self.commit_early(session, location)?;
        if self.has(PatgateRule::EditsAreCopies) {
            return self.open_copy(session, handle, location);
        }
        if flags.has(OpenFlags::TRUNCATE) {
            self.files.truncate(file, 0);
            if !handle.writes() {
                self.bump_etag(file);
            }
        }
        Ok(handle)
    }

    fn open_new(
        &mut self,
        session: usize,
        path: &str,
        flags: OpenFlags,
        location: &PathLocation,
        mode: Option<u32>,
    ) -> Result<ModelHandle> {
        self.may_change_entry(location.directory, &location.name)?;
        let file = self.files.create(InodeContent::File(Vec::new()), mode.unwrap_or(0o666) & 0o777 & !UMASK);
        self.files.insert(location.directory, &location.name, file);
        let handle = ModelHandle::new(path, flags, file, location);
        if self.has(PatgateRule::EditsAreCopies) && flags.has(OpenFlags::WRITE) {
            return self.open_copy(session, handle, location);
        }
        Ok(handle)
    }

    pub(crate) fn read(&self, channel: usize, number: usize, offset: u64, length: u32) -> Result<StepOutcome> {
        let handle = &self.handles[channel][number];
        if !handle.flags.reads() || self.files.is_directory(handle.file) {
            return Err(OperationRefused);
        }
        Ok(match self.read_range(handle.file, offset, u64::from(length)) {
            part if part.is_empty() => StepOutcome::EndOfFile,
            part => StepOutcome::Data(part),
        })
    }

    fn read_range(&self, file: InodeNumber, offset: u64, length: u64) -> Vec<u8> {
        let skip = usize::try_from(offset).expect("small");
        let take = usize::try_from(length).expect("small");
        self.files.content(file).iter().copied().skip(skip).take(take).collect()
    }

    pub(crate) fn write(&mut self, channel: usize, number: usize, offset: u64, data: &[u8]) -> Result<()> {
        if !self.handles[channel][number].writes() {
            return Err(OperationRefused);
        }
        self.recopy_for_write(channel, number)?;
        self.may_change_content(channel, number)?;
        let handle = &self.handles[channel][number];
        let (file, upload) = (handle.file, handle.upload);
        let start = if handle.flags.has(OpenFlags::APPEND) { self.files.size(file) } else { offset };
        self.files.write(file, start, data);
        if let Some(upload) = upload {
            self.uploads[upload].changed = true;
        }
        Ok(())
    }

    pub(crate) fn set_handle_attributes(
        &mut self,
        channel: usize,
        number: usize,
        change: AttributeChange,
    ) -> Result<()> {
        let rest = AttributeChange { size: None, ..change };
        let mut result = change.size.map_or(Ok(()), |size| self.set_handle_size(channel, number, size));
        if rest.mode.is_some() || rest.modified.is_some() || change.size.is_none() {
            match self.may_set_mode_and_time(channel, number, rest) {
                Ok(()) => self.set_mode_and_time(self.handles[channel][number].file, rest),
                Err(OperationRefused) => result = Err(OperationRefused),
            }
        }
        result
    }

    fn set_handle_size(&mut self, channel: usize, number: usize, size: u64) -> Result<()> {
        if !self.handles[channel][number].writes() {
            return Err(OperationRefused);
        }
        self.recopy_for_write(channel, number)?;
        let change = AttributeChange { size: Some(size), ..AttributeChange::default() };
        self.may_set_through(channel, number, change)?;
        let handle = &self.handles[channel][number];
        let (file, upload) = (handle.file, handle.upload);
        self.files.truncate(file, size);
        if let Some(upload) = upload {
            self.uploads[upload].changed = true;
        }
        Ok(())
    }

    fn may_set_mode_and_time(&self, channel: usize, number: usize, change: AttributeChange) -> Result<()> {
        let handle = &self.handles[channel][number];
        if handle.writes() { self.may_set_through(channel, number, change) } else { self.may_change_file(handle.file) }
    }

    /// Sets mode and time of a file, or of the upload that it is.
    pub(crate) fn set_mode_and_time(&mut self, file: InodeNumber, change: AttributeChange) {
        if let Some(upload) = self.upload_of(file) {
            self.uploads[upload].mode_set |= change.mode.is_some();
            self.uploads[upload].changed = true;
        }
        let inode = self.files.inode_mut(file);
        inode.mode = change.mode.unwrap_or(inode.mode);
        inode.modified = change.modified.map_or(inode.modified, ModificationTime::Set);
    }

    pub(crate) fn copy_data(
        &mut self,
        channel: usize,
        (from, offset): (usize, u64),
        length: u64,
        (to, to_offset): (usize, u64),
    ) -> Result<()> {
        let (source, target) = (&self.handles[channel][from], &self.handles[channel][to]);
        let same =
            if self.has(PatgateRule::SameFileCopy) { source.file == target.file } else { source.path == target.path };
        if from == to || same {
            return Err(OperationRefused);
        }
        let length = if length == 0 { self.files.size(source.file) } else { length };
        let part = self.read_range(source.file, offset, length);
        if part.is_empty() {
            return Ok(());
        }
        self.write(channel, to, to_offset, &part)
    }

    /// Closes a handle; its upload is committed.
    pub(crate) fn close(&mut self, channel: usize, number: usize) -> Result<()> {
        let handle = self.handles[channel].remove(number);
        match handle.upload {
            Some(upload) => self.finish(upload),
            None => {
                self.close_in_place(&handle);
                Ok(())
            }
        }
    }

    /// Ends a handle that changes a file in place.
    pub(crate) fn close_in_place(&mut self, handle: &ModelHandle) {
        if handle.writes() {
            self.bump_etag(handle.file);
        }
    }

    /// Ends an edit in place: a file that was written to gets another ETag.
    pub(crate) fn bump_etag(&mut self, file: InodeNumber) {
        let inode = self.files.inode_mut(file);
        if inode.dirty {
            inode.dirty = false;
            inode.version += 1;
        }
    }
}
