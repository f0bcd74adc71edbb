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
        let own = listing.directory_entry()?;
        // `..` of the root, and of a directory whose parent the session may not see, shows the directory itself.
        let parent_entry =
            path.parent().and_then(|parent| session.view().stat(&parent).ok()).unwrap_or_else(|| own.clone());
        let directory = SftpDirectory::new((own, parent_entry), listing);
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
        // Also after an error: it takes the header of the empty reply out of the batch again.
        let finished = names.finish();
        filled.and(finished)
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::Semaphore;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::domain::Permission;
    use crate::sftp::hash_limit::HashLimiter;
    use crate::sftp::worker::SftpSession;
    use crate::tree::SessionFiles;
    use crate::tree::testing::{TreeFixture, fail_read_after};

    fn channel_worker(fixture: &TreeFixture, login: &str) -> ChannelWorker {
        ChannelWorker::new(Arc::new(SftpSession {
            files: SessionFiles::new(fixture.view(login)),
            auth: fixture.auth.clone(),
            handle_permits: Arc::new(Semaphore::new(100)),
            max_handles: 100,
            hash_limiter: HashLimiter::new(),
            symlink_link_first: false,
            closing: CancellationToken::new(),
            recorder: Arc::default(),
            user_operations: None,
            access_log: None,
        }))
    }

    /// Sends READDIR until it is refused; returns the size of the replies, and the refusal.
    fn read_to_refusal(worker: &mut ChannelWorker, handle: HandleId) -> (usize, Error) {
        let mut replies = ReplyBatch::default();
        loop {
            if let Err(error) = worker.readdir(1, handle, &mut replies) {
                return (replies.into_bytes().len(), error);
            }
        }
    }

    #[test]
    fn failed_listing_never_ends_as_a_complete_one() {
        let fixture = TreeFixture::new(&["/box/d", "/box/d/one", "/box/d/two"]);
        std::fs::write(fixture.root_path.join("box/d/file"), "").expect("written");
        fixture.create_user("reader", &[("/box", Permission::R)]);
        // Sees `/box/d/one` in a directory that shows nothing else.
        fixture.create_user("walker", &[("/box/d/one", Permission::R)]);
        for login in ["reader", "walker"] {
            let mut worker = channel_worker(&fixture, login);
            let mut failures = 0;
            loop {
                let handle = worker.opendir(b"/box/d").expect("opened");
                fail_read_after(Some(failures));
                let (_, first) = read_to_refusal(&mut worker, handle);
                if !fail_read_after(None) {
                    assert!(matches!(first, Error::Eof), "{login}: {first}");
                    break;
                }
                let (_, second) = read_to_refusal(&mut worker, handle);
                for error in [first, second] {
                    assert!(!matches!(error, Error::Eof), "{login}: the error of read {failures} was lost");
                }
                worker.close(handle).expect("closed");
                failures += 1;
            }
            assert!(failures > 0, "{login}");
        }
    }

    #[test]
    fn entries_before_an_error_are_sent_once() {
        let fixture = TreeFixture::new(&["/d"]);
        fixture.create_user("alice", &[("/", Permission::R)]);
        let mut worker = channel_worker(&fixture, "alice");
        let handle = worker.opendir(b"/d").expect("opened");
        let (complete, _) = read_to_refusal(&mut worker, handle);
        let handle = worker.opendir(b"/d").expect("opened");
        fail_read_after(Some(0));
        let (sent, error) = read_to_refusal(&mut worker, handle);
        assert!(fail_read_after(None));
        assert_eq!(sent, complete, "`.` and `..`");
        assert!(matches!(error, Error::Tree(crate::tree::Error::Unavailable(_))), "{error}");
        // A client that goes on after the error gets neither names nor the end.
        let (sent, error) = read_to_refusal(&mut worker, handle);
        assert_eq!(sent, 0);
        assert!(!matches!(error, Error::Eof));
    }
}
