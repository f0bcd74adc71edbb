//! Dead properties of named nodes.

use rusqlite::{Connection, params};

use super::columns::stored_path;
use super::nodes::{FROM, SELECT, node_row};
use super::reach::named;
use super::{Durability, NodeRow, Result, Store};
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

/// How much a node's properties come to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Holding {
    /// How many there are.
    pub(crate) count: u64,
    /// The bytes of their names and values.
    pub(crate) bytes: u64,
}

impl Store {
    /// Returns the properties of a node, by name.
    pub(crate) fn properties(&self, node: NodeId) -> Result<Vec<PropertyRow>> {
        self.read(|connection| {
            let sql = "SELECT namespace, name, value FROM properties WHERE node = ?1 ORDER BY namespace, name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([node], |row| property_row(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Returns the properties of the nodes that a folder holds, each with its node's row, in the order
    /// of the nodes' names; `None` when they have more than `most` bytes.
    pub(crate) fn properties_in(&self, folder: NodeId, most: usize) -> Result<Option<Vec<(NodeRow, PropertyRow)>>> {
        self.read(|connection| {
            let sql = format!(
                "{SELECT}, d.namespace, d.name, d.value {FROM} JOIN properties d ON d.node = n.id \
                 WHERE n.parent = ?1 ORDER BY n.name, d.namespace, d.name"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([folder])?;
            let (mut found, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let property = property_row(row, 6)?;
                bytes += property.namespace.len() + property.name.len() + property.value.len();
                if bytes > most {
                    return Ok(None);
                }
                found.push((node_row(row)?, property));
            }
            Ok(Some(found))
        })
    }

    /// Changes the properties of a node in the order of the steps; all or, when `accept` refuses what
    /// would be left, none. Returns what it said.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when the node has ended.
    pub(crate) fn change_properties(
        &self,
        node: NodeId,
        steps: &[PropertyStep<'_>],
        accept: impl FnOnce(Holding) -> bool,
    ) -> Result<bool> {
        self.write(Durability::Lazy, |connection| {
            named(connection, node)?;
            connection.execute_batch("SAVEPOINT steps")?;
            for step in steps {
                take_step(connection, node, step)?;
            }
            let accepted = accept(holding(connection, node)?);
            connection.execute_batch(if accepted { "RELEASE steps" } else { "ROLLBACK TO steps; RELEASE steps" })?;
            Ok(accepted)
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
            let mut rows = statement.query([top])?;
            let mut found = Vec::new();
            while let Some(row) = rows.next()? {
                found.push((stored_path(&row.get::<_, Vec<u8>>(1)?)?, row.get(0)?));
            }
            Ok(found)
        })
    }

    /// Gives each second node the properties of the first, in place of its own; a node `None` has none.
    /// One that has ended gets none.
    pub(crate) fn copy_properties(&self, pairs: &[(Option<NodeId>, NodeId)]) -> Result<()> {
        self.write(Durability::Lazy, |connection| {
            for (from, to) in pairs {
                connection.execute("DELETE FROM properties WHERE node = ?1", [to])?;
                let Some(from) = from else { continue };
                let sql = "INSERT INTO properties (node, namespace, name, value) \
                     SELECT n.id, p.namespace, p.name, p.value FROM properties p JOIN nodes n ON n.id = ?2 \
                     WHERE p.node = ?1";
                connection.execute(sql, [from, to])?;
            }
            Ok(())
        })
    }
}

fn take_step(connection: &Connection, node: NodeId, step: &PropertyStep<'_>) -> Result<()> {
    let (namespace, name) = (step.namespace, step.name);
    match step.value {
        Some(value) => {
            let sql = "INSERT OR REPLACE INTO properties (node, namespace, name, value) VALUES (?1, ?2, ?3, ?4)";
            connection.prepare_cached(sql)?.execute(params![node, namespace, name, value])?
        }
        None => {
            let sql = "DELETE FROM properties WHERE node = ?1 AND namespace = ?2 AND name = ?3";
            connection.prepare_cached(sql)?.execute(params![node, namespace, name])?
        }
    };
    Ok(())
}

fn holding(connection: &Connection, node: NodeId) -> Result<Holding> {
    let sql = "SELECT count(*), coalesce(sum(octet_length(namespace) + octet_length(name) + octet_length(value)), 0) \
         FROM properties WHERE node = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let sum = statement.query_row([node], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    Ok(Holding { count: sum.0.unsigned_abs(), bytes: sum.1.unsigned_abs() })
}

fn property_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<PropertyRow> {
    Ok(PropertyRow { namespace: row.get(first)?, name: row.get(first + 1)?, value: row.get(first + 2)? })
}
