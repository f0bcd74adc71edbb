//! What all unfinished uploads hold together, in bytes: announced by requests under way, or kept in staging.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::error::{Error, Result};
use crate::domain::UploadSpace;
use crate::tree::Tree;

/// Weighs all that is held; clones share it.
#[derive(Clone)]
pub(super) struct Scales {
    tree: Tree,
    most: UploadSpace,
    held: Arc<AtomicU64>,
}

impl Scales {
    /// Weighs what is held beside a tree.
    pub(super) fn new(tree: Tree, most: UploadSpace) -> Self {
        Self { tree, most, held: Arc::default() }
    }

    /// Returns the weight of what is held already.
    pub(super) fn hold(&self, bytes: u64) -> Weight {
        self.held.fetch_add(bytes, Ordering::AcqRel);
        Weight { scales: self.clone(), bytes }
    }

    /// Tells that there is room for what will be so long, or for anything at all; may block.
    ///
    /// # Errors
    /// [`Error::Full`].
    pub(super) fn admit(&self, length: Option<u64>) -> Result<()> {
        let (free, held) = (self.tree.free()?, self.held.load(Ordering::Acquire));
        self.fits(free, held, length.unwrap_or(1)).map(drop).ok_or(Error::Full)
    }

    /// Returns what is held with so much more, where that may be.
    fn fits(&self, free: u64, held: u64, more: u64) -> Option<u64> {
        held.checked_add(more).filter(|sum| *sum <= self.most.most(free, held))
    }
}

/// The weight of one upload or part; it is taken off when it is dropped.
pub(super) struct Weight {
    scales: Scales,
    bytes: u64,
}

impl Weight {
    /// Lets it hold so many bytes; may block.
    ///
    /// # Errors
    /// [`Error::Full`] when all together would hold more than they may.
    pub(super) fn grow_to(&mut self, bytes: u64) -> Result<()> {
        let Some(more) = bytes.checked_sub(self.bytes).filter(|more| *more > 0) else { return Ok(()) };
        let (scales, free) = (&self.scales, self.scales.tree.free()?);
        let fits = |held| scales.fits(free, held, more);
        scales.held.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).map_err(|_| Error::Full)?;
        self.bytes = bytes;
        Ok(())
    }

    /// Lets it hold no more than so many bytes.
    pub(super) fn shrink_to(&mut self, bytes: u64) {
        if let Some(less) = self.bytes.checked_sub(bytes) {
            self.scales.held.fetch_sub(less, Ordering::AcqRel);
            self.bytes = bytes;
        }
    }
}

impl Drop for Weight {
    fn drop(&mut self) {
        self.shrink_to(0);
    }
}
