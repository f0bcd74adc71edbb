//! Grants and scopes with the current paths of their nodes.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{Result, StoreError};
use crate::domain::{NodeId, NodeIdentity, Permission, ResolvedScope, Scope, TreePath, optional_text, schema};

/// A grant or scope; without a path it is dangling.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = NodePermission)]
pub struct LocatedScope {
    /// Id of the node.
    #[schema(value_type = schema::NodeId)]
    pub node: NodeId,
    /// Permission on the node and below it.
    #[schema(value_type = schema::Permission)]
    pub permission: Permission,
    /// Present path of the node.
    #[serde(default, serialize_with = "optional_text::serialize", deserialize_with = "deserialize_displayed_path")]
    #[schema(value_type = Option<schema::Path>)]
    pub path: Option<TreePath>,
}

impl LocatedScope {
    /// Returns the node and the permission.
    pub fn scope(&self) -> Scope {
        Scope { node: self.node, permission: self.permission }
    }
}

/// Deserializes the path of a node as [`TreePath`] is displayed.
fn deserialize_displayed_path<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<TreePath>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| TreePath::parse_displayed(&text)).transpose().map_err(serde::de::Error::custom)
}

/// Refuses a node that has no row.
pub(super) fn check_node_exists(c: &Connection, node: NodeId) -> Result<()> {
    let mut select = c.prepare_cached("SELECT 1 FROM nodes WHERE id = ?1")?;
    if select.exists([node])? { Ok(()) } else { Err(StoreError::NotFound(format!("the node {node}"))) }
}

/// Returns the path of a node by the index; `None` when it dangles.
pub(super) fn locate_node(c: &Connection, node: NodeId) -> Result<Option<TreePath>> {
    Ok(NodeRowCache::default().locate(c, node)?.map(|(path, _)| path))
}

/// Reads grants or scopes with the paths of their nodes.
pub(super) fn located_scopes(
    c: &Connection,
    query: &str,
    owner_key: impl rusqlite::ToSql,
) -> Result<Vec<LocatedScope>> {
    let mut node_rows = NodeRowCache::default();
    let scopes = select_scopes(c, query, owner_key)?.into_iter();
    scopes
        .map(|Scope { node, permission }| {
            Ok(LocatedScope { node, permission, path: node_rows.locate(c, node)?.map(|(path, _)| path) })
        })
        .collect()
}

/// Reads grants or scopes with the paths and identities of their nodes, without those that dangle.
pub(super) fn resolved_scopes(
    c: &Connection,
    node_rows: &mut NodeRowCache,
    query: &str,
    owner_key: impl rusqlite::ToSql,
) -> Result<Vec<ResolvedScope>> {
    let mut found = Vec::new();
    for scope in select_scopes(c, query, owner_key)? {
        if let Some((path, identity)) = node_rows.locate(c, scope.node)? {
            found.push(ResolvedScope { path, scope, identity });
        }
    }
    Ok(found)
}

fn select_scopes(c: &Connection, query: &str, owner_key: impl rusqlite::ToSql) -> Result<Vec<Scope>> {
    let mut select = c.prepare_cached(query)?;
    let scope = |row: &rusqlite::Row<'_>| Ok(Scope { node: row.get(0)?, permission: row.get::<_, Permission>(1)? });
    Ok(select.query_map([owner_key], scope)?.collect::<Result<_, _>>()?)
}

/// Rows of nodes that were read so far in one snapshot: grants and scopes mostly share their ancestors.
#[derive(Default)]
pub(super) struct NodeRowCache(HashMap<NodeId, Option<NodeLocationRow>>);

#[derive(Clone)]
struct NodeLocationRow {
    parent: Option<NodeId>,
    name: Vec<u8>,
    is_directory: bool,
    inode: Option<i64>,
    birth_time: Option<i64>,
}

impl NodeRowCache {
    /// Returns the path and the identity of a node; `None` when it dangles: it has no row, or its ancestors don't lead
    /// to the root.
    pub(super) fn locate(&mut self, c: &Connection, id: NodeId) -> Result<Option<(TreePath, NodeIdentity)>> {
        let Some(node) = self.row(c, id)? else { return Ok(None) };
        // A file has the identity of its parent directory, so that a file that replaces it stays the same node.
        let identity_row = match (node.is_directory, node.parent) {
            (true, _) => Some(node.clone()),
            (false, Some(parent)) => self.row(c, parent)?,
            (false, None) => None,
        };
        let Some((Some(inode), birth_time)) = identity_row.map(|row| (row.inode, row.birth_time)) else {
            return Ok(None);
        };
        let inode = inode.cast_unsigned();
        let identity = if node.is_directory {
            NodeIdentity::Directory { inode, birth_time }
        } else {
            NodeIdentity::File { inode, birth_time }
        };
        Ok(self.path(c, node)?.map(|path| (path, identity)))
    }

    fn path(&mut self, c: &Connection, node: NodeLocationRow) -> Result<Option<TreePath>> {
        let mut names = Vec::new();
        let mut length = 0;
        let mut current = node;
        while let Some(parent) = current.parent {
            length += current.name.len() + 1;
            names.push(current.name);
            match self.row(c, parent)? {
                // The bound ends a cycle of parents, which only an edited or damaged database has.
                Some(row) if row.is_directory && length <= 4096 => current = row,
                _ => return Ok(None),
            }
        }
        // Only the root has neither parent nor name: a detached row must not pass for it.
        if !current.name.is_empty() {
            return Ok(None);
        }
        names.reverse();
        Ok(TreePath::parse(&names.join(&b'/')).ok())
    }

    fn row(&mut self, c: &Connection, id: NodeId) -> Result<Option<NodeLocationRow>> {
        if let Some(cached) = self.0.get(&id) {
            return Ok(cached.clone());
        }
        let select = "SELECT parent, name, is_directory, inode, birth_time FROM nodes WHERE id = ?1";
        let mut select = c.prepare_cached(select)?;
        let node = |row: &rusqlite::Row<'_>| {
            Ok(NodeLocationRow {
                parent: row.get(0)?,
                name: row.get(1)?,
                is_directory: row.get(2)?,
                inode: row.get(3)?,
                birth_time: row.get(4)?,
            })
        };
        let found = select.query_row([id], node).optional()?;
        self.0.insert(id, found.clone());
        Ok(found)
    }
}
