//! Comparison of a served directory with what the store knows of it, for a diagnosis beside a running server.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::background_delete::BackgroundDeletes;
use super::fs::ServedFs;
use super::host_access::FsHostAccess;
use super::reattach::{NodeMatch, compare_with_entry};
use super::{Error, Result, Tree, TreeOutage, availability};
use crate::domain::{TreePath, UnixMillis};
use crate::store::{AccessReference, Store};

/// A grant or scope that reaches nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostAccess {
    /// The grant or scope.
    pub reference: AccessReference,
    /// What is at the path of its node; `None` where the node has no path any more.
    pub node_match: Option<NodeMatch>,
}

impl Tree {
    /// Returns the file systems mounted in a directory that have nodes and are not there.
    ///
    /// # Errors
    /// [`Error::Filesystem`] when the directory can't be opened; [`Error::Store`].
    pub fn lost_mounts(root: &Path, store: &Store) -> Result<Vec<(TreePath, TreeOutage)>> {
        let fs = ServedFs::open(root, None).map_err(Error::Filesystem)?;
        fs.set_known_tree(availability::known_tree(store)?);
        Ok(fs.check_mounts())
    }

    /// Returns the grants, and the scopes of tokens that are live at `now`, whose nodes are not at their paths in a
    /// directory.
    ///
    /// # Errors
    /// [`Error::Filesystem`] when the directory can't be opened; [`Error::Store`].
    pub fn lost_access(root: &Path, store: &Store, now: UnixMillis) -> Result<Vec<LostAccess>> {
        let fs = Arc::new(ServedFs::open(root, None).map_err(Error::Filesystem)?);
        let host_access = FsHostAccess::new(fs, BackgroundDeletes::default());
        let mut matches = HashMap::new();
        let mut lost = Vec::new();
        for reference in store.access_references(now)? {
            let node_match = match (matches.get(&reference.node), &reference.location) {
                (Some(known), _) => *known,
                (None, None) => None,
                (None, Some((path, identity))) => Some(compare_with_entry(&host_access, path, *identity)?.0),
            };
            matches.insert(reference.node, node_match);
            if node_match != Some(NodeMatch::Same) {
                lost.push(LostAccess { reference, node_match });
            }
        }
        Ok(lost)
    }
}
