//! The index of named nodes.
//!
//! A row refers to its parent's row and holds a name, so that all rows below a directory follow it when it moves.
//! Whether a row still matches the entry of the file system is for `tree` to judge.

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::parse_stored_path;
use super::intents::{ChangeIntent, delete_intent_row, select_intents};
use super::{BallastShare, Result, Store, StoreError, WriteDurability};
use crate::domain::{EntryName, Login, NodeId, NodeIdentity, TreePath};

/// A named node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NodeRow {
    /// The stable id.
    pub(crate) id: NodeId,
    /// Id of the parent directory; `None` for the root.
    pub(crate) parent: Option<NodeId>,
    /// Name in the parent directory; empty for the root.
    pub(crate) name: Vec<u8>,
    /// Identity that the entry at the path must have to be this node.
    pub(crate) identity: NodeIdentity,
}

/// One step of the way from the root to a node: a name (empty for the root) and the identity of the entry there.
pub(crate) type NodePathStep = (Vec<u8>, NodeIdentity);

/// Generator of new random node ids.
pub(crate) type NodeIdGenerator<'a> = &'a dyn Fn() -> Result<NodeId>;

/// A move that was completed on the file system, with the identities of the entries there.
pub(crate) struct CompletedMove<'a> {
    /// The intent that was recorded for it, if any.
    pub(crate) intent: Option<i64>,
    /// Path of the entry before the move.
    pub(crate) source: &'a TreePath,
    /// Identity that a row at the source must have to belong to the entry.
    pub(crate) identity: NodeIdentity,
    /// Path of the entry after the move.
    pub(crate) target: &'a TreePath,
    /// The steps from the root to the directory that holds the entry now.
    pub(crate) parent_steps: &'a [NodePathStep],
    /// New identities of rows at and below the source, where they changed; rows with `None` are deleted.
    pub(crate) updated_identities: &'a [(NodeId, Option<NodeIdentity>)],
}

/// The columns that [`node_from_row`] reads; the identity of a file is that of its parent directory.
pub(super) const NODE_COLUMNS: &str = "SELECT n.id, n.parent, n.name, n.is_directory, \
     CASE WHEN n.is_directory = 1 THEN n.inode ELSE p.inode END, \
     CASE WHEN n.is_directory = 1 THEN n.birth_time ELSE p.birth_time END";
pub(super) const NODE_TABLES: &str = "FROM nodes n LEFT JOIN nodes p ON p.id = n.parent";

/// The rows below the node `?1`, with their paths relative to it, in which `?2` stands between two names. Their first
/// column is the id, the second what [`path_below_from_row`] reads.
pub(super) const PATHS_BELOW: &str = "WITH RECURSIVE down (id, place) AS ( \
     SELECT id, name FROM nodes WHERE parent = ?1 UNION ALL \
     SELECT n.id, down.place || ?2 || n.name FROM nodes n JOIN down ON n.parent = down.id)";
/// The bytes for `?2` of [`PATHS_BELOW`].
pub(super) const PATH_SEPARATOR: &[u8] = b"/";

impl Store {
    /// Returns the path of a node by the index, and its row.
    pub(crate) fn node(&self, id: NodeId) -> Result<Option<(TreePath, NodeRow)>> {
        self.snapshot(|connection| {
            let sql = format!("{NODE_COLUMNS} {NODE_TABLES} WHERE n.id = ?1");
            let row = connection.prepare_cached(&sql)?.query_row([id], node_from_row).optional()?;
            row.map(|row| Ok((node_path(connection, id)?, row))).transpose()
        })
    }

    /// Returns the row of the node at a path.
    pub(crate) fn node_at(&self, path: &TreePath) -> Result<Option<NodeRow>> {
        self.snapshot(|connection| resolve_path(connection, path))
    }

