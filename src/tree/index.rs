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

use super::{Error, Kind, Result};
use crate::domain::{Login, NodeId, NodeIdentity, TreePath};
use crate::store::{
    ChangeIntent, CompletedMove, EntryIdentity, IntentAction, NodePathStep, NodeRow, Store, StoreError, WriteDurability,
};

/// How often a name is sought again when the host changes meanwhile, and how long between.
const ATTEMPTS: usize = 250;
const PAUSE: Duration = Duration::from_millis(2);

/// What the host shows of an entry itself, links not followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// What it is.
    pub(super) kind: Kind,
    /// Its inode number.
    pub(super) inode: u64,
    /// Its birth time in nanoseconds since 1970, where the file system has one.
    pub(super) born: Option<i64>,
}

impl Facts {
    fn entity(self) -> EntryIdentity {
        EntryIdentity { is_directory: self.kind == Kind::Folder, inode: self.inode, birth_time: self.born }
    }
}

/// The host as the index needs it: what it shows, and the step by which a change that was cut off is
/// brought to its end. Paths are resolved beneath the root without following links.
pub(super) trait Hands: Send + Sync {
    /// Asks about a path.
    fn ask(&self, path: &TreePath) -> Result<Facts>;

    /// Tells whether anything at and below a path has changed at or after an instant, in nanoseconds since 1970.
    fn changed_since(&self, path: &TreePath, instant: i64) -> Result<bool>;

    /// Removes what stands at a path, with all in it, in one step.
    fn clear(&self, path: &TreePath) -> Result<()>;
}

/// A named node and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its id.
    pub id: NodeId,
    /// Where it is, or was last known to be.
    pub path: TreePath,
    /// Whether it has ended, or something else stands in its place.
    pub dangling: bool,
}

/// The node index of one tree.
pub(super) struct Index {
    store: Store,
    hands: Arc<dyn Hands>,
    /// Whether properties are on disk when their change is answered.
    durability: WriteDurability,
    gate: RwLock<()>,
    owner: AtomicBool,
}

impl Index {
    /// Makes the index of the tree that `hands` reach; `durability` is that of properties.
    pub(super) fn new(store: Store, hands: Arc<dyn Hands>, durability: WriteDurability) -> Self {
        Self { store, hands, durability, gate: RwLock::new(()), owner: AtomicBool::new(false) }
    }

    /// Finishes or abandons what was under way when the last server stopped. Only for the process
    /// that serves the tree.
    pub(super) fn recover(&self) -> Result<()> {
        let _alone = self.gate.write();
        self.owner.store(true, Ordering::Relaxed);
        self.settle()
    }

    /// Names the node at a path, with its ancestors; returns the name it has when it has one.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing is there, [`Error::Unsupported`] for a symbolic link,
    /// [`Error::OtherTree`] when the served folder is not the one that nodes were named in.
    pub(super) fn mint(&self, path: &TreePath) -> Result<NodeId> {
        self.mint_for(path, None)
    }

    /// Likewise, counted for a user where one is given.
    ///
    /// # Errors
    /// As [`Index::mint`]; [`Error::Store`] of a shortage where the user, or all together, have as many nodes named as
    /// may be.
    pub(super) fn mint_for(&self, path: &TreePath, namer: Option<&Login>) -> Result<NodeId> {
        if let Some(id) = self.find(path)? {
            return Ok(id);
        }
        let _alone = self.gate.write();
        for _ in 0..ATTEMPTS {
            self.settle()?;
            let way = self.way(path)?;
            self.same_root(&way)?;
            // Somebody behind the gateway's back, or the serving process, may have renamed meanwhile.
            if let Some(id) = self.store.create_nodes(path, &way, &draw, namer)?
                && self.way(path)? == way
            {
                return Ok(id);
            }
            std::thread::sleep(PAUSE);
        }
        Err(Error::Host(io::Error::new(
            io::ErrorKind::ResourceBusy,
            format!("{path} kept changing while it was named"),
        )))
    }

