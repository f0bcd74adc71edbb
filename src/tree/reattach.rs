//! Binding nodes to what stands at their paths now: after a restore, or a move of the whole tree to another file system.

use std::sync::Arc;

use super::hands::HostHands;
use super::host::{Exclusive, Host};
use super::index::{Facts, Hands};
use super::removals::Removals;
use super::{Error, Kind, Options, Result, Tree, kept_names};
use crate::domain::{NodeId, NodeIdentity, TreePath};
use crate::store::Store;

/// What stands at the path of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodePlace {
    /// The node itself.
    Same,
    /// Another file or directory, of the same kind: the node is bound to it.
    Another,
    /// Nothing of its kind: the node dangles, as before.
    Missing,
}

/// A node, and what stands at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reattachment {
    /// Its id.
    pub id: NodeId,
    /// Its path by the index.
    pub path: TreePath,
    /// What stands there.
    pub place: NodePlace,
}

impl Tree {
    /// Tells what stands at the path of each node in a folder that is not served now, in the order of their paths. When
    /// it is to `bind` them, the folder is the one that they are named in from now on, whatever its marker was; changes
    /// that were under way in the old one are forgotten.
    ///
    /// # Errors
    /// [`Error::Host`] when the folder can't be used, or a server uses it or the state; [`Error::Forbidden`] where it
    /// can't be written to; [`Error::Store`].
    pub fn reattach(options: &Options, store: &Store, bind: bool) -> Result<Vec<Reattachment>> {
        let _alone = bind.then(|| Exclusive::claim(store.state_dir())).transpose().map_err(Error::Host)?;
        let kept = bind.then(|| kept_names(store.clone()));
        let host = Arc::new(Host::open(&options.root, kept).map_err(Error::Host)?);
        let hands = HostHands::new(Arc::clone(&host), Removals::default());
        let facts = |path: &TreePath| match hands.ask(path) {
            Err(Error::Absent | Error::NoParent | Error::NotFolder) => Ok(None),
            facts => facts.map(Some),
        };
        let (mut report, mut folders) = (Vec::new(), Vec::new());
        for (path, row) in store.nodes()? {
            let place = match (facts(&path)?, row.identity) {
                (Some(Facts { kind: Kind::Folder, inode, born }), NodeIdentity::Directory { .. }) => {
                    let found = NodeIdentity::Directory { inode, birth_time: born };
                    folders.push((row.id, found));
                    place(row.identity.matches(found))
                }
                (Some(Facts { kind: Kind::File, .. }), NodeIdentity::File { .. }) => {
                    let holder = path.parent().map(|parent| facts(&parent)).transpose()?.flatten();
                    let found = holder.map(|Facts { inode, born, .. }| NodeIdentity::File { inode, birth_time: born });
                    place(found.is_some_and(|found| row.identity.matches(found)))
                }
                (Some(_) | None, _) => NodePlace::Missing,
            };
            report.push(Reattachment { id: row.id, path, place });
        }
        if bind {
            host.claim().map_err(Error::Host)?;
            let marker = host.marker_at(&TreePath::root())?.ok_or(Error::Forbidden)?;
            let mut mounts = Vec::new();
            for (path, _) in host.live_mounts() {
                let named = report.iter().find(|node| node.path == path && node.place != NodePlace::Missing);
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

fn place(same: bool) -> NodePlace {
    if same { NodePlace::Same } else { NodePlace::Another }
}
