//! Reattaching nodes to the entries at their paths, after a restore or a move of the whole tree to another file system.

use std::sync::Arc;

use super::background_delete::BackgroundDeletes;
use super::fs::{ServedFs, StateDirectoryLock};
use super::host_access::FsHostAccess;
use super::index::{HostAccess, InodeMetadata};
use super::{EntryKind, Error, Result, Tree, TreeOptions, kept_names_fn};
use crate::domain::{NodeId, NodeIdentity, TreePath};
use crate::store::Store;

/// Comparison of a node with the entry at its path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMatch {
    /// The entry is the node.
    Same,
    /// The entry is another file or directory of the same kind: the node is reattached to it.
    Different,
    /// No entry of its kind exists: the node stays dangling.
    Missing,
}

/// A node and the result of its reattachment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReattachment {
    /// Id of the node.
    pub id: NodeId,
    /// Path of the node in the index.
    pub path: TreePath,
    /// The entry at that path, compared with the node.
    pub node_match: NodeMatch,
}

impl Tree {
    /// Compares each node with the entry at its path in a directory that is not being served, in the order of their
    /// paths. With `bind`, the nodes are reattached to those entries, whatever the marker of the directory was; intents
    /// of changes in the old directory are dropped.
    ///
    /// # Errors
    /// [`Error::Filesystem`] when the directory can't be opened, or a server uses it or the state directory;
    /// [`Error::Forbidden`] when it is not writable; [`Error::Store`].
    pub fn reattach(options: &TreeOptions, store: &Store, bind: bool) -> Result<Vec<NodeReattachment>> {
        // To bind, no server may use this state: nodes would change under its running requests.
        let _serve_lock =
            bind.then(|| StateDirectoryLock::acquire(store.state_dir())).transpose().map_err(Error::Filesystem)?;
        let kept_names = bind.then(|| kept_names_fn(store.clone()));
        let fs = Arc::new(ServedFs::open(&options.root, kept_names).map_err(Error::Filesystem)?);
        let host_access = FsHostAccess::new(Arc::clone(&fs), BackgroundDeletes::default());
        let (mut report, mut identities) = (Vec::new(), Vec::new());
        for (path, row) in store.nodes()? {
            let (node_match, found) = compare_with_entry(&host_access, &path, row.identity)?;
            // The row of a file has no identity of its own, so only directories are bound again.
            identities
                .extend(found.filter(|found| matches!(found, NodeIdentity::Directory { .. })).map(|f| (row.id, f)));
            report.push(NodeReattachment { id: row.id, path, node_match });
        }
        if bind {
            fs.lock_for_serving().map_err(Error::Filesystem)?;
            // Without a marker, which needs a writable directory, the next start could not recognise the tree.
            let marker = fs.marker_at(&TreePath::root())?.ok_or(Error::Forbidden)?;
            let mut mounts = Vec::new();
            for (path, _) in fs.mounts_below_root() {
                let named = report.iter().find(|node| node.path == path && node.node_match != NodeMatch::Missing);
                if let (Some(node), Some(marker)) = (named, fs.marker_at(&path)?) {
                    mounts.push((node.id, marker));
                }
            }
            store.reattach_nodes(marker, &mounts, &identities)?;
            store.set_served_root(&options.root)?;
        }
        Ok(report)
    }
}

/// Compares a node with the entry at a path; returns also the identity that the node would have there, where there is an
/// entry of its kind.
pub(super) fn compare_with_entry(
    host_access: &FsHostAccess,
    path: &TreePath,
    identity: NodeIdentity,
) -> Result<(NodeMatch, Option<NodeIdentity>)> {
    let metadata = |path: &TreePath| match host_access.metadata(path) {
        Err(Error::Absent | Error::NoParent | Error::NotADirectory) => Ok(None),
        metadata => metadata.map(Some),
    };
    let found = match (metadata(path)?, identity) {
        (Some(InodeMetadata { kind: EntryKind::Directory, inode, birth_time }), NodeIdentity::Directory { .. }) => {
            Some(NodeIdentity::Directory { inode, birth_time })
        }
        (Some(InodeMetadata { kind: EntryKind::File, .. }), NodeIdentity::File { .. }) => {
            let parent = path.parent().map(|parent| metadata(&parent)).transpose()?.flatten();
            match parent.map(|parent| NodeIdentity::File { inode: parent.inode, birth_time: parent.birth_time }) {
                Some(found) => Some(found),
                None => return Ok((NodeMatch::Different, None)),
            }
        }
        (Some(_) | None, _) => return Ok((NodeMatch::Missing, None)),
    };
    let is_same = found.is_some_and(|found| identity.matches(found));
    Ok((if is_same { NodeMatch::Same } else { NodeMatch::Different }, found))
}
