//! May they, and the bytes: the served tree as one session may see it.
//!
//! A [`View`] is made from a [`Session`] and is the only way to a byte. Each of its operations is one
//! check against the session's access, then the host; every refusal comes before the first effect.
//! All of them block: call them where blocking is allowed.
//!
//! `host` alone names host paths.

mod cancellation;
mod check;
mod cut_uploads;
mod deposit;
mod editor;
mod entry;
mod error;
mod fine_times;
mod handle_access;
mod hands;
mod host;
mod in_place;
mod index;
mod label;
mod link_moves;
mod listing;
mod lock;
mod media;
mod names;
mod open_file;
mod open_limit;
mod outage;
mod presence;
mod property;
mod reader;
mod reattach;
mod removals;
mod spelling;
mod tag;
#[cfg(test)]
pub(crate) mod testing;
mod upload;
mod upload_registry;
mod view;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cut_uploads::CutUploads;
use fine_times::FineTimes;
use hands::HostHands;
use host::{Errno, Exclusive, Host, KeptNames};
use index::Index;
use link_moves::LinkMoves;
use lock::LockTable;
use names::NameLocks;
use open_limit::OpenLimit;
use presence::Presence;
use removals::Removals;
use tag::Tags;
use upload_registry::UploadRegistry;

use crate::auth::{Clock, Session};
use crate::domain::{Login, NodeId, TreePath};
use crate::store::{self, Store};

pub use cancellation::{CancelOnDrop, Cancellation};
pub use cut_uploads::{CutUploadPolicy, UnfinishedBytes};
pub use deposit::{Deposit, Secured, Unfinished, Waiting};
pub use editor::Editor;
pub use entry::{Attributes, Entry, Etag, Kind, Space, Timestamp};
pub use error::Error;
pub use index::Named;
pub use label::{label, tags_property};
pub use listing::Listing;
pub use lock::{Lock, LockRequest, LockToken};
pub use media::media_type;
pub use open_file::{OpenFile, OpenRequest, SessionFiles, SessionListing};
pub use outage::{OUTAGE_RETRY, Outage};
pub use property::{Property, PropertyChange, PropertyName};
pub use reader::Reader;
pub use reattach::{NodePlace, Reattachment};
pub use spelling::moved_to;
pub use upload::{Committed, Upload};
pub use view::{Change, Changed, Changes, Claim, EditMode, Overwrite, Point, View};

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

impl Durability {
    /// Returns how soon what the store keeps for a request is on disk: as soon as content is.
    fn of_rows(self) -> store::WriteDurability {
        match self {
            Durability::Full => store::WriteDurability::Synced,
            Durability::Fast => store::WriteDurability::Lazy,
        }
    }
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
pub struct Tree {
    shared: Arc<Shared>,
}

/// What all views of a tree share.
struct Shared {
    host: Arc<Host>,
    index: Index,
    locks: LockTable,
    tags: Arc<Tags>,
    names: NameLocks,
    /// Moves of symbolic links and directories.
    link_moves: LinkMoves,
    /// One comparison with a journal at a time, by its token and directory.
    journals: NameLocks,
    removals: Removals,
    /// Uploads under way, by the directories that they are for.
    uploads: Arc<UploadRegistry>,
    /// What lost connections have left of uploads.
    cut_uploads: CutUploads,
    clock: Clock,
    /// Places of what is open.
    open_limit: OpenLimit,
    durability: Durability,
    presence: Presence,
    /// Where this is the process that serves the tree.
    alone: Option<Exclusive>,
}

impl Shared {
    /// Tells whether this process serves the tree, and does not look at it beside the one that does.
    fn serves(&self) -> bool {
        self.alone.is_some()
    }
}

impl Tree {
    /// Opens the served folder: completes or undoes intents, loads locks, and begins to sweep staging of all but unfinished
    /// uploads.
    ///
    /// # Errors
    /// [`Error::OtherTree`] when it is not the folder that nodes were named in, [`Error::Host`] when the folder can't be
    /// used or another server uses it or the state, [`Error::Store`] when the store can't.
    pub fn open(options: Options, store: Store, clock: Clock) -> Result<Self> {
        let alone = Exclusive::claim(store.state_dir()).map_err(Error::Host)?;
        let tree = Self::over(&options, store, clock, Some(alone))?;
        tree.shared.index.recover()?;
        Ok(tree)
    }

    /// Opens the served folder beside a running server, for administration: sweeps and undoes nothing.
    ///
    /// # Errors
    /// As [`Tree::open`].
    pub fn attach(options: Options, store: Store, clock: Clock) -> Result<Self> {
        Self::over(&options, store, clock, None)
    }

