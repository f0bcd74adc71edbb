//! Whether the tree is the one that nodes were named in, and is there.
//!
//! At start the served folder is recognised by its marker; while it is served, [`Tree::check_availability`] compares what its path
//! shows with what is held open, and lets nothing be served meanwhile that is gone ([`TreeOutage`]). Nothing that would end a
//! node, or conclude an intent, is done by what stands there in its place. A file system that is mounted in the tree is
//! recognised in the same way once a node was named in it.

use parking_lot::{Mutex, RwLock};

use super::fs::{KnownMount, KnownTree, ServedFs};
use super::index::NodeIndex;
use super::{Error, Result, Tree, TreeOutage};
use crate::domain::{NodeIdentity, TreePath};
use crate::store::{NodeRow, Store};

/// What the last look has found.
#[derive(Default)]
pub(super) struct AvailabilityState {
    outages: RwLock<Vec<(TreePath, TreeOutage)>>,
    last_fingerprint: Mutex<Option<MountFingerprint>>,
}

/// By what is told whether another mount could have to be noted.
#[derive(Clone, PartialEq)]
struct MountFingerprint {
    version: (u64, i64),
    mounts: Vec<TreePath>,
}

/// Tells that the served folder is the one that nodes were named in. One without nodes may be any.
///
/// # Errors
/// [`Error::TreeMismatch`].
pub(super) fn verify_root(fs: &ServedFs, index: &NodeIndex) -> Result<()> {
    let store = index.store();
    let Some(row) = store.node_at(&TreePath::root())? else { return Ok(()) };
    let is_same = match store.root_marker()? {
        Some(known) => fs.marker_at(&TreePath::root())? == Some(known) && inode_of(&row) == fs.root()?.stat()?.inode,
        // Written before there were markers, or where none could be made.
        None => index.row_matches(&row, &TreePath::root())?,
    };
    if is_same { Ok(()) } else { Err(Error::TreeMismatch) }
}

/// Notes the marker of a served folder that was recognised.
pub(super) fn record_root_marker(fs: &ServedFs, store: &Store) -> Result<()> {
    match fs.marker_at(&TreePath::root())? {
        Some(marker) if store.root_marker()? != Some(marker) => Ok(store.set_root_marker(marker)?),
        Some(_) | None => Ok(()),
    }
}

fn known_tree(store: &Store) -> Result<KnownTree> {
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
    /// Looks whether the served folder, and every file system in it in which nodes were named, is where it was; to be
    /// called about once a second, and whenever the mount table changes. Returns what is not, with the reason.
    pub fn check_availability(&self) -> Vec<(TreePath, TreeOutage)> {
        let outages = match self.refresh_mounts() {
            Ok(outages) => outages,
            Err(error) => {
                tracing::warn!(%error, "it can't be told which file systems belong to the tree: the last ones are taken");
                self.shared.fs.check_mounts()
            }
        };
        let mut last = self.shared.availability.outages.write();
        for (path, outage) in outages.iter().filter(|outage| !last.contains(outage)) {
            tracing::error!(%path, "the tree is not served from here down until it is back: {outage}");
        }
        for (path, _) in last.iter().filter(|(path, _)| !outages.iter().any(|(other, _)| other == path)) {
            tracing::info!(%path, "the tree is back here, and served again");
        }
        last.clone_from(&outages);
        drop(last);
        // What earlier runs left in staging goes in the background.
        self.shared.fs.take_debris().into_iter().for_each(|debris| self.shared.background_deletes.enqueue(debris));
        outages
    }

    /// Returns what the last look has found not to be there.
    pub fn outages(&self) -> Vec<(TreePath, TreeOutage)> {
        self.shared.availability.outages.read().clone()
    }

    /// Lets nothing be served until the next look has ended: the one under way gets no answer.
    pub fn suspend(&self) {
        let mut last = self.shared.availability.outages.write();
        let silent = (TreePath::root(), TreeOutage::Unresponsive);
        if !last.contains(&silent) {
            tracing::error!("the tree is not served until its file system answers");
            *last = vec![silent];
        }
        self.shared.fs.suspend(TreeOutage::Unresponsive);
    }

    fn refresh_mounts(&self) -> Result<Vec<(TreePath, TreeOutage)>> {
        let (fs, store) = (&self.shared.fs, self.shared.index.store());
        let version = store.data_version()?;
        let mut last = self.shared.availability.last_fingerprint.lock();
        if last.as_ref().is_none_or(|last| last.version != version) {
            fs.set_known_tree(known_tree(store)?);
        }
        let outages = fs.check_mounts();
        let fingerprint = MountFingerprint { version, mounts: fs.mount_points() };
        if last.as_ref() == Some(&fingerprint) {
            return Ok(outages);
        }
        *last = Some(fingerprint);
        self.shared.etags.detect_coarse_times()?;
        if self.shared.is_serving() && self.record_mount_markers()? {
            let known = known_tree(store)?;
            let paths: Vec<_> = known.mounts.iter().map(|mount| mount.path.to_string()).collect();
            fs.set_known_tree(known);
            let outages = fs.check_mounts();
            tracing::info!(?paths, "nodes were named in a file system that is mounted in the tree: it is watched, too");
            return Ok(outages);
        }
        Ok(outages)
    }

    /// Notes the markers of mounts in which nodes were named since; tells whether there are any.
    fn record_mount_markers(&self) -> Result<bool> {
        let (fs, index) = (&self.shared.fs, &self.shared.index);
        let marked = index.store().marked_mounts()?;
        let mut recorded = false;
        for (path, stat) in fs.mounts_below_root() {
            let row = index.store().node_at(&path)?;
            let Some(row) = row.filter(|row| !marked.iter().any(|mount| mount.node.id == row.id)) else { continue };
            if !index.row_matches(&row, &path)? {
                continue;
            }
            // It has one once something can be staged there.
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
