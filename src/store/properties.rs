//! Dead properties (RFC 4918) of named nodes.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use rusqlite::{Connection, params};

use super::located_scopes::check_node_exists;
use super::nodes::{NODE_COLUMNS, NODE_TABLES, PATH_SEPARATOR, PATHS_BELOW, node_from_row, path_below_from_row};
use super::quota::PropertyUsage;
use super::{BallastShare, NodeRow, Result, Store, WriteDurability};
use crate::domain::{Login, NodeId, TreePath};

/// The part of `properties.bytes` that stands for the row itself, as the schema has it.
const PROPERTY_ROW_BYTES: u64 = 256;

/// A dead property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PropertyRow {
    /// The namespace of its name.
    pub(crate) namespace: String,
    /// The local part of its name.
    pub(crate) name: String,
    /// The whole element, as XML.
    pub(crate) value: String,
}

/// One step of a PROPPATCH: sets a property, or removes it where the value is `None`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PropertyUpdate<'a> {
    /// The namespace of its name.
    pub(crate) namespace: &'a str,
    /// The local part of its name.
    pub(crate) name: &'a str,
    /// The whole element, as XML.
    pub(crate) value: Option<&'a str>,
}

/// Totals of the properties of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PropertyTotals {
    /// Number of properties.
    pub(crate) count: u64,
    /// Bytes of their namespaces, names and values.
    pub(crate) bytes: u64,
}

impl Store {
    /// Tells whether any entry has, or had since the start, a property. Only a server stores them, so no other process makes
    /// the answer outdated.
    pub(crate) fn has_properties(&self) -> bool {
        self.inner.has_properties.load(Ordering::Acquire)
    }

