//! The node index: stable names for files and folders, that follow renames and fail closed.
//!
//! A node is named, with its ancestors, only when somebody asks for it. Its row fits what stands on
//! the host while the folder there has the inode and birth time that the row was made with; a file's
//! row while the folder that holds it has. A row that no longer fits names nothing, and ends when its
//! place is named anew.
//!
//! A move or removal of something named is written down as an intent before the host changes, and is
//! finished or abandoned at the next start by what the host shows. Within a process such changes, and
//! the naming of nodes, happen one at a time; changes to what has no name go side by side.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::{RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{Error, Kind, Result};
use crate::domain::{Identity, NodeId, TreePath};
use crate::store::{Intent, Moved, NodeRow, Step, Store, StoreError};

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

/// Asks the host about a path, resolved beneath the root without following links.
pub(super) type Ask = Arc<dyn Fn(&TreePath) -> Result<Facts> + Send + Sync>;

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
    ask: Ask,
    gate: RwLock<()>,
    owner: AtomicBool,
}

impl Index {
    /// Makes the index of the tree that `ask` answers for.
    pub(super) fn new(store: Store, ask: Ask) -> Self {
        Self { store, ask, gate: RwLock::new(()), owner: AtomicBool::new(false) }
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
    /// [`Error::Host`] when the served folder is not the one that nodes were named in.
    pub(super) fn mint(&self, path: &TreePath) -> Result<NodeId> {
        if let Some(id) = self.find(path)? {
            return Ok(id);
        }
        let _alone = self.gate.write();
        for _ in 0..ATTEMPTS {
            self.settle()?;
            let way = self.way(path)?;
            self.same_root(&way)?;
            // Somebody behind the gateway's back, or the serving process, may have renamed meanwhile.
            if let Some(id) = self.store.name_nodes(path, &way, &draw)?
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
        let rows = self.store.nodes()?.into_iter().filter(|(path, _)| path.is_within(under));
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
        let needed: HashSet<NodeId> = self.store.nodes_in_use()?.into_iter().collect();
        let moved_house = |node: &Named| node.path.is_root() && node.dangling;
        let keep: Vec<&TreePath> = match named.first().filter(|first| moved_house(first)) {
            Some(_) => Vec::new(),
            None => named.iter().filter(|n| !n.dangling || needed.contains(&n.id)).map(|n| &n.path).collect(),
        };
        let above: HashSet<TreePath> = keep.into_iter().flat_map(lineage).collect();
        let ended: Vec<NodeId> = named.iter().filter(|n| !above.contains(&n.path)).map(|n| n.id).collect();
        self.store.end_nodes(&ended)?;
        Ok(named.into_iter().filter(|node| node.dangling).collect())
    }

    /// Announces a move; to be followed at once by the rename on the host and [`Change::finish`].
    /// The thread must not name nodes in between.
    pub(super) fn begin_move(&self, from: &TreePath, to: &TreePath) -> Result<Change<'_>> {
        self.begin(from, Some(to))
    }

    /// Announces a removal, be it for ever or into staging; to be followed at once by the host's change
    /// and [`Change::finish`]. The thread must not name nodes in between.
    pub(super) fn begin_remove(&self, path: &TreePath) -> Result<Change<'_>> {
        self.begin(path, None)
    }

    /// Returns where the rows are.
    pub(super) fn store(&self) -> &Store {
        &self.store
    }

