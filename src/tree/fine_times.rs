//! The nanoseconds of modification times on file systems that keep only coarse ones (ext3 with small inodes, FAT).
//!
//! What tells two contents of one file apart is kept in them ([`super::tag`]). Where the file system cuts them off, the
//! store keeps what it has cut off of the last time that was set of each inode. It counts while the file still has that
//! time, to the precision that the file system has.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use super::Timestamp;
use super::fs::{ServedFs, Stat};
use crate::domain::TreePath;
use crate::store::{Result, Store, TreeMarker};

/// What is cut off of times, by device and inode.
pub(super) struct FineTimes {
    fs: Arc<ServedFs>,
    store: Store,
    /// The markers of file systems that keep coarse times, by their devices; none for one that can't be marked.
    coarse_markers: RwLock<HashMap<u64, Option<TreeMarker>>>,
    has_coarse: AtomicBool,
}

impl FineTimes {
    /// Begins with no file system known to keep coarse times.
    pub(super) fn new(fs: Arc<ServedFs>, store: Store) -> Self {
        Self { fs, store, coarse_markers: RwLock::default(), has_coarse: AtomicBool::new(false) }
    }

    /// Finds the file systems of which something was kept before.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn detect_coarse(&self) -> Result<()> {
        for (path, stat) in self.mounts() {
            if let Ok(Some(marker)) = self.fs.marker_at(&path)
                && self.store.has_fine_times(marker)?
            {
                self.add_coarse(stat.device, Some(marker));
            }
        }
        Ok(())
    }

    /// Returns the modification time as it was meant, for as long as the file has it.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn modified_time(&self, stat: &Stat) -> Result<Timestamp> {
        if !self.has_coarse.load(Ordering::Acquire) {
            return Ok(stat.modified);
        }
        let Some(Some(marker)) = self.coarse_markers.read().get(&stat.device).copied() else {
            return Ok(stat.modified);
        };
        let recorded =
            self.store.fine_time(marker, stat.inode)?.filter(|(seconds, _)| *seconds == stat.modified.seconds);
        Ok(recorded.map_or(stat.modified, |(seconds, nanos)| Timestamp { seconds, nanos }))
    }

    /// Notes the modification time that a file was given, of which the host says `now` since.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn record(&self, stat: &Stat, requested: Timestamp) -> Result<()> {
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

    /// Gives the content of a file, as the host says it is, other nanoseconds than any content had. A write in the second in
    /// which the file was changed last moves its time nowhere: what was noted of the old content would stand for the new.
    ///
    /// # Errors
    /// What the store says.
    pub(super) fn renew(&self, stat: &Stat, nanos: u32) -> Result<()> {
        if !self.has_coarse.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(Some(marker)) = self.coarse_markers.read().get(&stat.device).copied() else { return Ok(()) };
        self.store.set_fine_time(marker, stat.inode, stat.modified.seconds, nanos)
    }

    /// Takes a device for one that keeps whole seconds.
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
