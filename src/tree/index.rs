//! The node index: stable ids of files and directories, which follow renames and fail closed.
//!
//! A node and its ancestors get an id only on request. The row of a directory matches the file system while the
//! directory at its path has the inode and birth time that the row was created with; the row of a file matches
//! while its parent directory has. A row that no longer matches is dangling, and is replaced when an id is
//! assigned at its path again.
//!
//! A move or removal of a node is recorded as an intent before the file system changes, and is completed or
//! abandoned at the next start, depending on the state of the file system. So is every change that takes two
//! steps on the file system, whether it has nodes or not: if it was interrupted between them, the second step
//! is done first. Within a process, recorded changes and the assignment of ids exclude each other; other changes
//! run concurrently.

mod change;

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{RwLock, RwLockWriteGuard};

pub(super) use self::change::IndexChange;
use self::change::{ChangeGuard, IndexChangeState};
use super::{EntryKind, Error, Result};
use crate::domain::{Login, NodeId, NodeIdentity, TreePath};
use crate::store::{
    ChangeIntent, CompletedMove, EntryIdentity, IntentAction, NodePathStep, NodeRow, Store, StoreError, WriteDurability,
};

/// Maximum number of attempts to assign an id while the path keeps changing, and the delay between them.
const NAMING_ATTEMPTS: usize = 250;
const NAMING_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Metadata of an entry, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InodeMetadata {
    pub(super) kind: EntryKind,
    pub(super) inode: u64,
    /// Birth time in nanoseconds since 1970, where the file system has one.
    pub(super) birth_time: Option<i64>,
}

impl InodeMetadata {
    fn entry_identity(self) -> EntryIdentity {
        EntryIdentity {
            is_directory: self.kind == EntryKind::Directory,
            inode: self.inode,
            birth_time: self.birth_time,
        }
    }
}

/// The file system as the index needs it: metadata, and the removal that completes an interrupted change.
/// Paths are resolved beneath the root without following links.
pub(super) trait HostAccess: Send + Sync {
    /// Returns the metadata of the entry at a path.
    fn metadata(&self, path: &TreePath) -> Result<InodeMetadata>;

    /// Tells whether an entry at or below a path was changed at or after an instant, in nanoseconds since 1970.
    fn changed_since(&self, path: &TreePath, instant: i64) -> Result<bool>;

    /// Removes the entry at a path, with all entries below it, in one step.
    fn remove_subtree(&self, path: &TreePath) -> Result<()>;
}

/// A node and whether it is still at its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNode {
    /// The node's id.
    pub id: NodeId,
    /// Path of the node, or its last known path.
    pub path: TreePath,
    /// Whether the node was removed, or another entry is at its path.
    pub dangling: bool,
}

/// The node index of one tree.
pub(super) struct NodeIndex {
    store: Store,
    host_access: Arc<dyn HostAccess>,
    /// Durability of changes of properties.
    durability: WriteDurability,
    change_lock: RwLock<()>,
    is_serving: AtomicBool,
}

impl NodeIndex {
    /// Creates the index of a tree; `durability` is that of changes of properties.
    pub(super) fn new(store: Store, host_access: Arc<dyn HostAccess>, durability: WriteDurability) -> Self {
        Self { store, host_access, durability, change_lock: RwLock::new(()), is_serving: AtomicBool::new(false) }
    }

    /// Completes or abandons the changes that were under way when the last server stopped. Only for the process
    /// that serves the tree.
    pub(super) fn recover(&self) -> Result<()> {
        let _exclusive = self.change_lock.write();
        self.is_serving.store(true, Ordering::Relaxed);
        self.settle_intents()
    }

    /// Assigns an id to the entry at a path and to its ancestors; returns the id that it has already, if any.
    ///
    /// # Errors
    /// [`Error::Absent`] when the entry does not exist, [`Error::Unsupported`] for a symbolic link,
    /// [`Error::TreeMismatch`] when the served directory is not the one in which ids were assigned.
    pub(super) fn assign_id(&self, path: &TreePath) -> Result<NodeId> {
        self.assign_id_for_user(path, None)
    }