    fn begin(&self, source: &TreePath, target: Option<&TreePath>) -> Result<Change<'_>> {
        let change =
            |gate, intent| Change { index: self, _gate: gate, source: source.clone(), target: target.cloned(), intent };
        let beside = self.gate.read();
        if self.touched(source, target)?.is_none() {
            return Ok(change(Gate::Shared(beside), None));
        }
        drop(beside);
        let alone = self.gate.write();
        self.settle()?;
        let Some(facts) = self.touched(source, target)? else { return Ok(change(Gate::Alone(alone), None)) };
        let mut intent = Intent {
            id: 0,
            source: source.clone(),
            target: target.cloned(),
            folder: facts.kind == Kind::Folder,
            inode: facts.inode,
            born: facts.born,
        };
        intent.id = self.store.begin_intent(&intent)?;
        Ok(change(Gate::Alone(alone), Some(intent)))
    }

    /// Returns what the host shows of a source, when the change touches something named. One look
    /// a side is enough, since nothing is named without its ancestors.
    fn touched(&self, source: &TreePath, target: Option<&TreePath>) -> Result<Option<Facts>> {
        let replaced = match target {
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
            if self.owner.load(Ordering::Relaxed) {
                self.conclude(&intent)?;
            } else if self.is_done(&intent)? {
                self.finish(&intent)?;
            }
        }
        Ok(())
    }

    /// Finishes a change that the host shows as done, abandons it otherwise.
    fn conclude(&self, intent: &Intent) -> Result<()> {
        if self.is_done(intent)? { self.finish(intent) } else { Ok(self.store.drop_intent(intent.id)?) }
    }

    fn is_done(&self, intent: &Intent) -> Result<bool> {
        let stands = |path| self.facts(path).map(|facts| facts.is_some_and(|facts| is_entity(&facts, intent)));
        match &intent.target {
            Some(target) => Ok(!stands(&intent.source)? && stands(target)?),
            None => Ok(!stands(&intent.source)?),
        }
    }

    fn finish(&self, intent: &Intent) -> Result<()> {
        match &intent.target {
            None => Ok(self.store.finish_removal(intent.id, &intent.source)?),
            Some(target) => {
                let kind = if intent.folder { Kind::Folder } else { Kind::File };
                let facts = Facts { kind, inode: intent.inode, born: intent.born };
                self.follow(Some(intent.id), &intent.source, target, facts)
            }
        }
    }

    fn follow(&self, intent: Option<i64>, source: &TreePath, target: &TreePath, facts: Facts) -> Result<()> {
        let identity = self.identity(source, facts)?;
        let way = target.parent().map(|folder| self.way(&folder)).transpose()?;
        let (Some(identity), Some(way)) = (identity, way) else {
            tracing::warn!(%source, %target, "a move could not be followed: its nodes dangle");
            return Ok(intent.map_or(Ok(()), |id| self.store.drop_intent(id))?);
        };
        Ok(self.store.finish_move(&Moved { intent, source, identity, target, way: &way }, &draw)?)
    }

    /// Returns the way down to a path, the root first.
    fn way(&self, path: &TreePath) -> Result<Vec<Step>> {
        let mut place = TreePath::root();
        let mut folder = own_identity((self.ask)(&place)?).ok_or(Error::Absent)?;
        let mut way = vec![(Vec::new(), folder)];
        for name in path.names() {
            let Identity::Folder { inode, born } = folder else { return Err(Error::Absent) };
            place = place.child(&name);
            let facts = (self.ask)(&place)?;
            folder = match facts.kind {
                Kind::Folder => Identity::Folder { inode: facts.inode, born: facts.born },
                Kind::File => Identity::File { inode, born },
                Kind::Link => return Err(Error::Unsupported),
            };
            way.push((name.as_bytes().to_vec(), folder));
        }
        Ok(way)
    }

    /// Refuses to name anything in another served folder than before: one whose disk is not mounted
    /// would end every node there is.
    fn same_root(&self, way: &[Step]) -> Result<()> {
        let row = self.store.node_at(&TreePath::root())?;
        match (row, way.first()) {
            (Some(row), Some((_, identity))) if row.identity != *identity => Err(Error::Host(io::Error::other(
                "the served folder is not the one that nodes were named in: serve that one, or run `patgate node repair`",
            ))),
            _ => Ok(()),
        }
    }

    /// Tells whether what stands at a row's place is the node.
    pub(super) fn fits(&self, row: &NodeRow, path: &TreePath) -> Result<bool> {
        let Some(facts) = self.facts(path)? else { return Ok(false) };
        Ok(self.identity(path, facts)? == Some(row.identity))
    }

    /// Returns what an entry is recognised by; `None` for a link, or when its folder is gone.
    fn identity(&self, path: &TreePath, facts: Facts) -> Result<Option<Identity>> {
        match facts.kind {
            Kind::Folder => Ok(own_identity(facts)),
            Kind::Link => Ok(None),
            Kind::File => {
                let folder = path.parent().map(|folder| self.facts(&folder)).transpose()?.flatten();
                Ok(folder
                    .filter(|folder| folder.kind == Kind::Folder)
                    .map(|Facts { inode, born, .. }| Identity::File { inode, born }))
            }
        }
    }

    fn facts(&self, path: &TreePath) -> Result<Option<Facts>> {
        match (self.ask)(path) {
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
    source: TreePath,
    target: Option<TreePath>,
    intent: Option<Intent>,
}

#[expect(dead_code, reason = "held, never looked at")]
enum Gate<'a> {
    Shared(RwLockReadGuard<'a, ()>),
    Alone(RwLockWriteGuard<'a, ()>),
}

impl Change<'_> {
    /// Lets the index follow, once the host has changed (and is on disk, where durability asks for it).
    ///
    /// # Errors
    /// [`Error::Store`]: the change is made up for before the next one, or at the next start.
    pub(super) fn finish(mut self) -> Result<()> {
        if let Some(intent) = self.intent.take() {
            return self.index.finish(&intent);
        }
        // Another process may have named the source since this began.
        let Some(target) = &self.target else { return Ok(()) };
        if self.index.store.node_at(&self.source)?.is_none() {
            return Ok(());
        }
        match self.index.facts(target)? {
            Some(facts) => self.index.follow(None, &self.source, target, facts),
            None => Ok(()),
        }
    }
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        let Some(intent) = self.intent.take() else { return };
        if let Err(error) = self.index.conclude(&intent) {
            tracing::warn!(%error, "a change of named nodes is not concluded: it will be before the next one");
        }
    }
}

fn is_entity(facts: &Facts, intent: &Intent) -> bool {
    (facts.kind == Kind::Folder) == intent.folder && facts.inode == intent.inode && facts.born == intent.born
}

fn own_identity(facts: Facts) -> Option<Identity> {
    (facts.kind == Kind::Folder).then_some(Identity::Folder { inode: facts.inode, born: facts.born })
}

/// Returns a path and all above it.
fn lineage(path: &TreePath) -> impl Iterator<Item = TreePath> {
    std::iter::successors(Some(path.clone()), TreePath::parent)
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
