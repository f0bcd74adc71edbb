//! Requests on folders: listed, made, removed.

use crate::tree::AttributeChanges;

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::handles::HandleTarget;
use super::open_directory::SftpDirectory;
use super::reply::ReplyBatch;
use super::request::HandleId;
use super::worker::ChannelWorker;

impl ChannelWorker {
    /// Opens a directory to be listed.
    pub(super) fn opendir(&mut self, path: &[u8]) -> Result<HandleId> {
        let place = self.handles.acquire_permit()?;
        let path = self.resolve_path(path)?;
        let shared = &self.session;
        let listing = shared.files.list(&path)?;
        let here = shared.view().stat(&path)?;
        let above = path.parent().and_then(|parent| shared.view().stat(&parent).ok()).unwrap_or_else(|| here.clone());
        let folder = SftpDirectory::new(path, (here, above), listing);
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
