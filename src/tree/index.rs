//! The node index: stable names for files and folders, that follow renames and fail closed.
//!
//! A node is named, with its ancestors, only when somebody asks for it. Its row fits what stands on
//! the host while the folder there has the inode and birth time that the row was made with; a file's
//! row while the folder that holds it has. A row that no longer fits names nothing, and ends when its
//! place is named anew.
//!
//! A move or removal of something named is written down as an intent before the host changes, and is
//! finished or abandoned at the next start by what the host shows. So is a change that takes two steps on
//! the host, whether anything in it is named or not: one that was cut off between them is brought to its
//! end there first. Within a process such changes, and the naming of nodes, happen one at a time; others
//! go side by side.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{EntryKind, Error, Result};
use crate::domain::{Login, NodeId, NodeIdentity, TreePath};
use crate::store::{
    ChangeIntent, CompletedMove, EntryIdentity, IntentAction, NodePathStep, NodeRow, Store, StoreError, WriteDurability,
};

/// How often a name is sought again when the host changes meanwhile, and how long between.
const NAMING_ATTEMPTS: usize = 250;
const NAMING_RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// What the host shows of an entry itself, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InodeMetadata {
    /// What it is.
    pub(super) kind: EntryKind,
    /// Its inode number.
    pub(super) inode: u64,
    /// Its birth time in nanoseconds since 1970, where the file system has one.
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

/// The host as the index needs it: what it shows, and the step by which a change that was cut off is
/// brought to its end. Paths are resolved beneath the root without following links.
pub(super) trait HostAccess: Send + Sync {
    /// Asks about a path.
    fn metadata(&self, path: &TreePath) -> Result<InodeMetadata>;

    /// Tells whether anything at and below a path has changed at or after an instant, in nanoseconds since 1970.
    fn changed_since(&self, path: &TreePath, instant: i64) -> Result<bool>;

    /// Removes what stands at a path, with all in it, in one step.
    fn remove_subtree(&self, path: &TreePath) -> Result<()>;
}

/// A named node and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedNode {
    /// Its id.
    pub id: NodeId,
    /// Where it is, or was last known to be.
    pub path: TreePath,
    /// Whether it has ended, or something else stands in its place.
    pub dangling: bool,
}

/// The node index of one tree.
pub(super) struct NodeIndex {
    store: Store,
    host_access: Arc<dyn HostAccess>,
    /// Whether properties are on disk when their change is answered.
    durability: WriteDurability,
    change_lock: RwLock<()>,
    is_serving: AtomicBool,
}

impl NodeIndex {
    /// Makes the index of the tree that `hands` reach; `durability` is that of properties.
    pub(super) fn new(store: Store, host_access: Arc<dyn HostAccess>, durability: WriteDurability) -> Self {
        Self { store, host_access, durability, change_lock: RwLock::new(()), is_serving: AtomicBool::new(false) }
    }

    /// Finishes or abandons what was under way when the last server stopped. Only for the process
    /// that serves the tree.
    pub(super) fn recover(&self) -> Result<()> {
        let _exclusive = self.change_lock.write();
        self.is_serving.store(true, Ordering::Relaxed);
        self.settle_intents()
    }

    /// Names the node at a path, with its ancestors; returns the name it has when it has one.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing is there, [`Error::Unsupported`] for a symbolic link,
    /// [`Error::TreeMismatch`] when the served folder is not the one that nodes were named in.
    pub(super) fn assign_id(&self, path: &TreePath) -> Result<NodeId> {
        self.mint_for(path, None)
    }

