//! Requests on files that are opened, read, written and closed. What a handle does is told in [`crate::tree::OpenFile`].

use bytes::Bytes;

use crate::tree::{Entry, OpenRequest, Space};

use super::attributes::Change;
use super::error::{Error, Result};
use super::handles::What;
use super::reply::Replies;
use super::request::{HandleId, OpenFlags};
use super::worker::Worker;

/// How much copy-data moves at a time.
const COPY: usize = 256 * 1024;

impl Worker {
    /// Opens a file.
    pub(super) fn open(&mut self, path: &[u8], flags: OpenFlags, attributes: &Change) -> Result<HandleId> {
        let place = self.handles.place()?;
        let path = self.path(path)?;
        let request = OpenRequest {
            read: flags.has(OpenFlags::READ),
            write: flags.has(OpenFlags::WRITE),
            append: flags.has(OpenFlags::APPEND),
            create: flags.has(OpenFlags::CREATE),
            truncate: flags.has(OpenFlags::TRUNCATE),
            exclusive: flags.has(OpenFlags::EXCLUSIVE),
            mode: attributes.new_mode(),
            size: attributes.size,
        };
        let file = self.shared.files.open(&path, &request)?;
        Ok(self.handles.insert(place, What::File(Box::new(file))))
    }

    /// Closes a file or directory; an upload is committed.
    pub(super) fn close(&mut self, handle: HandleId) -> Result<()> {
        self.handles.remove(handle)?.close()
    }

    /// Answers a READ.
    pub(super) fn read(
        &mut self,
        id: u32,
        handle: HandleId,
        offset: u64,
        length: usize,
        out: &mut Replies,
    ) -> Result<()> {
        let file = self.handles.file(handle)?;
        out.data(id, length, |buffer| Ok(file.read_at(buffer, offset)?))
    }

    /// Writes the pieces of a WRITE, one after the other.
    pub(super) fn write(&mut self, handle: HandleId, offset: u64, data: &[Bytes]) -> Result<()> {
        let open = self.handles.get(handle)?;
        let mut at = offset;
        for piece in data {
            open.write_at(piece, at)?;
            at = at.saturating_add(length_of(piece));
        }
        Ok(())
    }

    /// Shows what is open.
    pub(super) fn handle_stat(&mut self, handle: HandleId) -> Result<Entry> {
        match &self.handles.get(handle)?.what {
            What::File(file) => Ok(file.stat()?),
            What::Folder(folder) => Ok(self.shared.view().stat(folder.path())?),
        }
    }

    /// Sets attributes of what is open; those of an upload are committed with it.
    pub(super) fn handle_set_stat(&mut self, handle: HandleId, change: &Change) -> Result<()> {
        let files = &self.shared.files;
        let what = &self.handles.get(handle)?.what;
        change.apply(|attributes| match what {
            What::File(file) => Ok(file.set_attributes(attributes)?),
            What::Folder(folder) => Ok(files.set_attributes(folder.path(), attributes, true)?),
        })
    }

    /// Shows the room on the file system of what is open.
    pub(super) fn handle_space(&mut self, handle: HandleId) -> Result<Space> {
        match &self.handles.get(handle)?.what {
            What::File(file) => Ok(file.space()?),
            What::Folder(folder) => Ok(self.shared.files.space(folder.path())?),
        }
    }

    /// Writes a file to disk; an upload is written with its commit.
    pub(super) fn sync(&mut self, handle: HandleId) -> Result<()> {
        Ok(self.handles.file(handle)?.sync()?)
    }

    /// Copies `length` bytes (all that there are, when it is zero) from one open file into another, to its end at most.
    pub(super) fn copy_data(
        &mut self,
        from: HandleId,
        offset: u64,
        length: u64,
        to: HandleId,
        to_offset: u64,
    ) -> Result<()> {
        let shared = self.shared.clone();
        // What is added meanwhile is not copied.
        let there = self.handle_stat(from)?.size.saturating_sub(offset);
        let wanted = if length == 0 { there } else { length.min(there) };
        let (source, target) = self.handles.two(from, to)?;
        let source = source.file()?;
        if source.is_same(target.file()?)? {
            return Err(Error::SameFile);
        }
        let mut buffer = vec![0; COPY];
        let mut done = 0;
        while done < wanted {
            if shared.over.is_cancelled() {
                return Err(crate::auth::Ended.into());
            }
            let part = usize::try_from(wanted - done).unwrap_or(COPY).min(COPY);
            let found = source.read_at(&mut buffer[..part], offset.saturating_add(done))?;
            if found == 0 {
                break;
            }
            target.write_at(&buffer[..found], to_offset.saturating_add(done))?;
            shared.view().session().used();
            done += length_of(&buffer[..found]);
        }
        Ok(())
    }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
