//! Requests on folders: listed, made, removed.

use std::collections::VecDeque;

use crate::domain::TreePath;
use crate::tree::{self, AttributeChanges, Entry, SessionListing};

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::handles::HandleTarget;
use super::reply::{NameReply, ReplyBatch};
use super::request::HandleId;
use super::worker::ChannelWorker;

/// A directory that is being listed.
pub(super) struct SftpDirectory {
    path: TreePath,
    /// `.` and `..`, then what did not fit into the answer before.
    buffered: VecDeque<(Vec<u8>, Entry)>,
    listing: SessionListing,
}

impl SftpDirectory {
    /// Returns where it was opened.
    pub(super) fn path(&self) -> &TreePath {
        &self.path
    }

    fn fill_reply(&mut self, names: &mut NameReply<'_>) -> Result<()> {
        // Asked before `.` and `..` are told, which are known already.
        self.listing.check()?;
        while !names.is_full() {
            match self.next_entry() {
                Some(Ok((name, entry))) => names.push(&name, &entry),
                // Removed between being read and being looked at.
                Some(Err(tree::Error::Absent)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => break,
            }
        }
        Ok(())
    }

    fn next_entry(&mut self) -> Option<tree::Result<(Vec<u8>, Entry)>> {
        if let Some(first) = self.buffered.pop_front() {
            return Some(Ok(first));
        }
        self.listing.next().map(|entry| entry.map(|entry| (entry.name.clone(), entry)))
    }
}

impl ChannelWorker {
    /// Opens a directory to be listed.
    pub(super) fn opendir(&mut self, path: &[u8]) -> Result<HandleId> {
        let place = self.handles.acquire_permit()?;
        let path = self.resolve_path(path)?;
        let shared = &self.session;
        let listing = shared.files.list(&path)?;
        let here = shared.view().stat(&path)?;
        let above = path.parent().and_then(|parent| shared.view().stat(&parent).ok()).unwrap_or_else(|| here.clone());
        let first = VecDeque::from([(b".".to_vec(), here), (b"..".to_vec(), above)]);
        let folder = SftpDirectory { path, buffered: first, listing };
        Ok(self.handles.insert(place, HandleTarget::Directory(Box::new(folder))))
    }

    /// Answers the next names of a folder.
    pub(super) fn readdir(&mut self, id: u32, handle: HandleId, out: &mut ReplyBatch) -> Result<()> {
        let shared = self.session.clone();
        let HandleTarget::Directory(folder) = &mut self.handles.get(handle)?.target else {
            return Err(Error::WrongHandleKind);
        };
        let mut names = out.names(id, shared.login(), shared.auth.now());
        let filled = folder.fill_reply(&mut names);
        match (filled, names.finish()) {
            (Err(error), Err(_)) => Err(error),
            (_, finished) => finished,
        }
    }

    /// Makes a directory.
    pub(super) fn mkdir(&mut self, path: &[u8], change: &SftpAttributes) -> Result<()> {
        let path = self.resolve_entry(path)?.path;
        let attributes = AttributeChanges { mode: change.creation_mode(), ..AttributeChanges::default() };
        Ok(self.session.files.create_directory(&path, &attributes)?)
    }

    /// Removes an empty directory.
    pub(super) fn rmdir(&mut self, path: &[u8]) -> Result<()> {
        let path = self.resolve_entry(path)?.path;
        Ok(self.session.files.remove_directory(&path)?)
    }
}