    /// Names the directory that an entry is about to move to, where the entry is named itself: its node stands below that
    /// one then.
    ///
    /// # Errors
    /// [`Error::Store`] of a shortage, as [`Index::mint_for`].
    pub(super) fn prepare_move(&self, source: &TreePath, target: &TreePath, mover: &Login) -> Result<()> {
        let Some(directory) = target.parent() else { return Ok(()) };
        if self.store.node_at(source)?.is_none() {
            return Ok(());
        }
        match self.mint_for(&directory, Some(mover)) {
            Err(Error::Store(error @ StoreError::QuotaExceeded(_))) => Err(error.into()),
            // Whatever else is amiss there is for the move to tell.
            _ => Ok(()),
        }
    }

    /// Makes sure that the node at a path has a name or can be given one; gives none.
    ///
    /// # Errors
    /// As [`Index::mint`].
    pub(super) fn can_mint(&self, path: &TreePath) -> Result<()> {
        match self.find(path)? {
            Some(_) => Ok(()),
            None => self.same_root(&self.way(path)?),
        }
    }

    /// Returns the name of the node at a path, when it has one.
    pub(super) fn find(&self, path: &TreePath) -> Result<Option<NodeId>> {
        let row = self.store.node_at(path)?;
        Ok(row.map(|row| self.fits(&row, path).map(|fits| fits.then_some(row.id))).transpose()?.flatten())
    }

    /// Returns where a node is; `None` when it has ended or something else stands in its place.
    pub(super) fn locate(&self, id: NodeId) -> Result<Option<TreePath>> {
        let Some((path, row)) = self.store.node(id)? else { return Ok(None) };
        Ok(self.fits(&row, &path)?.then_some(path))
    }

    /// Returns all named nodes at and below a path, in the order of their paths.
    pub(super) fn list(&self, under: &TreePath) -> Result<Vec<Named>> {
        let rows = self.store.nodes_within(under)?.into_iter();
        rows.map(|(path, row)| Ok(Named { id: row.id, dangling: !self.fits(&row, &path)?, path })).collect()
    }

    /// Looks at every named node. Finishes what a stopped server left and its change shows as done, and
    /// drops the rows of ended nodes unless a grant, a scope or a property names them or one below.
    /// Where the served folder itself is another than the nodes were named in, drops them all.
    /// Returns what dangles, dropped or not.
    pub(super) fn repair(&self) -> Result<Vec<Named>> {
        let _alone = self.gate.write();
        self.settle()?;
        let named = self.list(&TreePath::root())?;
        let needed: HashSet<NodeId> = self.store.referenced_nodes()?.into_iter().collect();
        let moved_house = |node: &Named| node.path.is_root() && node.dangling;
        let keep: Vec<&TreePath> = match named.first().filter(|first| moved_house(first)) {
            Some(_) => Vec::new(),
            None => named.iter().filter(|n| !n.dangling || needed.contains(&n.id)).map(|n| &n.path).collect(),
        };
        let above: HashSet<TreePath> = keep.into_iter().cloned().flat_map(lineage).collect();
        let ended: Vec<NodeId> = named.iter().filter(|n| !above.contains(&n.path)).map(|n| n.id).collect();
        self.store.delete_nodes(&ended)?;
        Ok(named.into_iter().filter(|node| node.dangling).collect())
    }

    /// Makes sure that all named nodes below a source can be located once that stands at a target.
    ///
    /// # Errors
    /// [`Error::PathTooLong`].
    pub(super) fn can_follow(&self, source: &TreePath, target: &TreePath) -> Result<()> {
        let Some(id) = self.find(source)? else { return Ok(()) };
        match target.can_hold_bytes(self.store.longest_way_below(id)?) {
            true => Ok(()),
            false => Err(Error::PathTooLong),
        }
    }

