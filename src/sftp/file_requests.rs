//! Requests on files: OPEN, CLOSE, READ, WRITE, attributes by handle, fsync, copy-data. [`crate::tree::OpenFile`] holds
//! what a handle means after its name was renamed, replaced or removed.

use bytes::Bytes;

use crate::tree::{Entry, FilesystemSpace, OpenRequest};

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::handles::HandleTarget;
use super::reply::ReplyBatch;
use super::request::{HandleId, OpenFlags};
use super::worker::ChannelWorker;

/// Number of bytes that copy-data copies at a time.
const COPY_DATA_BUFFER_BYTES: usize = 256 * 1024;

impl ChannelWorker {
    /// Opens a file; CREAT with TRUNC stages an upload that CLOSE commits.
    pub(super) fn open(&mut self, path: &[u8], flags: OpenFlags, attributes: &SftpAttributes) -> Result<HandleId> {
        // Before the file is opened: at the limit, OPEN must not create or truncate it first.
        let permit = self.handles.acquire_permit()?;
        let path = self.resolve_path(path)?;
        let request = OpenRequest {
            read: flags.contains(OpenFlags::READ),
            write: flags.contains(OpenFlags::WRITE),
            append: flags.contains(OpenFlags::APPEND),
            create: flags.contains(OpenFlags::CREATE),
            truncate: flags.contains(OpenFlags::TRUNCATE),
            exclusive: flags.contains(OpenFlags::EXCLUSIVE),
            mode: attributes.creation_mode(),
            size: attributes.size,
        };
        let file = self.session.files.open(&path, &request)?;
        Ok(self.handles.insert(permit, HandleTarget::File(Box::new(file))))
    }

    /// Closes a file or directory; an upload is committed, and its refusal is the reply.
    pub(super) fn close(&mut self, handle: HandleId) -> Result<()> {
        self.handles.remove(handle)?.close()
    }

    /// Answers a READ with at most `length` bytes.
    pub(super) fn read(
        &mut self,
        id: u32,
        handle: HandleId,
        offset: u64,
        length: usize,
        out: &mut ReplyBatch,
    ) -> Result<()> {
        let file = self.handles.file(handle)?;
        out.data(id, length, |buffer| Ok(file.read_at(buffer, offset)?))
    }

    /// Writes the pieces of a WRITE, one after the other.
    pub(super) fn write(&mut self, handle: HandleId, offset: u64, data: &[Bytes]) -> Result<()> {
        let open_handle = self.handles.get(handle)?;
        let mut position = offset;
        for piece in data {
            // As write(2): pieces before a failed one stay written.
            open_handle.write_at(piece, position)?;
            position = position.saturating_add(length_of(piece));
        }
        Ok(())
    }

    /// Returns the attributes of an open file or directory.
    pub(super) fn fstat(&mut self, handle: HandleId) -> Result<Entry> {
        match &self.handles.get(handle)?.target {
            HandleTarget::File(file) => Ok(file.stat()?),
            HandleTarget::Directory(directory) => Ok(directory.listing().directory_entry()?),
        }
    }

    /// Sets attributes of an open file or directory; those of an upload are committed with it.
    pub(super) fn fsetstat(&mut self, handle: HandleId, attributes: &SftpAttributes) -> Result<()> {
        let target = &self.handles.get(handle)?.target;
        attributes.apply(|changes| match target {
            HandleTarget::File(file) => Ok(file.set_attributes(changes)?),
            HandleTarget::Directory(directory) => Ok(directory.listing().set_directory_attributes(changes)?),
        })
    }

    /// Returns the free space of the file system of an open file or directory.
    pub(super) fn fstatvfs(&mut self, handle: HandleId) -> Result<FilesystemSpace> {
        match &self.handles.get(handle)?.target {
            HandleTarget::File(file) => Ok(file.space()?),
            HandleTarget::Directory(directory) => Ok(directory.listing().space()?),
        }
    }

    /// Syncs a file to disk; of a staged upload, only checks that its commit would still be accepted.
    pub(super) fn fsync(&mut self, handle: HandleId) -> Result<()> {
        Ok(self.handles.file(handle)?.sync()?)
    }

    /// Copies `length` bytes (zero for all) of one open file into another, at most to the end of the source.
    pub(super) fn copy_data(
        &mut self,
        from: HandleId,
        offset: u64,
        length: u64,
        to: HandleId,
        to_offset: u64,
    ) -> Result<()> {
        let session = self.session.clone();
        // The size is read once: a source that grows meanwhile must not keep the copy running.
        let available = self.fstat(from)?.size.saturating_sub(offset);
        let total = if length == 0 { available } else { length.min(available) };
        let (source, target) = self.handles.get_pair(from, to)?;
        let source = source.file()?;
        // By file, not by handle: two handles of one file could overlap, and the copy would read what it wrote.
        if source.is_same_file(target.file()?)? {
            return Err(Error::SameFile);
        }
        let mut buffer = vec![0; COPY_DATA_BUFFER_BYTES];
        let mut copied = 0;
        while copied < total {
            // For each chunk: copy-data of a large file must not outlive its connection.
            if session.closing.is_cancelled() {
                return Err(crate::auth::SessionEnded.into());
            }
            let chunk = usize::try_from(total - copied).unwrap_or(COPY_DATA_BUFFER_BYTES).min(COPY_DATA_BUFFER_BYTES);
            let count = source.read_at(&mut buffer[..chunk], offset.saturating_add(copied))?;
            // The source was truncated meanwhile.
            if count == 0 {
                break;
            }
            target.write_at(&buffer[..count], to_offset.saturating_add(copied))?;
            // Each chunk is a use, as each WRITE would be: one request may take longer than a sliding expiration.
            session.view().session().record_use();
            copied += length_of(&buffer[..count]);
        }
        Ok(())
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
