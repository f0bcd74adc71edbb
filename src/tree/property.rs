//! Dead properties (RFC 4918 section 4): stored for clients, never interpreted.
//!
//! They belong to the node: they follow its renames and are deleted with it. The number and size of the properties of
//! one entry are bounded, and so is the memory for one listing.

use std::collections::{HashMap, HashSet};

use super::dead_property::{DeadProperty, PropertyChange};
use super::index::{NodeIndex, self_and_ancestors};
use super::tags::{parse_tags, tags_property};
use super::{Error, Result};
use crate::domain::{EntryName, FileTag, Login, NodeId, TreePath};
use crate::store::{NodeRow, PropertyTotals, PropertyUpdate, StoreError};

/// Maximum size of the value of one property, in bytes.
const PROPERTY_VALUE_BYTES: usize = 64 << 10;
/// Maximum number of properties of one entry.
const PROPERTIES_PER_ENTRY: u64 = 1000;
/// Maximum size of all properties of one entry, in bytes.
const PROPERTY_BYTES_PER_ENTRY: u64 = 1 << 20;
/// Maximum size of the properties that are read for the entries of one directory at once, in bytes.
const PROPERTY_BYTES_PER_LISTING: usize = 16 << 20;

impl NodeIndex {
    /// Returns the properties of a node.
    pub(super) fn node_properties(&self, node: NodeId) -> Result<Vec<DeadProperty>> {
        Ok(self.store().properties(node)?.into_iter().map(DeadProperty::from).collect())
    }

    /// Returns the properties of all entries of a directory with one query; entries without properties are left out. The
    /// directory is named by its node and its path.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when they are larger than 16 MiB: the caller reads them entry by entry then.
    pub(super) fn member_properties(
        &self,
        node: NodeId,
        directory: &TreePath,
    ) -> Result<HashMap<EntryName, Vec<DeadProperty>>> {
        let rows = self.store().child_properties(node, PROPERTY_BYTES_PER_LISTING)?.ok_or(Error::Unsupported)?;
        let mut by_name: HashMap<Vec<u8>, (NodeRow, Vec<DeadProperty>)> = HashMap::new();
        for (row, property) in rows {
            by_name.entry(row.name.clone()).or_insert((row, Vec::new())).1.push(property.into());
        }
        let mut matching = HashMap::new();
        for (name, (row, properties)) in by_name {
            if let Ok(name) = EntryName::new(&name)
                // The row of an entry that was swapped or removed must not lend its properties to the new one.
                && self.row_matches(&row, &directory.child(&name))?
            {
                matching.insert(name, properties);
            }
        }
        Ok(matching)
    }

    /// Returns the tags of an entry, and with `deep` those of each entry below it.
    pub(super) fn tags_in(&self, path: &TreePath, deep: bool) -> Result<Vec<Vec<FileTag>>> {
        let Some(top) = self.find_id(path)? else { return Ok(Vec::new()) };
        let mut tags = Vec::new();
        for (_, node) in self.store().nodes_with_properties(top)?.into_iter().filter(|(b, _)| deep || b.is_root()) {
            let properties = self.store().properties(node)?.into_iter().map(DeadProperty::from);
            let tagged = properties.filter(|property| property.name == tags_property());
            tags.extend(tagged.filter_map(|property| parse_tags(&property.value)));
        }
        Ok(tags)
    }

