//! Nanoseconds of modification times on file systems that keep only coarse ones (ext3 with small inodes, FAT).
//!
//! ETags depend on the nanoseconds ([`super::etag`]). If the file system truncates them, the store keeps the truncated
//! part of the last time that was set on each inode. It is valid while the file still has that time, to the precision
//! of the file system.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::Timestamp;
use super::fs::{ServedFs, Stat};
use crate::domain::TreePath;
use crate::store::{Result, Store, TreeMarker};

/// The truncated parts of modification times, by device and inode.
pub(super) struct FineTimes {
    fs: Arc<ServedFs>,
    store: Store,
    /// Markers of the file systems with coarse times, by device; `None` for one that can't be marked.
    coarse_markers: RwLock<HashMap<u64, Option<TreeMarker>>>,
    has_coarse: AtomicBool,
}

impl FineTimes {
    /// Creates the table with no file system known to keep coarse times.
    pub(super) fn new(fs: Arc<ServedFs>, store: Store) -> Self {
        Self { fs, store, coarse_markers: RwLock::default(), has_coarse: AtomicBool::new(false) }
    }

    /// Finds the file systems for which the store has times from earlier runs.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) fn detect_coarse(&self) -> Result<()> {
        for (path, stat) in self.mounts() {
            // By marker rather than device: device numbers may change at a reboot.
            if let Ok(Some(marker)) = self.fs.marker_at(&path)
                && self.store.has_fine_times(marker)?
            {
                self.add_coarse(stat.device, Some(marker));
            }
        }
        Ok(())
    }

    /// Returns the modification time with its truncated part, if the file still has the time that was set.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) fn modified_time(&self, stat: &Stat) -> Result<Timestamp> {
        if !self.has_coarse.load(Ordering::Acquire) {
            return Ok(stat.modified);
        }
        let Some(Some(marker)) = self.coarse_markers.read().get(&stat.device).copied() else {
            return Ok(stat.modified);
        };
        // The second must match: a time that was set beside the gateway since has no record.
        let recorded =
            self.store.fine_time(marker, stat.inode)?.filter(|(seconds, _)| *seconds == stat.modified.seconds);
        Ok(recorded.map_or(stat.modified, |(seconds, nanos)| Timestamp { seconds, nanos }))
    }

    /// Records the modification time that was set on a file, if its metadata `stat` shows a truncated one.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) fn record(&self, stat: &Stat, requested: Timestamp) -> Result<()> {
        // Nothing was truncated: the usual case, on ext4, XFS and btrfs.
        if stat.modified == requested {
            return Ok(());
        }
        let known = self.coarse_markers.read().get(&stat.device).copied();
        let marker = known.unwrap_or_else(|| {
            let mount = self.mounts().into_iter().find(|(_, root)| root.device == stat.device);
            let marker = mount.and_then(|(path, _)| self.fs.marker_at(&path).ok().flatten());
            if marker.is_none() {
                tracing::warn!(
                    "a file system keeps coarse times and has no marker: two contents may have one ETag there"
                );
            }
            self.add_coarse(stat.device, marker);
            marker
        });
        let Some(marker) = marker else { return Ok(()) };
        self.store.set_fine_time(marker, stat.inode, stat.modified.seconds, requested.nanos)
    }

    /// Replaces the recorded nanoseconds of a file by fresh ones before its content changes. A write within the second
    /// of the last change leaves a coarse time as it is, so the record of the old content would count for the new.
    ///
    /// # Errors
    /// Errors of the store.
    pub(super) fn renew(&self, stat: &Stat, nanos: u32) -> Result<()> {
        if !self.has_coarse.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(Some(marker)) = self.coarse_markers.read().get(&stat.device).copied() else { return Ok(()) };
        self.store.set_fine_time(marker, stat.inode, stat.modified.seconds, nanos)
    }

    /// Treats a device as one that keeps whole seconds.
    #[cfg(test)]
    pub(super) fn assume_coarse(&self, device: u64) {
        self.add_coarse(device, Some(TreeMarker([7; 16])));
    }

    fn add_coarse(&self, device: u64, marker: Option<TreeMarker>) {
        self.coarse_markers.write().insert(device, marker);
        self.has_coarse.store(true, Ordering::Release);
    }

    fn mounts(&self) -> Vec<(TreePath, Stat)> {
        let root = self.fs.stat(&TreePath::root()).ok().map(|stat| (TreePath::root(), stat));
        root.into_iter().chain(self.fs.mounts_below_root()).collect()
    }
}
