//! Quota of the bytes that unfinished uploads hold: announced by requests in progress, or kept in staging. Each upload
//! counts towards its user.

use std::sync::Arc;

use super::error::{Error, Result};
use crate::domain::{Login, UploadSpaceLimits, UserQuotaLimits};
use crate::tree::{Tree, UnfinishedUploadBytes};

/// Quota of all unfinished uploads; clones share it.
#[derive(Clone)]
pub(super) struct UploadQuota {
    tree: Tree,
    limit: UploadSpaceLimits,
    /// Bytes held by all unfinished uploads, those over SFTP included.
    usage: Arc<UnfinishedUploadBytes>,
}

impl UploadQuota {
    /// Creates the quota of the uploads into a tree.
    pub(super) fn new(tree: Tree, limits: UploadSpaceLimits) -> Self {
        let usage = tree.unfinished_upload_bytes();
        Self { tree, limit: limits, usage }
    }

    /// Returns a reservation for bytes that are already written, whatever the limits are.
    pub(super) fn reserve_written(&self, login: &Login, bytes: u64) -> UploadReservation {
        self.usage.reserve_written(login, bytes);
        UploadReservation { quota: self.clone(), login: login.clone(), bytes, written: bytes }
    }

    /// Checks that an upload of this length, or of at least one byte, is within the limits; reserves nothing. May
    /// block.
    ///
    /// # Errors
    /// [`Error::UploadSpaceExhausted`].
    pub(super) fn check_available(&self, login: &Login, length: Option<u64>) -> Result<()> {
        let limits = self.current_limit_bytes()?;
        // Nothing is reserved: `grow_to` does so with the first bytes, and may still refuse. An upload of unknown
        // length is refused only where not one byte is left.
        if self.usage.can_reserve(login, length.unwrap_or(1), limits) {
            Ok(())
        } else {
            Err(Error::UploadSpaceExhausted)
        }
    }

    /// Returns the current limits, which depend on the free space; may block.
    fn current_limit_bytes(&self) -> Result<UserQuotaLimits> {
        // Read before the free space: bytes written in between then count neither as free nor as written, instead of as
        // both, and the limits err on the low side.
        let written = self.usage.written();
        Ok(self.limit.limit_bytes(self.tree.free_bytes()?, written))
    }
}

/// Reservation of one upload or chunk; its bytes are released when it is dropped.
pub(super) struct UploadReservation {
    quota: UploadQuota,
    login: Login,
    bytes: u64,
    /// Number of reserved bytes that are written.
    written: u64,
}

impl UploadReservation {
    /// Grows the reservation to so many bytes; may block. A smaller number changes nothing.
    ///
    /// # Errors
    /// [`Error::UploadSpaceExhausted`] when the user, or all users together, would exceed the limit.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        // Without growth the free space, whose query may block, isn't needed.
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let limits = self.quota.current_limit_bytes()?;
        // Checked and added under one lock: two uploads can't both take the last bytes.
        if !self.quota.usage.try_reserve(&self.login, more, limits) {
            return Err(Error::UploadSpaceExhausted);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Records that so many of the reserved bytes are written.
    pub(super) fn record_written(&mut self, bytes: u64) {
        // Never more than is reserved, or the sum of written bytes would not return to zero.
        if let Some(more) = bytes.min(self.bytes).checked_sub(self.written) {
            self.quota.usage.record_written(more);
            self.written += more;
        }
    }

    /// Shrinks the reservation to so many bytes. A larger number changes nothing.
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
