//! Dead properties of named nodes.

use rusqlite::params;

use super::nodes::stored_path;
use super::{Durability, Result, Store};
use crate::domain::{NodeId, TreePath};

/// A dead property as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PropertyRow {
    /// The namespace of its name.
    pub(crate) namespace: String,
    /// The local part of its name.
    pub(crate) name: String,
    /// The whole element, as XML.
    pub(crate) value: String,
}

/// One step of a change: the value that a property gets, or `None` for one that goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PropertyStep<'a> {
    /// The namespace of its name.
    pub(crate) namespace: &'a str,
    /// The local part of its name.
    pub(crate) name: &'a str,
    /// The whole element, as XML.
    pub(crate) value: Option<&'a str>,
}

impl Store {
    /// Returns the properties of a node, by name.
    pub(crate) fn properties(&self, node: NodeId) -> Result<Vec<PropertyRow>> {
        self.read(|connection| {
            let sql = "SELECT namespace, name, value FROM properties WHERE node = ?1 ORDER BY namespace, name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([node.as_bytes()], |row| property_row(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Returns the properties of the nodes that a folder holds, each with its node's name, in order.
    pub(crate) fn properties_in(&self, folder: NodeId) -> Result<Vec<(Vec<u8>, PropertyRow)>> {
        self.read(|connection| {
            let sql = "SELECT n.name, p.namespace, p.name, p.value FROM nodes n JOIN properties p ON p.node = n.id \
                 WHERE n.parent = ?1 ORDER BY n.name, p.namespace, p.name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([folder.as_bytes()], |row| Ok((row.get(0)?, property_row(row, 1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Changes the properties of a node, all or none, in the order of the steps. Returns false, and
    /// changes nothing, when more than `most` would be left.
    pub(crate) fn change_properties(&self, node: NodeId, steps: &[PropertyStep<'_>], most: usize) -> Result<bool> {
        self.write(Durability::Lazy, |connection| {
            connection.execute_batch("SAVEPOINT steps")?;
            for step in steps {
                match step.value {
                    Some(value) => connection
                        .prepare_cached(
                            "INSERT OR REPLACE INTO properties (node, namespace, name, value) VALUES (?1, ?2, ?3, ?4)",
                        )?
                        .execute(params![node.as_bytes(), step.namespace, step.name, value])?,
                    None => connection
                        .prepare_cached("DELETE FROM properties WHERE node = ?1 AND namespace = ?2 AND name = ?3")?
                        .execute(params![node.as_bytes(), step.namespace, step.name])?,
                };
            }
            let sql = "SELECT count(*) FROM properties WHERE node = ?1";
            let count: i64 = connection.prepare_cached(sql)?.query_row([node.as_bytes()], |row| row.get(0))?;
            let fits = usize::try_from(count).is_ok_and(|count| count <= most);
            connection.execute_batch(if fits { "RELEASE steps" } else { "ROLLBACK TO steps; RELEASE steps" })?;
            Ok(fits)
        })
    }

    /// Returns the nodes at and below one that have properties, each with the way there from it.
    pub(crate) fn nodes_with_properties(&self, top: NodeId) -> Result<Vec<(TreePath, NodeId)>> {
        self.read(|connection| {
            let sql = "WITH RECURSIVE below (id, place) AS ( \
                 SELECT ?1, x'' UNION ALL SELECT n.id, CAST(below.place || x'2f' || n.name AS BLOB) \
                 FROM nodes n JOIN below ON n.parent = below.id) \
                 SELECT id, place FROM below WHERE EXISTS (SELECT 1 FROM properties WHERE node = id)";
            let mut statement = connection.prepare_cached(sql)?;
            let mut rows = statement.query([top.as_bytes()])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((stored_path(&row.get::<_, Vec<u8>>(1)?)?, NodeId::from_bytes(row.get(0)?)));
            }
            Ok(found)
        })
    }

    /// Gives each second node the properties of the first, in place of its own; a node `None` has none.
    pub(crate) fn copy_properties(&self, pairs: &[(Option<NodeId>, NodeId)]) -> Result<()> {
        self.write(Durability::Lazy, |connection| {
            for (from, to) in pairs {
                connection.execute("DELETE FROM properties WHERE node = ?1", [to.as_bytes()])?;
                let Some(from) = from else { continue };
                let sql = "INSERT INTO properties (node, namespace, name, value) \
                     SELECT ?2, namespace, name, value FROM properties WHERE node = ?1";
                connection.execute(sql, [from.as_bytes(), to.as_bytes()])?;
            }
            Ok(())
        })
    }
}

fn property_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<PropertyRow> {
    Ok(PropertyRow { namespace: row.get(first)?, name: row.get(first + 1)?, value: row.get(first + 2)? })
}