    fn over(options: &Options, store: Store, clock: Clock, alone: Option<Exclusive>) -> Result<Self> {
        let sweeps = alone.is_some().then(|| kept_names(store.clone()));
        let host = Arc::new(Host::open(&options.root, sweeps).map_err(Error::Host)?);
        let removals = Removals::default();
        let hands = HostHands::new(Arc::clone(&host), removals.clone());
        let lasting = options.durability.of_rows();
        let index = Index::new(store.clone(), Arc::new(hands), lasting);
        presence::recognise(&host, &index)?;
        if alone.is_some() {
            host.claim().map_err(Error::Host)?;
            presence::note_root(&host, &store)?;
        }
        let tree = Self {
            shared: Arc::new(Shared {
                tags: Tags::new(store.etag_key()?, Some(FineTimes::new(Arc::clone(&host), store.clone()))),
                host,
                cut_uploads: CutUploads::new(store.clone(), clock.clone()),
                locks: LockTable::open(store.clone(), clock.clone(), lasting)?,
                index,
                names: NameLocks::new(),
                link_moves: LinkMoves::default(),
                journals: NameLocks::new(),
                removals,
                uploads: Arc::default(),
                clock,
                open_limit: OpenLimit::default(),
                durability: options.durability,
                presence: Presence::default(),
                alone,
            }),
        };
        // Before anything is judged by what stands in the place of a file system that is not mounted.
        tree.look();
        Ok(tree)
    }

    /// Returns the tree as a session may see it.
    pub fn view(&self, session: Session) -> View {
        View::new(Arc::clone(&self.shared), session)
    }

    /// Names the node at a path, with its ancestors; returns the name it has when it has one.
    ///
    /// # Errors
    /// [`Error::Absent`] when nothing is there.
    pub fn mint(&self, path: &TreePath) -> Result<NodeId> {
        self.shared.index.mint(path)
    }

    /// Likewise, counted for the user who asks for it, where one does.
    ///
    /// # Errors
    /// As [`Tree::mint`]; [`Error::Store`] of a shortage where the user, or all together, have as many nodes named as may
    /// be.
    pub fn mint_for(&self, path: &TreePath, namer: Option<&Login>) -> Result<NodeId> {
        self.shared.index.mint_for(path, namer)
    }

    /// Ends the locks of users who were removed; to be called now and then.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub fn end_locks_of_removed_users(&self) -> Result<()> {
        self.shared.locks.end_of_removed_users()
    }

    /// Makes sure that [`Tree::mint`] can name the node at a path; names nothing.
    ///
    /// # Errors
    /// As [`Tree::mint`].
    pub fn can_mint(&self, path: &TreePath) -> Result<()> {
        self.shared.index.can_mint(path)
    }

    /// Returns where a node is; `None` when it has ended or another folder stands in its place.
    pub fn locate(&self, node: NodeId) -> Result<Option<TreePath>> {
        self.shared.index.locate(node)
    }

    /// Returns the named nodes at and below a path, in the order of their paths.
    pub fn nodes(&self, under: &TreePath) -> Result<Vec<Named>> {
        self.shared.index.list(under)
    }

    /// Drops the rows of ended nodes that no grant, scope or property names; all of them where the
    /// served folder is another than the nodes were named in. Returns what dangles, dropped or not.
    pub fn repair(&self) -> Result<Vec<Named>> {
        self.shared.index.repair()
    }

    /// Makes a folder (and those above it) for administration, where none is, such as a user's home. Returns
    /// whether it is this that made it.
    ///
    /// # Errors
    /// [`Error::Exists`] when something else stands there or on the way.
    pub fn ensure_folder(&self, path: &TreePath) -> Result<bool> {
        let host = &self.shared.host;
        host.available()?;
        let (mut folder, mut place, mut made) = (host.root()?, TreePath::root(), false);
        for name in path.names() {
            made = match folder.make_folder(&name, host.masked(0o777)) {
                Ok(()) => true,
                Err(Errno::EXIST) => false,
                Err(error) => return Err(error.into()),
            };
            if made && self.shared.durability == Durability::Full {
                folder.sync()?;
            }
            let next = TreePath::root().child(&name);
            folder = folder.folder(&next).map_err(|error| match Error::from(error) {
                Error::Absent => Error::Exists,
                other => other,
            })?;
            place = place.child(&name);
            host.folder(&place)?;
        }
        Ok(made)
    }

    /// Tells whether locks work on the file system of a folder that was served; `None` where it was not yet.
    pub fn locks_work(root: &Path) -> Option<bool> {
        host::locks_work(root)
    }

    /// Tells why the reserved directory of a folder is not ours alone, as the rest of a sentence.
    pub fn reserved_fault(root: &Path) -> Option<String> {
        host::reserved_fault(root)
    }

    /// Tells that a folder is the one that the nodes of a store were named in.
    ///
    /// # Errors
    /// [`Error::OtherTree`]; [`Error::Host`], [`Error::Store`].
    pub fn recognise(root: &Path, store: &Store) -> Result<()> {
        let host = Arc::new(Host::open(root, None).map_err(Error::Host)?);
        let hands = HostHands::new(Arc::clone(&host), Removals::default());
        presence::recognise(&host, &Index::new(store.clone(), Arc::new(hands), store::WriteDurability::Lazy))
    }

    /// Waits for removals under way; staging holds nothing then but unfinished uploads.
    pub fn settle(&self) {
        self.shared.removals.settle();
    }
}

/// Asks for what of staging belongs to unfinished uploads.
fn kept_names(store: Store) -> KeptNames {
    Box::new(move || {
        let names = store.staged_names();
        names.inspect_err(|error| tracing::error!(%error, "staging is not swept")).ok()
    })
}
