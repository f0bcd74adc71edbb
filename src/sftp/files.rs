//! Requests on files that are opened, read, written and closed.

use std::sync::Arc;

use bytes::Bytes;

use crate::domain::{Permission, TreePath};
use crate::tree::{self, Attributes, Claim, EditMode, Entry, Space};

use super::attributes::Change;
use super::error::{Error, Result};
use super::handles::What;
use super::overlay::Staged;
use super::reply::Replies;
use super::request::{HandleId, OpenFlags};
use super::worker::Worker;

/// What a new file never lets its group and others do, unless the client sets it later.
const OTHERS_WRITE: u32 = 0o022;
/// How much copy-data moves at a time.
const COPY: usize = 256 * 1024;

impl Worker {
    /// Opens a file. One that is made or emptied, and not appended to, is staged; any other writing is
    /// in place, unless the tree edits a copy: that is shown to the session as what is staged is.
    pub(super) fn open(&mut self, path: &[u8], flags: OpenFlags, attributes: &Change) -> Result<HandleId> {
        let place = self.handles.place()?;
        let path = self.path(path)?;
        let asks = |flag| flags.has(flag);
        let writes = asks(OpenFlags::WRITE) || asks(OpenFlags::APPEND);
        let (path, what) = if !writes && !asks(OpenFlags::CREATE) && !asks(OpenFlags::TRUNCATE) {
            self.open_to_read(path)?
        } else if writes
            && asks(OpenFlags::CREATE)
            && asks(OpenFlags::TRUNCATE)
            && !asks(OpenFlags::EXCLUSIVE)
            && !asks(OpenFlags::APPEND)
        {
            self.open_to_replace(&path, asks(OpenFlags::READ), attributes)?
        } else {
            self.open_to_edit(path, flags, attributes)?
        };
        Ok(self.handles.insert(place, path, what))
    }

    fn open_to_read(&self, path: TreePath) -> Result<(TreePath, What)> {
        let view = &self.shared.view;
        match self.shared.overlay.find(view, &path) {
            Some((path, staged)) => {
                needs_read(&staged.stat(view)?)?;
                Ok((path, What::StagedReader { staged, after: None }))
            }
            None => {
                let reader = view.read(&path)?;
                Ok((path, What::Reader(reader)))
            }
        }
    }

    fn open_to_replace(&self, path: &TreePath, readable: bool, attributes: &Change) -> Result<(TreePath, What)> {
        let view = &self.shared.view;
        let path = view.canonical(path)?;
        // As a umask does for what is made in place.
        let new_mode =
            attributes.new_mode().map(|mode| mode & !OTHERS_WRITE).filter(|_| view.link_stat(&path).is_err());
        let upload = view.stage(&path, attributes.size, &Claim::none())?;
        if readable {
            needs_read(&upload.stat()?)?;
        }
        if new_mode.is_some() {
            upload.set_attributes(&Attributes { mode: new_mode, ..Attributes::default() })?;
        }
        let staged = Arc::new(Staged::new(upload, readable));
        self.shared.overlay.insert(path.clone(), staged.clone());
        Ok((path, What::Staged { staged, readable, writable: true }))
    }

    fn open_to_edit(&self, path: TreePath, flags: OpenFlags, attributes: &Change) -> Result<(TreePath, What)> {
        let writable = flags.has(OpenFlags::WRITE) || flags.has(OpenFlags::APPEND);
        let mode = EditMode {
            read: flags.has(OpenFlags::READ) || !writable,
            create: flags.has(OpenFlags::CREATE),
            exclusive: flags.has(OpenFlags::CREATE) && flags.has(OpenFlags::EXCLUSIVE),
            truncate: flags.has(OpenFlags::TRUNCATE),
            append: flags.has(OpenFlags::APPEND),
            mode: attributes.new_mode(),
        };
        if let Some((canonical, staged)) = self.shared.overlay.find(&self.shared.view, &path) {
            if mode.exclusive {
                return Err(tree::Error::Exists.into());
            }
            self.settle(&canonical, &staged)?;
        }
        attributes.size.map_or(Ok(()), |size| self.shared.view.may_hold(size))?;
        match self.shared.view.edit(&path, mode, &Claim::none())?.into_copy() {
            Err(editor) => Ok((path, What::Editor { editor, readable: mode.read, writable })),
            Ok(upload) => {
                let path = self.shared.view.canonical(&path)?;
                let staged = Arc::new(Staged::new(upload, mode.read));
                self.shared.overlay.insert(path.clone(), staged.clone());
                Ok((path, What::Staged { staged, readable: mode.read, writable }))
            }
        }
    }

