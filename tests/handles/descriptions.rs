//! The model of requests on handles.

use crate::file_system::{Content, InodeNumber, Location, ModificationTime, Refused, Result};
use crate::model::{Handle, Model, Outcome};
use crate::operations::{AttributeChange, OpenFlags, session_of};
use crate::rules::Rule;

/// The bits that a server never gives to what it makes: the umask of the test.
pub(crate) const UMASK: u32 = 0o022;

impl Model {
    pub(crate) fn open(&mut self, channel: usize, path: &str, flags: OpenFlags, mode: Option<u32>) -> Result<()> {
        let session = session_of(channel);
        let location = self.locate(Some(session), path, !flags.creates_exclusively())?;
        if flags.creates_exclusively() && location.entry.is_some() {
            return Err(Refused);
        }
        let handle = if self.stages(flags) {
            self.stage(session, path, flags, &location, mode)?
        } else {
            match location.entry {
                Some(file) => self.open_existing(session, path, flags, &location, file)?,
                None if flags.has(OpenFlags::CREATE) => self.open_new(session, path, flags, &location, mode)?,
                None => return Err(Refused),
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
        location: &Location,
        file: InodeNumber,
    ) -> Result<Handle> {
        let changes = flags.has(OpenFlags::WRITE) || flags.has(OpenFlags::TRUNCATE);
        let opens_directory = !changes && !flags.has(OpenFlags::CREATE) && !self.has(Rule::NoOpenDirectory);
        if self.files.is_directory(file) && !opens_directory {
            return Err(Refused);
        }
        let handle = Handle::new(path, flags, file, location);
        if !changes {
            return Ok(handle);
        }
        if !self.may_write(file) {
            return Err(Refused);
        }
        self.may_change_file(file)?;
        // What is put in place becomes as writable as what it replaces, unless its mode was set.
        let replaced = self.files.entry(location.directory, &location.name);
        if !self.keeps_its_mode(file) && replaced.is_some_and(|replaced| !self.may_write(replaced)) {
            return Err(Refused);
        }
        self.commit_early(session, location)?;
        if self.has(Rule::EditsAreCopies) {
            return self.open_copy(session, handle, location);
        }
        if flags.has(OpenFlags::TRUNCATE) {
            self.files.truncate(file, 0);
            if !handle.writes() {
                self.finish_edit(file);
            }
        }
        Ok(handle)
    }

    fn open_new(
        &mut self,
        session: usize,
        path: &str,
        flags: OpenFlags,
        location: &Location,
        mode: Option<u32>,
    ) -> Result<Handle> {
        self.may_change_entry(location.directory, &location.name)?;
        let file = self.files.create(Content::File(Vec::new()), mode.unwrap_or(0o666) & 0o777 & !UMASK);
        self.files.insert(location.directory, &location.name, file);
        let handle = Handle::new(path, flags, file, location);
        if self.has(Rule::EditsAreCopies) && flags.has(OpenFlags::WRITE) {
            return self.open_copy(session, handle, location);
        }
        Ok(handle)
    }

    pub(crate) fn read(&self, channel: usize, number: usize, offset: u64, length: u32) -> Result<Outcome> {
        let handle = &self.handles[channel][number];
        if !handle.flags.reads() || self.files.is_directory(handle.file) {
            return Err(Refused);
        }
        Ok(match self.part(handle.file, offset, u64::from(length)) {
            part if part.is_empty() => Outcome::EndOfFile,
            part => Outcome::Data(part),
        })
    }

    fn part(&self, file: InodeNumber, offset: u64, length: u64) -> Vec<u8> {
        let skip = usize::try_from(offset).expect("small");
        let take = usize::try_from(length).expect("small");
        self.files.content(file).iter().copied().skip(skip).take(take).collect()
    }

    pub(crate) fn write(&mut self, channel: usize, number: usize, offset: u64, data: &[u8]) -> Result<()> {
        if !self.handles[channel][number].writes() {
            return Err(Refused);
        }
        self.copy_again(channel, number)?;
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
                Err(Refused) => result = Err(Refused),
            }
        }
        result
    }

    fn set_handle_size(&mut self, channel: usize, number: usize, size: u64) -> Result<()> {
        if !self.handles[channel][number].writes() {
            return Err(Refused);
        }
        self.copy_again(channel, number)?;
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
        let same = if self.has(Rule::SameFileCopy) { source.file == target.file } else { source.path == target.path };
        if from == to || same {
            return Err(Refused);
        }
        let length = if length == 0 { self.files.size(source.file) } else { length };
        let part = self.part(source.file, offset, length);
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
                self.finish_in_place(&handle);
                Ok(())
            }
        }
    }

    /// Ends a handle that changes a file in place.
    pub(crate) fn finish_in_place(&mut self, handle: &Handle) {
        if handle.writes() {
            self.finish_edit(handle.file);
        }
    }

    /// Ends an edit in place: a file that was written to gets another ETag.
    pub(crate) fn finish_edit(&mut self, file: InodeNumber) {
        let inode = self.files.inode_mut(file);
        if inode.dirty {
            inode.dirty = false;
            inode.version += 1;
        }
    }
}
