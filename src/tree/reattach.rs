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
        let _alone =
            bind.then(|| StateDirectoryLock::acquire(store.state_dir())).transpose().map_err(Error::Filesystem)?;
        let kept = bind.then(|| kept_names_fn(store.clone()));
        let host = Arc::new(ServedFs::open(&options.root, kept).map_err(Error::Filesystem)?);
        let hands = FsHostAccess::new(Arc::clone(&host), BackgroundDeletes::default());
        let facts = |path: &TreePath| match hands.metadata(path) {
            Err(Error::Absent | Error::NoParent | Error::NotADirectory) => Ok(None),
            facts => facts.map(Some),
        };
        let (mut report, mut folders) = (Vec::new(), Vec::new());
        for (path, row) in store.nodes()? {
            let place = match (facts(&path)?, row.identity) {
                (
                    Some(InodeMetadata { kind: EntryKind::Directory, inode, birth_time: born }),
                    NodeIdentity::Directory { .. },
                ) => {
                    let found = NodeIdentity::Directory { inode, birth_time: born };
                    folders.push((row.id, found));
                    node_match(row.identity.matches(found))
                }
                (Some(InodeMetadata { kind: EntryKind::File, .. }), NodeIdentity::File { .. }) => {
                    let holder = path.parent().map(|parent| facts(&parent)).transpose()?.flatten();
                    let found = holder.map(|InodeMetadata { inode, birth_time: born, .. }| NodeIdentity::File {
                        inode,
                        birth_time: born,
                    });
                    node_match(found.is_some_and(|found| row.identity.matches(found)))
                }
                (Some(_) | None, _) => NodeMatch::Missing,
            };
            report.push(NodeReattachment { id: row.id, path, node_match: place });
        }
        if bind {
            host.lock_for_serving().map_err(Error::Filesystem)?;
            let marker = host.marker_at(&TreePath::root())?.ok_or(Error::Forbidden)?;
            let mut mounts = Vec::new();
            for (path, _) in host.mounts_below_root() {
                let named = report.iter().find(|node| node.path == path && node.node_match != NodeMatch::Missing);
                if let (Some(node), Some(marker)) = (named, host.marker_at(&path)?) {
                    mounts.push((node.id, marker));
                }
            }
            store.reattach_nodes(marker, &mounts, &folders)?;
            store.set_served_root(&options.root)?;
        }
        Ok(report)
    }
}

fn node_match(same: bool) -> NodeMatch {
    if same { NodeMatch::Same } else { NodeMatch::Different }
}
