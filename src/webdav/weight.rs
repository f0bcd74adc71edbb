//! What all unfinished uploads hold together, in bytes: announced by requests under way, or kept in staging.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::error::{Error, Result};
use crate::domain::UploadSpace;
use crate::tree::{Tree, UnfinishedBytes};

/// Weighs all that is held; clones share it.
#[derive(Clone)]
pub(super) struct Scales {
    tree: Tree,
    most: UploadSpace,
    /// What all weigh, those of SFTP too.
    sums: Arc<UnfinishedBytes>,
}

impl Scales {
    /// Weighs what is held beside a tree.
    pub(super) fn new(tree: Tree, most: UploadSpace) -> Self {
        let sums = tree.unfinished_bytes();
        Self { tree, most, sums }
    }

    /// Returns the weight of what is written already.
    pub(super) fn hold(&self, bytes: u64) -> Weight {
        self.sums.held.fetch_add(bytes, Ordering::AcqRel);
        self.sums.written.fetch_add(bytes, Ordering::AcqRel);
        Weight { scales: self.clone(), bytes, written: bytes }
    }

    /// Tells that there is room for what will be so long, or for anything at all; may block.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(super) fn admit(&self, length: Option<u64>) -> Result<()> {
        let most = self.most()?;
        fits(self.sums.held.load(Ordering::Acquire), length.unwrap_or(1), most).map(drop).ok_or(Error::Full)
    }

    /// Returns how much all may hold now.
    fn most(&self) -> Result<u64> {
        // Asked in this order, what is written meanwhile counts as neither, not as both.
        let written = self.sums.written.load(Ordering::Acquire);
        Ok(self.most.most(self.tree.free()?, written))
    }
}

/// Returns what is held with so much more, where that may be.
fn fits(held: u64, more: u64, most: u64) -> Option<u64> {
    held.checked_add(more).filter(|sum| *sum <= most)
}

/// The weight of one upload or part; it is taken off when it is dropped.
pub(super) struct Weight {
    scales: Scales,
    bytes: u64,
    /// How many of them are written.
    written: u64,
}

impl Weight {
    /// Lets it hold so many bytes; may block.
    ///
    /// # Errors
    /// [`Error::Full`] when all together would hold more than they may.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let most = self.scales.most()?;
        let held = &self.scales.sums.held;
        let grown = held.fetch_update(Ordering::AcqRel, Ordering::Acquire, |held| fits(held, more, most));
        grown.map_err(|_| Error::Full)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Tells that so many of the bytes it holds are written.
    pub(super) fn wrote(&mut self, bytes: u64) {
        if let Some(more) = bytes.min(self.bytes).checked_sub(self.written) {
            self.scales.sums.written.fetch_add(more, Ordering::AcqRel);
            self.written += more;
        }
    }

    /// Lets it hold no more than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.scales.sums.held.fetch_sub(less, Ordering::AcqRel);
            self.bytes = bytes;
        }
        if let Some(less) = self.written.checked_sub(bytes) {
            self.scales.sums.written.fetch_sub(less, Ordering::AcqRel);
            self.written = bytes;
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
