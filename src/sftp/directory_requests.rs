//! Requests on directories: OPENDIR, READDIR, MKDIR, RMDIR.

use crate::tree::AttributeChanges;

use super::attributes::SftpAttributes;
use super::error::{Error, Result};
use super::handles::HandleTarget;
use super::open_directory::SftpDirectory;
use super::reply::ReplyBatch;
use super::request::HandleId;
use super::worker::ChannelWorker;

impl ChannelWorker {
    /// Opens a directory for listing.
    pub(super) fn opendir(&mut self, path: &[u8]) -> Result<HandleId> {
        // Before the directory is opened: at the limit, no descriptor is taken either.
        let permit = self.handles.acquire_permit()?;
        let path = self.resolve_path(path)?;
        let session = &self.session;
        // The listing decides whether the directory may be read; `own` and `parent_entry` are attributes only.
        let listing = session.files.list(&path)?;
        let own = session.view().stat(&path)?;
        // `..` of the root, and of a directory whose parent the session may not see, shows the directory itself.
        let parent_entry =
            path.parent().and_then(|parent| session.view().stat(&parent).ok()).unwrap_or_else(|| own.clone());
        let directory = SftpDirectory::new(path, (own, parent_entry), listing);
        Ok(self.handles.insert(permit, HandleTarget::Directory(Box::new(directory))))
    }

    /// Answers the next entries of a directory; end of file after the last.
    pub(super) fn readdir(&mut self, id: u32, handle: HandleId, out: &mut ReplyBatch) -> Result<()> {
        let session = self.session.clone();
        let HandleTarget::Directory(directory) = &mut self.handles.get(handle)?.target else {
            return Err(Error::WrongHandleKind);
        };
        let mut names = out.names(id, session.login(), session.auth.now());
        let filled = directory.fill_reply(&mut names);
        // Entries before an error are sent without it; a reply with no entries becomes the error.
        match (filled, names.finish()) {
            (Err(error), Err(_)) => Err(error),
            (_, finished) => finished,
        }
    }

    /// Creates a directory; it needs no trailing slash, and may have one.
    pub(super) fn mkdir(&mut self, path: &[u8], attributes: &SftpAttributes) -> Result<()> {
        let path = self.resolve_entry(path)?.path;
        // Only the mode: OpenSSH's server ignores the other attributes of MKDIR too.
        let changes = AttributeChanges { mode: attributes.creation_mode(), ..AttributeChanges::default() };
        Ok(self.session.files.create_directory(&path, &changes)?)
    }

    /// Removes an empty directory.
    pub(super) fn rmdir(&mut self, path: &[u8]) -> Result<()> {
        let path = self.resolve_entry(path)?.path;
        Ok(self.session.files.remove_directory(&path)?)
    }
}