    /// Tells whether there is a node at any of these paths.
    pub(crate) fn has_node_at_any<'a>(&self, paths: impl IntoIterator<Item = &'a TreePath>) -> Result<bool> {
        self.snapshot(|connection| {
            for path in paths {
                if resolve_path(connection, path)?.is_some() {
                    return Ok(true);
                }
            }
            Ok(false)
        })
    }

    /// Returns all rows with their paths by the index, in the order of the paths.
    pub(crate) fn nodes(&self) -> Result<Vec<(TreePath, NodeRow)>> {
        self.nodes_within(&TreePath::root())
    }

    /// Returns the rows at and below a path with their paths by the index, in the order of the paths.
    pub(crate) fn nodes_within(&self, top: &TreePath) -> Result<Vec<(TreePath, NodeRow)>> {
        self.snapshot(|connection| {
            let Some(row) = resolve_path(connection, top)? else { return Ok(Vec::new()) };
            let sql = format!("{PATHS_BELOW} {NODE_COLUMNS}, down.place {NODE_TABLES} JOIN down ON down.id = n.id");
            let mut statement = connection.prepare(&sql)?;
            let mut rows = statement.query(params![row.id, PATH_SEPARATOR])?;
            let mut nodes = Vec::new();
            while let Some(row) = rows.next()? {
                nodes.push((top.join(&path_below_from_row(row, 6)?), node_from_row(row)?));
            }
            nodes.push((top.clone(), row));
            nodes.sort_by(|(a, _), (b, _)| a.cmp(b));
            Ok(nodes)
        })
    }

    /// Returns the length in bytes of the longest relative path from a node to a named one below it.
    pub(crate) fn max_path_bytes_below(&self, top: NodeId) -> Result<usize> {
        self.read(|connection| {
            let sql = "WITH RECURSIVE below (id, bytes) AS ( \
                 SELECT id, length(name) FROM nodes WHERE parent = ?1 UNION ALL \
                 SELECT n.id, below.bytes + 1 + length(n.name) FROM nodes n JOIN below ON n.parent = below.id) \
                 SELECT coalesce(max(bytes), 0) FROM below";
            let bytes: i64 = connection.prepare_cached(sql)?.query_row([top], |row| row.get(0))?;
            Ok(usize::try_from(bytes).unwrap_or(0))
        })
    }

    /// Returns the nodes that a grant, a scope or a property refers to.
    pub(crate) fn referenced_nodes(&self) -> Result<Vec<NodeId>> {
        self.read(|connection| {
            let sql = "SELECT node FROM grants UNION SELECT node FROM scopes UNION SELECT node FROM properties";
            let mut statement = connection.prepare(sql)?;
            let ids = statement.query_map([], |row| row.get(0))?;
            Ok(ids.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Creates the row of the node at the end of `steps`, which start at the root, and the rows above it. A row on the
    /// way whose identity does not match is deleted, with all below it. Returns `None` without any change while an
    /// intent would move an entry there.
    ///
    /// # Errors
    /// [`StoreError::QuotaExceeded`](super::StoreError::QuotaExceeded) where `named_by`, or all users together, have
    /// the maximum number of named nodes.
    pub(crate) fn create_nodes(
        &self,
        path: &TreePath,
        steps: &[NodePathStep],
        generate_id: NodeIdGenerator<'_>,
        named_by: Option<&Login>,
    ) -> Result<Option<NodeId>> {
        self.write(WriteDurability::Lazy, |connection| {
            let named = create_rows(connection, path, steps, generate_id, named_by)?;
            // After the insertion, when the number of new rows is known: the error rolls them back.
            self.enforce_node_quota(connection, named_by, 0)?;
            Ok(named)
        })
    }

    /// Creates rows as [`Store::create_nodes`] does for the properties of a copy, beyond the quota where need be: the
    /// caller has checked it before the copy was made. This completes the copy, and so may use the ballast.
    pub(crate) fn create_nodes_of_copy(
        &self,
        path: &TreePath,
        steps: &[NodePathStep],
        generate_id: NodeIdGenerator<'_>,
        named_by: &Login,
    ) -> Result<Option<NodeId>> {
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |connection| {
            create_rows(connection, path, steps, generate_id, Some(named_by))
        })
    }

    /// Deletes nodes, and with each all below it.
    pub(crate) fn delete_nodes(&self, ids: &[NodeId]) -> Result<()> {
        self.write_shrinking(WriteDurability::Lazy, |connection| {
            let mut statement = connection.prepare_cached("DELETE FROM nodes WHERE id = ?1")?;
            ids.iter().try_for_each(|id| statement.execute([id]).map(drop))?;
            Ok(())
        })
    }

    /// Deletes the node at a path, with all below it, and the intent of its removal. Does nothing when that intent was
    /// completed already.
    pub(crate) fn complete_removal(&self, intent: i64, path: &TreePath) -> Result<()> {
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |connection| {
            if delete_intent_row(connection, intent)? { delete_node_at(connection, path) } else { Ok(()) }
        })
    }

    /// Updates the rows after a move, and deletes its intent. Does nothing when that intent was completed already.
    ///
    /// The entry's row moves to the target and the row that was there is deleted; but a file that replaces a file takes
    /// over that file's id, and its own row is deleted. Properties follow the entry.
    pub(crate) fn complete_move(&self, moved: &CompletedMove<'_>, generate_id: NodeIdGenerator<'_>) -> Result<()> {
        self.write_with_ballast(WriteDurability::Lazy, BallastShare::Narrowing, |connection| {
            // Whoever deletes the intent's row completes the move: a recovery by another process may have been first.
            let is_pending = moved.intent.map_or(Ok(true), |id| delete_intent_row(connection, id))?;
            if is_pending { apply_move(connection, moved, generate_id) } else { Ok(()) }
        })
    }
}

/// Finds or creates the rows of a path; `None` without any change while an intent would move an entry there.
fn create_rows(
    connection: &Connection,
    path: &TreePath,
    steps: &[NodePathStep],
    generate_id: NodeIdGenerator<'_>,
    named_by: Option<&Login>,
) -> Result<Option<NodeId>> {
    // A pending move would put another entry there, to which rows that are created now must not belong.
    let targets_path = |intent: &ChangeIntent| intent.action.target().is_some_and(|target| path.starts_with(target));
    if select_intents(connection)?.iter().any(targets_path) {
        return Ok(None);
    }
    ensure_rows(connection, steps, generate_id, named_by)
}

fn apply_move(connection: &Connection, moved: &CompletedMove<'_>, generate_id: NodeIdGenerator<'_>) -> Result<()> {
    let source = resolve_path(connection, moved.source)?.filter(|row| row.identity.matches(moved.identity));
    // Only where a row moves there: otherwise the target needs no rows above it.
    let parent = match source {
        Some(_) => ensure_rows(connection, moved.parent_steps, generate_id, None)?,
        None => None,
    };
    moved.updated_identities.iter().try_for_each(|(id, identity)| set_identity(connection, *id, *identity))?;
    match (source, resolve_path(connection, moved.target)?) {
        (Some(source), Some(target)) if source.id == target.id => Ok(()),
        // Clients save a file by renaming a temporary one over it: the target's id stays, with its grants and scopes.
        (source, Some(target)) if is_file(moved.identity) && is_file(target.identity) => {
            replace_file(connection, source.map(|row| row.id), target.id)
        }
        (source, target) => {
            target.map(|row| delete_node(connection, row.id)).transpose()?;
            source.map(|row| reparent(connection, row.id, parent, moved.target)).transpose()?;
            Ok(())
        }
    }
}

fn is_file(identity: NodeIdentity) -> bool {
    matches!(identity, NodeIdentity::File { .. })
}

/// Sets the identity of a directory's row; deletes a node without an identity.
pub(super) fn set_identity(connection: &Connection, id: NodeId, identity: Option<NodeIdentity>) -> Result<()> {
    let Some(NodeIdentity::Directory { inode, birth_time }) = identity else {
        return delete_node(connection, id);
    };
    let sql = "UPDATE nodes SET inode = ?2, birth_time = ?3 WHERE id = ?1";
    connection.execute(sql, params![id, inode.cast_signed(), birth_time])?;
    Ok(())
}

/// Keeps the node of a replaced file for the file that replaced it.
fn replace_file(connection: &Connection, source: Option<NodeId>, target: NodeId) -> Result<()> {
    // Before those of the new content, which may have the same names.
    connection.execute("DELETE FROM properties WHERE node = ?1", [target])?;
    let Some(source) = source else { return Ok(()) };
    let sql = "UPDATE properties SET node = ?1 WHERE node = ?2";
    connection.execute(sql, [target, source])?;
    delete_node(connection, source)
}

fn reparent(connection: &Connection, id: NodeId, parent: Option<NodeId>, path: &TreePath) -> Result<()> {
    let name = path.name();
    let name = name.as_ref().map_or(&b""[..], EntryName::as_bytes);
    let sql = "UPDATE nodes SET parent = ?2, name = ?3 WHERE id = ?1";
    connection.execute(sql, params![id, parent, name])?;
    Ok(())
}

/// Finds or creates the rows of the steps from the root down, and returns the id of the last one; `None` for no steps.
fn ensure_rows(
    connection: &Connection,
    steps: &[NodePathStep],
    generate_id: NodeIdGenerator<'_>,
    named_by: Option<&Login>,
) -> Result<Option<NodeId>> {
    let mut parent: Option<NodeId> = None;
    for (name, identity) in steps {
        let row = child_row(connection, parent, name)?;
        parent = Some(match row {
            Some(row) if row.identity.matches(*identity) => row.id,
            // Another entry is at this path now: grants and scopes of the old one dangle and must not pass to it.
            Some(row) => {
                delete_node(connection, row.id)?;
                insert_node(connection, generate_id()?, (parent, name), *identity, named_by)?
            }
            None => insert_node(connection, generate_id()?, (parent, name), *identity, named_by)?,
        });
    }
    Ok(parent)
}

fn insert_node(
    connection: &Connection,
    id: NodeId,
    (parent, name): (Option<NodeId>, &[u8]),
    identity: NodeIdentity,
    named_by: Option<&Login>,
) -> Result<NodeId> {
    let (inode, birth_time) = match identity {
        NodeIdentity::Directory { inode, birth_time } => (Some(inode.cast_signed()), birth_time),
        NodeIdentity::File { .. } => (None, None),
    };
    let sql = "INSERT INTO nodes (id, parent, name, is_directory, inode, birth_time, named_by) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let mut statement = connection.prepare_cached(sql)?;
    let named_by = named_by.map_or("", Login::as_str);
    statement.execute(params![id, parent, name, inode.is_some(), inode, birth_time, named_by])?;
    Ok(id)
}

pub(super) fn resolve_path(connection: &Connection, path: &TreePath) -> Result<Option<NodeRow>> {
    let mut row = child_row(connection, None, b"")?;
    for component in path.components() {
        let Some(parent_row) = row else { return Ok(None) };
        row = child_row(connection, Some(parent_row.id), component)?;
    }
    Ok(row)
}

fn child_row(connection: &Connection, parent: Option<NodeId>, name: &[u8]) -> Result<Option<NodeRow>> {
    // Two statements, since no index of PostgreSQL serves `IS NOT DISTINCT FROM`.
    let row = match parent {
        Some(parent) => {
            let sql = format!("{NODE_COLUMNS} {NODE_TABLES} WHERE n.parent = ?1 AND n.name = ?2");
            connection.prepare_cached(&sql)?.query_row(params![parent, name], node_from_row)
        }
        None => {
            let sql = format!("{NODE_COLUMNS} {NODE_TABLES} WHERE n.parent IS NULL AND n.name = ?1");
            connection.prepare_cached(&sql)?.query_row([name], node_from_row)
        }
    };
    Ok(row.optional()?)
}

pub(super) fn node_path(connection: &Connection, id: NodeId) -> Result<TreePath> {
    // The bound on `height` ends a cycle of parents, which only an edited or damaged database has.
    let sql = "WITH RECURSIVE up (parent, name, height) AS ( \
         SELECT parent, name, 0 FROM nodes WHERE id = ?1 UNION ALL \
         SELECT n.parent, n.name, up.height + 1 FROM nodes n JOIN up ON n.id = up.parent WHERE up.height < 4096) \
         SELECT name FROM up ORDER BY height DESC";
    let mut statement = connection.prepare_cached(sql)?;
    let names = statement.query_map([id], |row| row.get::<_, Vec<u8>>(0))?;
    let names = names.collect::<rusqlite::Result<Vec<_>>>()?;
    // The first name is that of the root, which is empty.
    parse_stored_path(&names.get(1..).unwrap_or_default().join(&b'/'))
}

/// Deletes the node at a path, if there is one.
fn delete_node_at(connection: &Connection, path: &TreePath) -> Result<()> {
    resolve_path(connection, path)?.map_or(Ok(()), |row| delete_node(connection, row.id))
}

fn delete_node(connection: &Connection, id: NodeId) -> Result<()> {
    connection.prepare_cached("DELETE FROM nodes WHERE id = ?1")?.execute([id])?;
    Ok(())
}

/// Reads a column `place` of [`PATHS_BELOW`].
pub(super) fn path_below_from_row(row: &Row<'_>, column: usize) -> Result<TreePath> {
    // Names are bytes, but `||` makes text of them in SQLite, which need not be UTF-8 then: either is taken as it is.
    let bytes = row.get_ref(column)?.as_bytes().map_err(|error| StoreError::Corrupt(error.to_string()))?;
    parse_stored_path(bytes)
}

pub(super) fn node_from_row(row: &Row<'_>) -> rusqlite::Result<NodeRow> {
    let inode = row.get::<_, Option<i64>>(4)?.unwrap_or_default().cast_unsigned();
    let birth_time = row.get(5)?;
    let identity = if row.get(3)? {
        NodeIdentity::Directory { inode, birth_time }
    } else {
        NodeIdentity::File { inode, birth_time }
    };
    Ok(NodeRow { id: row.get(0)?, parent: row.get(1)?, name: row.get(2)?, identity })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::testing::{insert_directory, insert_file, node, open_temp_store};

    #[test]
    fn paths_below_a_node_keep_bytes_that_are_not_utf8() {
        let (_temp_dir, store) = open_temp_store();
        for (number, parent, name) in [(0, 0, ""), (1, 0, "top"), (2, 1, "a"), (3, 2, "b"), (5, 0, "other")] {
            insert_directory(&store, number, parent, name);
        }
        insert_file(&store, 4, 3, "f");
        let rename = "UPDATE nodes SET name = ?2 WHERE id = ?1";
        for (number, name) in [(2, &b"\xff'\xc3"[..]), (3, b"\xa4%")] {
            store
                .write(WriteDurability::Lazy, |t| Ok(t.execute(rename, params![node(number), name])?))
                .expect("renamed");
        }
        let parse = |path: &[u8]| TreePath::parse(path).expect("path");
        let rows = store.nodes_within(&parse(b"/top")).expect("read");
        let found: Vec<_> = rows.into_iter().map(|(path, row)| (path, row.id)).collect();
        let paths = [&b"/top"[..], b"/top/\xff'\xc3", b"/top/\xff'\xc3/\xa4%", b"/top/\xff'\xc3/\xa4%/f"].map(parse);
        assert_eq!(found, paths.into_iter().zip([1, 2, 3, 4].map(node)).collect::<Vec<_>>());
        let lengths = [0, 1, 2, 3, 4].map(|number| store.max_path_bytes_below(node(number)).expect("read"));
        assert_eq!(lengths, [12, 8, 4, 1, 0]);

        let insert = "INSERT INTO properties (node, namespace, name, value) VALUES (?1, 'n', 'p', '<p/>')";
        for number in [1, 4] {
            store.write(WriteDurability::Lazy, |t| Ok(t.execute(insert, [node(number)])?)).expect("inserted");
        }
        let with_properties = store.nodes_with_properties(node(1)).expect("read");
        assert_eq!(with_properties, [(TreePath::root(), node(1)), (parse(b"\xff'\xc3/\xa4%/f"), node(4))]);
        assert_eq!(store.nodes_with_properties(node(5)).expect("read"), []);
    }
}