    /// Returns the properties of a node, in the order of their names.
    pub(crate) fn properties(&self, node: NodeId) -> Result<Vec<PropertyRow>> {
        self.read(|connection| {
            let sql = "SELECT namespace, name, value FROM properties WHERE node = ?1 ORDER BY namespace, name";
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([node], |row| property_from_row(row, 0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Returns the properties of the children of a directory, each with its node's row, in the order of the nodes'
    /// names; `None` when they have more than `max_bytes` bytes.
    pub(crate) fn child_properties(
        &self,
        directory: NodeId,
        max_bytes: usize,
    ) -> Result<Option<Vec<(NodeRow, PropertyRow)>>> {
        self.read(|connection| {
            let sql = format!(
                "{NODE_COLUMNS}, d.namespace, d.name, d.value {NODE_TABLES} JOIN properties d ON d.node = n.id \
                 WHERE n.parent = ?1 ORDER BY n.name, d.namespace, d.name"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([directory])?;
            let (mut found, mut bytes) = (Vec::new(), 0);
            while let Some(row) = rows.next()? {
                let property = property_from_row(row, 6)?;
                // Counted while reading, so that a collection with many properties can't fill the memory.
                bytes += property.namespace.len() + property.name.len() + property.value.len();
                if bytes > max_bytes {
                    return Ok(None);
                }
                found.push((node_from_row(row)?, property));
            }
            Ok(Some(found))
        })
    }

    /// Applies updates to the properties of a node in their order, as a user; all of them, or none when `accept`
    /// refuses the resulting totals. Returns the decision of `accept`, which is called once. After it has accepted, the
    /// change may use the ballast: the caller's side of the change is done then.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the node does not exist, [`StoreError::QuotaExceeded`] for more than the user may
    /// set.
    ///
    /// [`StoreError::NotFound`]: super::StoreError::NotFound
    /// [`StoreError::QuotaExceeded`]: super::StoreError::QuotaExceeded
    pub(crate) fn update_properties(
        &self,
        node: NodeId,
        writer: &Login,
        updates: &[PropertyUpdate<'_>],
        durability: WriteDurability,
        accept: impl FnOnce(PropertyTotals) -> bool,
    ) -> Result<bool> {
        // Removing properties is possible on a full disk.
        if updates.iter().any(|update| update.value.is_some()) {
            self.check_may_grow()?;
            // Before the write: nobody may miss a property that is stored.
            self.inner.has_properties.store(true, Ordering::Release);
        }
        let (mut accept, decision) = (Some(accept), Cell::new(None));
        let share = || decision.get().filter(|accepted| *accepted).map(|_| BallastShare::Narrowing);
        self.write_with_ballast_if(durability, share, |connection| {
            check_node_exists(connection, node)?;
            let before = PropertyUsage::load(connection, writer)?;
            // A savepoint, since a refusal by `accept` is a result of the transaction and not an error of it.
            connection.execute_batch("SAVEPOINT steps")?;
            for update in updates {
                apply_update(connection, node, writer, update)?;
            }
            // The quota comes before `accept`, which may have effects on the file system.
            self.enforce_property_quota(before, PropertyUsage::load(connection, writer)?)?;
            // Taken: a transaction that is repeated for lack of space must not ask twice.
            if let Some(accept) = accept.take() {
                decision.set(Some(accept(property_totals(connection, node)?)));
            }
            let accepted = decision.get() == Some(true);
            connection.execute_batch(if accepted { "RELEASE steps" } else { "ROLLBACK TO steps; RELEASE steps" })?;
            Ok(accepted)
        })
    }

    /// Returns the nodes at and below one that have properties, each with its path relative to that one.
    pub(crate) fn nodes_with_properties(&self, top: NodeId) -> Result<Vec<(TreePath, NodeId)>> {
        self.snapshot(|connection| {
            let mut found = Vec::new();
            if connection.prepare_cached("SELECT 1 FROM properties WHERE node = ?1")?.exists([top])? {
                found.push((TreePath::root(), top));
            }
            let sql = format!(
                "{PATHS_BELOW} SELECT down.id, down.place FROM down \
                 WHERE EXISTS (SELECT 1 FROM properties WHERE node = down.id)"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query(params![top, PATH_SEPARATOR])?;
            while let Some(row) = rows.next()? {
                found.push((path_below_from_row(row, 1)?, row.get(0)?));
            }
            Ok(found)
        })
    }

    /// Returns the bytes that the properties of these nodes would take of the quota of a user who copies them.
    pub(crate) fn property_bytes(&self, nodes: &[NodeId]) -> Result<u64> {
        self.read(|connection| {
            let sql = "SELECT CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM properties WHERE node = ?1";
            let mut select = connection.prepare_cached(sql)?;
            let mut bytes = 0u64;
            for node in nodes {
                bytes += select.query_row([node], |row| row.get::<_, i64>(0))?.unsigned_abs();
            }
            Ok(bytes)
        })
    }

    /// Replaces the properties of each second node of the pairs by those of the first; `None` stands for no properties.
    /// A target that does not exist gets none. The copies count for `writer`, whose quota the caller has checked before
    /// the copy began: this completes it, and so may use the ballast.
    pub(crate) fn copy_properties(
        &self,
        writer: &Login,
        pairs: &[(Option<NodeId>, NodeId)],
        durability: WriteDurability,
    ) -> Result<()> {
        self.write_with_ballast(durability, BallastShare::Narrowing, |connection| {
            for (from, to) in pairs {
                connection.execute("DELETE FROM properties WHERE node = ?1", [to])?;
                let Some(from) = from else { continue };
                // The join skips a target that was deleted meanwhile.
                let sql = "INSERT INTO properties (node, namespace, name, value, writer) \
                     SELECT n.id, p.namespace, p.name, p.value, ?3 FROM properties p JOIN nodes n ON n.id = ?2 \
                     WHERE p.node = ?1";
                connection.execute(sql, params![from, to, writer])?;
            }
            Ok(())
        })
    }
}

fn apply_update(connection: &Connection, node: NodeId, writer: &Login, update: &PropertyUpdate<'_>) -> Result<()> {
    let (namespace, name) = (update.namespace, update.name);
    match update.value {
        Some(value) => {
            // Not REPLACE, which would delete the old row without running the triggers that count its bytes.
            let sql = "INSERT INTO properties (node, namespace, name, value, writer) VALUES (?1, ?2, ?3, ?4, ?5) \
                 ON CONFLICT (node, namespace, name) DO UPDATE SET value = excluded.value, writer = excluded.writer";
            connection.prepare_cached(sql)?.execute(params![node, namespace, name, value, writer])?
        }
        None => {
            let sql = "DELETE FROM properties WHERE node = ?1 AND namespace = ?2 AND name = ?3";
            connection.prepare_cached(sql)?.execute(params![node, namespace, name])?
        }
    };
    Ok(())
}

fn property_totals(connection: &Connection, node: NodeId) -> Result<PropertyTotals> {
    // `bytes` of a row is those of its three texts, and what stands for the row itself.
    let sql = "SELECT count(*), CAST(coalesce(sum(bytes), 0) AS BIGINT) FROM properties WHERE node = ?1";
    let mut statement = connection.prepare_cached(sql)?;
    let totals = statement.query_row([node], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))?;
    let (count, bytes) = (totals.0.unsigned_abs(), totals.1.unsigned_abs());
    Ok(PropertyTotals { count, bytes: bytes.saturating_sub(count.saturating_mul(PROPERTY_ROW_BYTES)) })
}

fn property_from_row(row: &rusqlite::Row<'_>, first: usize) -> rusqlite::Result<PropertyRow> {
    Ok(PropertyRow { namespace: row.get(first)?, name: row.get(first + 1)?, value: row.get(first + 2)? })
}

#[cfg(test)]
mod tests {
    use crate::domain::PropertyQuota;
    use crate::store::StoreError;
    use crate::store::testing::{login, open_temp_store};

    #[test]
    fn properties_exceeding_free_disk_space_are_refused_before_any_copy() {
        let (_temp_dir, store) = open_temp_store();
        store.set_property_quota(PropertyQuota { per_user: u64::MAX, total: u64::MAX });
        assert!(store.check_property_quota(&login("alice"), 1000).is_ok());
        let refused = store.check_property_quota(&login("alice"), 1 << 60);
        assert!(matches!(refused, Err(StoreError::DiskFull)), "{refused:?}");
    }
}
