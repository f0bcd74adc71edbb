//! What unfinished uploads hold, in bytes: announced by requests under way, or kept in staging. Each weighs for its user.

use std::sync::Arc;

use super::error::{Error, Result};
use crate::domain::{Login, UploadSpaces, UserQuotaLimits};
use crate::tree::{Tree, UnfinishedUploadBytes};

/// Weighs all that is held; clones share it.
#[derive(Clone)]
pub(super) struct UploadQuota {
    tree: Tree,
    limit: UploadSpaces,
    /// What all weigh, those of SFTP too.
    usage: Arc<UnfinishedUploadBytes>,
}

impl UploadQuota {
    /// Weighs what is held beside a tree.
    pub(super) fn new(tree: Tree, limits: UploadSpaces) -> Self {
        let usage = tree.unfinished_upload_bytes();
        Self { tree, limit: limits, usage }
    }

    /// Returns the weight of what is written already.
    pub(super) fn reserve_written(&self, login: &Login, bytes: u64) -> UploadReservation {
        self.usage.hold_written(login, bytes);
        UploadReservation { quota: self.clone(), login: login.clone(), bytes, written: bytes }
    }

    /// Tells that there is room for what will be so long, or for anything at all; may block.
    ///
    /// # Errors
    /// [`Error::TooManyBrowserSessions`].
    pub(super) fn check_available(&self, login: &Login, length: Option<u64>) -> Result<()> {
        let limits = self.current_limit_bytes()?;
        if self.usage.fits(login, length.unwrap_or(1), limits) { Ok(()) } else { Err(Error::UploadSpaceExhausted) }
    }

    /// Returns how much may be held now.
    fn current_limit_bytes(&self) -> Result<UserQuotaLimits> {
        // Asked in this order, what is written meanwhile counts as neither, not as both.
        let written = self.usage.written();
        Ok(self.limit.most(self.tree.free_bytes()?, written))
    }
}

/// The weight of one upload or part; it is taken off when it is dropped.
pub(super) struct UploadReservation {
    quota: UploadQuota,
    login: Login,
    bytes: u64,
    /// How many of them are written.
    written: u64,
}

impl UploadReservation {
    /// Lets it hold so many bytes; may block.
    ///
    /// # Errors
    /// [`Error::TooManyBrowserSessions`] when the user's, or all together, would hold more than they may.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let limits = self.quota.current_limit_bytes()?;
        if !self.quota.usage.hold(&self.login, more, limits) {
            return Err(Error::UploadSpaceExhausted);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Tells that so many of the bytes it holds are written.
    pub(super) fn record_written(&mut self, bytes: u64) {
        if let Some(more) = bytes.min(self.bytes).checked_sub(self.written) {
            self.quota.usage.wrote(more);
            self.written += more;
        }
    }

    /// Lets it hold no more than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.quota.usage.release(&self.login, less);
            self.bytes = bytes;
        }
        if let Some(less) = self.written.checked_sub(bytes) {
            self.quota.usage.release_written(less);
            self.written = bytes;
        }
    }
}

impl Drop for UploadReservation {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
