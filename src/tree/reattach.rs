//! Binding nodes to what stands at their paths now: after a restore, or a move of the whole tree to another file system.

use std::sync::Arc;

use super::background_delete::BackgroundDeletes;
use super::fs::{ServedFs, StateDirectoryLock};
use super::host_access::FsHostAccess;
use super::index::{HostAccess, InodeMetadata};
use super::{EntryKind, Error, Result, Tree, TreeOptions, kept_names_fn};
use crate::domain::{NodeId, NodeIdentity, TreePath};
use crate::store::Store;

/// What stands at the path of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeMatch {
    /// The node itself.
    Same,
    /// Another file or directory, of the same kind: the node is bound to it.
    Different,
    /// Nothing of its kind: the node dangles, as before.
    Missing,
}

/// A node, and what stands at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeReattachment {
    /// Its id.
    pub id: NodeId,
    /// Its path by the index.
    pub path: TreePath,
    /// What stands there.
    pub node_match: NodeMatch,
}

impl Tree {
    /// Tells what stands at the path of each node in a folder that is not served now, in the order of their paths. When
    /// it is to `bind` them, the folder is the one that they are named in from now on, whatever its marker was; changes
    /// that were under way in the old one are forgotten.
    ///
    /// # Errors
    /// [`Error::Filesystem`] when the folder can't be used, or a server uses it or the state; [`Error::Forbidden`] where it
    /// can't be written to; [`Error::Store`].
    pub fn reattach(options: &TreeOptions, store: &Store, bind: bool) -> Result<Vec<NodeReattachment>> {
        let _serve_lock =
            bind.then(|| StateDirectoryLock::acquire(store.state_dir())).transpose().map_err(Error::Filesystem)?;
        let kept_names = bind.then(|| kept_names_fn(store.clone()));
        let fs = Arc::new(ServedFs::open(&options.root, kept_names).map_err(Error::Filesystem)?);
        let host_access = FsHostAccess::new(Arc::clone(&fs), BackgroundDeletes::default());
        let metadata = |path: &TreePath| match host_access.metadata(path) {
            Err(Error::Absent | Error::NoParent | Error::NotADirectory) => Ok(None),
            metadata => metadata.map(Some),
        };
        let (mut report, mut identities) = (Vec::new(), Vec::new());
        for (path, row) in store.nodes()? {
            let node_match = match (metadata(&path)?, row.identity) {
                (
                    Some(InodeMetadata { kind: EntryKind::Directory, inode, birth_time }),
                    NodeIdentity::Directory { .. },
                ) => {
                    let found = NodeIdentity::Directory { inode, birth_time };
                    identities.push((row.id, found));
                    node_match(row.identity.matches(found))
                }
                (Some(InodeMetadata { kind: EntryKind::File, .. }), NodeIdentity::File { .. }) => {
                    let parent = path.parent().map(|parent| metadata(&parent)).transpose()?.flatten();
                    let found =
                        parent.map(|InodeMetadata { inode, birth_time, .. }| NodeIdentity::File { inode, birth_time });
                    node_match(found.is_some_and(|found| row.identity.matches(found)))
                }
                (Some(_) | None, _) => NodeMatch::Missing,
            };
            report.push(NodeReattachment { id: row.id, path, node_match });
        }
        if bind {
            fs.lock_for_serving().map_err(Error::Filesystem)?;
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

fn node_match(same: bool) -> NodeMatch {
    if same { NodeMatch::Same } else { NodeMatch::Different }
}
