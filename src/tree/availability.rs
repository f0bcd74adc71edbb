//! Availability of the tree: whether it is mounted, and is the one in which node ids were assigned.
//!
//! At start the served directory is recognised by its marker. While it is served, [`Tree::check_availability`] compares
//! the directory at its path with the one that is open, and suspends service while they differ ([`TreeOutage`]): a bare
//! mount point must not end a node or decide an intent. A file system that is mounted in the tree is watched in the
//! same way once it has a node.

use parking_lot::{Mutex, RwLock};

use super::fs::{KnownMount, KnownTree, ServedFs};
use super::index::NodeIndex;
use super::{Error, Result, Tree, TreeOutage};
use crate::domain::{NodeIdentity, TreePath};
use crate::store::{NodeRow, Store};

/// Result of the last check.
#[derive(Default)]
pub(super) struct AvailabilityState {
    outages: RwLock<Vec<(TreePath, TreeOutage)>>,
    last_fingerprint: Mutex<Option<MountFingerprint>>,
}

/// Key that changes whenever a mount may have to be recorded: versions of the store, and mount points.
#[derive(Clone, PartialEq)]
struct MountFingerprint {
    version: (u64, i64),
    mounts: Vec<TreePath>,
}

/// Checks that the served directory is the one in which node ids were assigned. Without nodes, any directory will do.
///
/// # Errors
/// [`Error::TreeMismatch`].
pub(super) fn verify_root(fs: &ServedFs, index: &NodeIndex) -> Result<()> {
    let store = index.store();
    let Some(row) = store.node_at(&TreePath::root())? else { return Ok(()) };
    let is_same = match store.root_marker()? {
        // A copy of the tree has the marker, too: the inode tells the two apart.
        Some(known) => fs.marker_at(&TreePath::root())? == Some(known) && inode_of(&row) == fs.root()?.stat()?.inode,
        // No marker: the store is older than markers, or none could be written.
        None => index.row_matches(&row, &TreePath::root())?,
    };
    if is_same { Ok(()) } else { Err(Error::TreeMismatch) }
}

/// Records the marker of a served directory that was verified.
pub(super) fn record_root_marker(fs: &ServedFs, store: &Store) -> Result<()> {
    match fs.marker_at(&TreePath::root())? {
        Some(marker) if store.root_marker()? != Some(marker) => Ok(store.set_root_marker(marker)?),
        Some(_) | None => Ok(()),
    }
}

pub(super) fn known_tree(store: &Store) -> Result<KnownTree> {
    let mounts = store.marked_mounts()?.into_iter().map(|mount| {
        let inode = inode_of(&mount.node);
        KnownMount { path: mount.path, marker: mount.marker, inode }
    });
    Ok(KnownTree { marker: store.root_marker()?, mounts: mounts.collect() })
}

fn inode_of(row: &NodeRow) -> u64 {
    match row.identity {
        NodeIdentity::Directory { inode, .. } | NodeIdentity::File { inode, .. } => inode,
    }
}

impl Tree {
    /// Checks that the served directory, and every mounted file system in it that has nodes, is still mounted. Call it
    /// about once a second, and whenever the mount table changes. Returns the paths that are not, with the reasons.
    pub fn check_availability(&self) -> Vec<(TreePath, TreeOutage)> {
        let outages = match self.refresh_mounts() {
            Ok(outages) => outages,
            Err(error) => {
                tracing::warn!(%error, "mounts of the tree can't be read from the store: the last known ones are checked");
                self.shared.fs.check_mounts()
            }
        };
        let mut last = self.shared.availability.outages.write();
        // Only changes are logged, since this is called every second.
        for (path, outage) in outages.iter().filter(|outage| !last.contains(outage)) {
            tracing::error!(%path, "the tree is not served from here down until it is back: {outage}");
        }
        for (path, _) in last.iter().filter(|(path, _)| !outages.iter().any(|(other, _)| other == path)) {
            tracing::info!(%path, "the tree is back here, and served again");
        }
        last.clone_from(&outages);
        drop(last);
        // Debris of earlier runs, found when staging of a mount was opened.
        self.shared.fs.take_debris().into_iter().for_each(|debris| self.shared.background_deletes.enqueue(debris));
        outages
    }

    /// Returns the outages that the last check has found.
    pub fn outages(&self) -> Vec<(TreePath, TreeOutage)> {
        self.shared.availability.outages.read().clone()
    }

    /// Suspends the tree until the next check has ended, since the one under way hangs.
    pub fn suspend(&self) {
        let mut last = self.shared.availability.outages.write();
        let unresponsive = (TreePath::root(), TreeOutage::Unresponsive);
        if !last.contains(&unresponsive) {
            tracing::error!("the tree is not served until its file system answers");
            *last = vec![unresponsive];
        }
        self.shared.fs.suspend(TreeOutage::Unresponsive);
    }

    fn refresh_mounts(&self) -> Result<Vec<(TreePath, TreeOutage)>> {
        let (fs, store) = (&self.shared.fs, self.shared.index.store());
        let version = store.data_version()?;
        let mut last = self.shared.availability.last_fingerprint.lock();
        // Before the check, which compares with what is known: another process may have assigned ids in a mount.
        if last.as_ref().is_none_or(|last| last.version != version) {
            fs.set_known_tree(known_tree(store)?);
        }
        let outages = fs.check_mounts();
        let fingerprint = MountFingerprint { version, mounts: fs.mount_points() };
        if last.as_ref() == Some(&fingerprint) {
            return Ok(outages);
        }
        self.shared.etags.detect_coarse_times()?;
        let is_recorded = self.shared.is_serving() && self.record_mount_markers()?;
        // Only once the store has it all: after an error the next call tries again.
        *last = Some(fingerprint);
        if is_recorded {
            let known = known_tree(store)?;
            let paths: Vec<_> = known.mounts.iter().map(|mount| mount.path.to_string()).collect();
            fs.set_known_tree(known);
            let outages = fs.check_mounts();
            tracing::info!(?paths, "a file system that is mounted in the tree has nodes: it is watched, too");
            return Ok(outages);
        }
        Ok(outages)
    }

    /// Records the markers of mounts that have a node since the last call; returns whether there are any.
    fn record_mount_markers(&self) -> Result<bool> {
        let (fs, index) = (&self.shared.fs, &self.shared.index);
        let marked = index.store().marked_mounts()?;
        let mut recorded = false;
        for (path, stat) in fs.mounts_below_root() {
            let row = index.store().node_at(&path)?;
            let Some(row) = row.filter(|row| !marked.iter().any(|mount| mount.node.id == row.id)) else { continue };
            // The row may be that of the bare mount point: another file system must not be recorded for it.
            if !index.row_matches(&row, &path)? {
                continue;
            }
            // Opening staging writes the marker.
            let directory = fs.open_directory(&path)?;
            if let Err(error) = fs.staging(&directory, stat.mount_key()) {
                tracing::debug!(%path, %error, "a mounted file system can't be marked");
            }
            if let Some(marker) = fs.marker_at(&path)? {
                index.store().set_mount_marker(row.id, marker)?;
                recorded = true;
            }
        }
        Ok(recorded)
    }
}
