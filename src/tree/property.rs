//! Dead properties (RFC 4918 section 4): kept for clients, never interpreted.
//!
//! They belong to the node: they follow its renames and end with it. What one entry may have, and what
//! one answer holds in memory, is bounded.

use std::collections::{HashMap, HashSet};

use super::index::{NodeIndex, self_and_ancestors};
use super::tags::{parse_tags, tags_property};
use super::{Error, Result};
use crate::domain::{EntryName, FileTag, Login, NodeId, TreePath};
use crate::store::{NodeRow, PropertyRow, PropertyTotals, PropertyUpdate, StoreError};

/// What one property, and all of one entry, may come to.
const PROPERTY_VALUE_BYTES: usize = 64 << 10;
const PROPERTIES_PER_ENTRY: u64 = 1000;
const PROPERTY_BYTES_PER_ENTRY: u64 = 1 << 20;
/// What is read for the entries of one folder at once.
const PROPERTY_BYTES_PER_LISTING: usize = 16 << 20;

/// The name of a property: an XML namespace (may be empty) and a local name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PropertyName {
    /// The namespace.
    pub namespace: String,
    /// The local name.
    pub name: String,
}

/// A dead property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadProperty {
    /// Its name.
    pub name: PropertyName,
    /// The whole element as XML that declares every prefix it uses.
    pub value: String,
}

/// One step of a PROPPATCH.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PropertyChange {
    /// Sets a property.
    Set(DeadProperty),
    /// Removes a property, if it is there.
    Remove(PropertyName),
}

impl NodeIndex {
    /// Returns the properties of an entry, by name.
    pub(super) fn properties(&self, path: &TreePath) -> Result<Vec<DeadProperty>> {
        let Some(node) = self.find_id(path)? else { return Ok(Vec::new()) };
        Ok(self.store().properties(node)?.into_iter().map(DeadProperty::from).collect())
    }

    /// Returns the properties of the entries of a folder that have some, in one read.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when that is more than 16 MiB: ask for each entry then.
    pub(super) fn properties_in(&self, directory: &TreePath) -> Result<HashMap<EntryName, Vec<DeadProperty>>> {
        let Some(node) = self.find_id(directory)? else { return Ok(HashMap::new()) };
        let rows = self.store().child_properties(node, PROPERTY_BYTES_PER_LISTING)?.ok_or(Error::Unsupported)?;
        let mut by_name: HashMap<Vec<u8>, (NodeRow, Vec<DeadProperty>)> = HashMap::new();
        for (row, property) in rows {
            by_name.entry(row.name.clone()).or_insert((row, Vec::new())).1.push(property.into());
        }
        let mut matching = HashMap::new();
        for (name, (row, properties)) in by_name {
            if let Ok(name) = EntryName::new(&name)
                && self.row_matches(&row, &directory.child(&name))?
            {
                matching.insert(name, properties);
            }
        }
        Ok(matching)
    }

    /// Returns the tags of an entry, and of each below it where `deep`.
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

    /// Changes the properties of an entry in the order given and does `also` with them: all or nothing.
    /// Names the node when there is something to keep. Nobody else writes to the store while `also` runs
    /// beside a change; it must not, and it must be short.
    ///
    /// # Errors
    /// [`Error::NoSpace`] when a value has more than 64 KiB, or the entry would have more than 1000
    /// properties or 1 MiB of them; [`Error::Store`] of a shortage when the writer has set, or all have, as much as
    /// there may be; and what `also` says.
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
        if steps.is_empty() {
            return before_commit();
        }
        let sets_any = steps.iter().any(|step| step.value.is_some());
        let node = if sets_any { Some(self.mint_for(path, Some(writer))?) } else { self.find_id(path)? };
        let Some(node) = node else { return before_commit() };
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
            // It was removed since it was named, or a folder above it.
            Err(StoreError::NotFound(_)) => Err(Error::Absent),
            Err(error) => Err(error.into()),
            Ok(_) => outcome,
        }
    }

    /// Refuses a copy with more properties than whoever copies may set, or of more entries than can be named.
    ///
    /// # Errors
    /// [`Error::Store`] of a shortage.
    pub(super) fn check_copy_properties(
        &self,
        from: &TreePath,
        to: &TreePath,
        writer: &Login,
        deep: bool,
    ) -> Result<()> {
        let Some(source) = self.find_id(from)? else { return Ok(()) };
        let below = self.store().nodes_with_properties(source)?.into_iter();
        let below: Vec<(TreePath, NodeId)> = below.filter(|(below, _)| deep || below.is_root()).collect();
        if below.is_empty() {
            return Ok(());
        }
        // Each copy is named with all above it.
        let paths: HashSet<TreePath> = below.iter().flat_map(|(below, _)| self_and_ancestors(to.join(below))).collect();
        self.store().may_name_nodes(writer, paths.len())?;
        let nodes: Vec<NodeId> = below.into_iter().map(|(_, node)| node).collect();
        Ok(self.store().check_property_quota(writer, self.store().property_bytes(&nodes)?)?)
    }

    /// Gives a copy, and all below it, the properties of what it was copied from (RFC 4918 section 9.8.2),
    /// in place of those that its nodes had; they count as set by whoever copies.
    pub(super) fn copy_properties(&self, from: &TreePath, to: &TreePath, writer: &Login, deep: bool) -> Result<()> {
        let mut pairs: Vec<(Option<NodeId>, NodeId)> = self.find_id(to)?.map(|old| (None, old)).into_iter().collect();
        if let Some(source) = self.find_id(from)? {
            for (below, node) in self.store().nodes_with_properties(source)? {
                if (!deep && !below.is_root()) || self.find_id(&from.join(&below))? != Some(node) {
                    continue;
                }
                match self.mint_for(&to.join(&below), Some(writer)) {
                    Ok(copy) => pairs.push((Some(node), copy)),
                    // It has ended, or was not copied.
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

impl From<PropertyRow> for DeadProperty {
    fn from(PropertyRow { namespace, name, value }: PropertyRow) -> Self {
        Self { name: PropertyName { namespace, name }, value }
    }
}

#[cfg(test)]
mod tests;