    /// Changes the properties of an entry in the order given and runs `before_commit` in the same transaction: all or
    /// nothing. An entry without a node gets one when a property is set. The transaction blocks all other writers of
    /// the store while `before_commit` runs: it must be short, and must not write to the store itself.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when a value has more than 64 KiB, or the entry would have more than 1000 properties or 1 MiB
    /// of them; [`Error::Store`] with a quota error when the properties of the writer, or of all users together, would
    /// exceed their limit; the errors of `before_commit`.
    pub(super) fn change_properties(
        &self,
        path: &TreePath,
        writer: &Login,
        changes: &[PropertyChange],
        before_commit: impl FnOnce() -> Result<()>,
    ) -> Result<()> {
        let steps: Vec<PropertyUpdate<'_>> = changes.iter().map(property_step).collect();
        if steps.iter().any(|step| step.value.is_some_and(|value| value.len() > PROPERTY_VALUE_BYTES)) {
            return Err(Error::NoSpace);
        }
        // Without dead properties nothing is written: a transaction would only wait for other writers.
        if steps.is_empty() {
            return before_commit();
        }
        // Removing properties from an entry without a node must not assign it an id, which counts in the quota.
        let sets_any = steps.iter().any(|step| step.value.is_some());
        let node = if sets_any { Some(self.assign_id_for_user(path, Some(writer))?) } else { self.find_id(path)? };
        let Some(node) = node else { return before_commit() };
        // Stays so when the totals are exceeded: `before_commit` is then not called.
        let mut outcome = Err(Error::NoSpace);
        let changed = self.store().update_properties(
            node,
            writer,
            &steps,
            self.durability(),
            |PropertyTotals { count, bytes }| {
                if count <= PROPERTIES_PER_ENTRY && bytes <= PROPERTY_BYTES_PER_ENTRY {
                    outcome = before_commit();
                }
                outcome.is_ok()
            },
        );
        match changed {
            // The entry, or a directory above it, was removed since the id was looked up.
            Err(StoreError::NotFound(_)) => Err(Error::Absent),
            Err(error) => Err(error.into()),
            Ok(_) => outcome,
        }
    }

    /// Checks that the properties of a copy, and the nodes that it needs for them, fit the quota of the user who
    /// copies.
    ///
    /// # Errors
    /// [`Error::Store`] with a quota error.
    pub(super) fn check_copy_properties(
        &self,
        from: &TreePath,
        to: &TreePath,
        writer: &Login,
        deep: bool,
    ) -> Result<()> {
        // Nearly every store has none.
        if !self.store().has_properties() {
            return Ok(());
        }
        let Some(source) = self.find_id(from)? else { return Ok(()) };
        let below = self.store().nodes_with_properties(source)?.into_iter();
        let below: Vec<(TreePath, NodeId)> = below.filter(|(below, _)| deep || below.is_root()).collect();
        if below.is_empty() {
            return Ok(());
        }
        // Each copy with properties needs a node, and so do all its ancestors.
        let paths: HashSet<TreePath> = below.iter().flat_map(|(below, _)| self_and_ancestors(to.join(below))).collect();
        self.store().check_node_quota(writer, paths.len())?;
        let nodes: Vec<NodeId> = below.into_iter().map(|(_, node)| node).collect();
        Ok(self.store().check_property_quota(writer, self.store().property_bytes(&nodes)?)?)
    }

    /// Copies the properties of an entry, and with `deep` of all entries below it, to a copy (RFC 4918 section 9.8.2).
    /// They replace those of the copy's nodes and count in the quota of the user who copies.
    pub(super) fn copy_properties(&self, from: &TreePath, to: &TreePath, writer: &Login, deep: bool) -> Result<()> {
        if !self.store().has_properties() {
            return Ok(());
        }
        // The target's own node loses its properties also when the source has none.
        let mut pairs: Vec<(Option<NodeId>, NodeId)> = self.find_id(to)?.map(|old| (None, old)).into_iter().collect();
        if let Some(source) = self.find_id(from)? {
            for (below, node) in self.store().nodes_with_properties(source)? {
                // A row below the source may belong to an entry that was swapped since: it is not the source's to give.
                if (!deep && !below.is_root()) || self.find_id(&from.join(&below))? != Some(node) {
                    continue;
                }
                match self.assign_id_to_copy(&to.join(&below), writer) {
                    Ok(copy) => pairs.push((Some(node), copy)),
                    // The entry was removed meanwhile, or was not copied (a link that leads out, a special file).
                    Err(Error::Absent | Error::NoParent | Error::NotADirectory | Error::Unsupported) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        if pairs.is_empty() {
            return Ok(());
        }
        Ok(self.store().copy_properties(writer, &pairs, self.durability())?)
    }
}

fn property_step(change: &PropertyChange) -> PropertyUpdate<'_> {
    let (name, value) = match change {
        PropertyChange::Set(property) => (&property.name, Some(property.value.as_str())),
        PropertyChange::Remove(name) => (name, None),
    };
    PropertyUpdate { namespace: &name.namespace, name: &name.name, value }
}

#[cfg(test)]
mod tests;
