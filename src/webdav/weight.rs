//! What unfinished uploads hold, in bytes: announced by requests under way, or kept in staging. Each weighs for its user.

use std::sync::Arc;

use super::error::{Error, Result};
use crate::domain::{Login, UploadSpaces, UserQuotaLimits};
use crate::tree::{Tree, UnfinishedUploadBytes};

/// Weighs all that is held; clones share it.
#[derive(Clone)]
pub(super) struct Scales {
    tree: Tree,
    most: UploadSpaces,
    /// What all weigh, those of SFTP too.
    sums: Arc<UnfinishedUploadBytes>,
}

impl Scales {
    /// Weighs what is held beside a tree.
    pub(super) fn new(tree: Tree, most: UploadSpaces) -> Self {
        let sums = tree.unfinished_upload_bytes();
        Self { tree, most, sums }
    }

    /// Returns the weight of what is written already.
    pub(super) fn hold(&self, login: &Login, bytes: u64) -> Weight {
        self.sums.hold_written(login, bytes);
        Weight { scales: self.clone(), login: login.clone(), bytes, written: bytes }
    }

    /// Tells that there is room for what will be so long, or for anything at all; may block.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(super) fn admit(&self, login: &Login, length: Option<u64>) -> Result<()> {
        let most = self.most()?;
        if self.sums.fits(login, length.unwrap_or(1), most) { Ok(()) } else { Err(Error::Full) }
    }

    /// Returns how much may be held now.
    fn most(&self) -> Result<UserQuotaLimits> {
        // Asked in this order, what is written meanwhile counts as neither, not as both.
        let written = self.sums.written();
        Ok(self.most.most(self.tree.free_bytes()?, written))
    }
}

/// The weight of one upload or part; it is taken off when it is dropped.
pub(super) struct Weight {
    scales: Scales,
    login: Login,
    bytes: u64,
    /// How many of them are written.
    written: u64,
}

impl Weight {
    /// Lets it hold so many bytes; may block.
    ///
    /// # Errors
    /// [`Error::Full`] when the user's, or all together, would hold more than they may.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let most = self.scales.most()?;
        if !self.scales.sums.hold(&self.login, more, most) {
            return Err(Error::Full);
        }
        self.bytes = bytes;
        Ok(())
    }

    /// Tells that so many of the bytes it holds are written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        if let Some(more) = bytes.min(self.bytes).checked_sub(self.written) {
            self.scales.sums.wrote(more);
            self.written += more;
        }
    }

    /// Lets it hold no more than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.scales.sums.release(&self.login, less);
            self.bytes = bytes;
        }
        if let Some(less) = self.written.checked_sub(bytes) {
            self.scales.sums.release_written(less);
            self.written = bytes;
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