    /// Announces a move in one step; to be followed at once by the rename on the host and
    /// [`Change::finish`]. The thread must not name nodes in between.
    pub(super) fn begin_move(&self, from: &TreePath, to: &TreePath) -> Result<Change<'_>> {
        self.begin(from, IntentAction::Move(to.clone()))
    }

    /// Announces that an entry changes places with `old`, which stands at its target, and that this is
    /// removed from where it comes to stand then. On disk when this returns; otherwise as
    /// [`Index::begin_move`].
    pub(super) fn begin_swap(&self, from: &TreePath, to: &TreePath, old: EntryIdentity) -> Result<Change<'_>> {
        self.begin_steps(from, IntentAction::Exchange(to.clone(), old))
    }

    /// Announces that a copy of an entry, and of all in it, is put at a path, and that the entry is removed
    /// then: its nodes go on as the copy's. On disk when this returns; otherwise as [`Index::begin_move`].
    pub(super) fn begin_copy(&self, from: &TreePath, to: &TreePath, copy: EntryIdentity) -> Result<Change<'_>> {
        self.begin_steps(from, IntentAction::Copy(to.clone(), copy))
    }

    /// Announces a removal, be it for ever or into staging; to be followed at once by the host's change
    /// and [`Change::finish`]. The thread must not name nodes in between.
    pub(super) fn begin_remove(&self, path: &TreePath) -> Result<Change<'_>> {
        self.begin(path, IntentAction::Remove)
    }

    /// Waits for a change of names that is under way: until it ends the store tells where nodes were.
    pub(super) fn wait_for_change(&self) {
        drop(self.gate.read());
    }

    /// Returns whether properties are on disk when their change is answered.
    pub(super) fn durability(&self) -> WriteDurability {
        self.durability
    }

    /// Returns where the rows are.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn begin(&self, source: &TreePath, plan: IntentAction) -> Result<Change<'_>> {
        let beside = self.gate.read();
        if self.touched(source, &plan)?.is_none() {
            return Ok(Change::unnamed(self, Gate::Shared(beside), source, plan));
        }
        drop(beside);
        let alone = self.gate.write();
        self.settle()?;
        match self.touched(source, &plan)? {
            Some(facts) => self.announce(alone, source, facts, plan),
            None => Ok(Change::unnamed(self, Gate::Alone(alone), source, plan)),
        }
    }

    fn begin_steps(&self, source: &TreePath, plan: IntentAction) -> Result<Change<'_>> {
        let alone = self.gate.write();
        self.settle()?;
        if matches!(plan, IntentAction::Copy(..)) {
            // Once the copy stands there nobody can tell any more which of them fitted the source.
            let strangers = self.list(source)?.into_iter().filter(|node| node.dangling).map(|node| node.id);
            self.store.delete_nodes(&strangers.collect::<Vec<_>>())?;
        }
        let facts = self.facts(source)?.ok_or(Error::Absent)?;
        self.announce(alone, source, facts, plan)
    }

    fn announce<'a>(
        &'a self,
        alone: RwLockWriteGuard<'a, ()>,
        source: &TreePath,
        facts: Facts,
        plan: IntentAction,
    ) -> Result<Change<'a>> {
        let mut intent = ChangeIntent { id: 0, source: source.clone(), entry: facts.entity(), action: plan };
        intent.id = self.store.record_intent(&intent)?;
        Ok(Change { index: self, _gate: Gate::Alone(alone), begun: Begun::Announced(intent) })
    }

    /// Returns what the host shows of a source, when the change touches something named. One look
    /// a side is enough, since nothing is named without its ancestors.
    fn touched(&self, source: &TreePath, plan: &IntentAction) -> Result<Option<Facts>> {
        let replaced = match plan.target() {
            Some(target) => self.store.node_at(target)?.is_some(),
            None => false,
        };
        let touched = replaced || self.find(source)?.is_some();
        if touched { self.facts(source) } else { Ok(None) }
    }

    /// Finishes every intent whose change the host shows; abandons the others if this process is
    /// the one that serves (and so has none of them under way).
    fn settle(&self) -> Result<()> {
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
        if self.owner.load(Ordering::Relaxed) {
            self.conclude(intent)
        } else if self.is_done(intent)? {
            self.finish(intent)
        } else {
            Ok(())
        }
    }

    /// Brings a change to its end that has begun on the host, abandons it otherwise.
    fn conclude(&self, intent: &ChangeIntent) -> Result<()> {
        if self.complete(intent)? { self.finish(intent) } else { Ok(self.store.delete_intent(intent.id)?) }
    }

    /// Does on the host what a change cut off between its steps has left; tells whether it is done.
    fn complete(&self, intent: &ChangeIntent) -> Result<bool> {
        let ChangeIntent { source, entry: entity, action: plan, .. } = intent;
        let rest = match plan {
            IntentAction::Remove | IntentAction::Move(_) => false,
            IntentAction::Exchange(target, old) => self.stands(target, *entity)? && self.stands(source, *old)?,
            IntentAction::Copy(target, copy) => self.stands(target, *copy)? && self.stands(source, *entity)?,
        };
        // What came to the source since it was copied is nowhere else; where nobody can tell, it may have.
        if rest
            && let IntentAction::Copy(_, EntryIdentity { birth_time: born, .. }) = plan
            && born.map_or(Ok(true), |copied| self.hands.changed_since(source, copied))?
        {
            tracing::warn!(%source, "this may have changed since a move that was cut off had copied it, and stays");
            return Ok(true);
        }
        if rest && let Err(error) = self.hands.clear(source) {
            tracing::warn!(%source, %error, "what a move was to remove from here stays");
            return Ok(true);
        }
        self.is_done(intent)
    }

    fn is_done(&self, intent: &ChangeIntent) -> Result<bool> {
        let ChangeIntent { source, entry: entity, action: plan, .. } = intent;
        let gone = !self.stands(source, *entity)?;
        match plan {
            IntentAction::Remove => Ok(gone),
            IntentAction::Move(target) => Ok(gone && self.stands(target, *entity)?),
            IntentAction::Exchange(target, old) => {
                Ok(gone && !self.stands(source, *old)? && self.stands(target, *entity)?)
            }
            IntentAction::Copy(target, copy) => Ok(gone && self.stands(target, *copy)?),
        }
    }

    fn stands(&self, path: &TreePath, entity: EntryIdentity) -> Result<bool> {
        Ok(self.facts(path)?.is_some_and(|facts| facts.entity() == entity))
    }

    fn finish(&self, intent: &ChangeIntent) -> Result<()> {
        let ChangeIntent { id, source, entry: entity, action: plan } = intent;
        let (target, anew) = match plan {
            IntentAction::Remove => return Ok(self.store.complete_removal(*id, source)?),
            IntentAction::Move(target) | IntentAction::Exchange(target, _) => (target, Vec::new()),
            IntentAction::Copy(target, _) => (target, self.copied(source, target)?),
        };
        self.follow(Some(*id), source, target, *entity, &anew)
    }

    /// Returns what each named folder at and below a source is recognised by in its copy; nothing for
    /// what the copy doesn't have.
    fn copied(&self, source: &TreePath, target: &TreePath) -> Result<Vec<(NodeId, Option<NodeIdentity>)>> {
        let mut anew = Vec::new();
        for (path, row) in self.store.nodes_within(source)? {
            let Some(below) = path.strip_prefix(source) else { continue };
            let copy = self.facts(&target.join(&below))?;
            match row.identity {
                NodeIdentity::Directory { .. } => anew.push((row.id, copy.and_then(own_identity))),
                NodeIdentity::File { .. } if copy.is_some_and(|copy| copy.kind == Kind::File) => {}
                NodeIdentity::File { .. } => anew.push((row.id, None)),
            }
        }
        Ok(anew)
    }

    fn follow(
        &self,
        intent: Option<i64>,
        source: &TreePath,
        target: &TreePath,
        entity: EntryIdentity,
        anew: &[(NodeId, Option<NodeIdentity>)],
    ) -> Result<()> {
        let kind = if entity.is_directory { Kind::Folder } else { Kind::File };
        let identity = self.identity(source, Facts { kind, inode: entity.inode, born: entity.birth_time })?;
        let way = target.parent().map(|folder| self.way(&folder)).transpose()?;
        let (Some(identity), Some(way)) = (identity, way) else {
            tracing::warn!(%source, %target, "a move could not be followed: its nodes dangle");
            return Ok(intent.map_or(Ok(()), |id| self.store.delete_intent(id))?);
        };
        Ok(self.store.complete_move(
            &CompletedMove { intent, source, identity, target, parent_steps: &way, updated_identities: anew },
            &draw,
        )?)
    }

    /// Returns the way down to a path, the root first.
    fn way(&self, path: &TreePath) -> Result<Vec<NodePathStep>> {
        let mut place = TreePath::root();
        let mut folder = own_identity(self.hands.ask(&place)?).ok_or(Error::Absent)?;
        let mut way = vec![(Vec::new(), folder)];
        for name in path.names() {
            let NodeIdentity::Directory { inode, birth_time: born } = folder else { return Err(Error::Absent) };
            place = place.child(&name);
            let facts = self.hands.ask(&place)?;
            folder = match facts.kind {
                Kind::Folder => NodeIdentity::Directory { inode: facts.inode, birth_time: facts.born },
                Kind::File => NodeIdentity::File { inode, birth_time: born },
                Kind::Link => return Err(Error::Unsupported),
            };
            way.push((name.as_bytes().to_vec(), folder));
        }
        Ok(way)
    }

    /// Refuses to name anything in another served folder than before, whatever its marker says: that would end every node
    /// there is.
    fn same_root(&self, way: &[NodePathStep]) -> Result<()> {
        let row = self.store.node_at(&TreePath::root())?;
        match (row, way.first()) {
            (Some(row), Some((_, identity))) if !row.identity.matches(*identity) => Err(Error::OtherTree),
            _ => Ok(()),
        }
    }

    /// Tells whether what stands at a row's place is the node.
    pub(super) fn fits(&self, row: &NodeRow, path: &TreePath) -> Result<bool> {
        let Some(facts) = self.facts(path)? else { return Ok(false) };
        Ok(self.identity(path, facts)?.is_some_and(|found| row.identity.matches(found)))
    }

    /// Returns what an entry is recognised by; `None` for a link, or when its folder is gone.
    fn identity(&self, path: &TreePath, facts: Facts) -> Result<Option<NodeIdentity>> {
        match facts.kind {
            Kind::Folder => Ok(own_identity(facts)),
            Kind::Link => Ok(None),
            Kind::File => {
                let folder = path.parent().map(|folder| self.facts(&folder)).transpose()?.flatten();
                Ok(folder
                    .filter(|folder| folder.kind == Kind::Folder)
                    .map(|Facts { inode, born, .. }| NodeIdentity::File { inode, birth_time: born }))
            }
        }
    }

    fn facts(&self, path: &TreePath) -> Result<Option<Facts>> {
        match self.hands.ask(path) {
            Ok(facts) => Ok(Some(facts)),
            Err(Error::Absent | Error::NoParent | Error::NotFolder) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A move or removal under way. Dropped without [`Change::finish`], it is concluded by what the host
/// shows: mostly that it refused.
#[must_use = "the host changes next, and then the change is finished"]
pub(super) struct Change<'a> {
    index: &'a Index,
    _gate: Gate<'a>,
    begun: Begun,
}

enum Begun {
    /// Written down.
    Announced(ChangeIntent),
    /// One that touched nothing named when it began.
    Unnamed(TreePath, IntentAction),
    Over,
}

#[expect(dead_code, reason = "held, never looked at")]
enum Gate<'a> {
    Shared(RwLockReadGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

impl<'a> Change<'a> {
    fn unnamed(index: &'a Index, gate: Gate<'a>, source: &TreePath, plan: IntentAction) -> Self {
        Self { index, _gate: gate, begun: Begun::Unnamed(source.clone(), plan) }
    }

    /// Lets the index follow, once the host has changed (and is on disk, where durability asks for it).
    ///
    /// # Errors
    /// [`Error::Store`]: the change is made up for before the next one, or at the next start.
    pub(super) fn finish(mut self) -> Result<()> {
        let (source, target) = match std::mem::replace(&mut self.begun, Begun::Over) {
            Begun::Announced(intent) => return self.index.finish(&intent),
            Begun::Unnamed(source, IntentAction::Move(target)) => (source, target),
            Begun::Unnamed(..) | Begun::Over => return Ok(()),
        };
        // Another process may have named the source since this began.
        if self.index.store.node_at(&source)?.is_none() {
            return Ok(());
        }
        match self.index.facts(&target)? {
            Some(facts) => self.index.follow(None, &source, &target, facts.entity(), &[]),
            None => Ok(()),
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let Begun::Announced(intent) = &self.begun else { return };
        if let Err(error) = self.index.conclude(intent) {
            tracing::warn!(%error, "a change is not concluded: it will be before the next one");
        }
    }
}

fn own_identity(facts: Facts) -> Option<NodeIdentity> {
    (facts.kind == Kind::Folder).then_some(NodeIdentity::Directory { inode: facts.inode, birth_time: facts.born })
}

/// Returns a path and all above it.
pub(super) fn lineage(path: TreePath) -> impl Iterator<Item = TreePath> {
    std::iter::successors(Some(path), TreePath::parent)
}

fn draw() -> std::result::Result<NodeId, StoreError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| StoreError::Random(error.to_string()))?;
    Ok(NodeId::from_random(bytes))
}

#[cfg(test)]
mod model;
#[cfg(test)]
pub(super) mod tests;