    /// Assigns an id as [`NodeIndex::assign_id`] does, and counts new nodes in the quota of a user if one is given.
    ///
    /// # Errors
    /// As [`NodeIndex::assign_id`]; [`Error::Store`] with a quota error when the user, or all users together, have
    /// reached the limit of named nodes.
    pub(super) fn assign_id_for_user(&self, path: &TreePath, charged_to: Option<&Login>) -> Result<NodeId> {
        self.assign_id_with(path, |steps| self.store.create_nodes(path, steps, &random_node_id, charged_to))
    }

    /// Assigns an id to an entry that was just copied, for its properties. The quota was checked before the copy was
    /// made, and is not checked again: the copy can't be taken back.
    pub(super) fn assign_id_to_copy(&self, path: &TreePath, writer: &Login) -> Result<NodeId> {
        self.assign_id_with(path, |steps| self.store.create_nodes_of_copy(path, steps, &random_node_id, writer))
    }

    fn assign_id_with(
        &self,
        path: &TreePath,
        create: impl Fn(&[NodePathStep]) -> std::result::Result<Option<NodeId>, StoreError>,
    ) -> Result<NodeId> {
        if let Some(id) = self.find_id(path)? {
            return Ok(id);
        }
        let _exclusive = self.change_lock.write();
        for _ in 0..NAMING_ATTEMPTS {
            // An interrupted move first: until it is settled, its rows have the old paths.
            self.settle_intents()?;
            let path_steps = self.path_identities(path)?;
            self.check_same_root(&path_steps)?;
            // A process beside the gateway, or the serving process, may have renamed an ancestor meanwhile.
            if let Some(id) = create(&path_steps)?
                && self.path_identities(path)? == path_steps
            {
                return Ok(id);
            }
            std::thread::sleep(NAMING_RETRY_INTERVAL);
        }
        Err(Error::Filesystem(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{path} kept changing while an id was assigned to it: try again"),
        )))
    }

    /// Assigns an id to the target directory of a move if the source has one, since the source's node becomes a child
    /// of it.
    ///
    /// # Errors
    /// [`Error::Store`] with a quota error, as [`NodeIndex::assign_id_for_user`].
    pub(super) fn prepare_move(&self, source: &TreePath, target: &TreePath, login: &Login) -> Result<()> {
        let Some(directory) = target.parent() else { return Ok(()) };
        if self.store.node_at(source)?.is_none() {
            return Ok(());
        }
        match self.assign_id_for_user(&directory, Some(login)) {
            Err(Error::Store(error @ StoreError::QuotaExceeded(_))) => Err(error.into()),
            // Any other error is left to the move itself, which reports it as its own.
            _ => Ok(()),
        }
    }

    /// Checks that the entry at a path has an id or can be assigned one, without assigning it.
    ///
    /// # Errors
    /// As [`NodeIndex::assign_id`].
    pub(super) fn can_assign_id(&self, path: &TreePath) -> Result<()> {
        match self.find_id(path)? {
            Some(_) => Ok(()),
            None => self.check_same_root(&self.path_identities(path)?),
        }
    }

    /// Returns the id of the node at a path, if it has one.
    pub(super) fn find_id(&self, path: &TreePath) -> Result<Option<NodeId>> {
        let row = self.store.node_at(path)?;
        Ok(row.map(|row| self.row_matches(&row, path).map(|matches| matches.then_some(row.id))).transpose()?.flatten())
    }

    /// Returns the path of a node; `None` when it was removed or another entry is at its path.
    pub(super) fn locate(&self, id: NodeId) -> Result<Option<TreePath>> {
        let Some((path, row)) = self.store.node(id)? else { return Ok(None) };
        Ok(self.row_matches(&row, &path)?.then_some(path))
    }

    /// Returns all nodes at and below a path, in the order of their paths.
    pub(super) fn list(&self, under: &TreePath) -> Result<Vec<NamedNode>> {
        let rows = self.store.nodes_within(under)?.into_iter();
        rows.map(|(path, row)| Ok(NamedNode { id: row.id, dangling: !self.row_matches(&row, &path)?, path })).collect()
    }

    /// Checks every node. Completes the recorded changes that the file system shows as done, and deletes the rows
    /// of dangling nodes unless a grant, a scope or a property refers to them or to one below.
    /// If the served directory is not the one in which ids were assigned, deletes all rows.
    /// Returns the dangling nodes, deleted or not.
    pub(super) fn repair(&self) -> Result<Vec<NamedNode>> {
        let _exclusive = self.change_lock.write();
        self.settle_intents()?;
        let named = self.list(&TreePath::root())?;
        let referenced: HashSet<NodeId> = self.store.referenced_nodes()?.into_iter().collect();
        let root_replaced = |node: &NamedNode| node.path.is_root() && node.dangling;
        // Rows come in path order: the root is the first one, if there is any.
        let kept_paths: Vec<&TreePath> = match named.first().filter(|first| root_replaced(first)) {
            Some(_) => Vec::new(),
            None => named.iter().filter(|n| !n.dangling || referenced.contains(&n.id)).map(|n| &n.path).collect(),
        };
        // Deleting a row cascades to its children: the ancestors of a kept row stay, too.
        let kept_with_ancestors: HashSet<TreePath> =
            kept_paths.into_iter().cloned().flat_map(self_and_ancestors).collect();
        let ended: Vec<NodeId> =
            named.iter().filter(|n| !kept_with_ancestors.contains(&n.path)).map(|n| n.id).collect();
        self.store.delete_nodes(&ended)?;
        Ok(named.into_iter().filter(|node| node.dangling).collect())
    }

    /// Checks that the paths of all nodes below a source stay short enough after a move to a target.
    ///
    /// # Errors
    /// [`Error::PathTooLong`].
    pub(super) fn can_follow(&self, source: &TreePath, target: &TreePath) -> Result<()> {
        let Some(id) = self.find_id(source)? else { return Ok(()) };
        match target.can_hold_bytes(self.store.max_path_bytes_below(id)?) {
            true => Ok(()),
            false => Err(Error::PathTooLong),
        }
    }

    /// Announces a rename. The caller renames on the file system next and then calls [`IndexChange::finish`]; it must
    /// not assign ids in between, which would deadlock.
    pub(super) fn begin_move(&self, from: &TreePath, to: &TreePath) -> Result<IndexChange<'_>> {
        self.begin_change(from, IntentAction::Move(to.clone()))
    }

    /// Announces that an entry is exchanged with `old`, the entry at its target, and that `old` is removed from the
    /// source path after that. The intent is on disk when this returns; otherwise as [`NodeIndex::begin_move`].
    pub(super) fn begin_swap(&self, from: &TreePath, to: &TreePath, old: EntryIdentity) -> Result<IndexChange<'_>> {
        self.begin_multi_step(from, IntentAction::Exchange(to.clone(), old))
    }

    /// Announces a move between file systems: a copy of the entry is put at the target, and the entry is removed after
    /// that. Its nodes become those of the copy. The intent is on disk when this returns; otherwise as
    /// [`NodeIndex::begin_move`].
    pub(super) fn begin_copy(&self, from: &TreePath, to: &TreePath, copy: EntryIdentity) -> Result<IndexChange<'_>> {
        self.begin_multi_step(from, IntentAction::Copy(to.clone(), copy))
    }

    /// Announces a removal, also one into staging. The caller changes the file system next and then calls
    /// [`IndexChange::finish`]; it must not assign ids in between, which would deadlock.
    pub(super) fn begin_remove(&self, path: &TreePath) -> Result<IndexChange<'_>> {
        self.begin_change(path, IntentAction::Remove)
    }

    /// Announces a rename that concerns no node, without waiting for anything; `None` where it may concern one, or a
    /// recorded change is under way: then [`NodeIndex::begin_move`] is to be called.
    pub(super) fn try_begin_move(&self, from: &TreePath, to: &TreePath) -> Result<Option<IndexChange<'_>>> {
        self.try_begin_unnamed(from, IntentAction::Move(to.clone()))
    }

    /// Announces a removal as [`NodeIndex::try_begin_move`] does a rename.
    pub(super) fn try_begin_remove(&self, path: &TreePath) -> Result<Option<IndexChange<'_>>> {
        self.try_begin_unnamed(path, IntentAction::Remove)
    }

    fn try_begin_unnamed(&self, source: &TreePath, action: IntentAction) -> Result<Option<IndexChange<'_>>> {
        let Some(shared) = self.change_lock.try_read() else { return Ok(None) };
        // A dangling row counts, too: it is judged by `begin_change`.
        let is_named = self.store.has_node_at_any([source].into_iter().chain(action.target()))?;
        Ok((!is_named).then(|| IndexChange::unnamed(self, ChangeGuard::Shared(shared), source, action)))
    }

    /// Waits for the recorded change that is under way: until it is finished, the store has the old paths of nodes.
    pub(super) fn wait_for_change(&self) {
        drop(self.change_lock.read());
    }

    /// Returns the durability of changes of properties.
    pub(super) fn durability(&self) -> WriteDurability {
        self.durability
    }

    /// Returns the store that holds the rows.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn begin_change(&self, source: &TreePath, action: IntentAction) -> Result<IndexChange<'_>> {
        // Changes of entries without a node, nearly all of them, run concurrently.
        let shared = self.change_lock.read();
        if self.named_source_metadata(source, &action)?.is_none() {
            return Ok(IndexChange::unnamed(self, ChangeGuard::Shared(shared), source, action));
        }
        drop(shared);
        // A read lock can't be upgraded. Whatever happened before this lock was acquired is seen by looking again.
        let exclusive = self.change_lock.write();
        self.settle_intents()?;
        match self.named_source_metadata(source, &action)? {
            Some(metadata) => self.record_intent(exclusive, source, metadata, action),
            None => Ok(IndexChange::unnamed(self, ChangeGuard::Exclusive(exclusive), source, action)),
        }
    }

    fn begin_multi_step(&self, source: &TreePath, action: IntentAction) -> Result<IndexChange<'_>> {
        // Recorded also without any node: a kill between the two steps would leave both entries in place.
        let exclusive = self.change_lock.write();
        self.settle_intents()?;
        if matches!(action, IntentAction::Copy(..)) {
            // Once the copy is in place, nothing tells any more which rows matched the source.
            let dangling = self.list(source)?.into_iter().filter(|node| node.dangling).map(|node| node.id);
            self.store.delete_nodes(&dangling.collect::<Vec<_>>())?;
        }
        let metadata = self.metadata(source)?.ok_or(Error::Absent)?;
        self.record_intent(exclusive, source, metadata, action)
    }

    fn record_intent<'a>(
        &'a self,
        exclusive: RwLockWriteGuard<'a, ()>,
        source: &TreePath,
        metadata: InodeMetadata,
        action: IntentAction,
    ) -> Result<IndexChange<'a>> {
        let mut intent = ChangeIntent { id: 0, source: source.clone(), entry: metadata.entry_identity(), action };
        intent.id = self.store.record_intent(&intent)?;
        Ok(IndexChange {
            index: self,
            _guard: ChangeGuard::Exclusive(exclusive),
            state: IndexChangeState::IntentRecorded(intent),
        })
    }

    /// Returns the metadata of a source when the change concerns a node at source or target. Looking at the two paths
    /// is enough, since a node below them implies a node at them.
    fn named_source_metadata(&self, source: &TreePath, action: &IntentAction) -> Result<Option<InodeMetadata>> {
        let replaced = match action.target() {
            Some(target) => self.store.node_at(target)?.is_some(),
            None => false,
        };
        let touched = replaced || self.find_id(source)?.is_some();
        if touched { self.metadata(source) } else { Ok(None) }
    }

    /// Completes every intent whose change the file system shows as done; abandons the others if this process serves
    /// the tree, and so has none of them under way.
    fn settle_intents(&self) -> Result<()> {
        for intent in self.store.intents()? {
            match self.settle_intent(&intent) {
                // The state of a bare mount point says nothing of the change: decided when the file system is back.
                Err(Error::Unavailable(outage)) => {
                    tracing::debug!(source = %intent.source, %outage, "a recorded change is not completed for now");
                }
                settled => settled?,
            }
        }
        Ok(())
    }

    fn settle_intent(&self, intent: &ChangeIntent) -> Result<()> {
        // The command line works beside the server, which may have this very change under way.
        if self.is_serving.load(Ordering::Relaxed) {
            self.complete_or_abandon(intent)
        } else if self.is_done(intent)? {
            self.finish_intent(intent)
        } else {
            Ok(())
        }
    }

    /// Completes a change that has begun on the file system; abandons it otherwise.
    fn complete_or_abandon(&self, intent: &ChangeIntent) -> Result<()> {
        if self.finish_on_host(intent)? {
            self.finish_intent(intent)
        } else {
            Ok(self.store.delete_intent(intent.id)?)
        }
    }

    /// Does the second step of a change that was interrupted between its steps; returns whether the change is done.
    fn finish_on_host(&self, intent: &ChangeIntent) -> Result<bool> {
        let ChangeIntent { source, entry, action, .. } = intent;
        let needs_removal = match action {
            // One step on the file system: done or not, with nothing left to do.
            IntentAction::Remove | IntentAction::Move(_) => false,
            // Exchanged, and the old entry is still where the source was.
            IntentAction::Exchange(target, old) => self.is_present(target, *entry)? && self.is_present(source, *old)?,
            IntentAction::Copy(target, copy) => self.is_present(target, *copy)? && self.is_present(source, *entry)?,
        };
        // Entries that came to the source after the copy exist nowhere else. Without birth times nobody can tell.
        if needs_removal
            && let IntentAction::Copy(_, EntryIdentity { birth_time, .. }) = action
            && birth_time.map_or(Ok(true), |copied_at| self.host_access.changed_since(source, copied_at))?
        {
            tracing::warn!(%source, "the source of an interrupted move may have changed since the copy: it is kept");
            return Ok(true);
        }
        if needs_removal && let Err(error) = self.host_access.remove_subtree(source) {
            tracing::warn!(%source, %error, "the source of an interrupted move can't be removed: it is kept");
            return Ok(true);
        }
        self.is_done(intent)
    }

    fn is_done(&self, intent: &ChangeIntent) -> Result<bool> {
        let ChangeIntent { source, entry, action, .. } = intent;
        let source_gone = !self.is_present(source, *entry)?;
        match action {
            IntentAction::Remove => Ok(source_gone),
            IntentAction::Move(target) => Ok(source_gone && self.is_present(target, *entry)?),
            IntentAction::Exchange(target, old) => {
                Ok(source_gone && !self.is_present(source, *old)? && self.is_present(target, *entry)?)
            }
            IntentAction::Copy(target, copy) => Ok(source_gone && self.is_present(target, *copy)?),
        }
    }

    fn is_present(&self, path: &TreePath, entry: EntryIdentity) -> Result<bool> {
        Ok(self.metadata(path)?.is_some_and(|metadata| metadata.entry_identity() == entry))
    }

    fn finish_intent(&self, intent: &ChangeIntent) -> Result<()> {
        let ChangeIntent { id, source, entry, action } = intent;
        let (target, updated_identities) = match action {
            IntentAction::Remove => return Ok(self.store.complete_removal(*id, source)?),
            IntentAction::Move(target) | IntentAction::Exchange(target, _) => (target, Vec::new()),
            IntentAction::Copy(target, _) => (target, self.copied_identities(source, target)?),
        };
        self.move_nodes(Some(*id), source, target, *entry, &updated_identities)
    }

    /// Returns the identity that each node at and below a source has in the copy; `None` for nodes that the copy does
    /// not have.
    fn copied_identities(&self, source: &TreePath, target: &TreePath) -> Result<Vec<(NodeId, Option<NodeIdentity>)>> {
        let mut updated_identities = Vec::new();
        for (path, row) in self.store.nodes_within(source)? {
            let Some(below) = path.strip_prefix(source) else { continue };
            let copy = self.metadata(&target.join(&below))?;
            match row.identity {
                NodeIdentity::Directory { .. } => updated_identities.push((row.id, copy.and_then(directory_identity))),
                // A file has no identity of its own: it follows from the row of its directory.
                NodeIdentity::File { .. } if copy.is_some_and(|copy| copy.kind == EntryKind::File) => {}
                NodeIdentity::File { .. } => updated_identities.push((row.id, None)),
            }
        }
        Ok(updated_identities)
    }

    fn move_nodes(
        &self,
        intent: Option<i64>,
        source: &TreePath,
        target: &TreePath,
        entry: EntryIdentity,
        updated_identities: &[(NodeId, Option<NodeIdentity>)],
    ) -> Result<()> {
        let kind = if entry.is_directory { EntryKind::Directory } else { EntryKind::File };
        let identity =
            self.identity_of(source, InodeMetadata { kind, inode: entry.inode, birth_time: entry.birth_time })?;
        let path_steps = target.parent().map(|directory| self.path_identities(&directory)).transpose()?;
        // The file system has changed already: a kept intent would only fail again at every start.
        let (Some(identity), Some(path_steps)) = (identity, path_steps) else {
            tracing::warn!(%source, %target, "the node index could not follow a move: its nodes are dangling");
            return Ok(intent.map_or(Ok(()), |id| self.store.delete_intent(id))?);
        };
        Ok(self.store.complete_move(
            &CompletedMove { intent, source, identity, target, parent_steps: &path_steps, updated_identities },
            &random_node_id,
        )?)
    }

    /// Returns name and identity of each entry on the path, the root first.
    fn path_identities(&self, path: &TreePath) -> Result<Vec<NodePathStep>> {
        let mut current = TreePath::root();
        let mut directory = directory_identity(self.host_access.metadata(&current)?).ok_or(Error::Absent)?;
        let mut path_steps = vec![(Vec::new(), directory)];
        for name in path.names() {
            let NodeIdentity::Directory { inode, birth_time } = directory else { return Err(Error::Absent) };
            current = current.child(&name);
            let metadata = self.host_access.metadata(&current)?;
            directory = match metadata.kind {
                EntryKind::Directory => {
                    NodeIdentity::Directory { inode: metadata.inode, birth_time: metadata.birth_time }
                }
                EntryKind::File => NodeIdentity::File { inode, birth_time },
                EntryKind::Symlink => return Err(Error::Unsupported),
            };
            path_steps.push((name.as_bytes().to_vec(), directory));
        }
        Ok(path_steps)
    }

    /// Refuses to assign ids in another served directory than before, whatever its marker says: that would end every
    /// existing node.
    fn check_same_root(&self, path_steps: &[NodePathStep]) -> Result<()> {
        let row = self.store.node_at(&TreePath::root())?;
        match (row, path_steps.first()) {
            (Some(row), Some((_, identity))) if !row.identity.matches(*identity) => Err(Error::TreeMismatch),
            _ => Ok(()),
        }
    }

    /// Tells whether the entry at a row's path is the node.
    pub(super) fn row_matches(&self, row: &NodeRow, path: &TreePath) -> Result<bool> {
        let Some(metadata) = self.metadata(path)? else { return Ok(false) };
        Ok(self.identity_of(path, metadata)?.is_some_and(|identity| row.identity.matches(identity)))
    }

    /// Returns the identity of an entry; `None` for a symbolic link, or when its parent directory is gone.
    fn identity_of(&self, path: &TreePath, metadata: InodeMetadata) -> Result<Option<NodeIdentity>> {
        match metadata.kind {
            EntryKind::Directory => Ok(directory_identity(metadata)),
            EntryKind::Symlink => Ok(None),
            EntryKind::File => {
                let parent = path.parent().map(|parent| self.metadata(&parent)).transpose()?.flatten();
                Ok(parent
                    .filter(|parent| parent.kind == EntryKind::Directory)
                    .map(|InodeMetadata { inode, birth_time, .. }| NodeIdentity::File { inode, birth_time }))
            }
        }
    }

    fn metadata(&self, path: &TreePath) -> Result<Option<InodeMetadata>> {
        match self.host_access.metadata(path) {
            Ok(metadata) => Ok(Some(metadata)),
            Err(Error::Absent | Error::NoParent | Error::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn directory_identity(metadata: InodeMetadata) -> Option<NodeIdentity> {
    (metadata.kind == EntryKind::Directory)
        .then_some(NodeIdentity::Directory { inode: metadata.inode, birth_time: metadata.birth_time })
}

/// Returns a path and all its ancestors.
pub(super) fn self_and_ancestors(path: TreePath) -> impl Iterator<Item = TreePath> {
    std::iter::successors(Some(path), TreePath::parent)
}

fn random_node_id() -> std::result::Result<NodeId, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Random(error.to_string()))?;
    Ok(NodeId::from_random(bytes))
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub(super) mod tests;
