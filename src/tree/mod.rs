//! May they, and the bytes: the served tree as one session may see it.
//!
//! A [`View`] is made from a [`Session`] and is the only way to a byte. Each of its operations is one
//! check against the session's access, then the host; every refusal comes before the first effect.
//! All of them block: call them where blocking is allowed.
//!
//! `host` alone names host paths.

mod entry;
mod error;
mod handles;
mod host;
mod index;
mod lock;
mod property;
mod view;

use std::path::PathBuf;

use crate::auth::{Clock, Session};
use crate::domain::{NodeId, TreePath};
use crate::store::Store;

pub use entry::{Attributes, Entry, Etag, Kind, Space, Timestamp};
pub use error::Error;
pub use handles::{Editor, Listing, Reader, Upload};
pub use index::Named;
pub use lock::{Lock, LockRequest, LockToken};
pub use property::{Property, PropertyChange, PropertyName};
pub use view::{Claim, EditMode, Overwrite, View};

/// The result of an operation on the tree.
pub type Result<T> = std::result::Result<T, Error>;

/// When success after a write is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Once the bytes and their name are on disk.
    #[default]
    Full,
    /// At once; a power cut may lose what was just written.
    Fast,
}

/// How a tree is served.
#[derive(Clone, Debug)]
pub struct Options {
    /// The served folder.
    pub root: PathBuf,
    /// When success is answered.
    pub durability: Durability,
}

/// The served tree, without regard to who asks; clones share it.
#[derive(Clone)]
pub struct Tree {}

impl Tree {
    /// Opens the served folder: sweeps staging, completes or undoes intents, loads locks.
    ///
    /// # Errors
    /// [`Error::Host`] when the folder can't be used, [`Error::Store`] when the store can't.
    pub fn open(_options: Options, _store: Store, _clock: Clock) -> Result<Self> {
        todo!()
    }

    /// Opens the served folder beside a running server, for administration: sweeps and undoes nothing.
    pub fn attach(_options: Options, _store: Store, _clock: Clock) -> Result<Self> {
        todo!()
    }

    /// Returns the tree as a session may see it.
    pub fn view(&self, _session: Session) -> View {
        todo!()
    }

    /// Names the node at a path, with its ancestors; returns the name it has when it has one.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing is there.
    pub fn mint(&self, _path: &TreePath) -> Result<NodeId> {
        todo!()
    }

    /// Returns where a node is; `None` when it has ended or another folder stands in its place.
    pub fn locate(&self, _node: NodeId) -> Result<Option<TreePath>> {
        todo!()
    }

    /// Returns the named nodes at and below a path, in the order of their paths.
    pub fn nodes(&self, _under: &TreePath) -> Result<Vec<Named>> {
        todo!()
    }

    /// Drops the rows of ended nodes that no grant, scope or property names; all of them where the
    /// served folder is another than the nodes were named in. Returns what dangles, dropped or not.
    pub fn repair(&self) -> Result<Vec<Named>> {
        todo!()
    }

    /// Makes a folder (and those above it) for administration, where none is, such as a user's home.
    pub fn ensure_folder(&self, _path: &TreePath) -> Result<()> {
        todo!()
    }

    /// Waits for removals under way; staging is empty then.
    pub fn settle(&self) {
        todo!()
    }
}