    /// Likewise, counted for a user where one is given.
    ///
    /// # Errors
    /// As [`NodeIndex::assign_id`]; [`Error::Store`] of a shortage where the user, or all together, have as many nodes named as
    /// may be.
    pub(super) fn mint_for(&self, path: &TreePath, charged_to: Option<&Login>) -> Result<NodeId> {
        if let Some(id) = self.find_id(path)? {
            return Ok(id);
        }
        let _exclusive = self.change_lock.write();
        for _ in 0..NAMING_ATTEMPTS {
            self.settle_intents()?;
            let path_steps = self.path_identities(path)?;
            self.check_same_root(&path_steps)?;
            // Somebody behind the gateway's back, or the serving process, may have renamed meanwhile.
            if let Some(id) = self.store.create_nodes(path, &path_steps, &random_node_id, charged_to)?
                && self.path_identities(path)? == path_steps
            {
                return Ok(id);
            }
            std::thread::sleep(NAMING_RETRY_INTERVAL);
        }
        Err(Error::Filesystem(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{path} kept changing while it was named"),
        )))
    }

    /// Names the directory that an entry is about to move to, where the entry is named itself: its node stands below that
    /// one then.
    ///
    /// # Errors
    /// [`Error::Store`] of a shortage, as [`NodeIndex::mint_for`].
    pub(super) fn prepare_move(&self, source: &TreePath, target: &TreePath, login: &Login) -> Result<()> {
        let Some(directory) = target.parent() else { return Ok(()) };
        if self.store.node_at(source)?.is_none() {
            return Ok(());
        }
        match self.mint_for(&directory, Some(login)) {
            Err(Error::Store(error @ StoreError::QuotaExceeded(_))) => Err(error.into()),
            // Whatever else is amiss there is for the move to tell.
            _ => Ok(()),
        }
    }

    /// Makes sure that the node at a path has a name or can be given one; gives none.
    ///
    /// # Errors
    /// As [`NodeIndex::assign_id`].
    pub(super) fn can_assign_id(&self, path: &TreePath) -> Result<()> {
        match self.find_id(path)? {
            Some(_) => Ok(()),
            None => self.check_same_root(&self.path_identities(path)?),
        }
    }

    /// Returns the name of the node at a path, when it has one.
    pub(super) fn find_id(&self, path: &TreePath) -> Result<Option<NodeId>> {
        let row = self.store.node_at(path)?;
        Ok(row.map(|row| self.row_matches(&row, path).map(|matches| matches.then_some(row.id))).transpose()?.flatten())
    }

    /// Returns where a node is; `None` when it has ended or something else stands in its place.
    pub(super) fn locate(&self, id: NodeId) -> Result<Option<TreePath>> {
        let Some((path, row)) = self.store.node(id)? else { return Ok(None) };
        Ok(self.row_matches(&row, &path)?.then_some(path))
    }

    /// Returns all named nodes at and below a path, in the order of their paths.
    pub(super) fn list(&self, under: &TreePath) -> Result<Vec<NamedNode>> {
        let rows = self.store.nodes_within(under)?.into_iter();
        rows.map(|(path, row)| Ok(NamedNode { id: row.id, dangling: !self.row_matches(&row, &path)?, path })).collect()
    }

    /// Looks at every named node. Finishes what a stopped server left and its change shows as done, and
    /// drops the rows of ended nodes unless a grant, a scope or a property names them or one below.
    /// Where the served folder itself is another than the nodes were named in, drops them all.
    /// Returns what dangles, dropped or not.
    pub(super) fn repair(&self) -> Result<Vec<NamedNode>> {
        let _exclusive = self.change_lock.write();
        self.settle_intents()?;
        let named = self.list(&TreePath::root())?;
        let referenced: HashSet<NodeId> = self.store.referenced_nodes()?.into_iter().collect();
        let root_replaced = |node: &NamedNode| node.path.is_root() && node.dangling;
        let kept_paths: Vec<&TreePath> = match named.first().filter(|first| root_replaced(first)) {
            Some(_) => Vec::new(),
            None => named.iter().filter(|n| !n.dangling || referenced.contains(&n.id)).map(|n| &n.path).collect(),
        };
        let kept_with_ancestors: HashSet<TreePath> =
            kept_paths.into_iter().cloned().flat_map(self_and_ancestors).collect();
        let ended: Vec<NodeId> =
            named.iter().filter(|n| !kept_with_ancestors.contains(&n.path)).map(|n| n.id).collect();
        self.store.delete_nodes(&ended)?;
        Ok(named.into_iter().filter(|node| node.dangling).collect())
    }

    /// Makes sure that all named nodes below a source can be located once that stands at a target.
    ///
    /// # Errors
    /// [`Error::PathTooLong`].
    pub(super) fn can_follow(&self, source: &TreePath, target: &TreePath) -> Result<()> {
        let Some(id) = self.find_id(source)? else { return Ok(()) };
        match target.can_hold_bytes(self.store.longest_way_below(id)?) {
            true => Ok(()),
            false => Err(Error::PathTooLong),
        }
    }

    /// Announces a move in one step; to be followed at once by the rename on the host and
    /// [`IndexChange::finish`]. The thread must not name nodes in between.
    pub(super) fn begin_move(&self, from: &TreePath, to: &TreePath) -> Result<IndexChange<'_>> {
        self.begin_change(from, IntentAction::Move(to.clone()))
    }

    /// Announces that an entry changes places with `old`, which stands at its target, and that this is
    /// removed from where it comes to stand then. On disk when this returns; otherwise as
    /// [`NodeIndex::begin_move`].
    pub(super) fn begin_swap(&self, from: &TreePath, to: &TreePath, old: EntryIdentity) -> Result<IndexChange<'_>> {
        self.begin_multi_step(from, IntentAction::Exchange(to.clone(), old))
    }

    /// Announces that a copy of an entry, and of all in it, is put at a path, and that the entry is removed
    /// then: its nodes go on as the copy's. On disk when this returns; otherwise as [`NodeIndex::begin_move`].
    pub(super) fn begin_copy(&self, from: &TreePath, to: &TreePath, copy: EntryIdentity) -> Result<IndexChange<'_>> {
        self.begin_multi_step(from, IntentAction::Copy(to.clone(), copy))
    }

    /// Announces a removal, be it for ever or into staging; to be followed at once by the host's change
    /// and [`IndexChange::finish`]. The thread must not name nodes in between.
    pub(super) fn begin_remove(&self, path: &TreePath) -> Result<IndexChange<'_>> {
        self.begin_change(path, IntentAction::Remove)
    }

    /// Waits for a change of names that is under way: until it ends the store tells where nodes were.
    pub(super) fn wait_for_change(&self) {
        drop(self.change_lock.read());
    }

    /// Returns whether properties are on disk when their change is answered.
    pub(super) fn durability(&self) -> WriteDurability {
        self.durability
    }

    /// Returns where the rows are.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn begin_change(&self, source: &TreePath, action: IntentAction) -> Result<IndexChange<'_>> {
        let shared = self.change_lock.read();
        if self.named_source_metadata(source, &action)?.is_none() {
            return Ok(IndexChange::unnamed(self, ChangeGuard::Shared(shared), source, action));
        }
        drop(shared);
        let exclusive = self.change_lock.write();
        self.settle_intents()?;
        match self.named_source_metadata(source, &action)? {
            Some(metadata) => self.record_intent(exclusive, source, metadata, action),
            None => Ok(IndexChange::unnamed(self, ChangeGuard::Exclusive(exclusive), source, action)),
        }
    }

    fn begin_multi_step(&self, source: &TreePath, action: IntentAction) -> Result<IndexChange<'_>> {
        let exclusive = self.change_lock.write();
        self.settle_intents()?;
        if matches!(action, IntentAction::Copy(..)) {
            // Once the copy stands there nobody can tell any more which of them fitted the source.
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

    /// Returns what the host shows of a source, when the change touches something named. One look
    /// a side is enough, since nothing is named without its ancestors.
    fn named_source_metadata(&self, source: &TreePath, action: &IntentAction) -> Result<Option<InodeMetadata>> {
        let replaced = match action.target() {
            Some(target) => self.store.node_at(target)?.is_some(),
            None => false,
        };
        let touched = replaced || self.find_id(source)?.is_some();
        if touched { self.metadata(source) } else { Ok(None) }
    }

    /// Finishes every intent whose change the host shows; abandons the others if this process is
    /// the one that serves (and so has none of them under way).
    fn settle_intents(&self) -> Result<()> {
        for intent in self.store.intents()? {
            match self.settle_intent(&intent) {
                // What stands there now says nothing of what was begun: it is told when the file system is back.
                Err(Error::Unavailable(outage)) => {
                    tracing::debug!(source = %intent.source, %outage, "a change is not concluded for now");
                }
                settled => settled?,
            }
        }
        Ok(())
    }

    fn settle_intent(&self, intent: &ChangeIntent) -> Result<()> {
        if self.is_serving.load(Ordering::Relaxed) {
            self.complete_or_abandon(intent)
        } else if self.is_done(intent)? {
            self.finish_intent(intent)
        } else {
            Ok(())
        }
    }

    /// Brings a change to its end that has begun on the host, abandons it otherwise.
    fn complete_or_abandon(&self, intent: &ChangeIntent) -> Result<()> {
        if self.finish_on_host(intent)? {
            self.finish_intent(intent)
        } else {
            Ok(self.store.delete_intent(intent.id)?)
        }
    }

    /// Does on the host what a change cut off between its steps has left; tells whether it is done.
    fn finish_on_host(&self, intent: &ChangeIntent) -> Result<bool> {
        let ChangeIntent { source, entry, action, .. } = intent;
        let needs_removal = match action {
            IntentAction::Remove | IntentAction::Move(_) => false,
            IntentAction::Exchange(target, old) => self.is_present(target, *entry)? && self.is_present(source, *old)?,
            IntentAction::Copy(target, copy) => self.is_present(target, *copy)? && self.is_present(source, *entry)?,
        };
        // What came to the source since it was copied is nowhere else; where nobody can tell, it may have.
        if needs_removal
            && let IntentAction::Copy(_, EntryIdentity { birth_time, .. }) = action
            && birth_time.map_or(Ok(true), |copied_at| self.host_access.changed_since(source, copied_at))?
        {
            tracing::warn!(%source, "this may have changed since a move that was cut off had copied it, and stays");
            return Ok(true);
        }
        if needs_removal && let Err(error) = self.host_access.remove_subtree(source) {
            tracing::warn!(%source, %error, "what a move was to remove from here stays");
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

    /// Returns what each named folder at and below a source is recognised by in its copy; nothing for
    /// what the copy doesn't have.
    fn copied_identities(&self, source: &TreePath, target: &TreePath) -> Result<Vec<(NodeId, Option<NodeIdentity>)>> {
        let mut updated_identities = Vec::new();
        for (path, row) in self.store.nodes_within(source)? {
            let Some(below) = path.strip_prefix(source) else { continue };
            let copy = self.metadata(&target.join(&below))?;
            match row.identity {
                NodeIdentity::Directory { .. } => updated_identities.push((row.id, copy.and_then(directory_identity))),
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
        let (Some(identity), Some(path_steps)) = (identity, path_steps) else {
            tracing::warn!(%source, %target, "a move could not be followed: its nodes dangle");
            return Ok(intent.map_or(Ok(()), |id| self.store.delete_intent(id))?);
        };
        Ok(self.store.complete_move(
            &CompletedMove { intent, source, identity, target, parent_steps: &path_steps, updated_identities },
            &random_node_id,
        )?)
    }

    /// Returns the way down to a path, the root first.
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

    /// Refuses to name anything in another served folder than before, whatever its marker says: that would end every node
    /// there is.
    fn check_same_root(&self, path_steps: &[NodePathStep]) -> Result<()> {
        let row = self.store.node_at(&TreePath::root())?;
        match (row, path_steps.first()) {
            (Some(row), Some((_, identity))) if !row.identity.matches(*identity) => Err(Error::TreeMismatch),
            _ => Ok(()),
        }
    }

    /// Tells whether what stands at a row's place is the node.
    pub(super) fn row_matches(&self, row: &NodeRow, path: &TreePath) -> Result<bool> {
        let Some(metadata) = self.metadata(path)? else { return Ok(false) };
        Ok(self.identity_of(path, metadata)?.is_some_and(|identity| row.identity.matches(identity)))
    }

    /// Returns what an entry is recognised by; `None` for a link, or when its folder is gone.
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

/// A move or removal under way. Dropped without [`IndexChange::finish`], it is concluded by what the host
/// shows: mostly that it refused.
#[must_use = "the host changes next, and then the change is finished"]
pub(super) struct IndexChange<'a> {
    index: &'a NodeIndex,
    _guard: ChangeGuard<'a>,
    state: IndexChangeState,
}

enum IndexChangeState {
    /// Written down.
    IntentRecorded(ChangeIntent),
    /// One that touched nothing named when it began.
    Unnamed(TreePath, IntentAction),
    Finished,
}

#[expect(dead_code, reason = "held, never looked at")]
enum ChangeGuard<'a> {
    Shared(RwLockReadGuard<'a, ()>),
    Exclusive(RwLockWriteGuard<'a, ()>),
}

impl<'a> IndexChange<'a> {
    fn unnamed(index: &'a NodeIndex, guard: ChangeGuard<'a>, source: &TreePath, action: IntentAction) -> Self {
        Self { index, _guard: guard, state: IndexChangeState::Unnamed(source.clone(), action) }
    }

    /// Lets the index follow, once the host has changed (and is on disk, where durability asks for it).
    ///
    /// # Errors
    /// [`Error::Store`]: the change is made up for before the next one, or at the next start.
    pub(super) fn finish(mut self) -> Result<()> {
        let (source, target) = match std::mem::replace(&mut self.state, IndexChangeState::Finished) {
            IndexChangeState::IntentRecorded(intent) => return self.index.finish_intent(&intent),
            IndexChangeState::Unnamed(source, IntentAction::Move(target)) => (source, target),
            IndexChangeState::Unnamed(..) | IndexChangeState::Finished => return Ok(()),
        };
        // Another process may have named the source since this began.
        if self.index.store.node_at(&source)?.is_none() {
            return Ok(());
        }
        match self.index.metadata(&target)? {
            Some(metadata) => self.index.move_nodes(None, &source, &target, metadata.entry_identity(), &[]),
            None => Ok(()),
        }
    }
}

impl Drop for IndexChange<'_> {
    fn drop(&mut self) {
        let IndexChangeState::IntentRecorded(intent) = &self.state else { return };
        if let Err(error) = self.index.complete_or_abandon(intent) {
            tracing::warn!(%error, "a change is not concluded: it will be before the next one");
        }
    }
}

fn directory_identity(metadata: InodeMetadata) -> Option<NodeIdentity> {
    (metadata.kind == EntryKind::Directory)
        .then_some(NodeIdentity::Directory { inode: metadata.inode, birth_time: metadata.birth_time })
}

/// Returns a path and all above it.
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
