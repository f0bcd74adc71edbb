//! The bytes that an upload may have while it arrives, as the storage quotas leave them. The commit decides; this
//! refuses early what it would refuse.

use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(doc)]
use super::Error;
use super::{Result, View};
use crate::domain::TreePath;

/// Number of bytes after which the quotas are looked at again: other uploads may have used them up meanwhile.
const RECHECK_BYTES: u64 = 8 << 20;

/// The budget of one upload.
pub(super) struct UploadBudget {
    /// Bytes of the file that it replaces.
    replaced: u64,
    /// Size up to which the quotas allow it, as they were at the last look; the maximum where there is none.
    allowed: AtomicU64,
}

impl UploadBudget {
    /// Creates the budget of an upload to a path, over a file of `replaced` bytes.
    pub(super) fn new(view: &View, path: &TreePath, replaced: u64) -> Result<Self> {
        // Without a quota, no write looks at one again.
        let allowed = if view.quota_space(path)?.is_some() { 0 } else { u64::MAX };
        Ok(Self { replaced, allowed: AtomicU64::new(allowed) })
    }

    /// Checks that the upload may have `size` bytes.
    ///
    /// # Errors
    /// [`Error::StorageQuotaExceeded`].
    pub(super) fn check(&self, view: &View, path: impl FnOnce() -> TreePath, size: u64) -> Result<()> {
        if size <= self.allowed.load(Ordering::Relaxed) {
            return Ok(());
        }
        let path = path();
        view.check_quota(&path, self.replaced, size)?;
        let available = view.quota_space(&path)?.map_or(u64::MAX, |(_, space)| space.available());
        let allowed = self.replaced.saturating_add(available).min(size.saturating_add(RECHECK_BYTES));
        self.allowed.store(allowed, Ordering::Relaxed);
        Ok(())
    }

    /// Tells whether a write up to `size` bytes needs no look at the quotas.
    pub(super) fn allows_at_once(&self, size: u64) -> bool {
        size <= self.allowed.load(Ordering::Relaxed)
    }
}