    /// Commits an upload before its CLOSE.
    pub(super) fn settle(&self, path: &TreePath, staged: &Arc<Staged>) -> Result<()> {
        let settled = staged.settle(path);
        self.shared.overlay.remove(path, staged);
        settled
    }

    /// Closes a file or folder; an upload is committed.
    pub(super) fn close(&mut self, handle: HandleId) -> Result<()> {
        let open = self.handles.remove(handle)?;
        match open.what {
            What::Editor { editor, .. } => editor.close()?,
            What::Staged { staged, .. } => {
                let closed = staged.close();
                self.shared.overlay.remove(&open.path, &staged);
                closed?;
            }
            What::Reader(_) | What::StagedReader { .. } | What::Folder(_) => {}
        }
        Ok(())
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
        let view = &self.shared.view;
        let open = self.handles.get(handle)?;
        out.data(id, length, |buffer| open.read_at(view, buffer, offset))
    }

    /// Writes the pieces of a WRITE, one after the other.
    pub(super) fn write(&mut self, handle: HandleId, offset: u64, data: &[Bytes]) -> Result<()> {
        let view = &self.shared.view;
        let open = self.handles.get(handle)?;
        let mut at = offset;
        for piece in data {
            open.write_at(view, piece, at)?;
            at = at.saturating_add(length_of(piece));
        }
        Ok(())
    }

    /// Shows what is open.
    pub(super) fn handle_stat(&mut self, handle: HandleId) -> Result<Entry> {
        let view = &self.shared.view;
        let open = self.handles.get(handle)?;
        match &open.what {
            What::Reader(reader) => Ok(reader.stat()?),
            What::Editor { editor, .. } => Ok(editor.stat()?),
            What::StagedReader { staged, .. } if staged.committed() => Ok(view.stat(&open.path)?),
            What::Staged { staged, .. } | What::StagedReader { staged, .. } => staged.stat(view),
            What::Folder(_) => Ok(view.stat(&open.path)?),
        }
    }

    /// Sets attributes of what is open; those of an upload are committed with it.
    pub(super) fn handle_set_stat(&mut self, handle: HandleId, change: &Change) -> Result<()> {
        let attributes = change.attributes()?;
        let view = &self.shared.view;
        let open = self.handles.get(handle)?;
        match &open.what {
            What::Editor { editor, writable: true, .. } => Ok(editor.set_attributes(&attributes)?),
            What::Staged { staged, .. } => staged.set_attributes(view, &attributes),
            What::StagedReader { staged, .. } if !staged.committed() => staged.set_attributes(view, &attributes),
            What::Editor { .. } | What::Reader(_) | What::StagedReader { .. } | What::Folder(_) => {
                Ok(view.set_attributes(&open.path, &attributes, true, &Claim::none())?)
            }
        }
    }

    /// Shows the room on the file system of what is open.
    pub(super) fn handle_space(&mut self, handle: HandleId) -> Result<Space> {
        let path = self.handles.get(handle)?.path.clone();
        self.space_at(&path)
    }

    /// Writes a file to disk; an upload is written with its commit.
    pub(super) fn sync(&mut self, handle: HandleId) -> Result<()> {
        let view = &self.shared.view;
        match &self.handles.get(handle)?.what {
            What::Editor { editor, .. } => Ok(editor.sync()?),
            What::Staged { staged, .. } => staged.sync(view),
            What::Reader(_) | What::StagedReader { .. } => Ok(()),
            What::Folder(_) => Err(Error::WrongHandle),
        }
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
        // Not what is added meanwhile: the target may be the source by another name.
        let there = self.handle_stat(from)?.size.saturating_sub(offset);
        let wanted = if length == 0 { there } else { length.min(there) };
        let (source, target) = self.handles.two(from, to)?;
        if source.path == target.path {
            return Err(Error::SameFile);
        }
        let mut buffer = vec![0; COPY];
        let mut done = 0;
        while done < wanted {
            if shared.over.is_cancelled() {
                return Err(crate::auth::Ended.into());
            }
            let part = usize::try_from(wanted - done).unwrap_or(COPY).min(COPY);
            let found = source.read_at(&shared.view, &mut buffer[..part], offset.saturating_add(done))?;
            if found == 0 {
                break;
            }
            target.write_at(&shared.view, &buffer[..found], to_offset.saturating_add(done))?;
            shared.view.session().used();
            done += length_of(&buffer[..found]);
        }
        Ok(())
    }
}

fn needs_read(entry: &Entry) -> Result<()> {
    if entry.permission.allows(Permission::R) { Ok(()) } else { Err(tree::Error::Forbidden.into()) }
}

fn length_of(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(u64::MAX)
}
